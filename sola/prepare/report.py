"""A report on a data set: what it is like, and what to be wary of."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from sola.config import reach_note
from sola.data.annotations import SUBSETS, split_of_subset
from sola.data.features import FeatureFile, read_features
from sola.data.times import Sampling
from sola.data.videos import SPLITS, BadFiles
from sola.errors import shown
from sola.prepare.dataset import BEYOND, DataSet, Video, named
from sola.prepare.new_yaml import plan
from sola.system.cli import progress
from sola.system.device import random_generator
from sola.system.prefetch import in_background

SAMPLE = 4 * 2**30  # bytes of values that are looked at
READERS = 8
LARGE_COMMON_MEAN = 0.5
ODD_RATE = 0.1  # relatively from the others', of few videos
SLOWEST = 0.2  # snippets a second, below which durations may be in another unit
FEWEST_SNIPPETS = 4  # of a median action, below which it is hard to see
ODD: dict[str, Callable[[Video], bool]] = {  # what to say of annotated videos -> of which
    "note: annotated under a name that differs in v_, case or Unicode form":
        lambda video: video.name != video.annotated_as,
    "warning: segments that do not end after their start":
        lambda video: any(a.end <= a.start for a in video.actions),
    "warning: segments that end over 5 % after their video":
        lambda video: any(a.start < video.end < a.end / BEYOND for a in video.actions),
    "warning: segments that start after their video's end":
        lambda video: any(a.start >= video.end for a in video.actions),
}  # fmt: skip
UNLABELLED: dict[str, Callable[[Video], bool]] = {  # the same, of the videos of a split
    "without annotation, so without labels": lambda video: not video.annotated_as,
    "without a duration, so without labels":
        lambda video: video.annotated_as and video.labels is None,
    "without an action snippet": lambda video: video.labels is not None and not video.labels.any(),
    "all action": lambda video: video.labels is not None and video.labels.all(),
}  # fmt: skip


def look_at_values(
    files: Sequence[FeatureFile], bad_files: BadFiles, *, everything: bool
) -> list[str]:
    """Lines on the values of all files or of a seeded sample of 4 GiB; files with NaN become bad.

    The common mean in them: length of the mean snippet over the mean length of a snippet, 0 to 1.
    """
    order = random_generator("values", 0).permutation(len(files))
    sizes = np.cumsum([4 * files[i].length * files[i].shape[1] for i in order])
    count = len(files) if everything else max(1, int(np.searchsorted(sizes, SAMPLE, "right")))
    chosen = [files[i] for i in order[:count]]
    parts = in_background(partial(_sums, bad_files), chosen, threads=READERS, ahead=READERS)
    sums = sum(progress(parts, total=count, desc="values", unit="file"))
    *channels, norm, zeros, snippets = sums
    mean, norm, zeros = (np.array(of) / max(snippets, 1) for of in (channels, norm, zeros))
    common_mean = float(np.linalg.norm(mean)) / max(norm, 1e-12)
    sample = f"{count} of {len(files)} files"
    lines = [
        f"values ({sample}): mean {mean.mean():.4g}, mean norm of a snippet {norm:.4g}, "
        f"zeros {zeros / len(mean):.1%}, common mean {common_mean:.2f} of the norm"
    ]
    if common_mean > LARGE_COMMON_MEAN:
        lines.append(
            "warning: a large common mean makes all snippets alike, and the loss stays at its "
            "plateau for many steps before it falls; give it steps, do not stop early"
        )
    not_finite = [file.path for file in chosen if file.path in bad_files.skipped]
    return [*lines, f"not finite ({sample}): {named(not_finite) if not_finite else 'none'}"]


def _sums(bad_files: BadFiles, file: FeatureFile) -> np.ndarray:
    """Sums over the snippets: they [C], their norms, their zeros, 1; all 0 for a bad file."""
    with bad_files.met():
        x = read_features(file)
        norms = np.sqrt(np.einsum("tc,tc->t", x, x, dtype=np.float64))
        return np.append(x.sum(axis=0, dtype=np.float64), [norms.sum(), (x == 0).sum(), len(x)])
    return np.zeros(file.shape[1] + 3)


def report(data: DataSet, of_values: list[str]) -> Iterator[str]:
    """Lines on features, annotations, values (as given) and the training that is made ready."""
    for split in SPLITS:
        yield _of_features(data, split)
    training, window = data.of("training"), data.config.sampling_duration
    too_short = f"too short to train on (T <= {window})"
    yield from _if_any(too_short, training, lambda video: video.file.length <= window)
    validation = {video.name for video in data.of("validation")}
    in_both = "warning: in training and in validation"
    yield from _if_any(in_both, training, lambda video: video.name in validation)
    if data.annotations:
        yield from _of_annotations(data)
    if data.annotations or data.rate_is_given:
        yield from _of_rate(data)
    yield from of_values
    yield from _of_span(data)
    yield from reach_note(data.config)
    yield plan(data)


def _of_features(data: DataSet, split: str) -> str:
    files = [video.file for video in data.of(split)]
    lengths = np.array([file.length for file in files])
    dtypes = sorted({str(part.dtype) for file in files for part in file.files})
    span = f"{lengths.min()}..{lengths.max()} (median {int(np.median(lengths))})"
    about = f"T {span}, C {data.width}, {', '.join(dtypes)}"
    return f"{split}: {len(files)} videos, {lengths.sum()} snippets, {about}"


def _of_annotations(data: DataSet) -> Iterator[str]:
    """Lines on whose annotations there are, what is odd in them, and the labels they make."""
    if data.without_files:
        yield f"annotated, without features: {named(data.without_files)}"
    split_of = split_of_subset(data.annotations)
    if "testing" in map(SUBSETS.get, split_of):
        yield "note: the test subset validates"
    for what, is_so in ODD.items():
        yield from _if_any(what, data.annotated, is_so)
    ambiguous = sum(video.entry.ambiguous for video in data.annotated)
    if ambiguous:
        yield f"note: {ambiguous} Ambiguous segments are left out"
    for split in SPLITS:
        videos, what = data.of(split), f"warning: in {split}, of another subset by annotation"
        annotated = [video for video in videos if video.annotated_as]
        yield from _if_any(what, annotated, lambda v: split_of.get(v.entry.subset) != v.split)
        for what, is_so in UNLABELLED.items():
            yield from _if_any(f"{split} {what}", videos, is_so)
        labels = [video.labels for video in videos if video.labels is not None]
        if labels:
            share = np.concatenate(labels).mean()
            yield f"{split}: {len(labels)} videos with labels, action share {share:.3f}"
    if data.lacks_labels:
        what = "no labels are written and the training runs without a probe"
        yield f"warning: {data.lacks_labels}, so {what}"


def _of_rate(data: DataSet) -> Iterator[str]:
    """Lines on the time of snippets, and on the videos whose T is another than it makes."""
    placed = [video for video in data.videos if video.axis]
    if not placed:
        yield "note: nothing tells the rate; the window is that of 2 snippets a second"
        return
    rates = [video.axis.rate for video in placed]
    rate, origin = data.rate, "given" if data.rate_is_given else "found from T / duration"
    if Sampling.of(data.config).common_axis:
        yield f"fps: {rate:g}, {origin}"
    else:
        span = f"{min(rates):.4g} to {max(rates):.4g}, median {rate:.4g}"
        yield f"fps: each video's own, {span} snippets a second, {origin}"
    odd = [video.name for video in placed if abs(video.axis.rate / rate - 1) > ODD_RATE]
    if 0 < len(odd) < len(placed) / 10:
        what = f"warning: all but these have about {rate:.3g} snippets a second; if they are cut"
        yield f"{what} short, mend them or give --fps={rate:.3g}: {named(odd)}"
    if rate < SLOWEST:
        yield "warning: so few snippets a second: are durations in frames?"
    clips = [video.axis.clip_snippets for video in placed]
    if max(clips) > 1.001:
        seconds = statistics.median(video.axis.clip for video in placed)
        clip = f"clip: {statistics.median(clips):.3g} strides, {seconds:.3g} s"
        found = (
            ", found: T lacks the clips that would pass the end of a video; give --clip=SECONDS "
            "or --num_frames if it is another"
        )
        yield clip + (found if data.clip_is_found else "")
    off = {video.name: video.off for video in placed if video.off is not None}
    far = sorted((v for v in off if abs(off[v]) > 1), key=lambda v: -abs(off[v]))
    if far:
        yield (
            f"warning: T is more than a snippet from duration * fps in {len(far)} of "
            f"{len(off)} videos, most in {shown(far[0])} ({off[far[0]]:+.1f}): {named(far)}"
        )
    elif off and min(rates) == max(rates):
        yield f"T is within a snippet of duration * fps in all {len(off)} videos"


def _of_span(data: DataSet) -> Iterator[str]:
    """A line on the length of actions beside the window's, and a note where it is far from it."""
    lengths = [action.end - action.start for v in data.annotated for action in v.actions]
    rate, config = data.rate, data.config
    if not lengths or not rate:
        return
    median, span = statistics.median(lengths), config.step * (config.tsm_size - 1) / rate
    about = f"actions: {len(lengths)}, median {median:.1f} s, {median * rate:.1f} snippets"
    yield f"{about}; the gathered positions span {span:.1f} s"
    if median < max(span / 2, FEWEST_SNIPPETS / rate):
        yield (
            f"note: actions are short beside that; --span={max(median, 1):.2g} compares snippets "
            "over so many seconds, and features of a smaller stride show more of an action"
        )


def _if_any(what: str, videos: Sequence[Video], is_so: Callable[[Video], bool]) -> Iterator[str]:
    """A line that names those of the videos that are so; none where there are none."""
    names = [video.name for video in videos if is_so(video)]
    if names:
        yield f"{what}: {named(names)}"

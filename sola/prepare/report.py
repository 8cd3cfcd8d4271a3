"""A report on a data set: what it is like, and what to be wary of."""

import statistics
from collections.abc import Callable, Sequence

import numpy as np

from sola.config import reach_note
from sola.data.annotations import SUBSETS, split_of_subset
from sola.data.features import FeatureFile, is_finite, to_float32
from sola.data.times import Sampling
from sola.data.videos import SPLITS
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
    files: Sequence[FeatureFile], *, everything: bool
) -> tuple[list[str], list[str]]:
    """Lines on the values of all files or of a seeded sample of 4 GiB, and the files with NaN.

    The common mean in them: length of the mean snippet over the mean length of a snippet, 0 to 1.
    """
    order = random_generator("values", 0).permutation(len(files))
    sizes = np.cumsum([4 * files[i].length * files[i].shape[1] for i in order])
    count = len(files) if everything else max(1, int(np.searchsorted(sizes, SAMPLE, "right")))
    chosen = [files[i] for i in order[:count]]
    parts = in_background(_sums, chosen, threads=READERS, ahead=READERS)
    parts = progress(parts, total=count, desc="values", unit="file")
    not_finite = []
    total, norms, zeros, snippets = np.zeros(files[0].shape[1]), 0.0, 0, 0
    for file, part in zip(chosen, parts, strict=True):
        if part is None:
            not_finite.append(file.path)
            continue
        total += part[0]
        norms, zeros, snippets = norms + part[1], zeros + part[2], snippets + file.length
    mean, norm = total / max(snippets, 1), norms / max(snippets, 1)  # [C]
    zeros_share = zeros / max(snippets * len(mean), 1)
    common_mean = float(np.linalg.norm(mean)) / max(norm, 1e-12)
    sample = f"{count} of {len(files)} files"
    lines = [
        f"values ({sample}): mean {mean.mean():.4g}, mean norm of a snippet {norm:.4g}, "
        f"zeros {zeros_share:.1%}, common mean {common_mean:.2f} of the norm"
    ]
    if common_mean > LARGE_COMMON_MEAN:
        lines.append(
            "warning: a large common mean makes all snippets alike, and the loss stays at its "
            "plateau for many steps before it falls; give it steps, do not stop early"
        )
    lines.append(f"not finite ({sample}): {named(not_finite) if not_finite else 'none'}")
    return lines, not_finite


def _sums(file: FeatureFile) -> tuple[np.ndarray, float, int] | None:
    """Sum of the snippets [C], sum of their norms, number of zeros; None when not all finite."""
    features = to_float32(file.read())
    if not is_finite(features):
        return None
    norms = np.sqrt(np.einsum("tc,tc->t", features, features, dtype=np.float64))
    return features.sum(axis=0, dtype=np.float64), float(norms.sum()), int((features == 0).sum())


def report(data: DataSet, of_values: list[str]) -> list[str]:
    """Lines on features, annotations, values (as given) and the training that is made ready."""
    lines = [_of_features(data, split) for split in SPLITS]
    window = data.config.sampling_duration
    short = [video.name for video in data.of("training") if video.file.length <= window]
    lines += _if_any(f"too short to train on (T <= {window})", short)
    training, validation = ({video.name for video in data.of(split)} for split in SPLITS)
    lines += _if_any("warning: in training and in validation", sorted(training & validation))
    if data.annotations:
        lines += _of_annotations(data)
    if data.annotations or data.rate_is_given:
        lines += _of_rate(data)
    return [*lines, *of_values, *_of_span(data), *reach_note(data.config), plan(data)]


def _of_features(data: DataSet, split: str) -> str:
    files = [video.file for video in data.of(split)]
    lengths = np.array([file.length for file in files])
    dtypes = sorted({str(part.dtype) for file in files for part in file.files})
    span = f"{lengths.min()}..{lengths.max()} (median {int(np.median(lengths))})"
    about = f"T {span}, C {data.width}, {', '.join(dtypes)}"
    return f"{split}: {len(files)} videos, {lengths.sum()} snippets, {about}"


def _of_annotations(data: DataSet) -> list[str]:
    """Lines on whose annotations there are, what is odd in them, and the labels they make."""
    lines = _if_any("annotated, without features", data.without_files)
    split_of = split_of_subset(data.annotations)
    if "testing" in map(SUBSETS.get, split_of):
        lines.append("note: the test subset validates")
    for what, is_so in ODD.items():
        lines += _if_any(what, [video.name for video in data.annotated if is_so(video)])
    ambiguous = sum(video.entry.ambiguous for video in data.annotated)
    if ambiguous:
        lines.append(f"note: {ambiguous} Ambiguous segments are left out")
    for split in SPLITS:
        videos = data.of(split)
        others = [v for v in videos if v.annotated_as and split_of.get(v.entry.subset) != split]
        what = f"warning: in {split}, of another subset by annotation"
        lines += _if_any(what, [video.name for video in others])
        for what, is_so in UNLABELLED.items():
            lines += _if_any(f"{split} {what}", [video.name for video in videos if is_so(video)])
        labels = [video.labels for video in videos if video.labels is not None]
        if labels:
            share = sum(y.sum() for y in labels) / sum(map(len, labels))
            lines.append(f"{split}: {len(labels)} videos with labels, action share {share:.3f}")
    if data.lacks_labels:
        what = "no labels are written and the training runs without a probe"
        lines.append(f"warning: {data.lacks_labels}, so {what}")
    return lines


def _of_rate(data: DataSet) -> list[str]:
    """Lines on the time of snippets, and on the videos whose T is another than it makes."""
    common = Sampling.of(data.config).common_axis
    origin = "given" if data.rate_is_given else "found from T / duration"
    if common is None:
        rates = [video.axis.rate for video in data.videos if video.axis]
        if not rates:
            return ["note: nothing tells the rate; the window is that of 2 snippets a second"]
        span = f"{min(rates):.4g} to {max(rates):.4g}, median {data.rate:.4g}"
        lines = [f"fps: each video's own, {span} snippets a second, {origin}"]
        odd = [
            v.name for v in data.videos if v.axis and abs(v.axis.rate / data.rate - 1) > ODD_RATE
        ]
        if odd and len(odd) < len(rates) / 10:
            what = f"warning: all but these have about {data.rate:.3g} snippets a second; if they"
            lines.append(
                f"{what} are cut short, mend them or give --fps={data.rate:.3g}: {named(odd)}"
            )
    else:
        lines = [f"fps: {common.rate:g}, {origin}"]
    if data.rate and data.rate < SLOWEST:
        lines.append("warning: so few snippets a second: are durations in frames?")
    clips = [video.axis.clip_snippets for video in data.videos if video.axis]
    if clips and max(clips) > 1.001:
        clip = statistics.median(video.axis.clip for video in data.videos if video.axis)
        lines.append(
            f"clip: {statistics.median(clips):.3g} strides, {clip:.3g} s"
            + (", found: T lacks the clips that would pass the end of a video; give --clip=SECONDS "
               "or --num_frames if it is another" if data.clip_is_found else "")
        )  # fmt: skip
    off = {video.name: video.off for video in data.videos if video.off is not None}
    far = sorted((v for v in off if abs(off[v]) > 1), key=lambda v: -abs(off[v]))
    if far:
        lines.append(
            f"warning: T is more than a snippet from duration * fps in {len(far)} of "
            f"{len(off)} videos, most in {shown(far[0])} ({off[far[0]]:+.1f}): {named(far)}"
        )
    elif off and len({video.axis.rate for video in data.videos if video.axis}) == 1:
        lines.append(f"T is within a snippet of duration * fps in all {len(off)} videos")
    return lines


def _of_span(data: DataSet) -> list[str]:
    """A line on the length of actions beside the window's, and a note where it is far from it."""
    lengths = [action.end - action.start for v in data.annotated for action in v.actions]
    rate, config = data.rate, data.config
    if not lengths or not rate:
        return []
    median, span = statistics.median(lengths), config.step * (config.tsm_size - 1) / rate
    about = f"actions: {len(lengths)}, median {median:.1f} s, {median * rate:.1f} snippets"
    lines = [f"{about}; the gathered positions span {span:.1f} s"]
    if median < max(span / 2, FEWEST_SNIPPETS / rate):
        lines.append(
            f"note: actions are short beside that; --span={max(median, 1):.2g} compares snippets "
            "over so many seconds, and features of a smaller stride show more of an action"
        )
    return lines


def _if_any(what: str, videos: Sequence[str]) -> list[str]:
    return [f"{what}: {named(videos)}"] if videos else []

"""A report on a data set: what it is like, and what to be wary of."""

from collections.abc import Sequence

import numpy as np

from sola.data.features import FeatureFile, is_finite, to_float32
from sola.data.videos import SPLITS
from sola.errors import shown
from sola.method.reach import reach_note
from sola.prepare.annotated import NAMED, if_any, named, of_annotations, of_span
from sola.prepare.dataset import DataSet
from sola.prepare.sizes import plan
from sola.system.cli import progress
from sola.system.device import random_generator
from sola.system.prefetch import in_background

SAMPLE = 4 * 2**30  # bytes of values that are looked at
READERS = 8
LARGE_COMMON_MEAN = 0.5


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


def report(data: DataSet, bad_files: dict[str, str]) -> list[str]:
    """Lines on features and annotations. bad_files: path -> what is wrong with it."""
    lines = [line for split in SPLITS for line in _of_features(data, split)]
    both = sorted(data.videos["training"].keys() & data.videos["validation"].keys())
    lines += if_any("warning: in training and in validation", both)
    lines += [f"bad file: {path}: {what}" for path, what in sorted(bad_files.items())[:NAMED]]
    if len(bad_files) > NAMED:
        lines.append(f"bad files in all: {len(bad_files)}")
    if data.annotations:
        lines += [*of_annotations(data), *_of_rate(data)]
    return lines


def of_training(data: DataSet) -> list[str]:
    """Lines on the training that is made ready: the window beside the actions, and the steps."""
    of_actions = of_span(data, data.rate) if data.rate else []
    return [*of_actions, *reach_note(data.config), plan(data)]


def _of_features(data: DataSet, split: str) -> list[str]:
    files = data.videos[split]
    lengths = np.array([file.length for file in files.values()])
    dtypes = sorted({str(part.dtype) for file in files.values() for part in file.files})
    span = f"{lengths.min()}..{lengths.max()} (median {int(np.median(lengths))})"
    about = f"T {span}, C {data.width}, {', '.join(dtypes)}"
    lines = [f"{split}: {len(files)} videos, {lengths.sum()} snippets, {about}"]
    if split == "training":
        window = data.config.sampling_duration
        short = [video for video, file in files.items() if file.length <= window]
        lines += if_any(f"too short to train on (T <= {window})", short)
    return lines


def _of_rate(data: DataSet) -> list[str]:
    """Lines on the time of snippets, and on the videos whose T is another than it makes."""
    common, origin = data.sampling.common_axis, "given" if data.rate_is_given else "found"
    if common is None:
        rates = [axis.rate for axis in data.axes.values()]
        span = f"{min(rates):.4g} to {max(rates):.4g}, median {data.rate:.4g}"
        return [f"fps: each video's own, {span} snippets a second ({origin})"]
    lines = [f"fps: {common.rate:g}, {origin}{'' if data.rate_is_given else ' from T / duration'}"]
    if common.clip_snippets > 1:
        lines.append(
            f"clip: {common.clip:.3g} s, {common.clip_snippets:.3g} strides"
            + (", found: T lacks the clips that would pass the end of a video; give --clip=SECONDS "
               "or --num_frames if it is another" if data.clip_is_found else "")
        )  # fmt: skip
    off = data.snippets_off
    far = sorted((v for v in off if abs(off[v]) > 1), key=lambda v: -abs(off[v]))
    if far:
        lines.append(
            f"warning: T is more than a snippet from duration * fps in {len(far)} of "
            f"{len(off)} videos, most in {shown(far[0])} ({off[far[0]]:+.1f}): {named(far)}"
        )
    elif off:
        lines.append(f"T is within a snippet of duration * fps in all {len(off)} videos")
    return lines

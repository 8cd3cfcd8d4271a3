"""A data set that is made ready, and a report on it: what it is like, and what to be wary of."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sola.annotations import Annotation, action_labels, find_annotation, splits_of
from sola.arrays import FeatureFile, JoinedFiles, is_finite, to_float32
from sola.config import Config
from sola.dataset import SPLITS, BadFiles
from sola.pipeline import in_background
from sola.runtime import progress, random_generator

SAMPLE = 4 * 2**30  # bytes of values that are looked at
READERS = 8
NAMED = 5  # videos, of many
LARGE_COMMON_MEAN = 0.5


@dataclass
class DataSet:
    """Videos of both splits, and what an annotation file says of them."""

    config: Config  # of the training that is made ready
    videos: dict[str, dict[str, FeatureFile]]  # split -> video -> features
    annotations: dict[str, Annotation]
    fps: float | None
    bad_files: BadFiles
    fps_is_given: bool = True
    links: dict[Path, Path] = field(default_factory=dict)  # to be made -> what they point to

    def annotated(self, split: str) -> dict[str, Annotation]:
        """Video -> annotation, of the videos of a split that have one."""
        found = {v: find_annotation(self.annotations, v) for v in self.videos[split]}
        return {video: entry for video, entry in found.items() if entry is not None}

    def all_annotated(self) -> dict[str, Annotation]:
        """The same of both splits."""
        return self.annotated("training") | self.annotated("validation")

    @property
    def lengths(self) -> dict[str, int]:
        """Video -> T, of both splits."""
        return {v: file.length for split in SPLITS for v, file in self.videos[split].items()}

    def labels(self, split: str) -> dict[str, np.ndarray]:
        """Video -> action labels, [T], of the videos of a split that are annotated."""
        files = self.videos[split]
        return {
            video: action_labels(entry.actions, files[video].length, self.fps).astype(np.int64)
            for video, entry in self.annotated(split).items()
        }

    @property
    def without_files(self) -> list[str]:
        """Annotated videos of both splits without features."""
        there = {id(entry) for split in SPLITS for entry in self.annotated(split).values()}
        wanted = splits_of(self.annotations)
        return [
            v for v, entry in self.annotations.items() if v in wanted and id(entry) not in there
        ]


@dataclass
class ValueFigures:
    """What the values of some files are like.

    common_mean: length of the mean snippet over the mean length of a snippet, 0 to 1.
    """

    looked_at: int = 0
    files: int = 0
    not_finite: list[str] = field(default_factory=list)
    mean: float = 0.0
    norm: float = 0.0
    zeros: float = 0.0
    common_mean: float = 0.0


def value_figures(files: Sequence[FeatureFile], *, everything: bool) -> ValueFigures:
    """Figures of the values of all files, or of a seeded sample of 4 GiB."""
    order = random_generator("values", 0).permutation(len(files))
    sizes = np.cumsum([4 * files[i].length * files[i].shape[1] for i in order])
    count = len(files) if everything else max(1, int(np.searchsorted(sizes, SAMPLE, "right")))
    chosen = [files[i] for i in order[:count]]
    figures = ValueFigures(looked_at=len(chosen), files=len(files))
    parts = in_background(_sums, chosen, threads=READERS, ahead=READERS)
    total, norms, zeros, snippets = 0.0, 0.0, 0, 0
    for file, part in zip(
        chosen, progress(parts, total=len(chosen), desc="values", unit="file"), strict=True
    ):
        if part is None:
            figures.not_finite.append(file.path)
            continue
        total = total + part[0]
        norms, zeros, snippets = norms + part[1], zeros + part[2], snippets + file.length
    if snippets:
        mean = total / snippets  # [C]
        figures.mean, figures.norm = float(mean.mean()), norms / snippets
        figures.zeros = zeros / (snippets * len(mean))
        figures.common_mean = float(np.linalg.norm(mean)) / max(figures.norm, 1e-12)
    return figures


def _sums(file: FeatureFile) -> tuple[np.ndarray, float, int] | None:
    """Sum of the snippets [C], sum of their lengths, number of zeros; None when not all finite."""
    features = to_float32(file.read())
    if not is_finite(features):
        return None
    norms = np.sqrt(np.einsum("tc,tc->t", features, features, dtype=np.float64))
    return features.sum(axis=0, dtype=np.float64), float(norms.sum()), int((features == 0).sum())


def report(data: DataSet, figures: ValueFigures) -> str:
    """Lines on everything that --check looks at."""
    lines = list(itertools.chain(*(_of_split(data, split) for split in SPLITS)))
    for path, what in sorted(data.bad_files.skipped.items())[:NAMED]:
        lines.append(f"bad file: {path}: {what}")
    if len(data.bad_files.skipped) > NAMED:
        lines.append(f"bad files in all: {len(data.bad_files.skipped)}")
    if data.annotations:
        lines += _of_annotations(data)
    sample = f"{figures.looked_at} of {figures.files} files"
    lines.append(
        f"values ({sample}): mean {figures.mean:.4g}, mean norm of a snippet {figures.norm:.4g}, "
        f"zeros {figures.zeros:.1%}, common mean {figures.common_mean:.2f} of the norm"
    )
    if figures.common_mean > LARGE_COMMON_MEAN:
        lines.append(
            "warning: a large common mean makes all snippets alike, and the loss stays at its "
            "plateau for many steps before it falls; give it steps, do not stop early"
        )
    bad = figures.not_finite
    lines.append(f"not finite ({sample}): {named(bad) if bad else 'none'}")
    return "\n".join(lines)


def _of_split(data: DataSet, split: str) -> list[str]:
    files = data.videos[split]
    lengths = np.array([file.length for file in files.values()])
    widths = sorted({file.shape[1] for file in files.values()})
    dtypes = sorted({str(part.dtype) for file in files.values() for part in _parts(file)})
    span = f"{lengths.min()}..{lengths.max()} (median {int(np.median(lengths))})"
    lines = [
        f"{split}: {len(files)} videos, {lengths.sum()} snippets, T {span}, "
        f"C {'..'.join(map(str, widths))}, {', '.join(dtypes)}"
    ]
    cut = sum(isinstance(file, JoinedFiles) and file.is_cut for file in files.values())
    if cut:
        lines.append(f"{split}: {cut} videos cut to the shorter of their files, by one snippet")
    window = data.config.sampling_duration
    short = [video for video, file in files.items() if file.length <= window]
    if short and split == "training":
        lines.append(f"too short to train on (T <= {window}): {named(short)}")
    return lines


def _parts(file: FeatureFile) -> Iterable[FeatureFile]:
    return file.files if isinstance(file, JoinedFiles) else (file,)


def _of_annotations(data: DataSet) -> list[str]:
    lines = []
    if data.without_files:
        lines.append(f"annotated, without features: {named(data.without_files)}")
    for split in SPLITS:
        annotated = data.annotated(split)
        without = [video for video in data.videos[split] if video not in annotated]
        if without:
            lines.append(f"{split} without annotation, so without labels: {named(without)}")
        labels = data.labels(split)
        if labels:
            share = np.concatenate(list(labels.values())).mean()
            lines.append(f"{split}: {len(labels)} videos with labels, action share {share:.3f}")
            empty = [video for video, values in labels.items() if not values.any()]
            if empty:
                lines.append(f"{split} without an action snippet: {named(empty)}")
    lines.append(f"fps: {data.fps:g}, {'given' if data.fps_is_given else 'from T / duration'}")
    apart = {
        video: file.length - entry.duration * data.fps
        for split in SPLITS
        for video, entry in data.annotated(split).items()
        if entry.duration is not None
        for file in [data.videos[split][video]]
    }
    far = sorted((v for v, a in apart.items() if abs(a) > 1), key=lambda v: -abs(apart[v]))
    if far:
        lines.append(
            f"warning: T is more than a snippet from duration * fps in {len(far)} of {len(apart)} "
            f"videos, most in {far[0]} ({apart[far[0]]:+.1f} snippets): {named(far)}"
        )
    elif apart:
        lines.append(f"T is within a snippet of duration * fps in all {len(apart)} videos")
    return lines


def named(videos: Sequence[str]) -> str:
    """How many, and the first ones by name."""
    more = ", ..." if len(videos) > NAMED else ""
    return f"{len(videos)} ({', '.join(videos[:NAMED])}{more})"

"""A data set that is made ready, and a report on it: what it is like, and what to be wary of."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from sola.config import Config
from sola.data.annotations import Annotation, action_labels, find_annotation, splits_of
from sola.data.features import FeatureFile, is_finite, to_float32
from sola.data.videos import SPLITS
from sola.system.cli import progress, random_generator
from sola.system.prefetch import in_background

SAMPLE = 4 * 2**30  # bytes of values that are looked at
READERS = 8
NAMED = 5  # videos, of many
LARGE_COMMON_MEAN = 0.5


@dataclass(frozen=True)
class DataSet:
    """Videos of both splits, and what an annotation file says of them.

    videos: split -> video -> features. config: of the training that is made ready. fps: snippets a
    second; None without annotations and not given.
    """

    config: Config
    videos: dict[str, dict[str, FeatureFile]]
    annotations: dict[str, Annotation]
    fps: float | None
    fps_is_given: bool

    @property
    def files(self) -> list[FeatureFile]:
        """The features of both splits."""
        return [file for split in SPLITS for file in self.videos[split].values()]

    @cached_property
    def annotated(self) -> dict[str, dict[str, Annotation]]:
        """Split -> video -> annotation, of the videos that have one."""
        found = {
            split: {video: find_annotation(self.annotations, video) for video in videos}
            for split, videos in self.videos.items()
        }
        return {s: {v: e for v, e in of.items() if e is not None} for s, of in found.items()}

    @cached_property
    def labels(self) -> dict[str, dict[str, np.ndarray]]:
        """Split -> video -> action labels, int64 [T], of the videos that are annotated."""
        return {
            split: {
                video: action_labels(
                    entry.actions, self.videos[split][video].length, self.fps
                ).astype(np.int64)
                for video, entry in of_split.items()
            }
            for split, of_split in self.annotated.items()
        }

    @cached_property
    def without_files(self) -> list[str]:
        """Annotated videos of both splits without features."""
        there = {id(entry) for of_split in self.annotated.values() for entry in of_split.values()}
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


def report(data: DataSet, figures: ValueFigures, bad_files: dict[str, str]) -> str:
    """Lines on everything that --check looks at. bad_files: path -> what is wrong with it."""
    lines = list(itertools.chain(*(_of_split(data, split) for split in SPLITS)))
    both = sorted(data.videos["training"].keys() & data.videos["validation"].keys())
    if both:
        lines.append(f"warning: in training and in validation: {named(both)}")
    width = data.files[0].shape[1]
    if width != data.config.in_feature_dim:
        lines.append(f"warning: in_feature_dim is {data.config.in_feature_dim}, not {width}")
    for path, what in sorted(bad_files.items())[:NAMED]:
        lines.append(f"bad file: {path}: {what}")
    if len(bad_files) > NAMED:
        lines.append(f"bad files in all: {len(bad_files)}")
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
    dtypes = sorted({str(part.dtype) for file in files.values() for part in file.files})
    span = f"{lengths.min()}..{lengths.max()} (median {int(np.median(lengths))})"
    lines = [
        f"{split}: {len(files)} videos, {lengths.sum()} snippets, T {span}, "
        f"C {'..'.join(map(str, widths))}, {', '.join(dtypes)}"
    ]
    window = data.config.sampling_duration
    short = [video for video, file in files.items() if file.length <= window]
    if short and split == "training":
        lines.append(f"too short to train on (T <= {window}): {named(short)}")
    return lines


def _of_annotations(data: DataSet) -> list[str]:
    lines = []
    split_of = {id(data.annotations[v]): s for v, s in splits_of(data.annotations).items()}
    if data.without_files:
        lines.append(f"annotated, without features: {named(data.without_files)}")
    for split in SPLITS:
        without = [video for video in data.videos[split] if video not in data.annotated[split]]
        if without:
            lines.append(f"{split} without annotation, so without labels: {named(without)}")
        labels = data.labels[split]
        entries = data.annotated[split].items()
        others = [video for video, entry in entries if split_of.get(id(entry)) != split]
        if others:
            lines.append(f"warning: in {split}, of another subset by annotation: {named(others)}")
        backward = [
            video
            for video, entry in entries
            if any(action.end <= action.start for action in entry.actions)
        ]
        if backward:
            lines.append(
                f"warning: {split} with segments that do not end after their start: "
                f"{named(backward)}"
            )
        if not labels:
            lines.append(f"warning: no {split} video is annotated, so no labels are written")
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
        for video, entry in data.annotated[split].items()
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
    names = [video if video.isprintable() else ascii(video) for video in videos[:NAMED]]
    return f"{len(videos)} ({', '.join(names)}{', ...' if len(videos) > NAMED else ''})"

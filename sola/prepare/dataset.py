"""The data set that is made ready: its videos, with their annotations, labels and time."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property

import numpy as np

from sola.config import Config
from sola.data.annotations import Action, Annotation, action_labels, match, split_of_subset
from sola.data.features import FeatureFile
from sola.data.times import Sampling, TimeAxis, find_rate, find_stride, find_strides
from sola.data.videos import SPLITS, BadFiles, Split, draw_subset, subset_of
from sola.errors import DataError, shown
from sola.prepare.find import check_axes
from sola.system.device import random_generator

NAMED = 5  # videos, of many
BEYOND = 1.05  # of the duration, that a segment may end at


@dataclass(frozen=True)
class Video:
    """A video of a split, and what the annotation file says of it under a name there.

    annotated_as: None without annotation. axis: where its snippets lie in time, where it is known.
    """

    name: str
    split: str
    file: FeatureFile
    annotated_as: str | None
    entry: Annotation
    axis: TimeAxis | None = None

    @property
    def actions(self) -> tuple[Action, ...]:
        return self.entry.actions or ()

    @property
    def end(self) -> float:
        """Its duration, else where its features end; beyond all where neither is known."""
        of_features = self.axis.span(self.file.length)[1] if self.axis else math.inf
        return self.entry.duration or of_features

    @cached_property
    def labels(self) -> np.ndarray | None:
        """Action labels, bool [T], of an annotated video with a time axis."""
        if self.annotated_as is None or self.axis is None:
            return None
        return action_labels(self.actions, self.axis.centres(self.file.length))

    @property
    def off(self) -> float | None:
        """T minus that which its duration and rate make, where both are known."""
        if self.entry.duration is None or self.axis is None:
            return None
        return self.file.length - self.axis.expected_length(self.entry.duration)


@dataclass(frozen=True)
class DataSet:
    """Videos of both splits, training first, and an annotation file.

    config: of the training that is made ready. is_new: its data_root is to be made. rate_is_given:
    it is the user's, not found. clip_is_found: it is not the user's.
    """

    config: Config
    videos: Sequence[Video]
    annotations: dict[str, Annotation]
    is_new: bool
    rate_is_given: bool
    clip_is_found: bool

    def of(self, split: str) -> list[Video]:
        return [video for video in self.videos if video.split == split]

    @property
    def annotated(self) -> list[Video]:
        """The videos that have an annotation."""
        return [video for video in self.videos if video.annotated_as]

    @property
    def width(self) -> int:
        """C, the same for all videos."""
        return self.videos[0].file.shape[1]

    @property
    def rate(self) -> float | None:
        """Snippets a second, the median where they differ; None where it is not known."""
        rates = [video.axis.rate for video in self.videos if video.axis]
        return statistics.median(rates) if rates else None

    @cached_property
    def lacks_labels(self) -> str | None:
        """Why no labels are written, as there is nothing for a probe to tell apart; else None."""
        for split in SPLITS:
            labels = [video.labels for video in self.of(split) if video.labels is not None]
            if not labels:
                return f"no {split} video is annotated"
            values = np.concatenate(labels)
            if values.all() or not values.any():
                return f"all {split} snippets are {'' if values.any() else 'no '}action"
        return None

    def labelled(self, split: str) -> list[Video]:
        """The videos whose labels are written."""
        return [] if self.lacks_labels else [v for v in self.of(split) if v.labels is not None]

    def probed(self, split: str) -> list[Video]:
        """The labelled videos for the probe: of a subset list if one stays, else drawn."""
        of_name = {video.name: video for video in self.labelled(split) or self.of(split)}
        config = self.config
        if self.is_new or self.lacks_labels:
            names = draw_subset(split, [*of_name], config.seed)
        else:
            known = Split(split, {name: video.file for name, video in of_name.items()})
            names = subset_of(config.data_root, known, config.seed, BadFiles(config.on_bad_file))
        return [of_name[name] for name in names]

    @property
    def without_files(self) -> list[str]:
        """Annotated videos of both splits without features."""
        there, split_of = {v.annotated_as for v in self.videos}, split_of_subset(self.annotations)
        return [v for v, e in self.annotations.items() if e.subset in split_of and v not in there]


def new_data(
    config: Config,
    parts: dict[str, dict[str, FeatureFile]],
    annotations: dict[str, Annotation],
    bad_files: BadFiles,
    *,
    is_new: bool,
    rate_is_given: bool,
) -> DataSet:
    """The data set of the videos found, which are divided into splits first if they are not.

    parts: split -> video -> features, with an empty name for those of no split. Files of another
    width than most are listed as bad, those of channels first refused. The time of the snippets is
    that of the configuration, completed from the annotations, and goes into it.
    """
    files = {name: file for part in parts.values() for name, file in part.items()}
    for note in check_axes(files):
        print(note)
    names = match(annotations, files) if annotations else {}
    entries = {video: annotations[name] for video, name in names.items()}
    videos = [
        Video(name, split, file, names.get(name), entries.get(name, Annotation("")))
        for split, part in parts.items()
        for name, file in part.items()
    ]
    if "" in parts:
        videos = split_up(videos, annotations)
    videos = leave_out_other_widths(videos, bad_files)
    given = Sampling.of(config if rate_is_given else replace(config, fps=0.0))
    annotated = [video for video in videos if video.annotated_as]
    sampling = completed(given, annotated, rate_is_given) if annotated else given
    return DataSet(
        replace(config, **asdict(sampling)),
        [replace(v, axis=sampling.axis(v.file.length, v.entry)) for v in videos],
        annotations,
        is_new,
        rate_is_given,
        clip_is_found=(sampling.clip, sampling.num_frames) != (given.clip, given.num_frames),
    )


def split_up(videos: Sequence[Video], annotations: dict[str, Annotation]) -> list[Video]:
    """Videos of one folder as the subsets of their annotations say; else a seeded tenth validates.

    Videos without annotation are trained on, those of another subset, as testing, are left out.
    """
    chosen = dict.fromkeys((video.name for video in videos), "training")
    if annotations:
        split_of = split_of_subset(annotations)
        chosen |= {v.name: split_of.get(v.entry.subset) for v in videos if v.annotated_as}
    else:
        count = max(1, len(videos) // 10)
        drawn = random_generator("validation", 0).choice(sorted(chosen), count, replace=False)
        chosen |= dict.fromkeys(drawn.tolist(), "validation")
    for split in SPLITS:
        if split not in chosen.values():
            subsets = shown(", ".join(sorted({v.entry.subset for v in videos if v.annotated_as})))
            raise DataError(
                f"none of the {len(videos)} videos is for {split}; their subsets: "
                f"{subsets or 'none'}; or give --features folders training/ and validation/ in it"
            )
    return [replace(v, split=s) for s in SPLITS for v in videos if chosen[v.name] == s]


def leave_out_other_widths(videos: Sequence[Video], bad_files: BadFiles) -> list[Video]:
    """The videos of the most usual width; files of another are listed as bad."""
    width = statistics.mode(video.file.shape[1] for video in videos)
    left = [video for video in videos if video.file.shape[1] == width]
    for file in (video.file for video in videos if video.file.shape[1] != width):
        bad_files.skipped[file.path] = f"has {file.shape[1]} channels, most have {width}"
    for split in SPLITS:
        if all(video.split != split for video in left):
            raise DataError(f"{split}: all features have another width than most, {width}")
    return left


def completed(given: Sampling, annotated: Sequence[Video], rate_is_given: bool) -> Sampling:
    """How the snippets of annotated videos were taken, as far as given; the rest is found.

    A clip of several strides is recognised where none is given. Raises DataError where nothing
    tells a rate.
    """
    timed = [video for video in annotated if video.entry.duration is not None]
    lengths = np.array([video.file.length for video in timed])
    durations = np.array([video.entry.duration for video in timed])
    frames = [video.entry.fps for video in annotated]
    if timed and not rate_is_given:
        stride = 0
        if all(frames) and len({*frames}) > 1 and not given.clip:  # may be one in frames
            stride = find_stride(lengths, durations * [video.entry.fps for video in timed])
        clipped = np.maximum(durations - given.clip, 1e-3)
        fps = 0.0 if stride else find_rate(lengths - (given.clip > 0), clipped)
        given = replace(given, feat_stride=stride, fps=fps)
    if given.feat_stride and not given.video_fps:
        if not any(frames):
            raise DataError("no annotated video has fps, its frames a second; give --video_fps")
        if len({*frames}) == 1:
            given = replace(given, video_fps=frames[0], fps=frames[0] / given.feat_stride)
    if not any(given.axis(video.file.length, video.entry) for video in annotated):
        raise DataError("no annotated video has a duration; give the rate of all, as --fps=2")
    if given.clip or given.num_frames:
        return given
    rates = [given.axis(video.file.length, video.entry).rate for video in timed]
    strides = find_strides(lengths, durations * rates)
    if strides and given.feat_stride:
        return replace(given, num_frames=strides * given.feat_stride)
    return replace(given, clip=strides / given.fps) if strides else given


def named(videos: Sequence[str]) -> str:
    """How many, and the first ones by name."""
    names = ", ".join(shown(video) for video in videos[:NAMED])
    return f"{len(videos)} ({names}{', ...' if len(videos) > NAMED else ''})"

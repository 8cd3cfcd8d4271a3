"""The data set that is made ready: its videos, splits, annotations, labels and time."""

import dataclasses
import os
import statistics
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from sola.config import Config
from sola.data.annotations import Annotation, action_labels, match, split_of_subset
from sola.data.features import FeatureFile
from sola.data.times import Sampling, TimeAxis, find_rate, find_strides
from sola.data.videos import SPLITS, BadFiles
from sola.errors import ConfigError, DataError, shown
from sola.prepare.find import check_axes
from sola.system.device import random_generator

MISFITS = 0.05  # share of the annotated videos that it may not fit

Videos = dict[str, FeatureFile]
SplitVideos = dict[str, Videos]  # split -> video -> features


@dataclass(frozen=True)
class DataSet:
    """Videos of both splits, and what an annotation file says of them.

    config: of the training that is made ready. names: video -> its name in the annotations.
    sampling: where the snippets lie in time; rate_is_given: its rate is the user's, not found;
    clip_is_found: its clip is not the user's.
    """

    config: Config
    videos: SplitVideos
    annotations: dict[str, Annotation]
    names: dict[str, str]
    sampling: Sampling = dataclasses.field(default_factory=Sampling)
    rate_is_given: bool = False
    clip_is_found: bool = False

    @property
    def files(self) -> list[FeatureFile]:
        """The features of both splits."""
        return [file for split in SPLITS for file in self.videos[split].values()]

    @property
    def width(self) -> int:
        """C, the same for all videos."""
        return self.files[0].shape[1]

    @cached_property
    def annotated(self) -> dict[str, dict[str, Annotation]]:
        """Split -> video -> annotation, of the videos that have one."""
        return {
            split: {
                v: self.annotations[self.names[v]] for v in self.videos[split] if v in self.names
            }
            for split in SPLITS
        }

    @cached_property
    def axes(self) -> dict[str, TimeAxis]:
        """Video -> its time axis, of the annotated videos whose rate is known."""
        axes = {
            video: self.sampling.axis(self.videos[split][video].length, entry)
            for split, entries in self.annotated.items()
            for video, entry in entries.items()
        }
        return {video: axis for video, axis in axes.items() if axis is not None}

    @property
    def rate(self) -> float | None:
        """Snippets a second, the median where they differ; None where it is not known."""
        common = self.sampling.common_axis
        rates = [common.rate] if common else [axis.rate for axis in self.axes.values()]
        return statistics.median(rates) if rates else None

    @cached_property
    def labels(self) -> dict[str, dict[str, np.ndarray]]:
        """Split -> video -> action labels, bool [T], of the annotated videos with a time axis."""
        return {
            split: {
                video: action_labels(
                    entry.actions or (),
                    self.axes[video].centres(self.videos[split][video].length),
                )
                for video, entry in entries.items()
                if video in self.axes
            }
            for split, entries in self.annotated.items()
        }

    @cached_property
    def lacks_labels(self) -> str | None:
        """Why no labels are written, as there is nothing for a probe to tell apart; else None."""
        for split, labels in self.labels.items():
            if not labels:
                return f"no {split} video is annotated"
            values = np.concatenate(list(labels.values()))
            if values.all() or not values.any():
                return f"all {split} snippets are {'' if values.any() else 'no '}action"
        return None

    @cached_property
    def snippets_off(self) -> dict[str, float]:
        """Video -> T minus that which its duration and the rate make, where both are known."""
        return {
            video: self.videos[split][video].length - self.axes[video].expected_length(e.duration)
            for split, entries in self.annotated.items()
            for video, e in entries.items()
            if video in self.axes and e.duration is not None
        }

    @cached_property
    def misfits(self) -> dict[str, FeatureFile]:
        """Videos that the rate does not fit."""
        entries = self.annotated["training"] | self.annotated["validation"]
        files = self.videos["training"] | self.videos["validation"]
        return {
            video: files[video]
            for video in self.snippets_off
            if not self.axes[video].fits(files[video].length, entries[video].duration)
        }

    @cached_property
    def without_files(self) -> list[str]:
        """Annotated videos of both splits without features."""
        there, split_of = {*self.names.values()}, split_of_subset(self.annotations)
        return [v for v, e in self.annotations.items() if e.subset in split_of and v not in there]


def data_folder(yaml_path: str) -> Path:
    """The folder of this program's own that belongs to a YAML made from --features."""
    return Path(f"{Path(yaml_path).stem.strip()}_data")


def new_config(yaml_path: str, folder_count: int) -> Config:
    """The configuration of a YAML to be made, without sizes: its data lie in data_folder.

    folder_count: folders that are joined on channels.
    """
    stem = Path(yaml_path).stem
    if "," in stem:
        raise ConfigError(f"--yaml_path={yaml_path}: a comma stands between folders; leave it out")
    if os.path.isdir(yaml_path):
        raise ConfigError(f"--yaml_path={yaml_path}: is a folder; name a file")
    folder = data_folder(yaml_path)
    suffixes = ["", *(f"_{number}" for number in range(2, folder_count + 1))]
    return Config(
        exp_name=stem,
        data_root=",".join(str(folder / f"features{suffix}") for suffix in suffixes),
        label_base=str(folder / "labels"),
        visualizing_dir=",".join(str(folder / f"visualizing{suffix}") for suffix in suffixes),
    )


def new_data(
    config: Config, parts: SplitVideos, annotations: dict[str, Annotation], bad_files: BadFiles
) -> DataSet:
    """The data set of the videos found, which are divided into splits first if they are not.

    parts: split -> videos, with an empty name for those of no split. Files of another width than
    most are listed as bad, those of channels first refused.
    """
    for note in check_axes({v: file for part in parts.values() for v, file in part.items()}):
        print(note)
    names = match(annotations, [v for part in parts.values() for v in part]) if annotations else {}
    if "" in parts:
        entries = {video: annotations[name] for video, name in names.items()}
        parts = split_up(parts[""], entries, annotations)
    parts = leave_out_other_widths(parts, bad_files)
    return DataSet(config, parts, annotations, names)


def split_up(
    videos: Videos, entries: dict[str, Annotation], annotations: dict[str, Annotation]
) -> SplitVideos:
    """Videos of one folder as the subsets of their annotations say; else a seeded tenth validates.

    entries: of the videos that have one; videos without are trained on, those of another subset, as
    testing, are left out.
    """
    if entries:
        split_of = split_of_subset(annotations)
        chosen = dict.fromkeys(videos, "training")
        chosen |= {video: split_of.get(entry.subset) for video, entry in entries.items()}
    else:
        count = max(1, len(videos) // 10)
        drawn = random_generator("validation", 0).choice(sorted(videos), count, replace=False)
        chosen = dict.fromkeys(videos, "training") | dict.fromkeys(drawn.tolist(), "validation")
    parts = {s: {v: file for v, file in videos.items() if chosen[v] == s} for s in SPLITS}
    for split, part in parts.items():
        if not part:
            subsets = ", ".join(sorted({entry.subset for entry in entries.values()}))
            what = f"none of the {len(videos)} videos is for {split}; their subsets: "
            what += shown(subsets) or "none, without --annotations"
            raise DataError(f"{what}; or give --features folders training/ and validation/ in it")
    return parts


def leave_out_other_widths(videos: SplitVideos, bad_files: BadFiles) -> SplitVideos:
    """The videos of the most usual width; files of another are listed as bad."""
    width = statistics.mode(f.shape[1] for split in SPLITS for f in videos[split].values())
    for file in (file for split in SPLITS for file in videos[split].values()):
        if file.shape[1] != width:
            bad_files.skipped[file.path] = f"has {file.shape[1]} channels, most have {width}"
    left = {s: {v: f for v, f in videos[s].items() if f.shape[1] == width} for s in SPLITS}
    for split in SPLITS:
        if not left[split]:
            raise DataError(f"{split}: all features have another width than most, {width}")
    return left


def with_sampling(data: DataSet, given: Sampling, *, rate_is_given: bool) -> DataSet:
    """The data set with the time of its snippets: as given, completed from the annotations.

    Without a given rate it is the one that all videos agree on, else each its own. A clip of
    several strides is recognised where none is given. Raises DataError where nothing tells a rate.
    """
    entries = data.annotated["training"] | data.annotated["validation"]
    if not entries:
        return dataclasses.replace(data, sampling=given, rate_is_given=rate_is_given)
    frames = {entry.fps for entry in entries.values()}
    if given.feat_stride and not given.video_fps and len(frames) == 1 and any(frames):
        (fps,) = frames
        given = dataclasses.replace(given, video_fps=fps, fps=fps / given.feat_stride)
    if given.feat_stride and not given.video_fps and not any(frames):
        raise DataError("no annotated video has fps, its frames a second; give --video_fps")
    files = data.videos["training"] | data.videos["validation"]
    timed = [(files[v].length, e.duration) for v, e in entries.items() if e.duration is not None]
    if not rate_is_given and timed:
        lengths, durations = map(np.array, zip(*timed, strict=True))
        if given.clip:
            lengths, durations = lengths - 1, np.maximum(durations - given.clip, 1e-3)
        found = find_rate(lengths, durations)
        data = dataclasses.replace(data, clip_is_found=found.clip > 0)
        given = dataclasses.replace(given, fps=found.fps, clip=given.clip or found.clip)
    data = dataclasses.replace(data, sampling=given, rate_is_given=rate_is_given)
    if not data.axes:
        raise DataError("no annotated video has a duration; give the rate of all, as --fps=2")
    if not data.clip_is_found and not given.clip and not given.num_frames:
        strides = find_strides([*data.snippets_off.values()], share=1 - MISFITS)
        stride = given.feat_stride
        clip = {"num_frames": strides * stride} if stride else {"clip": strides / (given.fps or 1)}
        given = dataclasses.replace(given, **clip)
        data = dataclasses.replace(data, sampling=given, clip_is_found=strides > 0)
    return data

"""The data set that is made ready: its videos, splits, annotations, rate, labels and sizes."""

import dataclasses
import math
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from sola.config import Config, override
from sola.data.annotations import (
    Annotation,
    action_labels,
    find_annotations,
    match,
    snippet_rate,
    split_of_subset,
    wrong_rate,
)
from sola.data.features import FeatureFile
from sola.data.videos import SPLITS, BadFiles, open_videos
from sola.errors import ConfigError, DataError, shown
from sola.system.device import random_generator

FEWEST_STEPS = 4  # an epoch, in a YAML for few videos
FEW_STEPS = 5_000  # a training, below which the YAML asks for larger ones
USUAL_RATES = (1, 2, 3, 4, 5, 25 / 16, 30 / 16, 25 / 8, 30 / 8, 25 / 4, 30 / 4)  # snippets a second

SplitVideos = dict[str, dict[str, FeatureFile]]  # split -> video -> features


@dataclass(frozen=True)
class DataSet:
    """Videos of both splits, and what an annotation file says of them.

    config: of the training that is made ready. fps: snippets a second, of all that follows from
    time; None when neither given nor to be had from annotations.
    """

    config: Config
    videos: SplitVideos
    annotations: dict[str, Annotation]
    fps: float | None = None
    fps_is_given: bool = False

    @property
    def files(self) -> list[FeatureFile]:
        """The features of both splits."""
        return [file for split in SPLITS for file in self.videos[split].values()]

    @property
    def width(self) -> int:
        """C, the same for all videos."""
        return self.files[0].shape[1]

    @property
    def lengths(self) -> dict[str, int]:
        """Video -> T, of both splits."""
        return {v: file.length for split in SPLITS for v, file in self.videos[split].items()}

    @cached_property
    def annotated(self) -> dict[str, dict[str, Annotation]]:
        """Split -> video -> annotation, of the videos that have one."""
        return {s: find_annotations(self.annotations, self.videos[s]) for s in SPLITS}

    @property
    def has_labels(self) -> bool:
        """Whether videos of both splits are annotated; else no labels are written at all."""
        return all(self.annotated.values())

    @cached_property
    def labels(self) -> dict[str, dict[str, np.ndarray]]:
        """Split -> video -> action labels, bool [T], of the videos that are annotated."""
        return {
            split: {
                video: action_labels(entry.actions, self.videos[split][video].length, self.fps)
                for video, entry in entries.items()
            }
            for split, entries in self.annotated.items()
        }

    def snippets_off(self) -> dict[str, float]:
        """Video -> T minus duration * fps, of the videos with a duration."""
        return {
            video: self.videos[split][video].length - entry.duration * self.fps
            for split, entries in self.annotated.items()
            for video, entry in entries.items()
            if entry.duration is not None
        }

    @cached_property
    def without_files(self) -> list[str]:
        """Annotated videos of both splits without features."""
        there = {id(entry) for entries in self.annotated.values() for entry in entries.values()}
        split_of = split_of_subset(self.annotations)
        wanted = {v: entry for v, entry in self.annotations.items() if entry.subset in split_of}
        return [video for video, entry in wanted.items() if id(entry) not in there]


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


def open_folders(
    folders: Sequence[Path], annotations: dict[str, Annotation], bad_files: BadFiles
) -> SplitVideos:
    """The features in folders with training and validation in them, else divided by split_up."""
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"--features: {folder}: no such folder")
    split_folders = [folder / split for folder in folders for split in SPLITS]
    absent = [folder for folder in split_folders if not folder.is_dir()]
    if len(absent) == len(split_folders):
        return split_up(open_videos(folders, None, bad_files), annotations)
    if absent:
        raise DataError(f"--features: {absent[0]}: no such folder, though the other split's is")
    return {s: open_videos([folder / s for folder in folders], None, bad_files) for s in SPLITS}


def split_up(videos: dict[str, FeatureFile], annotations: dict[str, Annotation]) -> SplitVideos:
    """Videos of one folder as the annotations' subsets say; else a seeded tenth validates.

    Videos that the annotations do not know are trained on; those of another subset, as testing,
    are left out.
    """
    if annotations:
        split_of = split_of_subset(annotations)
        entries = find_annotations(annotations, videos)
        chosen = dict.fromkeys(videos, "training")
        chosen |= {video: split_of.get(entry.subset) for video, entry in entries.items()}
    else:
        count = max(1, len(videos) // 10)
        drawn = random_generator("validation", 0).choice(sorted(videos), count, replace=False)
        chosen = dict.fromkeys(videos, "training") | dict.fromkeys(drawn.tolist(), "validation")
    parts = {s: {v: file for v, file in videos.items() if chosen[v] == s} for s in SPLITS}
    for split, part in parts.items():
        if not part:
            subsets = ", ".join(sorted({entry.subset for entry in annotations.values()}))
            what = f"none of the {len(videos)} videos is of the {split} subset"
            raise DataError(f"{what}; subsets: {shown(subsets)}")
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


def with_rate(data: DataSet, fps: float | None) -> DataSet:
    """The data set with the rate that is given, else with that of its annotations.

    A usual rate is taken when the median of T / duration is within 1 % of one.
    """
    annotated = match(data.annotations, data.lengths) if data.annotations else {}
    if fps is not None or not annotated:
        return dataclasses.replace(data, fps=fps, fps_is_given=fps is not None)
    median = snippet_rate(annotated, data.lengths)
    if median is None:
        raise DataError("no annotated video has a duration; give --fps")
    nearest = min(USUAL_RATES, key=lambda rate: abs(math.log(rate / median)))
    return dataclasses.replace(data, fps=nearest if abs(nearest / median - 1) < 0.01 else median)


def sized(data: DataSet, settings: list[str]) -> DataSet:
    """The data set with its sizes in the configuration; settings, KEY=VALUE, win over them.

    With a given rate the window keeps the canonical one's seconds. Few videos get a batch that
    gives several steps an epoch, and a larger learning rate.
    """
    width = data.width
    changes = {"in_feature_dim": width, "out_feature_dim": width, "dissim_proj_out": width}
    changes["visualizing_fps"] = float(data.fps or 0)
    if data.fps_is_given:
        changes |= window_of(data.fps)
    config = dataclasses.replace(data.config, **changes)
    trained = sum(f.length > config.sampling_duration for f in data.videos["training"].values())
    batch_size = config.batch_size
    while batch_size > 8 and trained / batch_size < FEWEST_STEPS:
        batch_size //= 2
    config = dataclasses.replace(config, batch_size=batch_size)
    if config.epoch * math.ceil(trained / batch_size) < FEW_STEPS:
        config = dataclasses.replace(config, learning_rate=1e-3)
    changed = override(config, settings)
    for key in ("data_root", "label_base", "visualizing_dir"):
        if getattr(changed, key) != getattr(config, key):
            raise ConfigError(f"{key} is {getattr(config, key)} with --features; leave it out")
    return dataclasses.replace(data, config=changed)


def window_of(fps: float) -> dict[str, int]:
    """step, step_start and sampling_duration at a number of snippets a second.

    The canonical ones at 2: 2, 4 and 23, that is 8 positions a second apart with two seconds on
    either side.
    """
    step = max(1, round(fps))
    return {"step": step, "step_start": 2 * step, "sampling_duration": 11 * step + 1}


def usable(data: DataSet, bad_files: dict[str, str]) -> DataSet:
    """The data set without bad files. bad_files: path -> what is wrong with it.

    Raises SolaError for what would stop the training that is made ready.
    """
    annotated = data.annotated["training"] | data.annotated["validation"]
    rate = wrong_rate(annotated, data.lengths, data.fps)
    if rate is not None:
        raise DataError(f"--fps={data.fps:g}: T / duration is {rate:.3g} snippets a second")
    if data.config.in_feature_dim != data.width:
        raise ConfigError(f"in_feature_dim is {data.config.in_feature_dim}, not {data.width}")
    if bad_files and data.config.on_bad_file != "skip":
        path, what = min(bad_files.items())
        what = f"{path}: {what} ({len(bad_files)} such files)"
        raise DataError(f"{what}; mend or remove them, or give on_bad_file=skip")
    left = {s: {v: f for v, f in data.videos[s].items() if f.path not in bad_files} for s in SPLITS}
    for split in SPLITS:
        if not left[split]:
            raise DataError(f"{split}: no usable file")
    window = data.config.sampling_duration
    if all(file.length <= window for file in left["training"].values()):
        raise DataError(f"training: no video is longer than sampling_duration, {window} snippets")
    return dataclasses.replace(data, videos=left)

"""What is exported: for which target, and which videos."""

import dataclasses
import os
from dataclasses import dataclass
from typing import NamedTuple

from sola.config import Config
from sola.data.annotations import Annotation, match, read_annotations
from sola.data.features import FeatureFile
from sola.data.index_files import feature_folders
from sola.data.times import Sampling, TimeAxis
from sola.data.videos import (
    SPLITS,
    BadFiles,
    Split,
    feature_paths,
    open_files,
    open_split,
    video_paths,
)
from sola.errors import DataError, SolaError, shown
from sola.export.formats import Form
from sola.method.weights import file_sha256


@dataclass(frozen=True, kw_only=True)
class Target:
    """Which features are written, where, in which form and for which head.

    source: features to read in place of the configuration's: a folder, with split folders or
    without, or a file, or several with commas between them to be joined on channels. output: where
    to write them, else below feature_save_path under the name of the checkpoint and of what differs
    from the plain form; so do those of one of many checkpoints in output. annotations: a file for
    the head.
    """

    form: Form = dataclasses.field(default_factory=Form)
    head: str | None = None
    source: str | None = None
    is_one_of_many: bool = False
    output: str | None = None
    suffix: str = ""
    annotations: str | None = None


class Video(NamedTuple):
    """A video to encode, and what is known of its features as they are written."""

    split: str  # empty where an --input holds the files itself
    name: str
    file: FeatureFile
    length: int  # T as written
    axis: TimeAxis | None  # where the snippets lie in time, if known
    annotated: str | None  # its name in the annotations


@dataclass(frozen=True)
class Sources:
    """The videos to encode, all of one width, and what else is read."""

    data_root: str  # a folder, or several with commas between them
    form: Form  # that of the target, but for a prefix that all names have already
    videos: list[Video]
    skipped: dict[str, str]  # file -> what is wrong with it
    annotations: dict[str, Annotation]
    source: str | None  # SHA-256 of the annotation file, and the time of snippets

    @property
    def input_dim(self) -> int:
        """C of the features read."""
        return self.videos[0].file.shape[1]

    @property
    def splits(self) -> list[str]:
        return list(dict.fromkeys(video.split for video in self.videos))

    def real_paths(self) -> set[str]:
        """The folders that are read, links followed."""
        files = [part.path for video in self.videos for part in video.file.files]
        folders = {*feature_folders(self.data_root), *map(os.path.dirname, files)}
        of_links = {os.path.dirname(os.path.realpath(file)) for file in files}
        return {*map(os.path.realpath, folders), *of_links}


def names_files(source: str) -> bool:
    """Whether --input names files, not folders. Raises DataError where it does both or neither."""
    paths = feature_folders(source)
    for path in paths:
        if not path.exists():
            raise DataError(f"--input: {path}: no such file or folder")
        if path.is_file() != paths[0].is_file():
            raise DataError(f"--input: {path}: give files only, or folders only")
    return paths[0].is_file()


def open_sources(config: Config, target: Target) -> Sources:
    """What is read: the configuration's two splits, or what lies in target.source."""
    annotations, source = {}, None
    if target.annotations:
        annotations = read_annotations(target.annotations)
        source = f"{file_sha256(target.annotations)}, {Sampling.of(config)}"
    bad_files, root = BadFiles(config.on_bad_file), target.source or config.data_root
    if target.source:
        splits = _open_input(target, bad_files)
    else:
        splits = [open_split(root, name, config.in_feature_dim, bad_files) for name in SPLITS]
    bad_files.report()
    videos = _in_time(config, target, splits, annotations)
    first, *others = [video.file for video in videos]
    for file in others:
        if file.shape[1] != first.shape[1]:
            what = f"has {file.shape[1]} channels, others have {first.shape[1]}"
            raise DataError(f"{file.path}: {what}")
    form = _form_for(videos, target.form)
    return Sources(root, form, videos, bad_files.skipped, annotations, source)


def _open_input(target: Target, bad_files: BadFiles) -> list[Split]:
    """The splits of --input: its folders that hold features, or itself under an empty name."""
    folders = feature_folders(target.source)
    names = ["", *(path.name for path in folders[0].iterdir() if path.is_dir())]
    names = sorted(name for name in names if feature_paths(folders[0] / name))
    if not names:
        raise DataError(f"--input: {folders[0]}: holds no .npy files, nor folders with any")
    if names[0] == "" and len(names) > 1:
        what = f"holds .npy files beside the folder {shown(names[1])} with more"
        raise DataError(f"--input: {folders[0]}: {what}; name one of these")
    if str(target.output).endswith((".npy", ".h5", ".csv")):
        raise SolaError(f"--output={target.output}: must be a folder, as --input is one")
    splits = []
    for name in names:
        parts = [folder / name for folder in folders]
        videos = open_files(video_paths(parts), str(parts[0]), None, bad_files)
        splits.append(Split(name, videos))
    return splits


def _in_time(
    config: Config, target: Target, splits: list[Split], annotations: dict[str, Annotation]
) -> list[Video]:
    """The videos of the splits, with what annotations say; says where durations do not fit."""
    names = [name for split in splits for name in split.videos]
    found, sampling, resize = {}, Sampling.of(config), target.form.resize
    if annotations:
        found = match(annotations, names)
        print(f"{len(found)} of {len(names)} videos are annotated in {target.annotations}")
    videos, off = [], []
    for split in splits:
        for name, file in split.videos.items():
            length, entry = file.length, annotations.get(found.get(name))
            axis, duration = sampling.axis(length, entry), entry and entry.duration
            if axis and duration and not axis.fits(length, duration):
                rate = f"{length / duration:.3g} snippets a second"
                off.append(f"{shown(name)}: {rate}, told {axis.rate:.3g}")
            if axis and resize:
                axis = axis.resized(length, resize)
            videos.append(Video(split.name, name, file, resize or length, axis, found.get(name)))
    if off:
        print(
            f"warning: the rate does not fit {len(off)} of {len(found)} videos ({off[0]}); "
            "give the right --fps, or --fps=per_video"
        )
    return videos


def _form_for(videos: list[Video], form: Form) -> Form:
    """The form, but for a prefix that all names have already.

    Raises DataError when a flat layout gives videos of two splits the same file.
    """
    split_of = {}
    for video in videos:
        earlier = split_of.setdefault(video.name, video.split)
        if form.layout == "flat" and earlier != video.split:
            what = f"in {earlier} and in {video.split}, which --layout=flat would write to one file"
            raise DataError(f"{shown(video.name)}: {what}")
    has_prefix = all(name.startswith(form.prefix) for name in split_of)
    return dataclasses.replace(form, prefix="") if has_prefix else form

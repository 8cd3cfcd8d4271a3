"""What lies on disk: the videos of a split, their index files and labels."""

import itertools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sola.data.features import (
    BadFileError,
    DataError,
    FeatureFile,
    is_cut,
    open_array,
    open_joined,
    read_features,
)
from sola.data.index_files import load_plain
from sola.system.cli import progress, random_generator
from sola.system.files import read_bytes
from sola.system.prefetch import in_background

SPLITS = ("training", "validation")
SMALL_SPLIT = 1000  # without a subset list, the probe takes all videos of a split up to this size
DRAWN_BY_DEFAULT = 6
SKIPPED_SHOWN = 5
HEADER_READERS = 16  # threads; opening a file on a network disk is mostly waiting


@dataclass
class BadFiles:
    """What is done with a file that cannot be used: it ends the run, or is left out and listed.

    on_bad_file: error or skip, see config.py. Only to skip are values read where headers would do.
    """

    on_bad_file: str = "error"
    reads_values: bool = True  # to know all that is to be skipped before the first epoch
    skipped: dict[str, str] = field(default_factory=dict)  # file -> what is wrong with it

    @property
    def are_skipped(self) -> bool:
        return self.on_bad_file == "skip"

    def meet(self, error: BadFileError) -> None:
        """Raise the error, or list its file."""
        if not self.are_skipped:
            raise error
        self.skipped[error.path] = error.what

    def report(self) -> None:
        """Say how many files are left out, and what is wrong with the first ones."""
        for path in sorted(self.skipped)[:SKIPPED_SHOWN]:
            print(f"skipped: {path}: {self.skipped[path]}")
        if len(self.skipped) > SKIPPED_SHOWN:
            print(f"skipped: {len(self.skipped) - SKIPPED_SHOWN} more")


@dataclass(frozen=True)
class Split:
    """The videos of one split, sorted by name."""

    name: str
    videos: dict[str, FeatureFile]
    missing: int  # entries of the duration pickle without a file

    @property
    def lengths(self) -> dict[str, int]:
        """Video -> T."""
        return {video: array.length for video, array in self.videos.items()}


def feature_paths(folder: str | Path) -> dict[str, str]:
    """Video -> path of the npy files directly in a folder, sorted; links followed, dotfiles not."""
    with os.scandir(folder) as entries:
        paths = {
            entry.name.removesuffix(".npy"): entry.path
            for entry in entries
            if entry.name.endswith(".npy")
            and not entry.name.startswith(".")
            and _may_be_file(entry)
        }
    return dict(sorted(paths.items()))


def _may_be_file(entry: os.DirEntry) -> bool:
    """Whether it is a file, or a link that leads nowhere: an error, once it is opened."""
    try:
        return entry.is_file() or not os.path.exists(entry.path)
    except OSError:  # a link to itself
        return True


def feature_folders(data_root: str | Path) -> list[Path]:
    """The folders of a data_root or visualizing_dir: one, or several with commas between them."""
    return [Path(folder.strip()) for folder in os.fspath(data_root).split(",")]


def video_paths(folders: Sequence[Path]) -> dict[str, list[str]]:
    """Video -> its feature file in each folder, sorted; also where it lacks one in some."""
    found = [feature_paths(folder) for folder in folders]
    videos = sorted(set().union(*found))
    return {v: [str(folder / f"{v}.npy") for folder in folders] for v in videos}


def open_split(
    data_root: str | Path,
    split: str,
    feature_dim: int | None,
    bad_files: BadFiles | None = None,
) -> Split:
    """Find a split's feature files and read their headers; all values, too, to skip bad ones.

    <data_root>/<split>_duration.pkl is held against them when there: an entry without a file is
    counted, another T is an error. Raises DataError, naming the file.
    """
    bad_files = bad_files or BadFiles()
    folders = [folder / split for folder in feature_folders(data_root)]
    for folder in folders:
        if not folder.is_dir():
            raise DataError(
                f"{folder}: no such folder; put the {split} features there or set data_root"
            )
    durations = _read_durations(index_file(data_root, split, "duration"))
    videos = open_videos(folders, feature_dim, bad_files, durations)
    missing = [video for video in durations if not (folders[0] / f"{video}.npy").exists()]
    return Split(split, videos, len(missing))


def open_videos(
    folders: Sequence[Path],
    feature_dim: int | None,
    bad_files: BadFiles,
    durations: dict[str, int] | None = None,
) -> dict[str, FeatureFile]:
    """The videos of a folder, or of several to be joined on channels; durations: video -> T.

    Says how many of these are cut since their files differ by a snippet.
    """
    paths = video_paths(folders)
    if not paths:
        raise DataError(f"{folders[0]}: holds no .npy files")
    durations, skipped_before = durations or {}, set(bad_files.skipped)

    def open_video(video: str) -> FeatureFile | None:
        try:
            array = open_joined(paths[video], feature_dim)
            if video in durations and all(durations[video] != file.length for file in array.files):
                said = f"the duration pickle says {durations[video]}"
                raise BadFileError(array.path, f"has {array.length} snippets where {said}")
            if bad_files.are_skipped and bad_files.reads_values:
                read_features(array)
        except BadFileError as error:
            bad_files.meet(error)
            return None
        return array

    arrays = in_background(open_video, paths, threads=HEADER_READERS, ahead=4 * HEADER_READERS)
    what = "files" if bad_files.are_skipped and bad_files.reads_values else "headers"
    arrays = progress(arrays, total=len(paths), desc=f"{folders[0].name} {what}", unit="file")
    found = zip(paths, arrays, strict=True)
    videos = {video: array for video, array in found if array is not None}
    if not videos:
        path = min(bad_files.skipped.keys() - skipped_before)
        raise DataError(
            f"{folders[0]}: no usable file; the first, {path}: {bad_files.skipped[path]}"
        )
    cut = sum(map(is_cut, videos.values()))
    if cut:
        print(f"{folders[0]}: {cut} videos cut to the shorter of their files, by one snippet")
    return videos


def index_file(data_root: str | Path, split: str, kind: str) -> Path:
    """The duration or subset_list pickle of a split; of the first folder when there are several."""
    return feature_folders(data_root)[0] / f"{split}_{kind}.pkl"


def _read_durations(path: Path) -> dict[str, int]:
    """Video -> T of a duration pickle; empty when there is none."""
    if not path.exists():
        return {}
    durations = read_pickle(path)
    if not isinstance(durations, dict) or not all(
        isinstance(name, str) and name.endswith(".npy") and type(length) is int and length > 0
        for name, length in durations.items()
    ):
        raise DataError(f"{path}: must be a dict of '<video>.npy' -> T, or be left out")
    _check_names(path, durations)
    return {name.removesuffix(".npy"): length for name, length in durations.items()}


def _check_names(path: Path, names: Iterable[str]) -> None:
    for name in names:
        if "/" in name or "\\" in name or name in ("", ".", ".."):
            raise DataError(f"{path}: {name!r:.80} is no plain video name")


def subset_of(
    data_root: str | Path, split: Split, seed: int, bad_files: BadFiles | None = None
) -> list[str]:
    """Videos of a split that the linear probe looks at.

    <data_root>/<split>_subset_list.pkl when there; else all videos of a small split, or a seeded
    tenth of a large one. Raises DataError for a listed video without a file.
    """
    bad_files = bad_files or BadFiles()
    path = index_file(data_root, split.name, "subset_list")
    if path.exists():
        subset = read_pickle(path)
        if not isinstance(subset, list) or not all(isinstance(name, str) for name in subset):
            raise DataError(f"{path}: must be a list of video names, or be left out")
        _check_names(path, subset)
        subset = list(dict.fromkeys(subset))
        absent = [video for video in subset if video not in split.videos]
        if absent and not bad_files.are_skipped:
            raise DataError(
                f"{path}: {len(absent)} of its {len(subset)} videos have no feature file, first "
                f"{absent[0]!r:.80}; leave them out with on_bad_file: skip"
            )
        for video in absent:
            file = str(feature_folders(data_root)[0] / split.name / f"{video}.npy")
            bad_files.skipped.setdefault(file, f"missing, though {path} lists it")
        subset = [video for video in subset if video in split.videos]
        if not subset:
            raise DataError(f"{path}: lists no videos that are there")
        return subset
    return draw_subset(split.name, list(split.videos), seed)


def draw_subset(split: str, videos: list[str], seed: int) -> list[str]:
    """All of at most SMALL_SPLIT videos; else a seeded tenth, and no fewer."""
    if len(videos) <= SMALL_SPLIT:
        return videos
    count = max(SMALL_SPLIT, len(videos) // 10)
    chosen = random_generator(f"{split} subset", seed).choice(len(videos), count, replace=False)
    return [videos[i] for i in sorted(chosen)]


def read_pickle(path: str | Path) -> Any:
    """Read a pickle of dicts and lists of str and int; nothing else is ever built from it."""
    data = read_bytes(path)
    try:
        return load_plain(data)
    except Exception as error:  # whatever a damaged pickle makes of the parser
        raise DataError(
            f"{path}: not a pickle of plain dict, list, str and int ({error!s:.80}); "
            "mend it or remove it"
        ) from error


def read_labels(
    folder: str | Path, videos: dict[str, FeatureFile], bad_files: BadFiles | None = None
) -> dict[str, np.ndarray]:
    """Per-snippet action labels of videos: bool [T], true where the label file holds 1.

    Raises DataError for a label file that is missing or of another length than the features.
    """
    bad_files = bad_files or BadFiles()
    labels = {}
    for video, features in progress(videos.items(), desc="labels", unit="file"):
        path = Path(folder) / f"{video}.npy"
        try:
            labels[video] = _read_label(path, features.length)
        except BadFileError as error:
            bad_files.meet(error)
    return labels


def _read_label(path: Path, length: int) -> np.ndarray:
    if not path.is_file():
        raise BadFileError(path, "no such label file, and the linear probe needs it")
    array = open_array(path)
    if array.shape != (length,):
        shape = list(array.shape)
        raise BadFileError(
            path, f"labels of shape {shape} where the features have {length} snippets"
        )
    return array.read() == 1


def label_folder(label_base: str | Path, split: str) -> Path:
    """Folder of a split's label files."""
    return Path(label_base) / f"{split}_label"


def has_labels(label_base: str | Path) -> bool:
    """Whether label folders exist; without any the linear probe is skipped.

    Raises DataError when only one of the two splits has its folder.
    """
    folders = [label_folder(label_base, split) for split in SPLITS]
    found = [folder.is_dir() for folder in folders]
    if any(found) and not all(found):
        raise DataError(
            f"{folders[found.index(False)]}: no such folder, though the other split's is"
        )
    return all(found)


def videos_to_draw(
    folder: str | Path, validation: Split, feature_dim: int, bad_files: BadFiles | None = None
) -> dict[str, FeatureFile]:
    """Videos whose TSMs are drawn: the npy files of a folder, else some of the validation split."""
    bad_files = bad_files or BadFiles()
    videos = {}
    folders = feature_folders(folder)
    paths = video_paths(folders) if all(map(Path.is_dir, folders)) else {}
    for video, path in paths.items():
        try:
            array = open_joined(path, feature_dim)
            read_features(array)  # there are few, and they are drawn once more after days
            videos[video] = array
        except BadFileError as error:
            bad_files.meet(error)
    return videos or dict(itertools.islice(validation.videos.items(), DRAWN_BY_DEFAULT))

"""The videos of a split: which there are, which the probe looks at, which are drawn."""

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sola.data.features import FeatureFile, open_joined, read_features
from sola.data.index_files import feature_folders, index_file, read_durations, read_subset_list
from sola.errors import BadFileError, DataError, shown
from sola.system.cli import progress
from sola.system.device import random_generator
from sola.system.prefetch import in_background

SPLITS = ("training", "validation")
SMALL_SPLIT = 1000  # without a subset list, the probe takes all videos of a split up to this size
DRAWN_BY_DEFAULT, MOST_DRAWN = 6, 12
SKIPPED_SHOWN = 5
HEADER_READERS = 16  # threads; opening a file on a network disk is mostly waiting


@dataclass
class BadFiles:
    """What is done with a file that cannot be used: it ends the run, or is left out and listed.

    on_bad_file: error or skip, see config.py. Only to skip are values read where headers would do.
    """

    on_bad_file: str
    reads_values: bool = True  # to know all that is to be skipped before the first epoch
    skipped: dict[str, str] = field(default_factory=dict)  # file -> what is wrong with it

    @property
    def are_skipped(self) -> bool:
        return self.on_bad_file == "skip"

    @contextlib.contextmanager
    def met(self) -> Iterator[None]:
        """Within it a BadFileError is raised, or its file listed."""
        try:
            yield
        except BadFileError as error:
            if not self.are_skipped:
                raise
            self.skipped[error.path] = error.what

    def report(self, word: str = "skipped") -> None:
        """Say what is wrong with the first of the files listed, and how many more there are."""
        for path in sorted(self.skipped)[:SKIPPED_SHOWN]:
            print(f"{word}: {path}: {self.skipped[path]}")
        if len(self.skipped) > SKIPPED_SHOWN:
            print(f"{word}: {len(self.skipped) - SKIPPED_SHOWN} more")


@dataclass(frozen=True)
class Split:
    """The videos of one split, sorted by name."""

    name: str
    videos: dict[str, FeatureFile]
    missing: int = 0  # entries of the duration pickle without a file

    @property
    def lengths(self) -> dict[str, int]:
        """Video -> T."""
        return {video: array.length for video, array in self.videos.items()}


def feature_paths(folder: str | Path) -> dict[str, str]:
    """Video -> path of the npy files directly in a folder, sorted; links followed, dotfiles not.

    A link that leads nowhere is among them: an error, once it is opened.
    """
    with os.scandir(folder) as entries:
        paths = {
            entry.name.removesuffix(".npy"): entry.path
            for entry in entries
            if entry.name.endswith(".npy")
            and not entry.name.startswith(".")
            and (os.path.isfile(entry.path) or not os.path.exists(entry.path))
        }
    return dict(sorted(paths.items()))


def video_paths(folders: Sequence[Path]) -> dict[str, list[str]]:
    """Video -> its feature file in each folder, sorted; also where it lacks one in some."""
    found = [feature_paths(folder) for folder in folders]
    videos = sorted(set().union(*found))
    return {v: [str(folder / f"{v}.npy") for folder in folders] for v in videos}


def open_split(
    data_root: str | Path, split: str, feature_dim: int | None, bad_files: BadFiles
) -> Split:
    """Find a split's feature files and read their headers; all values, too, to skip bad ones.

    <data_root>/<split>_duration.pkl is held against them when there: an entry without a file is
    counted, another T is an error. Raises DataError, naming the file.
    """
    folders = [folder / split for folder in feature_folders(data_root)]
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; put features there or set data_root")
    durations = read_durations(index_file(data_root, split, "duration"))
    paths = video_paths(folders)
    videos = open_files(paths, str(folders[0]), feature_dim, bad_files, durations)
    return Split(split, videos, len(durations.keys() - paths.keys()))


def open_files(
    paths: dict[str, list[str]],
    name: str,
    feature_dim: int | None,
    bad_files: BadFiles,
    durations: dict[str, int] | None = None,
) -> dict[str, FeatureFile]:
    """The videos of some files: paths: video -> the files to be joined; durations: video -> T.

    Says how many are cut since their files differ by a snippet. Raises DataError, under that name
    for all of them, when there are none or more than half would be left out.
    """
    if not paths:
        raise DataError(f"{name}: holds no .npy files")
    durations, skipped_before = durations or {}, set(bad_files.skipped)
    reads_values = bad_files.are_skipped and bad_files.reads_values

    def open_video(video: str) -> FeatureFile | None:
        with bad_files.met():
            array = open_joined(paths[video], feature_dim)
            if video in durations and all(durations[video] != file.length for file in array.files):
                said = f"{name}_duration.pkl says {durations[video]}; remove it if it is old"
                raise BadFileError(array.path, f"has {array.length} snippets where {said}")
            if reads_values:
                read_features(array)
            return array
        return None

    arrays = in_background(open_video, paths, threads=HEADER_READERS, ahead=4 * HEADER_READERS)
    what = "files" if reads_values else "headers"
    arrays = progress(arrays, total=len(paths), desc=f"{Path(name).name} {what}", unit="file")
    found = zip(paths, arrays, strict=True)
    videos = {video: array for video, array in found if array is not None}
    lost = len(paths) - len(videos)
    if lost > len(paths) / 2:
        path = min(bad_files.skipped.keys() - skipped_before)
        raise DataError(
            f"{name}: {lost} of {len(paths)} videos cannot be used, more than half; the first, "
            f"{path}: {bad_files.skipped[path]}"
        )
    cut = sum(any(part.length > f.length for part in f.files) for f in videos.values())
    if cut:
        print(f"{name}: {cut} videos cut to the shorter of their files, by one snippet")
    return videos


def subset_of(data_root: str | Path, split: Split, seed: int, bad_files: BadFiles) -> list[str]:
    """Videos of a split that the linear probe looks at.

    <data_root>/<split>_subset_list.pkl when there; else all videos of a small split, or a seeded
    tenth of a large one. Raises DataError for a listed video without a file.
    """
    path = index_file(data_root, split.name, "subset_list")
    listed = read_subset_list(path)
    if listed is None:
        return draw_subset(split.name, list(split.videos), seed)
    absent = [video for video in listed if video not in split.videos]
    if absent and not bad_files.are_skipped:
        raise DataError(
            f"{path}: {len(absent)} of its {len(listed)} videos are not there, first "
            f"{shown(absent[0])}; leave them out with on_bad_file: skip, or move the list away"
        )
    for video in absent:
        file = path.parent / split.name / f"{video}.npy"
        bad_files.skipped.setdefault(str(file), f"missing, though {path} lists it")
    if len(absent) == len(listed):
        raise DataError(f"{path}: lists no videos that are there")
    return [video for video in listed if video in split.videos]


def draw_subset(split: str, videos: list[str], seed: int) -> list[str]:
    """All of at most SMALL_SPLIT videos; else a seeded tenth, and no fewer."""
    if len(videos) <= SMALL_SPLIT:
        return videos
    count = max(SMALL_SPLIT, len(videos) // 10)
    chosen = random_generator(f"{split} subset", seed).choice(len(videos), count, replace=False)
    return [videos[i] for i in sorted(chosen)]


def videos_to_draw(
    folder: str | Path, validation: Split, feature_dim: int, bad_files: BadFiles
) -> dict[str, FeatureFile]:
    """Videos whose TSMs are drawn: the npy files of a folder, else some of the validation split."""
    videos = {}
    folders = feature_folders(folder)
    paths = video_paths(folders) if all(map(Path.is_dir, folders)) else {}
    if len(paths) > MOST_DRAWN:
        print(f"{folder}: of its {len(paths)} videos the first {MOST_DRAWN} are drawn")
    for video, path in itertools.islice(paths.items(), MOST_DRAWN):
        with bad_files.met():
            array = open_joined(path, feature_dim)
            read_features(array)  # there are few, and they are drawn once more after days
            videos[video] = array
    return videos or dict(itertools.islice(validation.videos.items(), DRAWN_BY_DEFAULT))

"""What lies on disk: features, labels and index files. Every reader of a data file is here."""

import io
import itertools
import math
import os
import pickle
import pickletools
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sola.pipeline import in_background
from sola.runtime import SolaError, progress, random_generator

SPLITS = ("training", "validation")
SMALL_SPLIT = 1000  # without a subset list, the probe takes all videos of a split up to this size
DRAWN_BY_DEFAULT = 6
HEADER_READERS = 16  # threads; opening a file on a network disk is mostly waiting
HEADER_LOCK = threading.Lock()  # for parsing alone: Python's is not sure to bear several threads
LONGEST_HEADER = 12_000  # bytes; numpy refuses longer ones
PICKLE_OPCODES = (  # of plain dicts, lists, str and int; none of them builds anything else
    "PROTO FRAME STOP MARK MEMOIZE PUT BINPUT LONG_BINPUT GET BINGET LONG_BINGET "
    "EMPTY_DICT DICT SETITEM SETITEMS EMPTY_LIST LIST APPEND APPENDS "
    "INT LONG LONG1 BININT BININT1 BININT2 UNICODE SHORT_BINUNICODE BINUNICODE"
)


class DataError(SolaError):
    """A data file or folder that cannot be used; the message names it."""


@dataclass(frozen=True, slots=True)
class ArrayFile:
    """An npy file as its header describes it; the values are still on disk."""

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran_order: bool
    offset: int  # of the first value, in bytes

    @property
    def length(self) -> int:
        """T, the number of snippets."""
        return self.shape[0]

    def read(self, rows: Sequence[int] | None = None, out: np.ndarray | None = None) -> np.ndarray:
        """The given rows (ascending), or all, in the file's dtype; reads no others (C order).

        They are read into `out` when it has the file's dtype and order, else into fresh memory.
        """
        rows = np.arange(self.length) if rows is None else np.asarray(rows, dtype=np.int64)
        if self.fortran_order:
            everything = replace(self, shape=self.shape[::-1], fortran_order=False)
            return everything.read().T[rows]
        fits = out is not None and out.dtype == self.dtype and out.flags.c_contiguous
        values = out if fits else np.empty((len(rows), *self.shape[1:]), self.dtype)
        row_bytes = self.dtype.itemsize * int(np.prod(self.shape[1:]))
        runs = np.flatnonzero(np.diff(rows, prepend=-2, append=self.length + 1) != 1)
        with open(self.path, "rb") as file:
            for first, last in itertools.pairwise(runs):  # consecutive rows
                file.seek(self.offset + int(rows[first]) * row_bytes)
                if file.readinto(values[first:last]) != (last - first) * row_bytes:
                    raise DataError(f"{self.path}: shorter than when the run started")
        return values


def open_array(path: str | Path) -> ArrayFile:
    """Read the header of an npy file. Raises DataError when it is not one or is truncated."""
    with open(path, "rb") as file:
        start = io.BytesIO(file.read(LONGEST_HEADER))
        size = os.fstat(file.fileno()).st_size
    readers = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
    try:
        with HEADER_LOCK:
            shape, fortran_order, dtype = readers[np.lib.format.read_magic(start)[0]](start)
    except Exception as error:  # whatever numpy's parser meets in a file that is not npy
        raise DataError(f"{path}: not a readable npy file ({error!s:.80})") from error
    offset = start.tell()
    if dtype.kind not in "fiub":
        raise DataError(f"{path}: holds {dtype}, not real numbers")
    if not shape or min(shape) < 1:
        raise DataError(f"{path}: has shape {list(shape)}, without any snippet")
    needed = offset + math.prod(shape) * dtype.itemsize
    if needed > size:
        raise DataError(f"{path}: truncated, {size} bytes where its header says {needed}")
    return ArrayFile(os.fspath(path), shape, dtype, fortran_order, offset)


def open_features(path: str | Path, feature_dim: int | None = None) -> ArrayFile:
    """An npy file of snippet features, [T, C]; C must equal feature_dim when given."""
    array = open_array(path)
    if array.dtype.kind == "b" or len(array.shape) != 2:
        raise DataError(f"{path}: holds {array.dtype} {list(array.shape)}, not features [T, C]")
    if feature_dim is not None and array.shape[1] != feature_dim:
        raise DataError(f"{path}: is {list(array.shape)}, in_feature_dim wants [T, {feature_dim}]")
    return array


def read_features(
    array: ArrayFile, rows: Sequence[int] | None = None, out: np.ndarray | None = None
) -> np.ndarray:
    """Features of the given rows (ascending), or all: float32 [len(rows), C], checked as finite.

    They are put into `out`, of that dtype and shape, when it is given.
    """
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes inf
        features = np.ascontiguousarray(array.read(rows, out), dtype=np.float32)
    if out is not None and features is not out:
        out[:] = features
    check_finite(features, array.path)
    return features


def check_finite(features: np.ndarray, name: str) -> None:
    """Raise DataError when features [T, C] hold NaN or infinite values."""
    with np.errstate(invalid="ignore", over="ignore"):
        total = features.sum()  # cheaper than a mask, and not finite when any value is not
    if not np.isfinite(total) and not np.isfinite(features).all():
        raise DataError(f"{name}: holds NaN or infinite values")


@dataclass(frozen=True)
class Split:
    """The videos of one split, sorted by name."""

    name: str
    videos: dict[str, ArrayFile]
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
            and (entry.is_file() or not os.path.exists(entry.path))  # a dead link is an error
        }
    return dict(sorted(paths.items()))


def open_split(data_root: str | Path, split: str, feature_dim: int) -> Split:
    """Find a split's feature files and read their headers.

    <data_root>/<split>_duration.pkl is held against them when there: an entry without a file is
    counted, another T is an error. Raises DataError, naming the file.
    """
    folder = Path(data_root) / split
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder; put the {split} features there or set data_root"
        )
    paths = feature_paths(folder)
    if not paths:
        raise DataError(f"{folder}: holds no .npy files")
    arrays = in_background(
        lambda path: open_features(path, feature_dim),
        paths.values(),
        threads=HEADER_READERS,
        ahead=4 * HEADER_READERS,
    )
    arrays = progress(arrays, total=len(paths), desc=f"{split} headers", unit="file")
    videos = dict(zip(paths, arrays, strict=True))
    durations = _read_durations(Path(data_root) / f"{split}_duration.pkl")
    for video, array in videos.items():
        if durations.get(video, array.length) != array.length:
            raise DataError(
                f"{array.path}: has {array.length} snippets where {split}_duration.pkl says "
                f"{durations[video]}"
            )
    return Split(split, videos, missing=len(durations.keys() - videos.keys()))


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
    return {name.removesuffix(".npy"): length for name, length in durations.items()}


def subset_of(data_root: str | Path, split: Split, seed: int) -> list[str]:
    """Videos of a split that the linear probe looks at.

    <data_root>/<split>_subset_list.pkl when there; else all videos of a small split, or a seeded
    tenth of a large one. Raises DataError for a listed video without a file.
    """
    path = Path(data_root) / f"{split.name}_subset_list.pkl"
    if path.exists():
        subset = read_pickle(path)
        if not isinstance(subset, list) or not all(isinstance(name, str) for name in subset):
            raise DataError(f"{path}: must be a list of video names, or be left out")
        if not subset:
            raise DataError(f"{path}: lists no videos")
        absent = [video for video in subset if video not in split.videos]
        if absent:
            raise DataError(
                f"{path}: {len(absent)} of its {len(subset)} videos have no feature file, first "
                f"{absent[0]!r:.80}"
            )
        return list(dict.fromkeys(subset))
    videos = list(split.videos)
    if len(videos) <= SMALL_SPLIT:
        return videos
    count = max(SMALL_SPLIT, len(videos) // 10)
    chosen = random_generator(f"{split.name} subset", seed).choice(
        len(videos), count, replace=False
    )
    return [videos[i] for i in sorted(chosen)]


def read_pickle(path: str | Path) -> Any:
    """Read a pickle of dicts and lists of str and int; nothing else is ever built from it.

    The opcodes are checked against an allow-list first, and memo numbers against the file's
    length: a pickle of nine bytes can otherwise make the unpickler take gigabytes.
    """
    data = Path(path).read_bytes()
    allowed = set(PICKLE_OPCODES.split())
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name not in allowed:
                raise ValueError(f"{opcode.name} in it")
            if opcode.name.endswith("PUT") and argument > len(data):
                raise ValueError("a memo number beyond its length")
        return pickle.loads(data)
    except Exception as error:  # whatever a damaged pickle makes of the parser
        raise DataError(
            f"{path}: not a pickle of plain dict, list, str and int ({error!s:.80}); "
            "mend it or remove it"
        ) from error


def read_labels(folder: str | Path, videos: dict[str, ArrayFile]) -> dict[str, np.ndarray]:
    """Per-snippet action labels of videos: bool [T], true where the label file holds 1.

    Raises DataError for a label file that is missing or of another length than the features.
    """
    labels = {}
    for video, features in progress(videos.items(), desc="labels", unit="file"):
        path = Path(folder) / f"{video}.npy"
        if not path.is_file():
            raise DataError(f"{path}: no such label file; the linear probe needs one of each video")
        array = open_array(path)
        if array.shape != (features.length,):
            raise DataError(
                f"{array.path}: labels of shape {list(array.shape)} where the features have "
                f"{features.length} snippets"
            )
        labels[video] = array.read() == 1
    return labels


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


def videos_to_draw(folder: str | Path, validation: Split, feature_dim: int) -> dict[str, ArrayFile]:
    """Videos whose TSMs are drawn: the npy files of a folder, else some of the validation split."""
    if Path(folder).is_dir() and (paths := feature_paths(folder)):
        return {video: open_features(path, feature_dim) for video, path in paths.items()}
    return dict(itertools.islice(validation.videos.items(), DRAWN_BY_DEFAULT))

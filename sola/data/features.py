"""npy files of features and labels: their headers, held against the file, and their rows."""

import io
import itertools
import math
import os
import shlex
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sola.errors import BadFileError, parsing, shown

HEADER_LOCK = threading.Lock()  # for parsing alone: Python's is not sure to bear several threads
LONGEST_HEADER = 12_000  # bytes; numpy refuses longer ones


@dataclass(frozen=True, slots=True)
class ArrayFile:
    """An npy file as its header describes it; the values are still on disk."""

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran_order: bool
    offset: int  # of the first value, in bytes
    size: int  # of the file, in bytes

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
            is_as_it_was = os.fstat(file.fileno()).st_size == self.size
            for first, last in itertools.pairwise(runs):  # consecutive rows
                file.seek(self.offset + int(rows[first]) * row_bytes)
                read = file.readinto(values[first:last])
                is_as_it_was &= read == (last - first) * row_bytes
        if not is_as_it_was:
            raise BadFileError(self.path, "of another size than when the run started")
        return values


@dataclass(frozen=True, slots=True)
class FeatureFile:
    """The features of a video, [T, C]: one file, or several, as RGB and flow, joined on channels.

    T is that of the shortest; the others may have one snippet more.
    """

    files: tuple[ArrayFile, ...]

    @property
    def path(self) -> str:
        return " + ".join(file.path for file in self.files)

    @property
    def length(self) -> int:
        return min(file.length for file in self.files)

    @property
    def shape(self) -> tuple[int, int]:
        return self.length, sum(file.shape[1] for file in self.files)

    def read(self, rows: Sequence[int] | None = None, out: np.ndarray | None = None) -> np.ndarray:
        """As ArrayFile.read; several files in the widest of their dtypes, in fresh memory."""
        if len(self.files) == 1:
            return self.files[0].read(rows, out)
        rows = np.arange(self.length) if rows is None else rows
        return np.concatenate([file.read(rows) for file in self.files], axis=1)


def open_array(path: str | Path) -> ArrayFile:
    """Read the header of an npy file. Raises BadFileError when it is not one or is truncated."""
    try:
        with open(path, "rb") as file:
            start = io.BytesIO(file.read(LONGEST_HEADER))
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        if isinstance(error, FileNotFoundError) and os.path.islink(path):
            what = f"is a link to {os.path.realpath(path)}, which is not there; "
            what += "run prepare again, or bring the file back"
        raise BadFileError(path, what) from error
    readers = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
    with parsing(path, "not a readable npy file", kind=BadFileError), HEADER_LOCK:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers that Python 2 wrote, or odd escapes
            read_header = readers[np.lib.format.read_magic(start)[0]]
            try:
                shape, fortran_order, dtype = read_header(start)
            except MemoryError as error:  # so says Python of thousands of signs before a number
                raise ValueError("nested too deeply") from error
        offset = start.tell()
        needed = offset + math.prod(shape) * dtype.itemsize
    if dtype.kind not in "fiub":
        raise BadFileError(path, f"holds {shown(dtype)}, not real numbers")
    if not shape or min(shape) < 1:
        raise BadFileError(path, f"has shape {shown(list(shape))}, without any snippet")
    if needed > size:
        raise BadFileError(path, f"truncated, {size} bytes where its header says {shown(needed)}")
    return ArrayFile(os.fspath(path), shape, dtype, fortran_order, offset, size)


def open_features(path: str | Path) -> ArrayFile:
    """An npy file of snippet features, [T, C]."""
    array = open_array(path)
    rank, is_bool = len(array.shape), array.dtype.kind == "b"
    if rank == 2 and not is_bool:
        return array
    what = f"holds {array.dtype} {shown(list(array.shape))}, not features [T, C]"
    ones = tuple(axis for axis, size in enumerate(array.shape) if size == 1)
    if rank - len(ones) == 2 and not is_bool:
        squeezed = f"x.squeeze({ones}) if x.ndim == {rank} else x"
        command = command_for_all(os.path.dirname(array.path) or ".", "squeezed", squeezed)
        what += f"; this makes a folder of such: {command}"
    raise BadFileError(path, what)


def command_for_all(folder: str, suffix: str, change: str) -> str:
    """A shell command that fills a folder with another's files; change: Python's, of an array x."""
    new = f"{os.path.abspath(folder)}_{suffix}"
    code = (
        "import sys, glob, pathlib as p, numpy as n; a, b = map(p.Path, sys.argv[1:]); "
        f"[(o.parent.mkdir(parents=True, exist_ok=True), n.save(o, {change})) for f in glob.glob("
        "'**/*.npy', root_dir=a, recursive=True) for o, x in [(b / f, n.load(a / f))]]"
    )
    return f'python -c "{code}" {shlex.quote(folder)} {shlex.quote(new)}'


def open_joined(paths: Sequence[str | Path], feature_dim: int | None = None) -> FeatureFile:
    """The features of one video in one file, or in several to be joined on channels.

    C must equal feature_dim when given.
    """
    joined = FeatureFile(tuple(map(open_features, paths)))
    lengths = [file.length for file in joined.files]
    if max(lengths) - min(lengths) > 1:
        what = f"has {max(lengths)} snippets where another file of the video has {min(lengths)}"
        raise BadFileError(paths[int(np.argmax(lengths))], what)
    length, width = joined.shape
    if feature_dim is not None and width != feature_dim:
        what = f"has {width} channels, not {feature_dim}; if all have, set in_feature_dim={width}"
        if length == feature_dim:
            what = f"has shape [{length}, {width}], channels first; [T, C] is wanted: transpose it"
        raise BadFileError(joined.path, what)
    return joined


def read_features(
    array: FeatureFile, rows: Sequence[int] | None = None, out: np.ndarray | None = None
) -> np.ndarray:
    """Features of the given rows (ascending), or all: float32 [len(rows), C], checked as finite.

    They are put into `out`, of that dtype and shape, when it is given.
    """
    with np.errstate(over="ignore"):  # what is beyond its range becomes infinite
        features = np.ascontiguousarray(array.read(rows, out), dtype=np.float32)
    if out is not None and features is not out:
        out[:] = features
    if not is_finite(features):
        raise BadFileError(array.path, "holds NaN or infinite values")
    return features


def is_finite(features: np.ndarray) -> bool:
    """Whether features [T, C] hold neither NaN nor infinite values."""
    with np.errstate(invalid="ignore", over="ignore"):
        total = features.sum()  # cheaper than a mask, and not finite when any value is not
    return bool(np.isfinite(total) or np.isfinite(features).all())

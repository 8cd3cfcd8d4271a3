"""Forms in which heads read features: names, file formats, a fixed length, a number type."""

import importlib.util
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sola.data.features import open_array
from sola.errors import BadFileError, DataError, SolaError, parsing
from sola.system.files import write_atomically, write_npy

POOL_SAMPLES = 3  # a bin, as BMN
END = 512  # bytes at a file's end that are looked at
CSV_ROWS = 1024  # turned into text at once


@dataclass(frozen=True, kw_only=True)
class Form:
    """How features are written.

    format: npy, h5 (dataset <prefix><video>) or csv. layout: split (a folder a split) or flat.
    resize: None, or the number of snippets that each video is brought to by resize_mode, linear or
    pool. Raises SolaError when h5 is wanted and h5py is not installed.
    """

    format: str = "npy"
    layout: str = "split"
    prefix: str = ""
    resize: int | None = None
    resize_mode: str = "linear"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if "/" in self.prefix or "\\" in self.prefix or self.prefix.startswith("."):
            raise SolaError(f"--prefix={self.prefix}: must be the beginning of a file's name")
        if self.resize is not None and not 1 <= self.resize <= 100_000:
            raise SolaError(f"--resize={self.resize}: must lie in 1..100000 snippets")
        if self.format == "h5" and importlib.util.find_spec("h5py") is None:
            raise SolaError("--format=h5 needs the package h5py: pip install h5py")

    def place(self, folder: Path, split: str) -> Path:
        """The folder of a split's files."""
        return folder / split if self.layout == "split" else folder

    def path(self, folder: Path, split: str, video: str) -> Path:
        """The file of a video."""
        return self.place(folder, split) / f"{self.prefix}{video}.{self.format}"

    def is_written(self, path: Path, length: int, feature_dim: int) -> bool:
        """Whether a video's features are there, as far as their shape and their end show.

        length, feature_dim: T and C of what is written. Of a csv only the end is looked at.
        """
        try:
            with open(path, "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - END))
                end = file.read()
            if self.format == "csv":
                return end.endswith(b"\n")
            return any(end) and shape_of(path, self.format) == (length, feature_dim)
        except (BadFileError, OSError):
            return False

    def write(self, path: Path, features: np.ndarray) -> None:
        """Write features [T, C] as this form has them, atomically; a power failure may lose them.

        Raises DataError for values that dtype cannot hold.
        """
        if self.resize:
            resized = resize_linear if self.resize_mode == "linear" else resize_pool
            features = resized(features, self.resize)
        with np.errstate(over="ignore"):
            array = np.ascontiguousarray(features, self.dtype)
        if self.dtype != "float32" and not np.isfinite(array).all():
            raise DataError(f"{path}: its values are beyond the range of {self.dtype}")
        if self.format == "npy":
            write_npy(path, array, syncs_folder=False)
        elif self.format == "csv":
            write_atomically(path, *csv_blocks(array), syncs_folder=False)
        else:
            import h5py

            with parsing(path, "its name is no UTF-8, as one in an h5 must be", "rename it"):
                path.stem.encode()
            buffer = io.BytesIO()
            with h5py.File(buffer, "w") as file:
                file.create_dataset(path.stem, data=array)
            write_atomically(path, buffer.getbuffer(), syncs_folder=False)


def resize_linear(features: np.ndarray, length: int) -> np.ndarray:
    """Features [T, C] brought to `length` times by F.interpolate, linear, no aligned corners.

    Source: what G-TAD's loader does with each video.
    """
    import torch
    from torch.nn import functional as F

    x = torch.from_numpy(features).T[None]  # [1, C, T]
    return F.interpolate(x, size=length, mode="linear", align_corners=False)[0].T.numpy()


def resize_pool(features: np.ndarray, length: int) -> np.ndarray:
    """Features [T, C] averaged over `length` bins of the video, from three linear samples each.

    The samples stand at a bin's start, middle and end. Snippet i stands at i + 0.5; before the
    first and after the last one their values go on (BMN's own script, in bins that lie there
    wholly, writes zeros). Source: BMN's feature rescaling.
    """
    snippets = len(features)
    edges = np.linspace(0, snippets, length + 1)
    starts, ends = (np.clip(e, 0.5, snippets - 0.5) for e in (edges[:-1], edges[1:]))
    total = np.zeros((length, features.shape[1]), np.float32)
    for part in np.linspace(0, 1, POOL_SAMPLES):
        times = starts + (ends - starts) * part - 0.5  # in snippets, [bins]
        before = np.minimum(times.astype(int), max(snippets - 2, 0))
        after = np.minimum(before + 1, snippets - 1)
        share = (times - before)[:, None].astype(np.float32)
        total += (1 - share) * features[before] + share * features[after]
    return total / POOL_SAMPLES


def shape_of(path: Path, format: str) -> tuple[int, ...]:
    """T and C of a file that was written. Raises BadFileError or OSError."""
    if format == "npy":
        return open_array(path).shape
    with parsing(path, "not readable", kind=BadFileError):
        if format == "h5":
            import h5py

            with h5py.File(path) as file:
                return file[path.stem].shape
        header, *rows = path.read_bytes().splitlines()
        return len(rows), header.count(b",") + 1


def csv_blocks(features: np.ndarray) -> Iterator[bytes]:
    """A table with a column a channel, f0 to f<C-1>, and enough digits to give float32 back."""
    columns = features.shape[1]
    row = ",".join(["%.9g"] * columns) + "\n"
    yield (",".join(f"f{channel}" for channel in range(columns)) + "\n").encode()
    for start in range(0, len(features), CSV_ROWS):
        rows = features[start : start + CSV_ROWS].tolist()
        yield "".join(row % tuple(values) for values in rows).encode()

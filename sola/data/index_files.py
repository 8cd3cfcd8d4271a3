"""The original's index pickles: a split's durations, and the videos that its probe looks at."""

import pickle
import pickletools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sola.errors import DataError, check_path, parsing, shown
from sola.system.files import read_bytes

PLAIN_OPCODES = (  # of dicts, lists, str and int; none of them builds anything else
    "PROTO FRAME STOP MARK MEMOIZE PUT BINPUT LONG_BINPUT GET BINGET LONG_BINGET "
    "EMPTY_DICT DICT SETITEM SETITEMS EMPTY_LIST LIST APPEND APPENDS "
    "INT LONG LONG1 BININT BININT1 BININT2 UNICODE SHORT_BINUNICODE BINUNICODE"
)


def index_file(data_root: str | Path, split: str, kind: str) -> Path:
    """The duration or subset_list pickle of a split; of the first folder when there are several."""
    return feature_folders(data_root)[0] / f"{split}_{kind}.pkl"


def feature_folders(data_root: str | Path) -> list[Path]:
    """The folders of a data_root or visualizing_dir: one, or several with commas between them."""
    return [Path(folder.strip()) for folder in str(data_root).split(",")]


def read_durations(path: Path) -> dict[str, int]:
    """Video -> T of a duration pickle; empty when there is none."""
    durations = read_pickle(path) if path.exists() else {}
    if not isinstance(durations, dict) or not all(
        isinstance(name, str) and name.endswith(".npy") and type(length) is int and length > 0
        for name, length in durations.items()
    ):
        raise DataError(f"{path}: must be a dict of '<video>.npy' -> T, or be left out")
    check_names(path, durations)
    return {name.removesuffix(".npy"): length for name, length in durations.items()}


def read_subset_list(path: Path) -> list[str] | None:
    """Videos that the linear probe looks at, each once; None when there is no such pickle."""
    if not path.exists():
        return None
    subset = read_pickle(path)
    if not isinstance(subset, list) or not all(isinstance(name, str) for name in subset):
        raise DataError(f"{path}: must be a list of video names, or be left out")
    check_names(path, subset)
    return list(dict.fromkeys(subset))


def read_pickle(path: str | Path) -> Any:
    """Read a pickle of dicts and lists of str and int; nothing else is ever built from it.

    What it would do is read from its opcodes before it is loaded. Memo numbers are held against its
    length: nine bytes can otherwise make an unpickler take gigabytes.
    """
    data = read_bytes(path)
    with parsing(path, "not a pickle of plain dict, list, str and int", "mend it or remove it"):
        allowed = set(PLAIN_OPCODES.split())
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name not in allowed:
                raise ValueError(f"{opcode.name} in it")
            if opcode.name.endswith("PUT") and argument > len(data):
                raise ValueError("a memo number beyond its length")
        return pickle.loads(data)


def check_names(path: Path, names: Iterable[str]) -> None:
    """Raise DataError for a name that is no plain name of a file."""
    for name in names:
        with parsing(path, f"{shown(name)!r} is no plain video name", "mend or remove it"):
            if "/" in check_path(name) or "\\" in name or name in ("", ".", ".."):
                raise ValueError("a path")

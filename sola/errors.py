"""What the user can mend: one line that says what is wrong, where, and what to do."""

import contextlib
import os
import reprlib
from collections.abc import Iterator
from pathlib import Path

LONGEST_SHOWN = 60  # characters of a name or value that a message repeats


class SolaError(Exception):
    """Something the user can mend. The message is one line: what is wrong, where, what to do."""


class ConfigError(SolaError):
    """A YAML file or KEY=VALUE that cannot be used; the message names the file and the key."""


class DataError(SolaError):
    """Data that cannot be used; the message names the file or folder."""


class BadFileError(DataError):
    """A single file, among many, that cannot be used."""

    def __init__(self, path: str | Path, what: str) -> None:
        self.path, self.what = os.fspath(path), what
        super().__init__(
            f"{path}: {what}; mend the file, or leave such ones out with on_bad_file: skip"
        )


class CheckpointError(SolaError):
    """A checkpoint that is missing, damaged or does not fit; the message names it."""


class DamagedError(CheckpointError):
    """A checkpoint that was read and is not one."""


class TrainingError(SolaError):
    """Training cannot go on; the message says at which epoch and step, and why."""


def encoded(text: str) -> bytes:
    """As UTF-8; what a name holds that is no text is escaped."""
    return text.encode(errors="backslashreplace")


def shown(value: object) -> str:
    """A foreign name or value as a message repeats it: printable, and not too long."""
    try:
        text = reprlib.repr(value) if isinstance(value, list | dict | tuple) else str(value)
    except ValueError:  # a whole number of thousands of digits
        text = "a very long number"
    text = "".join(letter if letter.isprintable() else "?" for letter in text[: LONGEST_SHOWN + 1])
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 1]}…"


@contextlib.contextmanager
def parsing(
    path: str | Path, what: str, to_do: str = "", kind: type[SolaError] = DataError
) -> Iterator[None]:
    """Around the parse of a foreign file, and nothing else: whatever it raises becomes one line.

    "<path>: <what> (<reason>); <to do>", as an error of that kind; BadFileError says what to do.
    """
    try:
        yield
    except (SolaError, MemoryError):
        raise
    except Exception as error:  # whatever a damaged or hostile file makes of a parser
        if is_out_of_memory(error):
            raise
        reason = f"lacks {shown(error)}" if isinstance(error, KeyError) else shown(error)
        if issubclass(kind, BadFileError):
            raise kind(path, f"{what} ({reason})") from error
        raise kind(f"{path}: {what} ({reason}); {to_do}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, Python's or PyTorch's."""
    signs = ("CUDA out of memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    signs += ("can't allocate memory", "not enough memory")
    is_of_torch = isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)
    return isinstance(error, MemoryError) or is_of_torch


def expanded(path: str) -> str:
    """A path with ~ and $VARIABLE of the user in place."""
    return os.path.expanduser(os.path.expandvars(path))


def check_path(text: str) -> str:
    """The text, if a file can have it for its path. Raises ValueError for NUL and the like."""
    if "\0" in text:
        raise ValueError("holds a NUL character")
    try:
        os.fsencode(text)
    except UnicodeEncodeError as error:
        raise ValueError("holds half a character, a lone surrogate") from error
    return text

"""Pickles of foreign origin: what they would do is read from their opcodes before any is loaded."""

import pickle
import pickletools
from collections.abc import Sequence
from typing import Any

PLAIN_OPCODES = (  # of dicts, lists, str and int; none of them builds anything else
    "PROTO FRAME STOP MARK MEMOIZE PUT BINPUT LONG_BINPUT GET BINGET LONG_BINGET "
    "EMPTY_DICT DICT SETITEM SETITEMS EMPTY_LIST LIST APPEND APPENDS "
    "INT LONG LONG1 BININT BININT1 BININT2 UNICODE SHORT_BINUNICODE BINUNICODE"
)


def check_opcodes(data: bytes, opcodes: str, classes: Sequence[str] = ()) -> None:
    """Raise ValueError for an opcode that is not among these, or one that names another class.

    opcodes: names, with blanks between them. classes: "module name" of those that GLOBAL may name.
    Memo numbers are held against the length of the data: nine bytes can otherwise make an unpickler
    take gigabytes.
    """
    allowed = set(opcodes.split())
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name not in allowed:
            raise ValueError(f"{opcode.name} in it")
        if opcode.name == "GLOBAL" and argument not in classes:
            raise ValueError(f"{argument} in it")
        if opcode.name.endswith("PUT") and argument > len(data):
            raise ValueError("a memo number beyond its length")


def load_plain(data: bytes) -> Any:
    """Load a pickle of dicts, lists, str and int. Raises whatever a damaged one gives rise to."""
    check_opcodes(data, PLAIN_OPCODES)
    return pickle.loads(data)

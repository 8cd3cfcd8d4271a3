"""What all pictures have in common: how they are made and written, and text in them."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from sola.system.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 100
LONGEST_NAME = 34


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that many pixels. A wrong MPLBACKEND does no harm: none is needed."""
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        from matplotlib.figure import Figure
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    return Figure(figsize=(width / DPI, height / DPI), dpi=DPI)


def save_figure(path: str | Path, figure: Figure) -> None:
    """Write a figure as a PNG that is seen whole or not at all."""
    buffer = io.BytesIO()
    quickly = {"compress_level": 2}  # a quarter of the time, and 7 % larger
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that the font lacks
        figure.savefig(buffer, format="png", dpi=DPI, pil_kwargs=quickly)
    write_atomically(path, buffer.getbuffer())


def plain(text: str, longest: int = LONGEST_NAME) -> str:
    """Text that fits over a picture: shortened in its middle, printable, no mathematics."""
    if len(text) > longest:
        text = f"{text[: longest // 2 - 1]}…{text[-longest // 2 :]}"
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text.replace("$", r"\$")

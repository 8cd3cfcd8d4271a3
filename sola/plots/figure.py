"""What all pictures have in common: how they are made and written, and text in them."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sola.system.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 100
COLOURS = 96  # which make a picture of TSMs a quarter as large
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
    """Write a figure as a PNG of COLOURS colours that is seen whole or not at all."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that the font lacks
        canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())[:, :, :3])
    buffer = io.BytesIO()
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(buffer, format="png")
    write_atomically(path, buffer.getbuffer())


def plain(text: str, longest: int = LONGEST_NAME) -> str:
    """Text that fits over a picture: shortened in its middle, printable, no mathematics."""
    if len(text) > longest:
        text = f"{text[: longest // 2 - 1]}…{text[-longest // 2 :]}"
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text.replace("$", r"\$")

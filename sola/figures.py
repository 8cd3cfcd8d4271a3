"""What all pictures have in common: how they are written, and names in them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from sola.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 100
LONGEST_NAME = 34


def save_figure(path: str | Path, figure: Figure) -> None:
    """Write a figure as a PNG that is seen whole or not at all."""
    buffer = io.BytesIO()
    quickly = {"compress_level": 2}  # a quarter of the time, and 7 % larger
    figure.savefig(buffer, format="png", dpi=DPI, pil_kwargs=quickly)
    write_atomically(path, buffer.getbuffer())


def short(name: str, longest: int = LONGEST_NAME) -> str:
    """A name that fits over a picture, and is no mathematical text."""
    if len(name) > longest:
        name = f"{name[: longest // 2 - 1]}…{name[-longest // 2 :]}"
    return name.replace("$", r"\$")

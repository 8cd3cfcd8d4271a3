"""TSM sheets: what the module does to the temporal self-similarity of a video."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sola.files import write_atomically

MAX_PIXELS = 200  # of a TSM's side, less than a panel has; longer TSMs are pooled
VIDEOS_PER_ROW = 2
ACTION_COLOUR = "#d62728"


@dataclass(frozen=True)
class VideoPicture:
    """One video of a sheet: features before and after [T, C], labels bool [T] when known."""

    name: str
    features: np.ndarray
    sola_features: np.ndarray
    labels: np.ndarray | None


def self_similarity(features: np.ndarray) -> np.ndarray:
    """Cosine of every snippet with every other: [T, C] -> [T, T]."""
    features = features.astype(np.float64)
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    directions = features / np.maximum(norms, 1e-12)
    return directions @ directions.T


def pool(tsm: np.ndarray, side: int = MAX_PIXELS) -> np.ndarray:
    """Average a TSM [T, T] over blocks so that no side is longer than this; short ones stay."""
    length = len(tsm)
    if length <= side:
        return tsm
    edges = np.linspace(0, length, side + 1).astype(int)
    sums = np.add.reduceat(np.add.reduceat(tsm, edges[:-1], axis=0), edges[:-1], axis=1)
    counts = np.diff(edges)
    return sums / np.outer(counts, counts)


def draw_tsm_sheet(path: str | Path, title: str, videos: Sequence[VideoPicture]) -> None:
    """Input TSM and SoLa TSM of each video side by side, on one colour scale, as a PNG."""
    from matplotlib.figure import Figure

    rows = -(-len(videos) // VIDEOS_PER_ROW)
    figure = Figure(
        figsize=(3.1 * 2 * VIDEOS_PER_ROW + 0.8, 3.3 * rows + 0.9), layout="constrained"
    )
    figure.suptitle(title)
    panels = figure.subplots(rows, 2 * VIDEOS_PER_ROW, squeeze=False)
    for panel in panels.flat[2 * len(videos) :]:
        panel.set_axis_off()
    for index, video in enumerate(videos):
        row, column = divmod(index, VIDEOS_PER_ROW)
        before, after = panels[row, 2 * column : 2 * column + 2]
        length = len(video.features)
        image = _draw_tsm(before, self_similarity(video.features), video.labels)
        _draw_tsm(after, self_similarity(video.sola_features), video.labels)
        name = _short(video.name)
        before.set_title(f"{name} (T = {length}): input", fontsize=8)
        after.set_title(f"{name}: SoLa", fontsize=8)
        before.set_ylabel("snippet", fontsize=8)
    bar = figure.colorbar(image, ax=panels, shrink=min(1.0, 2.5 / rows), aspect=30, pad=0.01)
    bar.set_label("cosine similarity of two snippets", fontsize=9)
    if any(video.labels is not None for video in videos):
        figure.supxlabel("snippet (red along the axes: action segments)", fontsize=9)
    else:
        figure.supxlabel("snippet", fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    write_atomically(path, buffer.getbuffer())


def _draw_tsm(panel, tsm: np.ndarray, labels: np.ndarray | None):
    length = len(tsm)
    extent = (0, length, length, 0)
    image = panel.imshow(
        pool(tsm), vmin=-1, vmax=1, cmap="viridis", extent=extent, interpolation="nearest"
    )
    panel.locator_params(integer=True, min_n_ticks=1)  # no half snippets on short videos
    panel.tick_params(labelsize=7)
    if labels is not None:
        strip = 0.04 * length  # outside the TSM, along its top and left
        for start, end in segments(labels):
            panel.fill_between([start, end], -strip, -strip / 4, color=ACTION_COLOUR, linewidth=0)
            panel.fill_betweenx([start, end], -strip, -strip / 4, color=ACTION_COLOUR, linewidth=0)
        panel.set(xlim=(-strip, length), ylim=(length, -strip))
    for side in panel.spines.values():
        side.set_visible(False)
    return image


def segments(labels: np.ndarray) -> list[tuple[int, int]]:
    """Runs of true labels [T] as (start, end) with end exclusive."""
    edges = np.flatnonzero(np.diff(labels.astype(np.int8), prepend=0, append=0))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _short(name: str) -> str:
    name = name if len(name) <= 20 else f"{name[:9]}…{name[-10:]}"
    return name.replace("$", r"\$")  # no mathematical text

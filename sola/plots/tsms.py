"""Pictures of TSMs: what the module does to whole videos, and the windows it is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sola.data.times import TimeAxis
from sola.plots.figure import DPI, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

SIDE = 180  # pixels of a TSM's side
STRIP = 8  # pixels of the strips along it, and as many from it
LEFT, TOP, BELOW, BETWEEN = 62, 50, 30, 22  # pixels around a TSM
HEADING, FOOT, RIGHT = 44, 26, 120  # pixels around all of them
LONGEST_TITLE = 100
VIDEOS_PER_ROW = 2
ACTION_COLOUR = "#d62728"
COLOUR_MAP, LEVELS = "viridis", 48  # few enough for a small file
LOWEST, HIGHEST = 2, 98  # percentiles between which the colours below the diagonal lie
LEAST_RANGE = 1e-3  # of the cosines, below which there is no structure to show
SNIPPETS = TimeAxis(1.0, 1.0)  # on which snippet i begins at i


@dataclass(frozen=True)
class VideoPicture:
    """One video of a sheet: its T, its TSMs before and after, labels bool [T] when known."""

    name: str
    length: int
    tsm: np.ndarray
    sola_tsm: np.ndarray
    labels: np.ndarray | None


def self_similarity(features: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Cosine of every snippet with every other: [T, C] -> [T, T], or [side, side] for longer ones.

    Those are averages over blocks of snippets, which are products of mean directions.
    """
    length = len(features)
    largest = np.abs(features).max(axis=1, keepdims=True)
    directions = features / np.where(largest > 0, largest, 1)  # squares stay within the range
    directions /= np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1)
    if length > side:
        edges = np.linspace(0, length, side + 1).astype(int)
        sums = np.add.reduceat(directions, edges[:-1], axis=0)
        directions = sums / np.diff(edges)[:, None]
    return directions @ directions.T


def segments(labels: np.ndarray) -> np.ndarray:
    """Runs of true labels [T] as start and exclusive end, [N, 2]."""
    return np.flatnonzero(np.diff(labels, prepend=False, append=False)).reshape(-1, 2)


def tsm_sheet(title: str, videos: Sequence[VideoPicture], axis: TimeAxis | None = None) -> Figure:
    """Input TSM and SoLa TSM of each video side by side.

    Above the diagonal the colours are the cosines from -1 to 1, in all alike; below it they lie
    between percentiles of each TSM, so that its structure is seen wherever the cosines lie. axis:
    where the snippets lie, for axes in seconds; None for axes in snippets.
    """
    figure, panels = _panels(2 * len(videos), 2 * VIDEOS_PER_ROW, title)
    for video, before, after in zip(videos, panels[::2], panels[1::2], strict=True):
        seconds = f", {(video.length - 1) / axis.rate + axis.clip:.1f} s" if axis else ""
        heading = f"input, T = {video.length}{seconds}"
        _draw_video(before, video, video.tsm, heading, axis or SNIPPETS)
        image = _draw_video(after, video, video.sola_tsm, "SoLa", axis or SNIPPETS)
    caption = f"time ({'s' if axis else 'snippets'}) along both axes"
    if any(video.labels is not None for video in videos):
        caption += "; red strips: action segments"
    if any(video.length > SIDE for video in videos):
        caption += f"; above T = {SIDE} averaged"
    bar = _add_legends(figure, image, caption)
    bar.set_ticks([0, 0.25, 0.5, 0.75, 1], labels=["-1", "-0.5", "0", "0.5", "1"])
    bar.set_label("above the diagonal: cosine of two snippets", fontsize=8)
    own = bar.ax.secondary_yaxis("left")
    own.set_yticks([0, 1], labels=[f"{LOWEST} %", f"{HIGHEST} %"])
    own.set_ylabel("below: percentiles", fontsize=8, labelpad=-14)
    own.tick_params(labelsize=7)
    return figure


def window_sheet(
    title: str,
    names: Sequence[str],
    before: np.ndarray,
    cosines: np.ndarray,
    target: np.ndarray,
) -> Figure:
    """TSMs of some windows beside the target that they are to match, and their means.

    Similarities (1 + cosine) / 2, on a scale from the least of them. before: [B, L, L] of the
    untouched features. cosines: [B, L, L] as predicted. target: [L, L].
    """
    rows = [(1 + tsms) / 2 for tsms in (before, cosines)]
    scale = min(target.min(), *(np.percentile(tsms, LOWEST) for tsms in rows)), 1.0
    figure, panels = _panels(2 * (len(names) + 2), len(names) + 2, title)
    shown = []
    for tsms, stage in zip(rows, ("untouched", "predicted"), strict=True):
        titles = [*(plain(name, 24) for name in names), "mean of these"]
        titles = [f"{title}\n{stage}" for title in titles]
        shown += zip([*titles, "target"], [*tsms, tsms.mean(axis=0), target], strict=True)
    for panel, (title, tsm) in zip(panels, shown, strict=True):
        image = _draw_tsm(panel, tsm, (-0.5, len(target) - 0.5), scale)
        panel.set_title(title, fontsize=8)
    bar = _add_legends(figure, image, "position in the window, of those that are compared")
    bar.set_label("similarity, (1 + cosine) / 2", fontsize=8)
    return figure


def _panels(count: int, per_row: int, title: str) -> tuple[Figure, list[Axes]]:
    """A figure with square panels of SIDE pixels; their places are exact, and cost no layout."""
    columns, rows = min(count, per_row), -(-count // per_row)
    cell_width, cell_height = LEFT + SIDE + BETWEEN, TOP + SIDE + BELOW
    width = max(columns, 2) * cell_width + RIGHT
    height = HEADING + rows * cell_height + FOOT
    figure = new_figure(width, height)
    figure.suptitle(plain(title, LONGEST_TITLE), fontsize=11, y=1 - 14 / height)
    panels = []
    for number in range(count):
        row, column = divmod(number, per_row)
        x = column * cell_width + LEFT
        y = height - HEADING - row * cell_height - TOP - SIDE
        panels.append(figure.add_axes((x / width, y / height, SIDE / width, SIDE / height)))
    return figure, panels


def _draw_tsm(
    panel: Axes, tsm: np.ndarray, span: tuple[float, float], scale: tuple[float, float]
) -> AxesImage:
    """A TSM with time over the span along both axes, downwards and to the right."""
    from matplotlib import colormaps

    image = panel.imshow(
        tsm, vmin=scale[0], vmax=scale[1], cmap=colormaps[COLOUR_MAP].resampled(LEVELS),
        extent=(*span, *span[::-1]), interpolation="nearest",
    )  # fmt: skip
    panel.locator_params(nbins=6, min_n_ticks=1, steps=[1, 2, 5, 10])
    panel.tick_params(labelsize=7, length=3)
    panel.spines[:].set_visible(False)
    return image


def _draw_video(
    panel: Axes, video: VideoPicture, tsm: np.ndarray, heading: str, axis: TimeAxis
) -> AxesImage:
    """A TSM of a video, with its action segments along two sides and a heading."""
    below = np.tri(len(tsm), k=-1, dtype=bool)
    low, high = np.percentile(tsm[below] if len(tsm) > 1 else tsm, (LOWEST, HIGHEST))
    shown = (1 + tsm) / 2
    if high - low > LEAST_RANGE:
        shown[below] = ((tsm[below] - low) / (high - low)).clip(0, 1)
    image = _draw_tsm(panel, shown, axis.span(video.length), (0, 1))
    if video.labels is not None:
        _draw_strips(panel, axis.starts(segments(video.labels)))
    panel.tick_params(axis="y", pad=2 * STRIP * 72 / DPI)  # points
    panel.set_title(
        f"{plain(video.name)}\n{heading}, mean {tsm.mean():.2f} ({low:.2f} to {high:.2f})",
        fontsize=8,
        pad=(2 * STRIP + 6) * 72 / DPI,
    )
    return image


def _draw_strips(panel: Axes, spans: Sequence[tuple[float, float]]) -> None:
    """Red bars outside the TSM, along its top and its left."""
    from matplotlib.collections import PolyCollection

    start, end = panel.get_xlim()
    pixel = (end - start) / SIDE
    outer, inner = start - 2 * STRIP * pixel, start - STRIP * pixel
    above = [[(s, outer), (e, outer), (e, inner), (s, inner)] for s, e in spans]
    left = [[(y, x) for x, y in corners] for corners in above]
    bars = PolyCollection(above + left, facecolor=ACTION_COLOUR, linewidth=0, clip_on=False)
    panel.add_collection(bars, autolim=False)


def _add_legends(figure: Figure, image: AxesImage, caption: str) -> Colorbar:
    """The colour bar at the right, as high as a panel, and a line below all panels."""
    width, height = figure.get_size_inches() * DPI
    figure.supxlabel(caption, fontsize=9, y=6 / height)
    left, bottom = width - RIGHT + 40, height - HEADING - TOP - SIDE
    place = figure.add_axes((left / width, bottom / height, 14 / width, SIDE / height))
    bar = figure.colorbar(image, cax=place)
    bar.ax.tick_params(labelsize=7)
    return bar

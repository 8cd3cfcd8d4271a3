"""Curves of runs over their epochs, drawn from the records of metrics.jsonl alone.

A new figure of the records becomes a curve by one more line in PANELS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sola.plots.figure import new_figure, plain
from sola.records import Record, evaluations

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVES = "curves.png"
ROWS = 2
LEGEND_COLUMNS = 4
UNTOUCHED = "untouched features (epoch 0)"
HEAD = "head_evaluation"  # its panels are drawn where it was run
FEW_POINTS = 30  # which get a mark each


@dataclass(frozen=True)
class Panel:
    """One number of the records, over the epochs.

    kind: of the records that hold it; for evaluations a line shows the untouched features' value.
    levels: text and field of horizontal lines. spread: field with the half width of a band.
    """

    title: str
    field: str
    kind: str = "epoch"
    levels: tuple[tuple[str, str], ...] = ()
    spread: str | None = None

    def points(self, records: Sequence[Record]) -> list[Record]:
        """The records that hold the number."""
        return [r for r in records if r["record"] == self.kind and self.field in r]


LANDMARKS = (
    ("plateau, the best constant,", "loss_plateau"),
    ("floor, the target's entropy,", "loss_floor"),
)
LEVEL_STYLES = (("dotted", ":"), ("dash-dotted", "-."))
PANELS = (
    Panel("loss", "loss", levels=LANDMARKS),
    Panel("probe: accuracy", "accuracy", "evaluation", (("larger class", "majority_share"),)),
    Panel("probe: balanced accuracy", "balanced_accuracy", "evaluation"),
    Panel("probe: ROC-AUC", "roc_auc", "evaluation"),
    Panel("weight: tanh(alpha), of either sign", "tanh_alpha"),
    Panel("|update| / |input|", "update_ratio"),
    Panel("predicted cosines: mean ± deviation", "cosine_mean", spread="cosine_std"),
    Panel("probe: average precision", "average_precision", "evaluation"),
    Panel("temporal head: ROC-AUC ± deviation", "roc_auc", HEAD, spread="roc_auc_std"),
    Panel("temporal head, unscaled: ROC-AUC", "roc_auc_unscaled", HEAD,
          spread="roc_auc_unscaled_std"),
)  # fmt: skip


def curves(runs: Mapping[str, Sequence[Record]]) -> Figure:
    """The curves of runs, name -> records as of metrics.jsonl, one colour each."""
    has_head = any(record["record"] == HEAD for records in runs.values() for record in records)
    panels = [panel for panel in PANELS if panel.kind != HEAD or has_head]
    rows, columns = ROWS, max(2, -(-len(panels) // ROWS))
    legend_rows = -(-(len(runs) + 1) // LEGEND_COLUMNS)
    width, height = 360 * columns, 315 * rows + 50 + 20 * legend_rows
    figure = new_figure(width, height)
    top, bottom = 1 - (90 + 20 * legend_rows) / height, 0.2 / rows
    figure.subplots_adjust(0.05, bottom, right=0.985, top=top, wspace=0.26, hspace=0.45)
    figure.suptitle(f"Training of {plain(', '.join(runs), 120)}", fontsize=11, y=1 - 10 / height)
    for number, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, columns, number)
        _draw_panel(axes, panel, list(runs.values()))
        if number + columns > len(panels):  # the lowest of its column
            _label_epochs(axes, list(runs.values()))
    _draw_legend(figure, runs, y=1 - 28 / height)
    return figure


def _draw_panel(axes: Axes, panel: Panel, runs: Sequence[Sequence[Record]]) -> None:
    axes.set_title(panel.title, fontsize=9, pad=24)
    axes.tick_params(labelsize=7)
    axes.locator_params(axis="x", integer=True, min_n_ticks=1)
    axes.grid(alpha=0.25, linewidth=0.5)
    for number, records in enumerate(runs):
        _draw_curve(axes, panel, panel.points(records), f"C{number}")
    points = [point for records in runs for point in panel.points(records)]
    if points:
        _draw_levels(axes, panel, points)
        return
    has_kind = any(record["record"] == panel.kind for records in runs for record in records)
    is_unprobed = panel.kind == "evaluation" and not has_kind
    what = "no linear probe was run" if is_unprobed else "not on record yet"
    axes.text(0.5, 0.5, what, transform=axes.transAxes, ha="center", fontsize=8)


def _label_epochs(axes: Axes, runs: Sequence[Sequence[Record]]) -> None:
    """Epochs along the axis, and steps below them where all epochs have as many."""
    epochs = [record for records in runs for record in records if record["record"] == "epoch"]
    counts = {record.get("steps") for record in epochs}
    axes.set_xlabel("epoch", fontsize=8)
    if len(counts) == 1 and None not in counts:
        (steps,) = counts
        axes.xaxis.set_major_formatter(lambda epoch, _: f"{epoch:g}\n{steps * epoch:,.0f}")
        axes.set_xlabel("epoch\nsteps", fontsize=8)


def _draw_curve(axes: Axes, panel: Panel, points: Sequence[Record], colour: str) -> None:
    """One run's curve, with its band and the line of its untouched features."""
    if not points:
        return
    epochs, values = ([point[name] for point in points] for name in ("epoch", panel.field))
    is_probed = panel.kind in ("evaluation", HEAD)
    mark = "." if is_probed or len(points) <= FEW_POINTS else ""
    axes.plot(epochs, values, color=colour, marker=mark, linewidth=1.2)
    if is_probed and epochs[0] == 0:
        axes.axhline(values[0], color=colour, linestyle="--", linewidth=0.9)
    if panel.spread and all(panel.spread in point for point in points):
        low = [point[panel.field] - point[panel.spread] for point in points]
        high = [point[panel.field] + point[panel.spread] for point in points]
        axes.fill_between(epochs, low, high, color=colour, alpha=0.2, linewidth=0)


def _draw_levels(axes: Axes, panel: Panel, points: Sequence[Record]) -> None:
    """A panel's levels, explained above it; one far below the curves is only named."""
    values = [point[panel.field] for point in points]
    lowest, span = min(values), max(values) - min(values)
    said = []
    for (text, field), (style, line) in zip(panel.levels, LEVEL_STYLES, strict=False):
        levels = sorted({point[field] for point in points if field in point})
        if not levels:
            continue
        if panel.kind == "evaluation" and 0 < 2 * span < lowest - levels[-1]:
            axes.set_ylim(lowest - 0.2 * span, max(values) + 0.1 * span)
            style = "below"
        said.append(f"{style}: {text} {', '.join(f'{level:.3f}' for level in levels)}")
        for level in levels:
            axes.axhline(level, color="0.4", linestyle=line, linewidth=1)
    place = {"transform": axes.transAxes, "ha": "center", "va": "bottom"}
    axes.text(0.5, 1.01, "\n".join(said), fontsize=7, color="0.3", **place)


def _draw_legend(figure: Figure, runs: Mapping[str, Sequence[Record]], y: float) -> None:
    """The runs' colours, where there are several, and the line of the untouched features."""
    from matplotlib.lines import Line2D

    lines = [(f"C{number}", "-", plain(name)) for number, name in enumerate(runs)]
    lines = lines if len(runs) > 1 else []
    if any(record["epoch"] == 0 for records in runs.values() for record in evaluations(records)):
        lines.append(("black", "--", UNTOUCHED))
    figure.legend(
        [Line2D([], [], color=c, linestyle=style, linewidth=1.2) for c, style, _ in lines],
        [text for *_, text in lines],
        loc="upper center", bbox_to_anchor=(0.5, y), ncols=LEGEND_COLUMNS, fontsize=8,
        frameon=False,
    )  # fmt: skip

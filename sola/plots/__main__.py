"""Curves of runs, from their metrics.jsonl alone: python -m sola.plots RUN [RUN ...]"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sola.config import load_config
from sola.plots.figure import new_figure, plain, save_figure
from sola.records import Record, read_records
from sola.system.cli import ScriptParser, SolaError, run_script

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVES = "curves.png"
METRICS = "metrics.jsonl"
COLUMNS = 4
MOST_RUNS = 10  # as there are colours
UNTOUCHED = "untouched features (epoch 0)"
FEW_POINTS = 30  # which get a mark each


@dataclass(frozen=True)
class Panel:
    """One figure of the records over the epochs.

    levels: text of a horizontal line -> the field that it is at. spread: field with the half width
    of a band. is_probed: of evaluations, with a line at those of the untouched features, epoch 0.
    """

    title: str
    field: str
    levels: Mapping[str, str]
    spread: str | None = None
    is_probed: bool = False


PANELS = (
    Panel(
        "loss",
        "loss",
        {"plateau, best constant": "loss_plateau", "floor, the target's entropy": "loss_floor"},
    ),
    Panel("probe: accuracy", "accuracy", {"larger class": "majority_share"}, is_probed=True),
    Panel("probe: balanced accuracy", "balanced_accuracy", {}, is_probed=True),
    Panel("probe: ROC-AUC", "roc_auc", {}, is_probed=True),
    Panel("tanh(alpha), weight of the update", "tanh_alpha", {}),
    Panel("|update| / |input|", "update_ratio", {}),
    Panel(
        "predicted cosines: mean \N{PLUS-MINUS SIGN} deviation",
        "cosine_mean",
        {},
        spread="cosine_std",
    ),
    Panel("probe: average precision", "average_precision", {}, is_probed=True),
)


def curves(runs: Mapping[str, Sequence[Record]]) -> Figure:
    """The curves of runs, name -> records as of metrics.jsonl, one colour each."""
    rows = len(PANELS) // COLUMNS
    legend_rows = -(-(len(runs) + 1) // COLUMNS)
    width, height = 360 * COLUMNS, 290 * rows + 30 + 20 * legend_rows
    figure = new_figure(width, height)
    top = 1 - (70 + 20 * legend_rows) / height
    figure.subplots_adjust(left=0.05, right=0.985, bottom=0.09, top=top, wspace=0.26, hspace=0.36)
    for panel, axes in zip(PANELS, figure.subplots(rows, COLUMNS).flat, strict=True):
        axes.set_title(panel.title, fontsize=9)
        axes.tick_params(labelsize=7)
        axes.locator_params(axis="x", integer=True, min_n_ticks=1)
        axes.grid(alpha=0.25, linewidth=0.5)
        drawn = [_draw(axes, panel, records, f"C{i}") for i, records in enumerate(runs.values())]
        _draw_levels(axes, panel, runs.values())
        if not any(drawn):
            what = "no linear probe was run" if panel.is_probed else "not on record yet"
            axes.text(0.5, 0.5, what, transform=axes.transAxes, ha="center", fontsize=8)
        if axes.get_subplotspec().is_last_row():
            axes.set_xlabel("epoch", fontsize=8)
    names = [plain(name) for name in runs]
    figure.suptitle(f"Training of {plain(', '.join(runs), 120)}", fontsize=11, y=1 - 10 / height)
    handles = [_line(f"C{number}") for number in range(len(runs))] if len(runs) > 1 else []
    labels = names if len(runs) > 1 else []
    if any(r["record"] == "evaluation" and r["epoch"] == 0 for run in runs.values() for r in run):
        handles, labels = [*handles, _line("black", linestyle="--")], [*labels, UNTOUCHED]
    figure.legend(
        handles,
        labels,
        loc="upper center",
        bbox_to_anchor=(0.5, 1 - 28 / height),
        ncols=COLUMNS,
        fontsize=8,
        frameon=False,
    )
    return figure


def _draw(axes: Axes, panel: Panel, records: Sequence[Record], colour: str) -> bool:
    """Draw a run's line in a panel; whether there is any."""
    kind = "evaluation" if panel.is_probed else "epoch"
    points = [r for r in records if r["record"] == kind and panel.field in r]
    if not points:
        return False
    epochs, values = ([r[name] for r in points] for name in ("epoch", panel.field))
    mark = "." if panel.is_probed or len(points) <= FEW_POINTS else ""
    axes.plot(epochs, values, color=colour, marker=mark, linewidth=1.2)
    if panel.is_probed and epochs[0] == 0:
        axes.axhline(values[0], color=colour, linestyle="--", linewidth=0.9)
    if panel.spread and all(panel.spread in r for r in points):
        spreads = [r[panel.spread] for r in points]
        low, high = (
            [v + sign * s for v, s in zip(values, spreads, strict=True)] for sign in (-1, 1)
        )
        axes.fill_between(epochs, low, high, color=colour, alpha=0.2, linewidth=0)
    return True


def _draw_levels(axes: Axes, panel: Panel, runs: Iterable[Sequence[Record]]) -> None:
    """Draw a panel's levels; one far below the curves as an arrow, so that these are seen."""
    kind = "evaluation" if panel.is_probed else "epoch"
    records = [r for run in runs for r in run if r["record"] == kind and panel.field in r]
    values = [record[panel.field] for record in records]
    for text, field in panel.levels.items():
        levels = sorted({record[field] for record in records if field in record})
        for level in levels:
            axes.axhline(level, color="0.4", linestyle=":", linewidth=1)
        if not levels:
            continue
        place = {"ha": "right", "va": "bottom", "fontsize": 7, "color": "0.3"}
        span = max(values) - min(values)
        if panel.is_probed and span > 0 and min(values) - levels[-1] > 2 * span:
            axes.set_ylim(min(values) - 0.2 * span, max(values) + 0.1 * span)
            text = f"{text}: {levels[-1]:.3f} \N{DOWNWARDS ARROW}"
            axes.text(0.99, 0.02, text, transform=axes.transAxes, **place)
        else:
            for level in levels:
                axes.text(0.99, level, text, transform=axes.get_yaxis_transform(), **place)


def _line(colour: str, **style: str):
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, linewidth=1.2, **style)


def read_runs(paths: Sequence[str]) -> dict[str, list[Record]]:
    """Name -> records of runs given as their folders or metrics.jsonl. Raises SolaError."""
    files = [Path(path) / METRICS if Path(path).is_dir() else Path(path) for path in paths]
    files = list({file.resolve(): file for file in files}.values())
    if len(files) > MOST_RUNS:
        raise SolaError(f"{len(files)} runs: at most {MOST_RUNS} can be told apart")
    places = [file.absolute().parent if file.name == METRICS else file.absolute() for file in files]
    depths = (n for n in range(1, 99) if len({p.parts[-n:] for p in places}) == len(places))
    depth = next(depths, 99)  # as much of the paths as tells them apart
    names = ["/".join(place.parts[1:][-depth:]) for place in places]
    runs = {}
    for name, file in zip(names, files, strict=True):
        if not file.exists():
            raise SolaError(f"{file}: no such file; name the folder of a run, models/<exp_name>")
        runs[name] = read_records(file)
        if not runs[name]:
            raise SolaError(f"{file}: holds no records yet")
    return runs


def main(arguments: list[str] | None = None) -> None:
    parser = ScriptParser(description="Draw the curves of runs from their metrics.jsonl.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="models/<exp_name>")
    parser.add_argument(
        "--output",
        metavar="PNG",
        help="default: where the run itself draws them; for several runs curves_<names>.png here",
    )
    options = parser.parse_args(arguments)
    runs = read_runs(options.runs)
    output = Path(options.output or f"curves_{'_'.join(runs):.100}.png".replace("/", "-"))
    if output.suffix != ".png" or output.is_dir():
        raise SolaError(f"--output={output}: must be a file that ends in .png")
    first = Path(options.runs[0])
    settings = (first if first.is_dir() else first.parent) / "config.yaml"
    if options.output is None and len(runs) == 1 and settings.is_file():
        output = load_config(settings).picture_folder / CURVES
    draft = output.with_name(f".{os.getpid()}.{output.name}")  # the run may draw it meanwhile
    save_figure(draft, curves(runs))
    os.replace(draft, output)
    print(f"{output}: curves of {', '.join(runs)}")


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))

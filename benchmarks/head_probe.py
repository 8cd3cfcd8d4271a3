"""Both probes at every saved epoch of a run: which epoch each would choose, and what it gains.

    python benchmarks/head_probe.py RUN [--average 5] [--steps N] [--seeds 4] [--small]

RUN is models/<exp_name> of a run with labels, whose YAML's relative paths start at the working
directory. For untouched features, a moving average of them and every saved epoch it scores the
linear probe and the temporal head (sola/probe/temporal_head.py), prints a table, and draws it as
head_probe.png in the run's picture folder.
"""

import argparse
import dataclasses
from functools import partial
from pathlib import Path

import common

from sola.config import load_config
from sola.export.encoder import moving_average
from sola.method.module import encode_video
from sola.method.weights import load_module
from sola.plots.figure import new_figure, save_figure
from sola.probe import temporal_head
from sola.records import comparable, read_records, saved_epochs
from sola.system.device import resolve_device
from sola.training.inputs import open_inputs

SHOWN = "accuracy", "roc_auc", "roc_auc_unscaled"


def parser() -> argparse.ArgumentParser:
    options = common.argument_parser(__doc__)
    options.add_argument("run", metavar="RUN", type=Path)
    options.add_argument("--average", type=int, default=5, help="snippets of the moving average")
    options.add_argument("--steps", type=int, default=temporal_head.STEPS)
    options.add_argument("--seeds", type=int, default=4)
    return options


def main() -> None:
    options = parser().parse_args()
    config = load_config(options.run / "config.yaml", ["eval_head=true"])
    config = dataclasses.replace(config, model_save_path=str(options.run.parent))
    temporal_head.STEPS = 2 if options.small else options.steps
    device, inputs = resolve_device(config.device), open_inputs(config)
    linear = comparable(read_records(config.metrics_file), config.eval_protocol)
    linear = {record["epoch"]: record["roc_auc"] for record in linear}
    encoders = {0: None, "average": partial(moving_average, count=options.average)}
    for epoch in saved_epochs(config):
        module = load_module(config.model_file(epoch), dilations=config.dilations)
        encoders[epoch] = partial(encode_video, module.to(device))
    videos = temporal_head.seen(inputs.probed, config)
    common.print_row("epoch", "linear probe, ROC-AUC", *SHOWN, is_head=True)
    found = {}
    for epoch, encode in encoders.items():
        held = [temporal_head.hold(part, device, encode) for part in videos]
        found[epoch] = temporal_head.binary_scores(*held, options.seeds)
        cells = (f"{found[epoch][key]:.4f} ± {found[epoch][f'{key}_std']:.4f}" for key in SHOWN)
        common.print_row(epoch, f"{linear[epoch]:.4f}" if epoch in linear else "", *cells)
    print(f"\n{common.machine()}; {temporal_head.STEPS} steps, {options.seeds} seeds")
    path = config.picture_folder / "head_probe.png"
    draw(path, linear, {epoch: scores for epoch, scores in found.items() if epoch != "average"})
    print(path)


def draw(path: Path, linear: dict[int, float], heads: dict[int, dict[str, float]]) -> None:
    """Both probes' ROC-AUC over the epochs."""
    figure = new_figure(700, 400)
    axes = figure.add_subplot()
    values, spread = ([of[key] for of in heads.values()] for key in ("roc_auc", "roc_auc_std"))
    axes.errorbar([*heads], values, spread, marker=".", capsize=3, label="temporal head")
    axes.plot([*linear], [*linear.values()], marker=".", label="linear probe")
    axes.set(xlabel="epoch", ylabel="ROC-AUC, validation")
    axes.grid(alpha=0.25)
    axes.legend()
    save_figure(path, figure)


if __name__ == "__main__":
    main()

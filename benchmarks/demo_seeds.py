"""How much the demo's linear probe gains, over several seeds of data and training.

    python benchmarks/demo_seeds.py [--repeats 5] [--folder DIR] [--small]

For each seed a new synthetic data set is written and the demo's YAML is run on it, as it is and as
a control with kernel_size1=1, whose module sees single snippets only: what the control gains does
not come from temporal context. Prints, for both, accuracy at epoch 0 and what the best and the last
evaluation add to it.
"""

import contextlib
import io
import tempfile

import common

from sola.config import load_config
from sola.data.synthetic import write_synthetic
from sola.records import evaluations
from sola.training.loop import train

RUNS = {"demo": [], "control, kernel_size1=1": ["kernel_size1=1"]}
FIGURES = ("epoch 0", "best gains", "last gains")


def gains(seed: int, overrides: list[str]) -> tuple[float, float, float]:
    """Accuracy at epoch 0, and what the best and the last evaluation add to it."""
    overrides = [f"seed={seed}", "synthetic=false", *overrides]  # the data are written here
    config = load_config(common.REPOSITORY / "yamls/demo.yaml", overrides)
    width = config.in_feature_dim
    with contextlib.redirect_stdout(io.StringIO()):
        write_synthetic(config.data_root, config.label_base, feature_dim=width, seed=seed)
        first, *others = [record["accuracy"] for record in evaluations(train(config))]
    return first, max(others) - first, others[-1] - first


def main() -> None:
    options = common.argument_parser(__doc__, repeats=5).parse_args()
    print(f"{common.machine()}, {options.repeats} seeds: median (smallest..largest)")
    for name, overrides in RUNS.items():
        rows = []
        for seed in range(options.repeats):
            with (
                tempfile.TemporaryDirectory(dir=options.folder) as folder,
                contextlib.chdir(folder),
            ):
                rows.append(gains(seed, overrides + ["epoch=2"] * options.small))
        print(name)
        for label, values in zip(FIGURES, zip(*rows, strict=True), strict=True):
            print(f"  {label:<11} {common.spread(values, '+.4f')}")


if __name__ == "__main__":
    main()

"""How much the demo's linear probe gains, over several seeds of data and training.

    python benchmarks/demo_seeds.py [SEEDS]

For each seed a new synthetic data set is written and the demo's YAML is run on it, as it is and as
a control with kernel_size1=1, whose module sees single snippets only: what the control gains does
not come from temporal context.
"""

import contextlib
import io
import os
import platform
import statistics
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from sola.config import load_config  # noqa: E402
from sola.data.synthetic import write_synthetic  # noqa: E402
from sola.training.loop import train  # noqa: E402


def gains(seed: int, *overrides: str) -> tuple[float, float, float]:
    """Accuracy at epoch 0, and what the best and the last evaluation add to it."""
    config = load_config(REPOSITORY / "yamls/demo.yaml", [f"seed={seed}", *overrides])
    with contextlib.redirect_stdout(io.StringIO()):
        write_synthetic(
            config.data_root, config.label_base, feature_dim=config.in_feature_dim, seed=seed
        )
        records = train(config)
    accuracies = [r["accuracy"] for r in records if r["record"] == "evaluation"]
    return accuracies[0], max(accuracies[1:]) - accuracies[0], accuracies[-1] - accuracies[0]


def main() -> None:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, {seeds} seeds: median (smallest .. largest)"
    )
    for name, overrides in {
        "demo": ["synthetic=false"],
        "control, kernel_size1=1": ["synthetic=false", "kernel_size1=1"],
    }.items():
        rows = []
        for seed in range(seeds):
            with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
                rows.append(gains(seed, *overrides))
        print(name)
        figures = zip(*rows, strict=True)
        for label, values in zip(("epoch 0", "best gains", "last gains"), figures, strict=True):
            middle = statistics.median(values)
            print(f"  {label:<11} {middle:+.4f} ({min(values):+.4f} .. {max(values):+.4f})")


if __name__ == "__main__":
    main()

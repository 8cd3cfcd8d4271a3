"""What it costs that a run can be killed at any moment, at the canonical sizes.

    python benchmarks/safety.py [--folder DIR] [--repeats 7]

Times training steps of 256 synthetic windows held in memory, and the saving of the training state,
in turn, and looking whether it is time to save or to stop, which follows each step. An epoch of
HACS has 145 steps; the state is saved once in five minutes and at every saving epoch (1 in 10).
"""

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

STEPS_PER_EPOCH = 145
STEPS = 4  # timed together
LOOKS = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", help="where to put 0.3 GB for the time of the run")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    import torch
    from common import config_for

    from sola.data.videos import Split
    from sola.method.matching import make_learner, training_step
    from sola.system.cli import DeferredSignals
    from sola.training.inputs import RunData
    from sola.training.loop import STATE_SECONDS, Progress, is_urgent, save_progress

    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        config = config_for(Path(folder), "safety")
        learner = make_learner(config, torch.device("cpu"))
        rows = torch.rand(len(learner.times), config.batch_size, config.in_feature_dim)
        data = RunData(Split("training", {}, 0), [], None, {}, {})
        so_far, signals = Progress(), DeferredSignals()
        training_step(learner, rows.transpose(0, 1), 1.0)
        figures = {"step": [], "save": [], "look": []}
        for so_far.epoch in range(options.repeats):
            clock = [time.perf_counter()]
            for _ in range(STEPS):
                training_step(learner, rows.transpose(0, 1), 1.0)
            clock.append(time.perf_counter())
            save_progress(config, learner, data, so_far)
            clock.append(time.perf_counter())
            for _ in range(LOOKS):
                is_urgent(so_far, signals)
            clock.append(time.perf_counter())
            times = np.diff(clock) / (STEPS, 1, LOOKS)
            for name, seconds in zip(figures, times, strict=True):
                figures[name].append(seconds)
        size = max(path.stat().st_size for path in config.run_folder.glob("state_*.pt")) / 1e6
    step, save, look = (statistics.median(values) for values in figures.values())
    epoch = step * STEPS_PER_EPOCH
    saves = max(epoch / STATE_SECONDS, 1 / 10)  # in an epoch
    print(
        f"{os.cpu_count()} cores, {platform.machine()}, PyTorch {torch.__version__}, n = ", end=""
    )
    print(f"{options.repeats}; median (smallest..largest)")
    for name, values in figures.items():
        print(f"{name}: {statistics.median(values):.3g} s ({min(values):.3g}..{max(values):.3g})")
    print(f"a state is {size:.0f} MB; an epoch takes {epoch:.1f} s and {saves:.2f} savings")
    print(f"added to an epoch: {(save * saves + look * STEPS_PER_EPOCH) / epoch:.2%}")


if __name__ == "__main__":
    main()

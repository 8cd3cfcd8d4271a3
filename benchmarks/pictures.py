"""What the pictures cost at the canonical sizes.

    python benchmarks/pictures.py [--folder DIR] [--repeats 7]

Times training steps of 256 synthetic windows held in memory, the TSMs of six videos of 324 snippets
(HACS's median) of 2048 channels with four training windows, and the curves of 150 epochs, in turn.
An epoch of HACS has 145 steps; it is drawn once at most.
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
VIDEOS, LENGTH = 6, 324


def canonical_records() -> list[dict]:
    """Records of 150 epochs and 16 evaluations, as a canonical run leaves them."""
    records = []
    levels = {"loss_floor": 0.28, "loss_plateau": 0.39, "seconds": 60.0}
    cosines = {"cosine_mean": 0.6, "cosine_std": 0.2, "tanh_alpha": 0.1, "update_ratio": 0.5}
    scores = dict.fromkeys(("accuracy", "balanced_accuracy", "roc_auc", "average_precision"), 0.8)
    for epoch in range(151):
        if epoch:
            loss = {"loss": 0.28 + 0.1 / epoch}
            records.append({"record": "epoch", "epoch": epoch} | loss | levels | cosines)
        if epoch % 10 == 0:
            record = {"record": "evaluation", "epoch": epoch, "majority_share": 0.6}
            records.append(record | scores)
    return records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", help="where to put 16 MB for the time of the run")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    import torch
    from common import config_for

    from sola.data.features import open_features
    from sola.data.videos import Split
    from sola.method.matching import make_learner, training_step
    from sola.training.draw_run import draw_curves, draw_tsms
    from sola.training.inputs import RunData

    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        config = config_for(Path(folder), "pictures", visualizing_save_path=f"{folder}/drawn")
        records = canonical_records()
        videos, generator = {}, np.random.default_rng(0)
        for number in range(VIDEOS):
            path = Path(folder) / f"{number}.npy"
            np.save(path, generator.random((LENGTH, config.in_feature_dim), np.float32))
            videos[path.stem] = open_features(path)
        labels = {video: np.arange(LENGTH) % 60 > 25 for video in videos}
        data = RunData(Split("training", {}, 0), list(videos.values()), None, videos, labels)
        learner = make_learner(config, torch.device("cpu"))
        rows = torch.rand(len(learner.times), config.batch_size, config.in_feature_dim)
        figures = {"step": [], "TSMs and windows": [], "curves": []}
        for repeat in range(options.repeats + 1):
            clock = [time.perf_counter()]
            for _ in range(STEPS):
                training_step(learner, rows.transpose(0, 1), 1.0)
            clock.append(time.perf_counter())
            draw_tsms(config, repeat, learner, data)
            clock.append(time.perf_counter())
            draw_curves(config, records)
            clock.append(time.perf_counter())
            if repeat:  # the first time imports matplotlib, once in a run
                for name, seconds in zip(figures, np.diff(clock) / (STEPS, 1, 1), strict=True):
                    figures[name].append(seconds)
    medians = {name: statistics.median(values) for name, values in figures.items()}
    print(
        f"{os.cpu_count()} cores, {platform.machine()}, PyTorch {torch.__version__}, n = "
        f"{options.repeats}; median (smallest..largest)"
    )
    for name, values in figures.items():
        print(f"{name}: {medians[name]:.3g} s ({min(values):.3g}..{max(values):.3g})")
    epoch = medians["step"] * STEPS_PER_EPOCH
    share = (medians["TSMs and windows"] + medians["curves"]) / epoch
    print(f"an epoch takes {epoch:.1f} s; its pictures add {share:.1%}")


if __name__ == "__main__":
    main()

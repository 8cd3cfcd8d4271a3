"""What each stage costs as the number of videos grows eightfold.

    python benchmarks/growth.py [--folder DIR]

Synthetic videos of 24 to 100 snippets with 256 channels, so that what a video costs by itself shows
rather than arithmetic: finding and opening the files, an epoch that reads them, an evaluation, a
dump, and the peak memory of a process that does all of it. One run a size, each in a process of its
own, files in the page cache.
"""

import argparse
import contextlib
import io
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

SIZES = (2_500, 5_000, 10_000, 20_000)
CHANNELS, HIDDEN = 256, 64


def write_videos(folder: Path, numbers: range) -> None:
    """Training videos of these numbers, a tenth as many of validation, and labels."""
    generator = np.random.default_rng(numbers.start)
    for split, every in (("training", 1), ("validation", 10)):
        features, labels = folder / "data" / split, folder / "labels" / f"{split}_label"
        features.mkdir(parents=True, exist_ok=True)
        labels.mkdir(parents=True, exist_ok=True)
        for number in numbers[::every]:
            label = np.repeat(generator.random(10) < 0.66, 10)[: generator.integers(24, 101)]
            noise = generator.standard_normal((len(label), CHANNELS), dtype=np.float32)
            np.save(features / f"{number:06d}.npy", noise + 0.2 * label[:, None].astype(np.float32))
            np.save(labels / f"{number:06d}.npy", label)


def measure(folder: Path) -> list[float]:
    """Seconds of each stage on what lies in the folder, and the peak memory in MB."""
    import torch
    from common import config_for

    from sola.data.windows import open_windows
    from sola.export.dump import export_features
    from sola.method.matching import make_learner
    from sola.system.cli import DeferredSignals
    from sola.training.inputs import open_data
    from sola.training.loop import Progress, evaluate, train_epoch

    config = config_for(
        folder,
        "growth",
        in_feature_dim=CHANNELS,
        out_feature_dim=CHANNELS,
        network_hidden_unit=HIDDEN,
        dissim_proj_out=CHANNELS,
        dissim_proj_hidden_unit=HIDDEN,
    )
    clock = [time.perf_counter()]
    data = open_data(config)
    clock.append(time.perf_counter())
    learner = make_learner(config, torch.device("cpu"))
    windows = open_windows(
        data.videos, learner.times, storage="files", storage_dtype="float32",
        batch_size=config.batch_size, num_workers=config.num_workers, device=torch.device("cpu"),
    )  # fmt: skip
    train_epoch(config, learner, windows, data, Progress(), DeferredSignals())
    clock.append(time.perf_counter())
    config.run_folder.mkdir(parents=True, exist_ok=True)
    torch.save(learner.model.module.state_dict(), config.model_file(1))
    config.metrics_file.write_text("")
    evaluate(config, 1, learner.model.module, data)
    clock.append(time.perf_counter())
    export_features(config, "1", overwrite=True)
    clock.append(time.perf_counter())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return [*np.diff(clock).tolist(), peak]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", help="where to put 3 GB for the time of the run")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        with contextlib.redirect_stdout(io.StringIO()):
            figures = measure(options.measure)
        print(*figures)
        return
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}\n")
    print("| training videos | find and open, s | epoch, s | evaluation, s | dump, s | peak, MB |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        written = 0
        for size in SIZES:
            write_videos(Path(folder), range(written, size))
            written = size
            command = [sys.executable, __file__, "--measure", folder]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            *seconds, peak = map(float, output.split())
            cells = [f"{size:,}", *(f"{value:.2f}" for value in seconds), f"{peak:.0f}"]
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()

"""How fast the program is, beside a plain twin of the original and the machine's own limits.

    python benchmarks/speed.py [--folder DIR] [--repeats 7]

Writes synthetic features of canonical size (600 + 120 videos of 2048 channels, 1.5 GB) into a
temporary folder, then times each stage and its twin (benchmarks/twin.py) in turn, the rate of a
large matrix product before and after each, and prints one table. About twelve minutes on 2 cores.
"""

import argparse
import os
import pickle
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from common import paths_of  # noqa: E402
from stages import (  # noqa: E402
    EVALUATED,
    MODULE_FLOP,
    ROUNDS,
    VIDEOS,
    WINDOW_FLOP,
    Ours,
    Process,
    Twin,
)


def write_data(folder: Path) -> None:
    """Non-negative features whose neighbours are alike, and labels, in the HACS layout."""
    generator = np.random.default_rng(0)
    scenes = np.repeat(generator.standard_normal((250, 24)), 20, axis=0)  # 24 latents, [5000, 24]
    is_action = scenes[:, 0] > -0.4
    pool = scenes @ generator.standard_normal((24, 2048)) + 6 * generator.standard_normal(
        (5000, 2048)
    )
    pool = np.maximum(pool, 0).astype(np.float32)
    for split, count in VIDEOS.items():
        features, labels = folder / "data" / split, folder / "labels" / f"{split}_label"
        features.mkdir(parents=True)
        labels.mkdir(parents=True)
        for number in range(count):
            length = int(generator.integers(31, 481))
            start = int(generator.integers(len(pool) - length))
            np.save(features / f"{number:04d}.npy", pool[start : start + length])
            np.save(labels / f"{number:04d}.npy", is_action[start : start + length])
        subset = [f"{number:04d}" for number in range(EVALUATED[split])]
        (folder / "data" / f"{split}_subset_list.pkl").write_bytes(pickle.dumps(subset))


def compare(ours: Process, twin: Process, name: str, repeats: int, prepare: Callable) -> list:
    """Seconds of ours and of the twin, in turn, and the matrix rates around each of ours."""
    seconds, twin_seconds, rates = [], [], []
    for repeat in range(-1, repeats):  # the first one warms up
        times = []
        for worker in (ours, twin):
            prepare()
            before = ours.call("matrix_rates")[1]
            times.append(worker.call(name)[0])
            if worker is ours and repeat >= 0:
                rates.append(np.add(before, ours.call("matrix_rates")[1]) / 2)
            worker.call("clean")
            os.sync()
            time.sleep(0.5)
        if repeat >= 0:
            seconds.append(times[0])
            twin_seconds.append(times[1])
    return [seconds, twin_seconds, rates]


def spread(values: list[float], digits: int = 2, unit: str = "") -> str:
    if not values:
        return "-"
    ends = f"{min(values):.{digits}f}..{max(values):.{digits}f}"
    return f"{statistics.median(values):.{digits}f}{unit} ({ends})"


def drop_from_cache(folder: Path) -> None:
    """Let the system forget the features, so that they come from the disk."""
    os.sync()
    for split in VIDEOS:
        for path in paths_of(folder, split):
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def copy_rates(folder: Path) -> tuple[float, float, float]:
    """GB/s of a copy in memory, of a write to disk with fsync, and of a read of it uncached."""
    source = np.ones(2**28, np.uint8)
    target = np.empty_like(source)
    rates = []
    for _ in range(3):
        started = time.perf_counter()
        np.copyto(target, source)
        rates.append(len(source) / (time.perf_counter() - started) / 1e9)
    path = folder / "block"
    started = time.perf_counter()
    with open(path, "wb") as file:
        for _ in range(4):
            file.write(source.data)
        os.fsync(file.fileno())
        write = 4 * len(source) / (time.perf_counter() - started) / 1e9
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    started = time.perf_counter()
    with open(path, "rb") as file:
        while file.readinto(target):
            pass
    read = 4 * len(source) / (time.perf_counter() - started) / 1e9
    path.unlink()
    return statistics.median(rates), write, read


def start_up(folder: Path, repeats: int) -> tuple[list[float], list[float]]:
    """Seconds of --help, and from the start of the demo to the end of its first epoch."""
    script, demo = REPOSITORY / "main_simsiam.py", REPOSITORY / "yamls/demo.yaml"
    helps, first_epochs = [], []
    for repeat in range(-1, repeats):  # the first makes the data
        started = time.perf_counter()
        subprocess.run([sys.executable, script, "--help"], stdout=subprocess.DEVNULL, check=True)
        helps.append(time.perf_counter() - started)
        command = [sys.executable, "-u", script, f"--yaml_path={demo}", f"exp_name=demo{repeat}"]
        started = time.perf_counter()
        with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout:
                if line.startswith("epoch 1/"):
                    first_epochs.append(time.perf_counter() - started)
                    process.kill()
    return helps[1:], first_epochs[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", help="where to put 5 GB for the time of the run")
    parser.add_argument("--repeats", type=int, default=7, help="of training; others fewer")
    parser.add_argument("--only", default="", help="train, evaluate or dump")
    options = parser.parse_args()
    few = max(1, options.repeats // 2)
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        helps, first_epochs = start_up(folder, options.repeats)
        write_data(folder)
        memory_copy, disk_write, disk_read = copy_rates(folder)
        ours, twin = Process(Ours, folder), Process(Twin, folder)
        snippets = sum(
            len(np.load(path, mmap_mode="r"))
            for split in VIDEOS
            for path in paths_of(folder, split)
        )

        def warm() -> None:
            for split in VIDEOS:
                for path in paths_of(folder, split):
                    path.read_bytes()

        windows = ROUNDS * VIDEOS["training"]
        training, dumped = windows * WINDOW_FLOP, snippets * MODULE_FLOP
        plan = [
            (
                f"epoch of {windows:,} windows, storage: files",
                "train_files",
                options.repeats,
                training,
                warm,
            ),
            ("the same, storage: device", "train_device", options.repeats, training, warm),
            ("evaluation, 300 + 60 videos, 10,000 snippets", "evaluate", few, 0, warm),
            (f"dump of 720 videos, {snippets:,} snippets", "dump", few, dumped, warm),
            ("the same, files not in memory", "dump", few, dumped, lambda: drop_from_cache(folder)),
        ]
        mm, onednn = zip(*(ours.call("matrix_rates")[1] for _ in range(7)), strict=True)
        print(f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, ", end="")
        print(
            f"Python {platform.python_version()}. Matrix product: torch.mm {spread(mm, 0)} ", end=""
        )
        print(
            f"GFLOP/s, oneDNN {spread(onednn, 0)}. Copy in memory {memory_copy:.1f} GB/s; ", end=""
        )
        print(f"disk {disk_write:.2f} GB/s written, {disk_read:.2f} read.\n")
        print("| stage | n | ours, s | twin, s | twin / ours | of torch.mm's rate | of oneDNN's |")
        print("|---|---|---|---|---|---|---|", flush=True)
        for title, name, repeats, flop, prepare in plan:
            if options.only not in name:
                continue
            seconds, twin_seconds, rates = compare(ours, twin, name, repeats, prepare)
            ratios = [b / a for a, b in zip(seconds, twin_seconds, strict=True)]
            cells = [title, str(repeats), spread(seconds), spread(twin_seconds), spread(ratios, 1)]
            for rate in zip(*rates, strict=True):
                shares = [flop / s / r / 1e9 for s, r in zip(seconds, rate, strict=True)]
                cells.append(spread(shares) if flop else "")
            print("| " + " | ".join(cells) + " |", flush=True)
        ours.close()
        twin.close()
        memory = Process(Ours, folder)
        _, megabytes = memory.call("evaluate_at_defaults")
        memory.close()
        title = "start of the demo to the end of its first epoch"
        for name, values in (("`--help`", helps), (title, first_epochs)):
            print(f"| {name} | {len(values)} | {spread(values)} | | | | |")
        print(f"\nProbe of 50,000 + 20,000 snippets: {megabytes:.0f} MB at its peak; ", end="")
        print(f"50,000 snippets of 2048 channels are {50_000 * 2048 * 4 / 1e6:.0f} MB.")


if __name__ == "__main__":
    main()

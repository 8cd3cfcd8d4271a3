"""What the benchmarks share. Each is run as `python benchmarks/NAME.py`, with these options:

--folder DIR: where files are put for the time of the run, the system's temporary folder by default.
--small: only see whether the benchmark works, with figures that mean nothing.
--repeats N: of those that repeat, how often. They print medians (smallest..largest).

Importing this makes `sola` importable from a checkout.
"""

import argparse
import contextlib
import io
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from sola.config import Config  # noqa: E402
from sola.data.videos import BadFiles, Split  # noqa: E402
from sola.data.windows import FileWindows, HeldWindows, plan_epoch  # noqa: E402
from sola.method.matching import epoch_scalars, make_learner, training_step  # noqa: E402
from sola.system.device import random_generator, resolve_device  # noqa: E402
from sola.training.inputs import Inputs  # noqa: E402
from sola.training.loop import Run, is_looked_at  # noqa: E402
from sola.training.resume import Clock  # noqa: E402
from sola.training.steps import joined  # noqa: E402

STEPS_PER_EPOCH = 145  # of HACS
LATENTS, SCENE, NOISE, ACTION = 256, 20, 0.3, 12
POOL = 20_000  # snippets that the videos of write_videos are cut from


def argument_parser(doc: str, *, repeats: int = 0) -> argparse.ArgumentParser:
    """A parser of the options that all benchmarks have; doc: the benchmark's docstring."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=doc, formatter_class=formatter)
    parser.add_argument("--folder", help="where to put files for the time of the run")
    parser.add_argument("--small", action="store_true", help="only see whether it works")
    if repeats:
        parser.add_argument("--repeats", type=int, default=repeats)
    return parser


def config_for(folder: str | Path, *, channels: int = 2048, **settings: object) -> Config:
    """Canonical settings that keep all files in a folder; on a CPU unless told else."""
    folders = {
        "data_root": f"{folder}/data",
        "label_base": f"{folder}/labels",
        "visualizing_dir": f"{folder}/none",
        "visualizing_save_path": f"{folder}/drawn",
        "model_save_path": f"{folder}/models",
        "feature_save_path": f"{folder}/dumped",
    }
    widths = dict.fromkeys(("in_feature_dim", "out_feature_dim", "dissim_proj_out"), channels)
    return Config(exp_name="benchmark", **{"device": "cpu"} | folders | widths | settings)


def draw_snippets(
    count: int, channels: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Non-negative features that are hard on a probe, [count, C], and whether each is action.

    As of real extractors: LATENTS directions of falling strength (the k-th k^-0.75) mixed into all
    channels, which so depend on one another; neighbours alike, by scenes of SCENE snippets and a
    drift over all of them; a mean that all snippets share, some 0.7 of their norm; noise. Action
    is a weak latent, the ACTION-th, over a threshold that drifts too.
    """
    generator = torch.Generator(device).manual_seed(0)
    random = {"generator": generator, "device": device}
    features = torch.empty(count, channels, dtype=dtype, device=device)
    is_action = torch.empty(count, dtype=torch.bool, device=device)
    strength = torch.arange(1, LATENTS + 1, device=device) ** -0.75
    mixing = strength[:, None] * torch.randn(LATENTS, channels, **random)
    mean = 2 * torch.rand(channels, **random) + 1
    for rows, actions in zip(features.split(2**17), is_action.split(2**17), strict=True):
        scenes = torch.randn(len(rows) // SCENE + 1, LATENTS, **random)
        latents = scenes.repeat_interleave(SCENE, dim=0)[: len(rows)]
        drift = torch.linspace(0, 40, len(rows), device=device).sin()  # of a few hundred scenes
        latents = latents + 0.5 * drift[:, None] + 0.5 * torch.randn(latents.shape, **random)
        noise = NOISE * torch.randn(len(rows), channels, **random)
        rows.copy_((mean + latents @ mixing + noise).relu())
        actions.copy_(latents[:, ACTION] + 0.3 * torch.randn(len(rows), **random) > 0.3 * drift)
    return features, is_action


def write_videos(
    folder: str | Path, split: str, numbers: range, lengths: tuple[int, int], channels: int = 2048
) -> None:
    """Synthetic features and labels in the HACS layout. lengths: the smallest T and the largest."""
    features, labels = Path(folder) / "data" / split, Path(folder) / "labels" / f"{split}_label"
    features.mkdir(parents=True, exist_ok=True)
    labels.mkdir(parents=True, exist_ok=True)
    snippets, is_action = (values.numpy() for values in draw_snippets(POOL, channels))
    generator = random_generator(split, numbers.start)
    for number in numbers:
        length = int(generator.integers(*lengths, endpoint=True))
        first = int(generator.integers(POOL - length))
        np.save(features / f"{number:06d}.npy", snippets[first : first + length])
        np.save(labels / f"{number:06d}.npy", is_action[first : first + length])


def new_run(config: Config, inputs: Inputs | None = None) -> Run:
    """A run at its beginning, without videos unless inputs are given."""
    nothing = Inputs(Split("training", {}), [], None, {}, {}, BadFiles("error"))
    learner = make_learner(config, resolve_device(config.device))
    return Run(config, inputs or nothing, learner, [], Clock({}))


def step_of(run: Run) -> Callable[[], object]:
    """A training step on a batch of random windows that are held in memory."""
    config = run.config
    windows = torch.rand(config.batch_size, config.sampling_duration, config.in_feature_dim)
    return lambda: training_step(run.learner, windows)


def train_epoch(run: Run, store: FileWindows | HeldWindows, epoch: int = 1) -> float:
    """An epoch as sola/training/loop.py trains it, without records and pictures; its mean loss."""
    plan = plan_epoch(run.config, [video.length for video in run.inputs.videos], epoch)
    steps = len(plan.parts)
    seen, unseen = {}, []
    for step, windows in enumerate(store.batches(plan.windows, plan.parts), start=1):
        unseen.append(training_step(run.learner, windows, plan.shares[step - 1]))
        if is_looked_at(step, steps):
            seen, unseen = joined(seen, unseen), []  # waits for the device
    return epoch_scalars(seen, plan.sizes)["loss"]


def seconds_of(action: Callable[[], object], count: int = 1) -> float:
    """Seconds that an action takes, the mean of so many; what it prints is not shown."""
    with contextlib.redirect_stdout(io.StringIO()):
        started = time.perf_counter()
        for _ in range(count):
            action()
        return (time.perf_counter() - started) / count


def print_times(actions: dict[str, tuple[int, Callable[[], object]]], repeats: int) -> list[float]:
    """Time actions by name in turn, after one to warm up; prints all and returns the medians.

    actions: how many times each is done at a time, and what is done.
    """
    pairs = actions.values()
    rounds = [[seconds_of(action, count) for count, action in pairs] for _ in range(repeats + 1)]
    columns = list(zip(*rounds[1:], strict=True))
    print(f"{machine()}, n = {repeats}; median (smallest..largest)")
    for name, seconds in zip(actions, columns, strict=True):
        print(f"{name}: {spread(seconds)} s")
    return [statistics.median(seconds) for seconds in columns]


def spread(values: Sequence[float], form: str = ".3g") -> str:
    """Median (smallest..largest)."""
    return f"{statistics.median(values):{form}} ({min(values):{form}}..{max(values):{form}})"


def print_row(*cells: object, is_head: bool = False) -> None:
    """A row of a Markdown table, seen at once."""
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    if is_head:
        print("|" + "---|" * len(cells), flush=True)


def machine() -> str:
    """What the figures are measured on."""
    python, cores = platform.python_version(), os.cpu_count()
    return f"{cores} cores, {platform.machine()}, Python {python}, PyTorch {torch.__version__}"


def in_own_process(function: Callable[..., Any], *arguments: object) -> Any:
    """The function's result from a fresh process, whose memory is its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def memory_mb(field: str) -> float:
    """Memory of this process in MB: VmRSS, what it holds now, or VmHWM, the most it has held."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kibibytes = next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
    return kibibytes * 1024 / 1e6

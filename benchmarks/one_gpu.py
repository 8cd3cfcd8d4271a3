"""A run of HACS's size on one GPU: 150 epochs in each precision, the features drawn on the device.

    python benchmarks/one_gpu.py [--videos 37119] [--epochs 150] [--durations PKL]

The features are synthetic; the lengths are those of the training_duration.pkl of HACS, or drawn
alike (median 324, at most 480). Prints seconds in all and per step for fp32, tf32 and bf16, how far
their loss curves lie apart, and the seconds of one linear probe. Float32 features of HACS's size
take 86 GiB of memory; --storage_dtype=float16 halves that.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from sola.config import Config  # noqa: E402
from sola.data.features import ArrayFile, open_features  # noqa: E402
from sola.data.videos import Split, read_pickle  # noqa: E402
from sola.data.windows import HeldWindows  # noqa: E402
from sola.method.matching import make_learner  # noqa: E402
from sola.probe.logistic import ProbeVideos, probe_logistic_regression  # noqa: E402
from sola.system.cli import DeferredSignals  # noqa: E402
from sola.training.inputs import RunData  # noqa: E402
from sola.training.loop import Progress, train_epoch  # noqa: E402

SCENE = 16  # snippets that share their latents
PROBE_VIDEOS = 240


def lengths_of(options: argparse.Namespace) -> list[int]:
    """T of the training videos: HACS's own, or drawn alike (median 324, at most 480)."""
    if options.durations:
        lengths = [length for length in read_pickle(options.durations).values() if length > 23]
        return lengths[: options.videos]
    generator = np.random.default_rng(0)
    return np.clip(generator.normal(324, 110, options.videos), 24, 480).astype(int).tolist()


def draw_features(total: int, feature_dim: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Non-negative features whose neighbours are alike, [total, C]."""
    generator = torch.Generator(device).manual_seed(0)
    features = torch.empty(total, feature_dim, dtype=dtype, device=device)
    mixing = torch.randn(24, feature_dim, generator=generator, device=device)
    for part in features.split(2**17):
        latents = torch.randn(len(part) // SCENE + 1, 24, generator=generator, device=device)
        noise = torch.randn(len(part), feature_dim, generator=generator, device=device)
        scenes = (latents @ mixing).repeat_interleave(SCENE, dim=0)[: len(part)]
        part.copy_((scenes + 6 * noise).relu())
    return features


def run(config: Config, snippets: Tensor, lengths: list[int]) -> tuple[float, list[float], object]:
    """Seconds of all epochs after the first, the losses of all, and the module."""
    shape = config.in_feature_dim
    videos = [
        ArrayFile(str(i), (t, shape), np.dtype("f4"), False, 0) for i, t in enumerate(lengths)
    ]
    data = RunData(Split("training", {}, 0), videos, None, {}, {})
    learner = make_learner(config, snippets.device)
    windows = HeldWindows(snippets, lengths, learner.times)
    losses = []
    for epoch in range(1, config.epoch):
        if epoch == 2:
            started = time.perf_counter()
        so_far = Progress(epoch - 1)
        record = train_epoch(config, learner, windows, data, so_far, DeferredSignals())
        losses.append(record["loss"])
    return time.perf_counter() - started, losses, learner.model.module


def probe_seconds(module: torch.nn.Module, feature_dim: int) -> float:
    """Seconds of the second of two probes at the defaults' 50,000 + 20,000 snippets."""
    with tempfile.TemporaryDirectory() as folder:
        generator = np.random.default_rng(0)
        videos = []
        for split in ("training", "validation"):
            files, labels = [], []
            for number in range(PROBE_VIDEOS):
                label = np.repeat(generator.random(20) < 0.66, 16)
                noise = generator.standard_normal((len(label), feature_dim), dtype=np.float32)
                path = Path(folder) / f"{split}{number}.npy"
                np.save(path, np.maximum(noise + 0.1 * label[:, None], 0))
                files.append(open_features(path))
                labels.append(label)
            videos.append(ProbeVideos(split, files, labels))
        for _ in range(2):
            started = time.perf_counter()
            probe_logistic_regression(
                module, *videos, eval_snippets=50_000, eval_snippets_validation=20_000, seed=0
            )
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=37_119)
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--feature_dim", type=int, default=2048)
    parser.add_argument("--durations", help="the training_duration.pkl of HACS")
    parser.add_argument("--storage_dtype", default="float32", choices=("float32", "float16"))
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    device = torch.device(options.device)
    lengths = lengths_of(options)
    dtype = getattr(torch, options.storage_dtype)
    snippets = draw_features(sum(lengths), options.feature_dim, dtype, device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{os.cpu_count()} CPU cores"
    steps = -(-len(lengths) // 256)
    print(f"{name}, torch {torch.__version__}: {len(lengths)} videos, {sum(lengths)} snippets")
    print(
        "| precision | epochs | seconds, all but the first epoch | ms a step | first, last loss |"
    )
    print("|---|---|---|---|---|")
    curves = {}
    for precision in ("fp32", "tf32", "bf16"):
        config = Config(
            exp_name="one_gpu",
            precision=precision,
            epoch=options.epochs + 1,  # the last one would be drawn
            saving_epoch=10**6,
            visualizing_step=10**6,
            in_feature_dim=options.feature_dim,
            out_feature_dim=options.feature_dim,
            dissim_proj_out=options.feature_dim,
        )
        seconds, losses, module = run(config, snippets, lengths)
        milliseconds = seconds / (options.epochs - 1) / steps * 1e3
        curves[precision] = np.array(losses)
        print(f"| {precision} | {options.epochs} | {seconds:.2f} | {milliseconds:.3f} ", end="")
        print(f"| {losses[0]:.4f}, {losses[-1]:.4f} |", flush=True)
    for precision in ("tf32", "bf16"):
        apart = np.abs(curves[precision] - curves["fp32"]).max()
        print(f"loss of {precision} and fp32: at most {apart:.5f} apart")
    seconds = probe_seconds(module, options.feature_dim)
    print(f"one linear probe of 50,000 + 20,000 snippets: {seconds:.1f} s")


if __name__ == "__main__":
    main()

"""A run of HACS's size on one GPU: 150 epochs in each precision, the features drawn on the device.

    python benchmarks/one_gpu.py [--videos 37119] [--epochs 150] [--storage_dtype float32]
                                 [--device auto] [--folder DIR] [--small]

The features are synthetic, of lengths like those of HACS (median 324, at most 480). Prints seconds
in all and per step for fp32, tf32 and bf16, how far their loss curves lie apart, and the seconds of
a linear probe, a temporal head and a dump, whose videos take 1.7 GB in --folder. Float32 features
of HACS's size take 90 GiB of memory; --storage_dtype=float16 halves that. Runs on a CPU too, with
--small for instance.
"""

import argparse
import tempfile
import time
from pathlib import Path

import common
import numpy as np
import torch
from torch import Tensor

from sola.config import Config
from sola.data.features import ArrayFile
from sola.data.windows import HeldWindows
from sola.export.dump import export_features
from sola.method.module import SoLaModule
from sola.method.weights import save
from sola.probe import temporal_head
from sola.probe.protocols import PROTOCOLS
from sola.system.device import resolve_device
from sola.training.inputs import open_inputs

PRECISIONS = ("fp32", "tf32", "bf16")
PROBED, LENGTH = {"training": 240, "validation": 80}, (320, 320)  # all that a probe draws from
COLUMNS = "precision", "epochs", "seconds, all but the first epoch", "ms a step", "first, last loss"


def arguments() -> argparse.Namespace:
    parser = common.argument_parser(__doc__)
    parser.add_argument("--videos", type=int, default=37_119)
    parser.add_argument("--epochs", type=int, default=150, help="2 or more")
    parser.add_argument("--storage_dtype", default="float32", choices=("float32", "float16"))
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    options.channels = 2048
    if options.small:
        options.videos, options.epochs, options.channels = 300, 3, 64
    return options


def train(
    config: Config, snippets: Tensor, lengths: list[int], epochs: int
) -> tuple[float, np.ndarray, SoLaModule]:
    """Seconds of all epochs but the first, the losses of all [epochs], and the module."""
    run = common.new_run(config)
    float32 = np.dtype("f4")
    run.inputs.videos.extend(ArrayFile("", (length,), float32, False, 0, 0) for length in lengths)
    store = HeldWindows(snippets, lengths, config.sampling_duration)
    losses, ends = [], []
    for epoch in range(1, epochs + 1):
        losses.append(common.train_epoch(run, store, epoch))
        ends.append(time.perf_counter())
    return ends[-1] - ends[0], np.array(losses), run.learner.model.module


def print_rest(config: Config, folder: str, module: SoLaModule, *, is_small: bool) -> None:
    """Time what else a run does: the second of two linear probes, a temporal head, a dump."""
    for split, count in PROBED.items():
        numbers = range(count // 20 if is_small else count)
        common.write_videos(folder, split, numbers, LENGTH, config.in_feature_dim)
    probed, probe = open_inputs(config).probed, PROTOCOLS[config.eval_protocol].probe
    scores = probe(module, *probed, config, epoch=1)
    seconds = common.seconds_of(lambda: probe(module, *probed, config, epoch=1))
    snippets = f"{scores['training_snippets']:,} + {scores['snippets']:,} snippets"
    print(f"one linear probe of {snippets}: {seconds:.1f} s")
    seen, device = temporal_head.seen(probed, config), module.alpha.device
    seeds = 1 if is_small else config.eval_head_seeds
    seconds = common.seconds_of(lambda: temporal_head.probe(module, seen, seeds, device))
    videos = " + ".join(str(len(of.files)) for of in seen)
    print(f"one temporal head of {videos} videos: {seconds:.1f} s")
    checkpoint = Path(folder) / "module.pt"
    save(checkpoint, {name: value.cpu() for name, value in module.state_dict().items()})
    seconds = common.seconds_of(lambda: export_features(config, str(checkpoint)))
    files = [file for of in probed for file in of.files]
    snippets = sum(file.length for file in files)
    print(f"dump of {len(files)} videos, {snippets:,} snippets: {seconds:.1f} s")


def main() -> None:
    options = arguments()
    device, dtype = resolve_device(options.device), getattr(torch, options.storage_dtype)
    lengths = np.random.default_rng(0).normal(324, 110, options.videos)
    lengths = np.clip(lengths, 24, 480).astype(int).tolist()
    snippets, _ = common.draw_snippets(sum(lengths), options.channels, dtype, device)
    gpu = f"{torch.cuda.get_device_name(device)}, " if device.type == "cuda" else ""
    print(f"{gpu}{common.machine()}: {len(lengths)} videos, {len(snippets)} snippets\n")
    common.print_row(*COLUMNS, is_head=True)
    curves = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for precision in PRECISIONS:
            settings = {"precision": precision, "device": options.device}
            config = common.config_for(folder, channels=options.channels, **settings)
            seconds, losses, module = train(config, snippets, lengths, options.epochs)
            steps = (options.epochs - 1) * -(-len(lengths) // config.batch_size)
            figures = f"{seconds:.2f}", f"{seconds / steps * 1e3:.3f}"
            ends = f"{losses[0]:.4f}, {losses[-1]:.4f}"
            common.print_row(precision, options.epochs, *figures, ends)
            curves[precision] = losses
        for precision in PRECISIONS[1:]:
            apart = np.abs(curves[precision] - curves["fp32"]).max()
            print(f"loss of {precision} and fp32: at most {apart:.5f} apart")
        print_rest(config, folder, module, is_small=options.small)


if __name__ == "__main__":
    main()

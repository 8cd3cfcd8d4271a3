"""What the two probes cost at canonical sizes: the fit beside the encoding, and the temporal head.

    python benchmarks/probes.py [--folder DIR] [--repeats 3] [--small]

Writes synthetic videos (400 + 60, 140 to 480 snippets, of 128 and of 2048 channels; 1.2 GB in
--folder), as hard on a probe as those of speed.py. Prints, for each width, the seconds to encode
50,000 snippets and to fit the logistic regression on them, their ratio and the iterations; then one
evaluation of the temporal head at its defaults on 2048 channels, with the memory that it takes.
About six minutes on 2 cores.
"""

import tempfile
import time
from pathlib import Path

import common
import numpy as np
import torch

from sola.config import Config
from sola.data.features import open_features
from sola.method.module import SoLaModule
from sola.probe import logistic, temporal_head
from sola.probe.snippets import ProbeVideos, mean_and_deviation

VIDEOS, LENGTHS, SNIPPETS = {"training": 400, "validation": 60}, (140, 480), 50_000
SIZES = {128: 128, 2048: 512}  # channels -> hidden ones


def open_split(folder: Path, split: str) -> ProbeVideos:
    files = [open_features(path) for path in sorted((folder / "data" / split).glob("*.npy"))]
    names = (Path(file.path).name for file in files)
    return ProbeVideos(split, files, [np.load(folder / f"labels/{split}_label" / n) for n in names])


def print_fit(videos: ProbeVideos, module: SoLaModule, repeats: int) -> None:
    """A row: encoding and fit, after one of each to warm up."""
    rounds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        x, y = videos.encode(module, videos.draw(SNIPPETS, 0))
        encoded = time.perf_counter()
        x, y = torch.from_numpy(x), torch.from_numpy(y)
        mean, deviation = mean_and_deviation(x.split(logistic.ROWS))
        x.sub_(mean).div_(deviation)
        prepared = time.perf_counter()
        fitted = logistic.fit(x, y)
        seconds = encoded - started, time.perf_counter() - prepared
        rounds.append((*seconds, seconds[1] / seconds[0]))
    cells = (common.spread(values, ".2f") for values in zip(*rounds[1:], strict=True))
    common.print_row(x.shape[1], len(x), repeats, *cells, fitted.iterations)


def print_head(folder: Path, steps: int) -> None:
    """One evaluation of the temporal head, in a process of its own."""
    temporal_head.STEPS = steps
    channels = max(SIZES)
    config = Config(exp_name="head")
    videos = [open_split(folder, split) for split in VIDEOS]
    before, started = common.memory_mb("VmRSS"), time.perf_counter()
    seen = temporal_head.seen(videos, config)
    module = SoLaModule(channels, SIZES[channels])
    scores = temporal_head.probe(module, seen, config.eval_head_seeds, torch.device("cpu"))
    seconds = time.perf_counter() - started
    held = sum(file.length for part in seen for file in part.files) * channels * 4 / 1e6
    print(
        f"\ntemporal head, {scores['training_videos']} + {scores['videos']} videos of {channels} "
        f"channels, n = 1: {seconds:.0f} s, of which reading and encoding "
        f"{scores['seconds_encoding']:.0f}; memory {common.memory_mb('VmHWM') - before:.0f} MB, of "
        f"which the snippets {held:.0f}"
    )


def main() -> None:
    options = common.argument_parser(__doc__, repeats=3).parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        common.print_row(
            "channels", "snippets", "n", "encoding, s", "fit, s", "fit / encoding", "iterations",
            is_head=True,
        )  # fmt: skip
        for channels, hidden in SIZES.items():
            folder = Path(temporary) / str(channels)
            for split, count in VIDEOS.items():
                numbers = range(count // 40 if options.small else count)
                common.write_videos(folder, split, numbers, LENGTHS, channels)
            module = SoLaModule(channels, hidden)
            torch.nn.init.constant_(module.alpha, 0.3)
            print_fit(open_split(folder, "training"), module, options.repeats)
        common.in_own_process(print_head, folder, 1 if options.small else temporal_head.STEPS)
    one = torch.ones(2048, 2048)
    rate = 2 * 2048**3 / common.seconds_of(lambda: one @ one, count=5) / 1e9
    print(f"{common.machine()}; torch.mm {rate:.0f} GFLOP/s")


if __name__ == "__main__":
    main()

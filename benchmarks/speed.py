"""How fast the program is, beside a reference implementation and the machine's own limits.

    python benchmarks/speed.py [--folder DIR] [--repeats 7] [--small]

Writes synthetic features of canonical size (600 + 120 videos of 2048 channels; 5 GB in --folder in
all) and times each stage of ours and of the reference implementation (benchmarks/reference.py) in
turn, and torch.mm's rate before and after each of ours, against which the arithmetic that a stage
needs is held. Prints one table; below it these rates, the disk's, and the memory of a probe. Twelve
minutes to half an hour on 2 cores.
"""

import os
import pickle
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import common
import numpy as np
import torch
from reference import Reference
from stages import ROUNDS, SCORED, Ours, evaluation_memory

VIDEOS, EVALUATED = {"training": 600, "validation": 120}, {"training": 300, "validation": 60}
LENGTHS = 31, 480  # snippets of a video
MODULE_FLOP = 2 * (5 * 2048 * 512 + 512 * 512 + 512 * 2048)  # a snippet
WINDOW_FLOP = 331e6  # forward and backward, as the gathered positions need it
COLUMNS = "stage", "n", "ours, s", "reference, s", "reference / ours", "of torch.mm's rate"


@dataclass(frozen=True)
class Stage:
    """What is timed on both sides, the arithmetic that it needs, and what is done before it."""

    title: str
    repeats: int
    flop: float
    run: Callable[[Ours | Reference], None]
    prepare: Callable[[Path], object] = Path.read_bytes  # of each file: into the system's cache


def plan(files: list[Path], windows: int, evaluated: str, repeats: int) -> list[Stage]:
    """The stages in order; what takes longer is repeated less."""
    snippets = sum(len(np.load(path, mmap_mode="r")) for path in files)
    training, dump, few = windows * WINDOW_FLOP, snippets * MODULE_FLOP, max(1, repeats // 2)
    epoch = f"epoch of {windows:,} windows, `storage: files`"
    evaluation = f"evaluation, {evaluated} videos, {sum(SCORED.values()):,} snippets"
    dumped = f"dump of {len(files)} videos, {snippets:,} snippets"
    on_device, uncached = "the same, `storage: device`", "the same, files not in memory"
    return [
        Stage(epoch, repeats, training, lambda side: side.train("files")),
        Stage(on_device, repeats, training, lambda side: side.train("device")),
        Stage(evaluation, few, 0, lambda side: side.evaluate()),
        Stage(dumped, few, dump, lambda side: side.dump()),
        Stage(uncached, few, dump, lambda side: side.dump(), drop_from_cache),
    ]


def print_stage(stage: Stage, files: list[Path], ours: Ours, reference: Reference) -> list[float]:
    """Time a stage of both sides in turn and print its row; torch.mm's rate around each of ours."""
    runs = []
    for _ in range(stage.repeats + 1):
        before = matrix_rate()
        fast = seconds_of(stage, ours, files)
        rate = (before + matrix_rate()) / 2
        slow = seconds_of(stage, reference, files)
        runs.append((fast, slow, slow / fast, stage.flop / fast / rate / 1e9, rate))
    ours.stores.clear()  # their memory
    fast, slow, ratios, shares, rates = zip(*runs[1:], strict=True)  # the first one warms up
    seconds = [common.spread(values, ".2f") for values in (fast, slow)]
    share = common.spread(shares, ".2f") if stage.flop else ""
    common.print_row(stage.title, stage.repeats, *seconds, common.spread(ratios, ".1f"), share)
    return list(rates)


def seconds_of(stage: Stage, side: Ours | Reference, files: list[Path]) -> float:
    """Seconds of a stage on one side."""
    for path in files:
        stage.prepare(path)
    seconds = common.seconds_of(lambda: stage.run(side))
    side.clean()
    os.sync()
    time.sleep(0.5)  # for the disk to come to rest
    return seconds


def matrix_rate() -> float:
    """GFLOP/s of torch.mm on two 2048 x 2048 matrices."""
    a, b = torch.ones(2, 2048, 2048)
    torch.mm(a, b)
    return 2 * 2048**3 / common.seconds_of(lambda: torch.mm(a, b), count=5) / 1e9


def drop_from_cache(path: Path) -> None:
    """Let the system forget a file, so that it comes from the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def disk_rates(path: Path) -> tuple[float, float]:
    """GB/s of a write to a file with fsync, and of a read of it uncached."""
    block, blocks = np.ones(2**28, np.uint8), 4

    def write() -> None:
        with open(path, "wb") as file:
            for _ in range(blocks):
                file.write(block.data)
            os.fsync(file.fileno())

    def read() -> None:
        with open(path, "rb") as file:
            while file.readinto(block):
                pass

    gigabytes = blocks * block.nbytes / 1e9
    written = gigabytes / common.seconds_of(write)
    drop_from_cache(path)
    rates = written, gigabytes / common.seconds_of(read)
    path.unlink()
    return rates


def main() -> None:
    options = common.argument_parser(__doc__, repeats=7).parse_args()
    smaller, rates = 20 if options.small else 1, []
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        for split, count in VIDEOS.items():
            common.write_videos(folder, split, range(count // smaller), LENGTHS)
        megabytes = common.in_own_process(evaluation_memory, folder)
        for split, count in EVALUATED.items():
            subset = [f"{number:06d}" for number in range(count // smaller)]
            (folder / f"data/{split}_subset_list.pkl").write_bytes(pickle.dumps(subset))
        written, read = disk_rates(folder / "block")
        files = sorted(folder.glob("data/*/*.npy"))
        ours, reference = Ours(folder), Reference(folder, ROUNDS)
        evaluated = " + ".join(str(len(videos.files)) for videos in ours.run.inputs.probed)
        common.print_row(*COLUMNS, is_head=True)
        for stage in plan(files, len(ours.run.inputs.videos), evaluated, options.repeats):
            rates += print_stage(stage, files, ours, reference)
    print(f"\n{common.machine()}; torch.mm {common.spread(rates, '.0f')} GFLOP/s; ", end="")
    print(f"disk {written:.2f} GB/s written, {read:.2f} read.")
    print(f"The evaluation's fit took {ours.scores['iterations']} iterations. ", end="")
    print(
        f"A probe of 50,000 + 20,000 snippets takes {megabytes:.0f} MB at its peak; 50,000 ", end=""
    )
    print(f"snippets of 2048 channels are {50_000 * 2048 * 4 / 1e6:.0f} MB.")


if __name__ == "__main__":
    main()

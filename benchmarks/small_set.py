"""Where the time of a training on a small set goes: start-up, steps, probe, pictures.

    python benchmarks/small_set.py [--folder DIR] [--repeats 3] [--small]

Writes synthetic features (76 + 23 videos of 72 channels, as hard on a probe as those of speed.py),
has `python -m sola.prepare` make the YAML, and runs the training that it plans, about 1,000 steps
with 16 evaluations, as a user would, and what starting takes. Prints a table; some ten minutes on
2 cores.
"""

import re
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import common

VIDEOS, LENGTHS, CHANNELS = {"training": 76, "validation": 23}, (140, 480), 72
PARTS = ("computing", "waiting for files", "probing", "temporal head", "drawing")
FIRST_EPOCH = "start of the demo to the end of its first epoch"


def run(folder: Path, script: str, *arguments: str) -> str:
    """What a script of the checkout prints; its errors end this one."""
    place = ["-m", script] if "." in script else [str(common.REPOSITORY / f"{script}.py")]
    command = [sys.executable, *place, *arguments]
    environment = {"PYTHONPATH": str(common.REPOSITORY)}
    return subprocess.run(
        command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def seconds_in(told: str, part: str) -> float:
    """Of a part in the line on time."""
    minutes, seconds = re.search(rf"{part} (?:(\d+) min )?([\d.]+) s", told).groups("0")
    return 60 * int(minutes) + float(seconds)


def first_epoch(folder: Path, number: int) -> float:
    """Seconds from the start of the demo to the end of its first epoch."""
    script, demo = common.REPOSITORY / "main_simsiam.py", common.REPOSITORY / "yamls/demo.yaml"
    command = [sys.executable, "-u", script, f"--yaml_path={demo}", f"exp_name=demo{number}"]
    started = time.perf_counter()
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("epoch 1/"):
                seconds = time.perf_counter() - started
                process.kill()
    return seconds


def start_up(folder: Path, repeats: int) -> dict[str, list[float]]:
    """Seconds of starts, the first of each not counted: the first demo makes the data."""
    command = [sys.executable, common.REPOSITORY / "main_simsiam.py", "--help"]
    run_help = partial(subprocess.run, command, stdout=subprocess.DEVNULL, check=True)
    code = "import torch, torch._dynamo"  # which its optimisers import
    import_torch = partial(subprocess.run, [sys.executable, "-c", code], check=True)
    helps = [common.seconds_of(run_help) for _ in range(repeats + 1)]
    epochs = [first_epoch(folder, number) for number in range(repeats + 1)]
    torches = [common.seconds_of(import_torch) for _ in range(repeats + 1)]
    starts = {"`--help`": helps, "`import torch` alone": torches, FIRST_EPOCH: epochs}
    return {name: seconds[1:] for name, seconds in starts.items()}


def main() -> None:
    options = common.argument_parser(__doc__, repeats=3).parse_args()
    smaller = 10 if options.small else 1
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        for split, count in VIDEOS.items():
            numbers = range(max(3, count // smaller))
            common.write_videos(folder, split, numbers, LENGTHS, CHANNELS)
        (folder / "labels").rename(folder / "of_run_labels")
        run(folder, "sola.prepare", "--yaml_path=run.yaml", "--features=data", "device=cpu")
        (folder / "of_run_labels").rename(folder / "run_data/labels")
        rounds = []
        for number in range(options.repeats):
            epochs = ["epoch=2"] if options.small else []
            started = time.perf_counter()
            text = run(
                folder, "main_simsiam", "--yaml_path=run.yaml", f"exp_name=r{number}", *epochs
            )
            whole = time.perf_counter() - started
            told = re.search(r"^time: .*$", text, re.M)[0]
            parts = [seconds_in(told, part) for part in PARTS]
            rounds.append([whole, whole - sum(parts), *parts])
        starts = start_up(folder, options.repeats)
    common.print_row("", "n", "s", is_head=True)
    names = ("the whole command", "start-up, checks, saving", *PARTS)
    for name, seconds in zip(names, zip(*rounds, strict=True), strict=True):
        common.print_row(name, options.repeats, common.spread(seconds, ".1f"))
    for name, seconds in starts.items():
        common.print_row(name, options.repeats, common.spread(seconds, ".2f"))
    print(f"\n{common.machine()}")


if __name__ == "__main__":
    main()

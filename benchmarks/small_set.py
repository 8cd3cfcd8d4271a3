"""Where the time of a training on a small set goes: start-up, steps, probe, pictures.

    python benchmarks/small_set.py [--folder DIR] [--repeats 3] [--small]

Writes synthetic features (76 + 23 videos of 72 channels, as hard on a probe as those of speed.py),
has `python -m sola.prepare` make the YAML, and runs the training that it plans, about 1,000 steps
with 16 evaluations, as a user would. Prints a table; about two minutes on 2 cores.
"""

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common

VIDEOS, LENGTHS, CHANNELS = {"training": 76, "validation": 23}, (140, 480), 72
PARTS = ("computing", "waiting for files", "probing", "drawing")


def run(folder: Path, script: str, *arguments: str) -> str:
    """What a script of the checkout prints; its errors end this one."""
    place = ["-m", script] if "." in script else [str(common.REPOSITORY / f"{script}.py")]
    command = [sys.executable, *place, *arguments]
    environment = {"PYTHONPATH": str(common.REPOSITORY)}
    return subprocess.run(
        command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


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
            parts = [float(re.search(rf"{part} ([\d.]+) s", told)[1]) for part in PARTS]
            rounds.append([whole, whole - sum(parts), *parts])
    common.print_row("", "n", "s", is_head=True)
    names = ("the whole command", "start-up, checks, saving", *PARTS)
    for name, seconds in zip(names, zip(*rounds, strict=True), strict=True):
        common.print_row(name, options.repeats, common.spread(seconds, ".1f"))
    print(f"\n{common.machine()}")


if __name__ == "__main__":
    main()

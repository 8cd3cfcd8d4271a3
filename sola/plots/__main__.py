"""The curves of runs, from their metrics.jsonl alone: python -m sola.plots RUN [RUN ...]"""

import sys

if __name__ == "__main__":  # from here on Ctrl-C leaves with one line
    from sola.system.signals import leave_on_signals

    leave_on_signals()

from collections.abc import Sequence
from pathlib import Path

from sola.config import load_config
from sola.errors import SolaError
from sola.plots.curves import CURVES, curves
from sola.plots.figure import save_figure
from sola.records import Record, read_records
from sola.system.cli import ScriptParser, run_script

METRICS = "metrics.jsonl"
MOST_RUNS = 10  # as there are colours


def main(arguments: list[str] | None = None) -> None:
    parser = ScriptParser(description="Draw the curves of runs from their metrics.jsonl.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="models/<exp_name>")
    parser.add_argument(
        "--output",
        metavar="PNG",
        help="default: where the run itself draws them; for several runs curves_<names>.png here",
    )
    options = parser.parse_args(arguments)
    runs = read_runs(options.runs)
    output = Path(options.output or f"curves_{'_'.join(runs):.100}.png".replace("/", "-"))
    if output.suffix != ".png" or output.is_dir():
        raise SolaError(f"--output={output}: must be a file that ends in .png")
    settings = _metrics_file(options.runs[0]).with_name("config.yaml")
    if options.output is None and len(runs) == 1 and settings.is_file():
        output = load_config(settings).picture_folder / CURVES
    save_figure(output, curves(runs))
    print(f"{output}: curves of {', '.join(runs)}")


def read_runs(paths: Sequence[str]) -> dict[str, list[Record]]:
    """Name -> records of runs given as their folders or metrics.jsonl. Raises SolaError."""
    files = list({file.resolve(): file for file in map(_metrics_file, paths)}.values())
    if len(files) > MOST_RUNS:
        raise SolaError(f"{len(files)} runs: at most {MOST_RUNS} can be told apart")
    runs = {}
    for name, file in zip(_names(files), files, strict=True):
        if not file.exists():
            raise SolaError(f"{file}: no such file; name the folder of a run, models/<exp_name>")
        runs[name] = read_records(file)
        if not runs[name]:
            raise SolaError(f"{file}: holds no records yet")
    return runs


def _metrics_file(path: str) -> Path:
    return Path(path) / METRICS if Path(path).is_dir() else Path(path)


def _names(files: Sequence[Path]) -> list[str]:
    """As much of the ends of the runs' paths as tells them apart."""
    files = [file.absolute() for file in files]
    places = [(file.parent if file.name == METRICS else file).parts[1:] for file in files]
    for depth in range(1, max(map(len, places)) + 2):
        names = ["/".join(parts[-depth:]) for parts in places]
        if len(set(names)) == len(names):
            break
    return names


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))

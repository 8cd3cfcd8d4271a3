"""What each stage costs as the number of videos grows eightfold.

    python benchmarks/growth.py [--folder DIR] [--small]

Synthetic videos of 24 to 100 snippets with 256 channels (3 GB in --folder), so that what a video
costs by itself shows rather than arithmetic. Prints, for each number of videos, the seconds to find
and open the files, of an epoch that reads them, an evaluation and a dump, and the peak memory of a
process that does all of it. One run a size, each in a process of its own, files in the page cache.
"""

import contextlib
import io
import tempfile
import time

import common
import numpy as np

from sola.export.dump import export_features
from sola.method.weights import save
from sola.probe.protocols import PROTOCOLS
from sola.training.inputs import open_inputs
from sola.training.loop import open_store

SIZES, SMALL_SIZES = (2_500, 5_000, 10_000, 20_000), (100, 200)
CHANNELS, LENGTHS = 256, (24, 100)
NARROW = {"network_hidden_unit": 64, "dissim_proj_hidden_unit": 64, "storage": "files"}
COLUMNS = "training videos", "find and open, s", "epoch, s", "evaluation, s", "dump, s", "peak, MB"


def measure(folder: str) -> tuple[list[float], float]:
    """Seconds of each stage on what lies in the folder, and the peak memory in MB."""
    config = common.config_for(folder, channels=CHANNELS, **NARROW)
    with contextlib.redirect_stdout(io.StringIO()):
        clock = [time.perf_counter()]
        inputs = open_inputs(config)
        clock.append(time.perf_counter())
        run = common.new_run(config, inputs)
        common.train_epoch(run, open_store(run))
        clock.append(time.perf_counter())
        module = run.learner.model.module
        PROTOCOLS[config.eval_protocol].probe(module, *inputs.probed, config, epoch=1)
        clock.append(time.perf_counter())
        save(f"{folder}/module.pt", module.state_dict())
        export_features(config, f"{folder}/module.pt", overwrite=True)
        clock.append(time.perf_counter())
    return np.diff(clock).tolist(), common.memory_mb("VmHWM")


def main() -> None:
    options = common.argument_parser(__doc__).parse_args()
    print(f"{common.machine()}\n")
    common.print_row(*COLUMNS, is_head=True)
    written = 0
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for size in SMALL_SIZES if options.small else SIZES:
            for split, step in (("training", 1), ("validation", 10)):
                numbers = range(written, size, step)
                common.write_videos(folder, split, numbers, LENGTHS, CHANNELS)
            written = size
            seconds, peak = common.in_own_process(measure, folder)
            common.print_row(f"{size:,}", *(f"{value:.2f}" for value in seconds), f"{peak:.0f}")


if __name__ == "__main__":
    main()

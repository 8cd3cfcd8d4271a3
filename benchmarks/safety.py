"""What it costs that a run can be killed at any moment, at the canonical sizes.

    python benchmarks/safety.py [--folder DIR] [--repeats 7] [--small]

Times, in turn, training steps of 256 windows held in memory, the saving of the training state, and
looking whether it is time to save or to stop, which follows each step. Prints the seconds of each,
the size of a state (0.3 GB in --folder), and what saving adds to an epoch of HACS: it has 145
steps, and the state is saved once in five minutes and at every saving epoch (1 in 10).
"""

import tempfile

import common

from sola.system.signals import DeferredSignals
from sola.training.loop import STATE_SECONDS, is_saving_due, save_progress


def main() -> None:
    options = common.argument_parser(__doc__, repeats=7).parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        config = common.config_for(folder, channels=128 if options.small else 2048)
        run, signals = common.new_run(config), DeferredSignals()
        actions = {
            "step": (4, common.step_of(run)),
            "save": (1, lambda: save_progress(run, 0)),
            "look": (10_000, lambda: is_saving_due(run, signals)),
        }
        step, save, look = common.print_times(actions, options.repeats)
        megabytes = sum(path.stat().st_size for path in config.run_folder.iterdir()) / 1e6
    epoch = step * common.STEPS_PER_EPOCH
    saves = max(epoch / STATE_SECONDS, 1 / 10)  # in an epoch
    print(f"a state is {megabytes:.0f} MB; an epoch takes {epoch:.1f} s and {saves:.2f} savings")
    print(f"added to an epoch: {(save * saves + look * common.STEPS_PER_EPOCH) / epoch:.2%}")


if __name__ == "__main__":
    main()

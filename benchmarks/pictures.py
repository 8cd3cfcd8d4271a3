"""What the pictures cost at the canonical sizes.

    python benchmarks/pictures.py [--folder DIR] [--repeats 7] [--small]

Times, in turn, training steps of 256 windows held in memory, the TSMs of six videos of 324 snippets
(HACS's median) of 2048 channels with four training windows, and the curves of 150 epochs and 16
evaluations. Prints the seconds of each, and what the pictures add to an epoch of HACS, 145 steps,
that draws them.
"""

import tempfile

import common

from sola.training.draw_run import draw_curves, draw_tsms
from sola.training.inputs import open_inputs

VIDEOS, LENGTH = range(6), (324, 324)
COSINES = ("cosine_mean", "cosine_std", "tanh_alpha", "update_ratio")
FIGURES = dict.fromkeys(("loss", "loss_floor", "loss_plateau", *COSINES), 0.3)
SCORES = ("accuracy", "balanced_accuracy", "roc_auc", "average_precision", "majority_share")


def main() -> None:
    options = common.argument_parser(__doc__, repeats=7).parse_args()
    scores = dict.fromkeys(SCORES, 0.8)
    records = [{"record": "epoch", "epoch": epoch} | FIGURES for epoch in range(1, 151)]
    records += [{"record": "evaluation", "epoch": epoch} | scores for epoch in range(0, 151, 10)]
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        config = common.config_for(folder, channels=128 if options.small else 2048)
        for split in ("training", "validation"):
            common.write_videos(folder, split, VIDEOS, LENGTH, config.in_feature_dim)
        run = common.new_run(config, open_inputs(config))
        actions = {
            "step": (4, common.step_of(run)),
            "TSMs and windows": (1, lambda: draw_tsms(config, 1, run.learner, run.inputs)),
            "curves": (1, lambda: draw_curves(config, records)),
        }
        step, tsms, curves = common.print_times(actions, options.repeats)
    epoch = step * common.STEPS_PER_EPOCH
    print(f"an epoch takes {epoch:.1f} s; its pictures add {(tsms + curves) / epoch:.1%}")


if __name__ == "__main__":
    main()

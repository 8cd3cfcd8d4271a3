"""The pictures in the README: two videos of the demo before and after SoLa, and its curves.

    python benchmarks/demo_pictures.py [--output docs] [--folder DIR] [--small]

Trains the demo anew in a temporary folder (30 MB), about a minute on 2 cores, and writes
demo_tsm.png and demo_curves.png. With --small, give another --output: two epochs show nothing.
"""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import common

from sola.config import load_config
from sola.data.synthetic import write_synthetic
from sola.training.loop import train

VIDEOS = ("validation_004", "validation_005")


def main() -> None:
    parser = common.argument_parser(__doc__)
    parser.add_argument("--output", type=Path, default=common.REPOSITORY / "docs")
    options = parser.parse_args()
    output = options.output.resolve()
    overrides = ["visualizing_dir=two"] + ["epoch=2"] * options.small
    with tempfile.TemporaryDirectory(dir=options.folder) as folder, contextlib.chdir(folder):
        config = load_config(common.REPOSITORY / "yamls/demo.yaml", overrides)
        write_synthetic(config.data_root, config.label_base, feature_dim=config.in_feature_dim)
        os.mkdir(config.visualizing_dir)
        for video in VIDEOS:
            shutil.copy(f"{config.data_root}/validation/{video}.npy", config.visualizing_dir)
        train(config)
        last = config.picture_folder / f"{config.exp_name}_epoch{config.epoch}.png"
        shutil.copy(last, output / "demo_tsm.png")
        shutil.copy(config.picture_folder / "curves.png", output / "demo_curves.png")


if __name__ == "__main__":
    main()

"""The pictures in the README: two videos of the demo before and after SoLa, and its curves.

    python benchmarks/demo_pictures.py [--folder DIR]

Trains the demo anew in a temporary folder, about a minute on 2 cores, and writes docs/demo_tsm.png
and docs/demo_curves.png.
"""

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

VIDEOS = ("validation_004", "validation_005")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", help="where to put 30 MB for the time of the run")
    options = parser.parse_args()
    from sola.config import load_config
    from sola.data.synthetic import write_synthetic
    from sola.training.loop import train

    with tempfile.TemporaryDirectory(dir=options.folder) as folder, contextlib.chdir(folder):
        config = load_config(REPOSITORY / "yamls/demo.yaml", ["visualizing_dir=two"])
        write_synthetic(config.data_root, config.label_base, feature_dim=config.in_feature_dim)
        os.mkdir("two")
        for video in VIDEOS:
            shutil.copy(Path(config.data_root) / "validation" / f"{video}.npy", "two")
        train(config)
        last = config.picture_folder / f"{config.exp_name}_epoch{config.epoch}.png"
        copy_small(last, REPOSITORY / "docs/demo_tsm.png")
        copy_small(config.picture_folder / "curves.png", REPOSITORY / "docs/demo_curves.png")


def copy_small(source: Path, target: Path) -> None:
    """Copy a picture with 256 colours at most."""
    from PIL import Image

    Image.open(source).convert("RGB").quantize(256).save(target, optimize=True)


if __name__ == "__main__":
    main()

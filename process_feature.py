"""Write SoLa features of both splits: python process_feature.py --load_model=150"""

import sys

from sola.config import load_config
from sola.runtime import ArgumentParser, run_script


def main(arguments: list[str] | None = None) -> None:
    parser = ArgumentParser(
        "Write the SoLa features of both splits, [T, C] float32 npy files.",
        default="yamls/hacs_canonical.yaml",
        help="the YAML of the training (default: %(default)s)",
    )
    parser.add_argument(
        "--load_model",
        required=True,
        help="EPOCH, best (highest probe accuracy), last, 0 (features untouched) or FILE.pt",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="compute complete videos anew, too"
    )
    options = parser.parse(arguments)
    config = load_config(options.yaml_path, options.settings)

    from sola.export import export_features  # after the checks: torch takes seconds to import

    export_features(config, options.load_model, overwrite=options.overwrite)


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))

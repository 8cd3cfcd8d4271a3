"""Write SoLa features of both splits: python process_feature.py --load_model=150"""

import sys

from sola.config import load_config
from sola.runtime import ArgumentParser, run_script


def main(arguments: list[str] | None = None) -> None:
    parser = ArgumentParser(
        description="Write the SoLa features of both splits, [T, C] float32 npy files.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--load_model",
        required=True,
        help="EPOCH, best (highest probe accuracy), last, 0 (features untouched) or FILE.pt",
    )
    parser.add_argument(
        "--yaml_path",
        default="yamls/hacs_canonical.yaml",
        help="the YAML of the training (default: %(default)s)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="compute complete videos anew, too"
    )
    parser.add_argument("--device", help="auto, cpu, cuda or cuda:N; wins over the YAML's device")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="win over the YAML")
    options = parser.parse_intermixed_args(arguments)
    overrides = list(options.overrides)
    if options.device:
        overrides.append(f"device={options.device}")
    config = load_config(options.yaml_path, overrides)

    from sola.export import export_features  # after the checks: torch takes seconds to import

    export_features(config, options.load_model, overwrite=options.overwrite)


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))

"""Write SoLa features: python process_feature.py --load_model=150"""

import sys

if __name__ == "__main__":  # from here on Ctrl-C leaves with one line
    from sola.system.signals import leave_on_signals

    leave_on_signals()

import argparse
import re
from pathlib import Path

from sola.config import Config, load_config, override
from sola.errors import SolaError
from sola.export.heads import HEADS
from sola.system.cli import ArgumentParser, add_timing_options, run_script, timing_settings
from sola.system.ranks import rank_count

CANONICAL = "yamls/hacs_canonical.yaml"
FORM_OPTIONS = {  # option -> its argparse settings; see sola/export/formats.py
    "format": {"choices": ("npy", "h5", "csv"), "help": "npy unless the head wants another"},
    "layout": {"choices": ("split", "flat"), "help": "a folder a split, or one folder"},
    "prefix": {"help": "before the names of the files, v_ for instance"},
    "resize": {"type": int, "metavar": "N", "help": "bring every video to N snippets"},
    "resize_mode": {
        "choices": ("linear", "pool"),
        "help": "F.interpolate without aligned corners, or BMN's bins of three samples",
    },
    "dtype": {"choices": ("float32", "float16"), "help": "of npy and h5"},
}


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    config, models = read_config(options), options.load_model.split(",")
    given = {option: getattr(options, option) for option in FORM_OPTIONS}
    given = {option: value for option, value in given.items() if value is not None}
    of_head = HEADS[options.head].form if options.head else {}
    if options.resize_mode and not options.resize and "resize" not in of_head:
        raise SolaError("--resize_mode needs --resize")
    annotations = options.annotations
    if options.head and not options.input and not annotations and config.annotations:
        annotations = config.annotations  # not with --input, whose videos are others
        if not Path(annotations).exists():
            what = "no such file; give --annotations"
            raise SolaError(f"annotations of the YAML: {annotations}: {what}")

    from sola.export.check import check_features  # after the checks: torch takes seconds
    from sola.export.dump import export_features
    from sola.export.encoder import find_checkpoint
    from sola.export.formats import Form
    from sola.export.source import Target

    named = [options.head if of_head else "", *given.values()]
    target = Target(
        form=Form(**of_head | given),
        head=options.head,
        source=options.input,
        output=options.output,
        is_one_of_many=len(models) > 1,
        suffix="".join(f"_{part}" for part in named if part),
        annotations=annotations,
    )
    if len(models) > 1 and rank_count() == 1:  # before anything is written
        names = {find_checkpoint(config, load_model)[0] for load_model in models}
        if len(names) < len(models):
            raise SolaError(f"--load_model={options.load_model}: two would be written as one")
    for load_model in models:
        if options.check:
            check_features(config, load_model, target)
        else:
            export_features(config, load_model, target, overwrite=options.overwrite)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options, checked as far as they can be without reading a file."""
    parser = ArgumentParser(
        "Write the SoLa features of both splits, [T, C] float32 npy files.",
        help=f"the YAML of the training (default: {CANONICAL}; with --input none)",
    )
    parser.add_argument(
        "--load_model",
        required=True,
        help="EPOCH, best (highest probe accuracy), best_head (of the temporal head), last, 0 "
        "(features untouched), moving_average:N (a control) or FILE.pt; several with commas "
        "between them, one after the other",
    )
    parser.add_argument("--overwrite", action="store_true", help="compute all videos anew")
    parser.add_argument("--for", dest="head", choices=HEADS, help="as this head reads them")
    parser.add_argument(
        "--check", action="store_true", help="with --for: read what was written as the head would"
    )
    for option, settings in FORM_OPTIONS.items():
        parser.add_argument(f"--{option}", **settings)
    parser.add_argument("--input", help="a folder or file of features, instead of the YAML's")
    parser.add_argument("--output", help="a folder, or with a file as --input a file")
    parser.add_argument(
        "--annotations", metavar="JSON", help="to convert, where a head wants it; else the YAML's"
    )
    add_timing_options(parser)
    options = parser.parse(arguments)
    options.settings += timing_settings(options)
    if options.input and not options.output:
        raise SolaError("--input needs --output, a folder or file for its features")
    if (options.annotations or options.check) and not options.head:
        option = "--check" if options.check else "--annotations"
        raise SolaError(f"{option}: is for a head, give --for")
    if "," in options.load_model and str(options.output).endswith((".npy", ".h5", ".csv")):
        raise SolaError(f"--output={options.output}: must be a folder, for several --load_model")
    return options


def read_config(options: argparse.Namespace) -> Config:
    """The YAML's; without one, for features that --input names, nothing but a checkpoint."""
    if options.input and options.yaml_path is None:
        for model in options.load_model.split(","):
            if not re.fullmatch(r"0|moving_average.*|.*\.pth?", model, re.DOTALL):
                what = "must be 0, moving_average:N or FILE.pt without a --yaml_path"
                raise SolaError(f"--load_model={model}: {what}")
        return override(Config(exp_name="features"), options.settings)
    return load_config(options.yaml_path or CANONICAL, options.settings)


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))

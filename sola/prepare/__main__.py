"""Make ready what a training needs from features alone: python -m sola.prepare --yaml_path=YAML

From feature files and, if there is one, an annotation file: index pickles, snippet labels, videos
to draw and a YAML with the sizes filled in; or, with --check, a report that changes nothing.
"""

if __name__ == "__main__":  # from here on Ctrl-C leaves with one line
    from sola.system.signals import leave_on_signals

    leave_on_signals()

import argparse
import dataclasses
import shlex

from sola.config import load_config, override
from sola.data.annotations import read_annotations
from sola.data.index_files import feature_folders
from sola.data.times import TIME_KEYS, Sampling
from sola.data.videos import SPLITS, BadFiles, open_files, open_split
from sola.errors import SolaError
from sola.prepare.dataset import DataSet, new_config, new_data, with_sampling
from sola.prepare.find import find_features
from sola.prepare.report import look_at_values, of_training, report
from sola.prepare.sizes import CANONICAL_SPAN, sized
from sola.prepare.usable import usable
from sola.prepare.write import complete, write_new
from sola.system.cli import ArgumentParser, add_timing_options, run_script, timing_settings
from sola.system.flat_yaml import read_flat_yaml, split_setting

RATE_KEYS = ("fps", "feat_stride")  # which say how many snippets there are in a second


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """What the user asks for."""
    parser = ArgumentParser(
        "Make index files, labels, videos to draw and a YAML from features and annotations.",
        required=True,
        help="of the training; with --features it is written",
    )
    parser.add_argument(
        "--features",
        help="folder of <video>.npy, or with folders training and validation of them; several with "
        "commas between them are joined on channels; without it the YAML's data_root is completed",
    )
    parser.add_argument("--annotations", metavar="JSON", help="as of HACS, ActivityNet, THUMOS")
    add_timing_options(parser)
    parser.add_argument(
        "--span",
        type=float,
        help=f"seconds from a window's first compared snippet to its last ({CANONICAL_SPAN:g})",
    )
    parser.add_argument("--check", action="store_true", help="report only, change nothing")
    parser.add_argument("--all_values", action="store_true", help="look at all, not at a sample")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace what is there; a YAML and its data folder are kept under a dated name",
    )
    parser.add_argument("--copy", action="store_true", help="copies of features in place of links")
    options = parser.parse(arguments)
    if options.span is not None and not (options.features and 0 < options.span < 1e6):
        raise SolaError(f"--span={options.span:g}: must be seconds, of a YAML made from --features")
    options.settings += timing_settings(options)
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    bad_files = BadFiles("skip", reads_values=False)
    data = (open_new if options.features else open_known)(options, bad_files)
    of_values, not_finite = look_at_values(data.files, everything=options.all_values)
    lines = [*report(data, bad_files.skipped), *of_values, *of_training(data)]
    print(*lines, sep="\n")
    bad_files.skipped |= dict.fromkeys(not_finite, "holds NaN or infinite values")
    data = usable(data, bad_files.skipped)
    if options.check:
        return
    if options.features:
        write_new(data, options.yaml_path, overwrite=options.overwrite, copies=options.copy)
    else:
        complete(data, overwrite=options.overwrite, copies=options.copy)
    settings = [] if options.features else options.settings  # else they are in the YAML
    command = ["python", "main_simsiam.py", f"--yaml_path={options.yaml_path}", *settings]
    print("next:", shlex.join(command))


def open_new(options: argparse.Namespace, bad_files: BadFiles) -> DataSet:
    """The data set in --features, with the configuration of a YAML to be made."""
    annotations = read_annotations(options.annotations) if options.annotations else {}
    folders = feature_folders(options.features)
    config = new_config(options.yaml_path, len(folders))
    parts = {
        split: open_files(paths, str(folders[0] / split), None, bad_files)
        for split, paths in find_features(folders).items()
    }
    data = new_data(config, parts, annotations, bad_files)
    of_time = [s for s in options.settings if split_setting(s)[0] in TIME_KEYS]
    given = override(dataclasses.replace(config, fps=0.0), of_time)
    is_given = any(split_setting(s)[0] in RATE_KEYS for s in of_time)
    data = with_sampling(data, Sampling.of(given), rate_is_given=is_given)
    config = dataclasses.replace(data.config, annotations=options.annotations or "")
    data = dataclasses.replace(data, config=config)
    others = [setting for setting in options.settings if setting not in of_time]
    return sized(data, others, options.span or CANONICAL_SPAN)


def open_known(options: argparse.Namespace, bad_files: BadFiles) -> DataSet:
    """The data set of a YAML that is there."""
    annotations = read_annotations(options.annotations) if options.annotations else {}
    config = load_config(options.yaml_path, options.settings)
    parts = {s: open_split(config.data_root, s, None, bad_files).videos for s in SPLITS}
    data = new_data(config, parts, annotations, bad_files)
    keys = {key for key, _ in map(split_setting, options.settings)}
    keys |= {key for key, _ in read_flat_yaml(options.yaml_path)}
    is_given = not keys.isdisjoint(RATE_KEYS)
    given = Sampling.of(config if is_given else dataclasses.replace(config, fps=0.0))
    data = with_sampling(data, given, rate_is_given=is_given)
    if data.sampling != Sampling.of(config) and data.annotations:
        of_yaml = dataclasses.asdict(data.sampling)
        said = ", ".join(f"{key}: {value:g}" for key, value in of_yaml.items())
        print(f"note: write into {options.yaml_path}, for what follows from time: {said}")
    return data


if __name__ == "__main__":
    run_script(main)

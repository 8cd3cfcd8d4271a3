"""Make ready what a training needs from features alone: python -m sola.prepare --yaml_path=YAML

From feature files and, if there is one, an annotation file: index pickles, snippet labels, videos
to draw and a YAML with the sizes filled in; or, with --check, a report that changes nothing.
"""

if __name__ == "__main__":  # from here on Ctrl-C leaves with one line
    from sola.system.signals import leave_on_signals

    leave_on_signals()

import argparse
import shlex
from dataclasses import asdict

from sola.config import load_config, override
from sola.data.annotations import read_annotations
from sola.data.index_files import feature_folders
from sola.data.videos import SPLITS, BadFiles, open_files, open_split
from sola.errors import SolaError
from sola.prepare.dataset import DataSet, new_data
from sola.prepare.find import find_features
from sola.prepare.new_yaml import CANONICAL_SPAN, new_config, sized
from sola.prepare.report import look_at_values, report
from sola.prepare.usable import usable
from sola.prepare.write import complete, write_new
from sola.system.cli import (
    TIME_OPTIONS,
    ArgumentParser,
    add_timing_options,
    run_script,
    timing_settings,
)
from sola.system.flat_yaml import read_flat_yaml, split_setting

RATE_KEYS = {"fps", "feat_stride"}  # which say how many snippets there are in a second


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
    settings = options.settings + timing_settings(options)
    options.time = [s for s in settings if split_setting(s)[0] in TIME_OPTIONS]
    options.others = [s for s in settings if s not in options.time]
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    bad_files = BadFiles("skip", reads_values=False)
    data = open_data(options, bad_files)
    bad_files.report("bad file")
    files = [video.file for video in data.videos]
    of_values = look_at_values(files, bad_files, everything=options.all_values)
    print(*report(data, of_values), sep="\n")
    data = usable(data, bad_files.skipped)
    if options.check:
        return
    command = ["python", "main_simsiam.py", f"--yaml_path={options.yaml_path}"]
    if options.features:
        write_new(data, options.yaml_path, overwrite=options.overwrite, copies=options.copy)
    else:
        complete(data, overwrite=options.overwrite, copies=options.copy)
        command += options.others  # which a new YAML holds
    print("next:", shlex.join(command))


def open_data(options: argparse.Namespace, bad_files: BadFiles) -> DataSet:
    """The data set in --features, or of a YAML that is there, with its configuration."""
    annotations = read_annotations(options.annotations) if options.annotations else {}
    given = {split_setting(setting)[0] for setting in options.time}
    if options.features:
        folders = feature_folders(options.features)
        config = new_config(options.yaml_path, len(folders), options.annotations)
        config = override(config, options.time)
        parts = {
            split: open_files(paths, str(folders[0] / split), None, bad_files)
            for split, paths in find_features(folders).items()
        }
    else:
        config = load_config(options.yaml_path, options.time + options.others)
        given |= {key for key, _ in read_flat_yaml(options.yaml_path)}
        parts = {s: open_split(config.data_root, s, None, bad_files).videos for s in SPLITS}
    is_new, is_given = bool(options.features), not RATE_KEYS.isdisjoint(given)
    data = new_data(config, parts, annotations, bad_files, is_new=is_new, rate_is_given=is_given)
    if is_new:
        return sized(data, options.others, options.span or CANONICAL_SPAN)
    if annotations:
        wanted = {key: getattr(data.config, key) for key in TIME_OPTIONS}
        wanted["annotations"] = options.annotations
        known = asdict(load_config(options.yaml_path))
        other = [f"{key}: {value}" for key, value in wanted.items() if known[key] != value]
        if other:
            said = f"write into {options.yaml_path}, for process_feature.py: {', '.join(other)}"
            print(f"note: {said}")
    return data


if __name__ == "__main__":
    run_script(main)

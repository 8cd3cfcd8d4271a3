"""Make ready what a training needs from features alone: python -m sola.prepare --yaml_path=YAML

From feature files and, if there is one, an annotation file: index pickles, snippet labels, videos
to draw and a YAML with the sizes filled in; or, with --check, a report that changes nothing.
"""

if __name__ == "__main__":  # from here on Ctrl-C leaves with one line
    from sola.system.signals import leave_on_signals

    leave_on_signals()

import argparse
import shlex

from sola.config import load_config
from sola.data.annotations import read_annotations
from sola.data.index_files import feature_folders
from sola.data.videos import SPLITS, BadFiles, open_split
from sola.prepare import dataset
from sola.prepare.report import look_at_values, report, window_advice
from sola.prepare.write import complete, write_new
from sola.system.cli import ArgumentParser, check_fps, run_script


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
    parser.add_argument("--fps", type=float, help="snippets a second; else from T and duration")
    parser.add_argument("--check", action="store_true", help="report only, change nothing")
    parser.add_argument("--all_values", action="store_true", help="look at all, not at a sample")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace what is there; a YAML and its data folder are kept under a dated name",
    )
    options = parser.parse(arguments)
    if options.fps is not None:
        check_fps(options.fps)
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    annotations = read_annotations(options.annotations) if options.annotations else {}
    bad_files = BadFiles("skip", reads_values=False)
    if options.features:
        folders = feature_folders(options.features)
        config = dataset.new_config(options.yaml_path, len(folders))
        videos = dataset.open_folders(folders, annotations, bad_files)
    else:
        config = load_config(options.yaml_path, options.settings)
        videos = {s: open_split(config.data_root, s, None, bad_files).videos for s in SPLITS}
    videos = dataset.leave_out_other_widths(videos, bad_files)
    data = dataset.with_rate(dataset.DataSet(config, videos, annotations), options.fps)
    if options.features:
        data = dataset.sized(data, options.settings)
    of_values, not_finite = look_at_values(data.files, everything=options.all_values)
    lines = [*report(data, bad_files.skipped), *of_values]
    print(*lines, *(window_advice(data) if options.features else []), sep="\n")
    if options.check:
        return
    bad_files.skipped |= dict.fromkeys(not_finite, "holds NaN or infinite values")
    data = dataset.usable(data, bad_files.skipped)
    if options.features:
        write_new(data, options.yaml_path, overwrite=options.overwrite)
    else:
        complete(data, overwrite=options.overwrite)
    settings = [] if options.features else options.settings  # else they are in the YAML
    command = ["python", "main_simsiam.py", f"--yaml_path={options.yaml_path}", *settings]
    print("next:", shlex.join(command))


if __name__ == "__main__":
    run_script(main)

"""Make ready what a training needs from features alone: python -m sola.prepare --yaml_path=YAML

From feature files and, if there is one, an annotation file: index pickles, snippet labels, videos
to draw and a YAML with the sizes filled in; or, with --check, a report that changes nothing.
"""

import argparse
import dataclasses
import itertools
import math
import shlex
import statistics
import sys
from pathlib import Path

from sola.config import Config, ConfigError, load_config, override
from sola.data.annotations import (
    Annotation,
    find_annotation,
    match,
    read_annotations,
    snippet_rate,
    splits_of,
    wrong_rate,
)
from sola.data.features import DataError, FeatureFile
from sola.data.videos import (
    SPLITS,
    BadFiles,
    Split,
    feature_folders,
    has_labels,
    index_file,
    open_split,
    open_videos,
    subset_of,
    video_paths,
)
from sola.prepare.report import DataSet, report, value_figures
from sola.prepare.write import index_and_label_files, links_to_draw, links_to_features, write_all
from sola.system.cli import ArgumentParser, check_fps, random_generator, run_script

FEWEST_STEPS = 4  # an epoch, in a YAML for few videos
FEW_STEPS = 5_000  # a training, below which the YAML asks for larger ones
USUAL_RATES = (1, 2, 3, 4, 5, 25 / 16, 30 / 16, 25 / 8, 30 / 8, 25 / 4, 30 / 4)  # snippets a second


def main(arguments: list[str] | None = None) -> None:
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
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")
    options = parser.parse(arguments)
    if options.fps is not None:
        check_fps(options.fps)
    annotations = read_annotations(options.annotations) if options.annotations else {}
    bad_files = BadFiles("skip", reads_values=False)
    if options.features:
        config, sources = new_config(options)
        videos = find_features(sources, annotations, bad_files)
    else:
        config, sources = load_config(options.yaml_path, options.settings), None
        videos = {s: open_split(config.data_root, s, None, bad_files).videos for s in SPLITS}
    leave_out_other_widths(videos, bad_files)
    lengths = {v: file.length for split in SPLITS for v, file in videos[split].items()}
    annotated = match(annotations, lengths) if annotations else {}
    fps = options.fps or (guess_fps(annotated, lengths) if annotated else None)
    data = DataSet(config, videos, annotations, fps, fps_is_given=options.fps is not None)
    if options.features:
        data = dataclasses.replace(data, config=sized(data, options.settings))
    figures = value_figures(data.files, everything=options.all_values)
    print(report(data, figures, bad_files.skipped))
    if options.features and fps and not data.fps_is_given and window_of(fps) != window_of(2.0):
        print(f"note: the window is that of 2 snippets a second; give --fps={fps:g} for these")
    if options.check:
        return
    rate = wrong_rate(annotated, lengths, fps) if annotated else None
    if rate is not None:
        raise DataError(f"--fps={fps:g}: T / duration is {rate:.3g} snippets a second")
    bad_files.skipped |= dict.fromkeys(figures.not_finite, "holds NaN or infinite values")
    refuse_unusable(data, bad_files)
    data = dataclasses.replace(
        data,
        videos={
            split: {v: f for v, f in of_split.items() if f.path not in bad_files.skipped}
            for split, of_split in videos.items()
        },
    )
    write(data, sources, options)
    settings = [] if options.features else options.settings  # else they are in the YAML
    command = ["python", "main_simsiam.py", f"--yaml_path={options.yaml_path}", *settings]
    print("next:", shlex.join(command))


def new_config(options: argparse.Namespace) -> tuple[Config, dict[str, list[Path]]]:
    """The configuration to be, without sizes, and the folders of each split's features.

    Links to these are made below a folder named after the YAML.
    """
    stem = Path(options.yaml_path).stem
    if "," in stem:
        raise ConfigError(f"--yaml_path={options.yaml_path}: a comma stands between folders")
    folders = feature_folders(options.features)
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"--features: {folder}: no such folder")
    split_folders = [folder / split for folder in folders for split in SPLITS]
    is_split = any(folder.is_dir() for folder in split_folders)
    absent = [folder for folder in split_folders if not folder.is_dir()]
    if is_split and absent:
        raise DataError(
            f"--features: {absent[0]}: no such folder, though there are of another split"
        )
    suffixes = ["", *(f"_{number}" for number in range(2, len(folders) + 1))]
    home = home_of(options)
    config = Config(
        exp_name=stem,
        data_root=",".join(str(home / f"features{suffix}") for suffix in suffixes),
        label_base=str(home / "labels"),
        visualizing_dir=",".join(str(home / f"visualizing{suffix}") for suffix in suffixes),
    )
    return config, {s: [f / s for f in folders] if is_split else folders for s in SPLITS}


def home_of(options: argparse.Namespace) -> Path:
    """The folder that belongs to a YAML made from --features."""
    return Path(f"{Path(options.yaml_path).stem}_data")


def find_features(
    sources: dict[str, list[Path]], annotations: dict[str, Annotation], bad_files: BadFiles
) -> dict[str, dict[str, FeatureFile]]:
    """Split -> video -> features, in split folders or divided by split_up."""
    if sources["training"] == sources["validation"]:
        return split_up(open_videos(sources["training"], None, bad_files), annotations)
    return {split: open_videos(folders, None, bad_files) for split, folders in sources.items()}


def split_up(
    videos: dict[str, FeatureFile], annotations: dict[str, Annotation]
) -> dict[str, dict[str, FeatureFile]]:
    """Videos of one folder as the annotations' subsets say; else a seeded tenth validates.

    Videos that the annotations do not know are trained on; those of another subset, as testing,
    are left out.
    """
    if not annotations:
        count = max(1, len(videos) // 10)
        chosen = random_generator("validation", 0).choice(sorted(videos), count, replace=False)
        validating = set(chosen.tolist())
        of_split = {v: "validation" if v in validating else "training" for v in videos}
    else:
        known = splits_of(annotations)
        by_entry = {id(annotations[video]): split for video, split in known.items()}
        of_split = {}
        for video in videos:
            entry = find_annotation(annotations, video)
            of_split[video] = "training" if entry is None else by_entry.get(id(entry), "")
    parts = {s: {v: f for v, f in videos.items() if of_split[v] == s} for s in SPLITS}
    for split, part in parts.items():
        if not part:
            subsets = ", ".join(sorted({entry.subset for entry in annotations.values()}))
            raise DataError(
                f"none of the {len(videos)} videos is of the {split} subset; subsets: {subsets:.80}"
            )
    return parts


def guess_fps(annotated: dict[str, Annotation], lengths: dict[str, int]) -> float:
    """Snippets a second, from T / duration: a usual rate when the median is within 1 % of one."""
    median = snippet_rate(annotated, lengths)
    if median is None:
        raise DataError("no annotated video has a duration; give --fps")
    nearest = min(USUAL_RATES, key=lambda rate: abs(math.log(rate / median)))
    return nearest if abs(nearest / median - 1) < 0.01 else median


def leave_out_other_widths(videos: dict[str, dict[str, FeatureFile]], bad_files: BadFiles) -> None:
    """List files of another width than most as bad."""
    width = statistics.mode(f.shape[1] for split in SPLITS for f in videos[split].values())
    for split in SPLITS:
        for video, file in list(videos[split].items()):
            if file.shape[1] != width:
                bad_files.skipped[file.path] = f"has {file.shape[1]} channels, most have {width}"
                del videos[split][video]
        if not videos[split]:
            raise DataError(f"{split}: all features have another width than most, {width}")


def refuse_unusable(data: DataSet, bad_files: BadFiles) -> None:
    """Raise SolaError for what would stop the training that is made ready."""
    width = data.files[0].shape[1]
    if data.config.in_feature_dim != width:
        raise ConfigError(f"in_feature_dim is {data.config.in_feature_dim}, not {width}")
    if bad_files.skipped and data.config.on_bad_file != "skip":
        path, what = min(bad_files.skipped.items())
        raise DataError(
            f"{path}: {what} ({len(bad_files.skipped)} such files); mend or remove them, or give "
            "on_bad_file=skip"
        )
    for split in SPLITS:
        usable = [f for f in data.videos[split].values() if f.path not in bad_files.skipped]
        if not usable:
            raise DataError(f"{split}: no usable file")
        window = data.config.sampling_duration
        if split == "training" and all(file.length <= window for file in usable):
            raise DataError(
                f"training: no video is longer than sampling_duration, {window} snippets"
            )


def write(
    data: DataSet, sources: dict[str, list[Path]] | None, options: argparse.Namespace
) -> None:
    """Write the YAML and its data; or complete the data of one that is there.

    What is there then stays: index files, unless --overwrite, and in any case the subset lists.
    """
    contents = index_and_label_files(data)
    drawn = links_to_draw(data)
    if sources is not None:
        about = "# Made by python -m sola.prepare. yamls/hacs_canonical.yaml explains every key.\n"
        contents = {Path(options.yaml_path): (about + data.config.to_yaml()).encode()} | contents
        links, home = links_to_features(data, sources) | drawn, home_of(options)
        if not all(data.annotated.values()) and has_labels(data.config.label_base):
            place = data.config.label_base
            print(f"warning: the labels in {place} stay and are used; remove them if unwanted")
    else:
        for split, kind in itertools.product(SPLITS, ("duration", "subset_list")):
            path = index_file(data.config.data_root, split, kind)
            if path.exists() and not (options.overwrite and kind == "duration"):
                del contents[path]
                print(f"{path}: stays as it is")
        if all(data.annotated.values()):
            check_subsets(data)
        visualizing = feature_folders(data.config.visualizing_dir)
        has_some = video_paths([folder for folder in visualizing if folder.is_dir()])
        links, home = {} if has_some else drawn, None
    write_all(contents, links, home=home, overwrite=options.overwrite)


def check_subsets(data: DataSet) -> None:
    """Raise DataError when a subset list, which stays, names a video that gets no labels."""
    for split in SPLITS:
        subset = subset_of(data.config.data_root, Split(split, data.videos[split], 0), 0)
        without = [video for video in subset if video not in data.labels[split]]
        path = index_file(data.config.data_root, split, "subset_list")
        if path.exists() and without:
            raise DataError(
                f"{path}: {len(without)} of its {len(subset)} videos are not annotated, first "
                f"{without[0]}; move it away to have one made"
            )


def sized(data: DataSet, settings: list[str]) -> Config:
    """The configuration with the sizes of the data; settings, KEY=VALUE, win over it.

    With a frame rate the window keeps the canonical one's seconds: gathered positions a second
    apart, two seconds before the first and after the last. Few videos get a batch that gives
    several steps an epoch, and a larger learning rate.
    """
    width = statistics.mode(f.shape[1] for s in SPLITS for f in data.videos[s].values())
    changes = {"in_feature_dim": width, "out_feature_dim": width, "dissim_proj_out": width}
    changes["visualizing_fps"] = float(data.fps or 0)
    if data.fps is not None and data.fps_is_given:
        changes |= window_of(data.fps)
    config = dataclasses.replace(data.config, **changes)
    trained = sum(f.length > config.sampling_duration for f in data.videos["training"].values())
    batch_size = config.batch_size
    while batch_size > 8 and trained / batch_size < FEWEST_STEPS:
        batch_size //= 2
    config = dataclasses.replace(config, batch_size=batch_size)
    if config.epoch * math.ceil(trained / batch_size) < FEW_STEPS:
        config = dataclasses.replace(config, learning_rate=1e-3)
    changed = override(config, settings)
    for key in ("data_root", "label_base", "visualizing_dir"):
        if getattr(changed, key) != getattr(config, key):
            raise ConfigError(f"{key} is {getattr(config, key)} with --features; leave it out")
    return changed


def window_of(fps: float) -> dict[str, int]:
    """step, step_start and sampling_duration at a number of snippets a second.

    The canonical ones at 2: 2, 4 and 23, that is 8 positions a second apart with two seconds on
    either side.
    """
    step = max(1, round(fps))
    return {"step": step, "step_start": 2 * step, "sampling_duration": 11 * step + 1}


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))

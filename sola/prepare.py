"""Make ready what a training needs from features alone: python -m sola.prepare --yaml_path=YAML

From feature files and, if there is one, an annotation file: index pickles, snippet labels, videos
to draw and a YAML with the sizes filled in; or, with --check, a report that changes nothing.
"""

import dataclasses
import io
import math
import os
import pickle
import statistics
import sys
from pathlib import Path

import numpy as np

from sola.annotations import (
    Annotation,
    block_list,
    find_annotation,
    match,
    read_annotations,
    snippet_rate,
    splits_of,
)
from sola.arrays import DataError, FeatureFile
from sola.config import Config, ConfigError, load_config, override
from sola.data_set import DataSet, report, value_figures
from sola.dataset import (
    SPLITS,
    BadFiles,
    draw_subset,
    feature_folders,
    index_file,
    label_folder,
    open_videos,
    video_paths,
)
from sola.files import write_atomically
from sola.heads import BLOCK_LIST
from sola.runtime import ArgumentParser, SolaError, progress, random_generator, run_script

DRAWN = 6
FEWEST_STEPS = 4  # an epoch, in a YAML for few videos
FEW_STEPS = 5_000  # a training, below which the YAML asks for larger ones
USUAL_RATES = (1, 2, 3, 4, 5, 25 / 16, 30 / 16, 25 / 8, 30 / 8, 25 / 4, 30 / 4)  # snippets a second
WRONG_RATE = 0.05  # what a given rate may be off, relatively


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
    if options.fps is not None and not 0 < options.fps < 1e6:
        raise SolaError(f"--fps={options.fps}: must be a number of snippets a second")
    annotations = read_annotations(options.annotations) if options.annotations else {}
    bad_files = BadFiles("skip", reads_values=False)
    if options.features:
        data = find_features(options, annotations, bad_files)
    else:
        config = load_config(options.yaml_path, options.settings)
        videos = {
            split: open_videos(
                [folder / split for folder in feature_folders(config.data_root)], None, bad_files
            )
            for split in SPLITS
        }
        data = DataSet(config, videos, annotations, options.fps, bad_files)
    if annotations:
        match(annotations, data.lengths)
    if data.fps is None and annotations:
        data.fps, data.fps_is_given = guess_fps(data), False
    data.config = sized(data, options.settings) if options.features else data.config
    refuse_mixed_widths(data)
    files = [file for split in SPLITS for file in data.videos[split].values()]
    figures = value_figures(files, everything=options.all_values)
    print(report(data, figures))
    if options.check:
        return
    rate = snippet_rate(data.all_annotated(), data.lengths) if annotations else None
    if rate is not None and abs(rate / data.fps - 1) > WRONG_RATE:
        raise DataError(f"--fps={data.fps:g}: T / duration is {rate:.3g} snippets a second")
    if bad_files.skipped and data.config.on_bad_file != "skip":
        path, what = min(bad_files.skipped.items())
        raise DataError(
            f"{path}: {what} ({len(bad_files.skipped)} such files); mend or remove them, or give "
            "on_bad_file=skip"
        )
    yaml_path = Path(options.yaml_path) if options.features else None
    write_all(contents_of(data, yaml_path), data.links, overwrite=options.overwrite)
    print(f"next: python main_simsiam.py --yaml_path={options.yaml_path}")


def find_features(options, annotations: dict[str, Annotation], bad_files: BadFiles) -> DataSet:
    """The videos below --features, and links to them below a folder named after the YAML."""
    yaml_path = Path(options.yaml_path)
    if yaml_path.exists() and not (options.overwrite or options.check):
        raise ConfigError(f"{yaml_path}: is there already; --overwrite replaces it")
    folders = feature_folders(options.features)
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"--features: {folder}: no such folder")
    home = Path(f"{yaml_path.stem}_data")
    suffixes = ["", *(f"_{number}" for number in range(2, len(folders) + 1))]
    roots = [home / f"features{suffix}" for suffix in suffixes]
    drawn = [home / f"visualizing{suffix}" for suffix in suffixes]
    if all((folders[0] / split).is_dir() for split in SPLITS):
        places = {split: [folder / split for folder in folders] for split in SPLITS}
        videos = {split: open_videos(places[split], None, bad_files) for split in SPLITS}
    else:
        places = dict.fromkeys(SPLITS, folders)
        videos = split_up(open_videos(folders, None, bad_files), annotations)
    config = Config(
        exp_name=yaml_path.stem,
        data_root=",".join(map(str, roots)),
        label_base=str(home / "labels"),
        visualizing_dir=",".join(map(str, drawn)),
    )
    links = {
        root / split / f"{video}.npy": folder / f"{video}.npy"
        for split in SPLITS
        for root, folder in zip(roots, places[split], strict=True)
        for video in videos[split]
    }
    return DataSet(config, videos, annotations, options.fps, bad_files, links=links)


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


def guess_fps(data: DataSet) -> float:
    """Snippets a second, from T / duration: a usual rate when the median is within 1 % of one."""
    median = snippet_rate(data.all_annotated(), data.lengths)
    if median is None:
        raise DataError("no annotated video has a duration; give --fps")
    nearest = min(USUAL_RATES, key=lambda rate: abs(math.log(rate / median)))
    return nearest if abs(nearest / median - 1) < 0.01 else median


def refuse_mixed_widths(data: DataSet) -> None:
    """List files of another width than most as bad."""
    files = [file for split in SPLITS for file in data.videos[split].values()]
    width = statistics.mode(file.shape[1] for file in files)
    for split in SPLITS:
        for video, file in list(data.videos[split].items()):
            if file.shape[1] != width:
                what = f"has {file.shape[1]} channels, most have {width}"
                data.bad_files.skipped[file.path] = what
                del data.videos[split][video]
        if not data.videos[split]:
            raise DataError(f"{split}: all features have another width than most, {width}")


def sized(data: DataSet, settings: list[str]) -> Config:
    """The configuration with the sizes of the data; settings, KEY=VALUE, win over it.

    With a frame rate the window keeps the canonical one's seconds: gathered positions a second
    apart, two seconds before the first and after the last. Few videos get a batch that gives
    several steps an epoch, and a larger learning rate.
    """
    width = statistics.mode(f.shape[1] for s in SPLITS for f in data.videos[s].values())
    changes = {"in_feature_dim": width, "out_feature_dim": width, "dissim_proj_out": width}
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
    return override(config, settings)


def window_of(fps: float) -> dict[str, int]:
    """step, step_start and sampling_duration at a number of snippets a second.

    The canonical ones at 2: 2, 4 and 23, that is 8 positions a second apart with two seconds on
    either side.
    """
    step = max(1, round(fps))
    return {"step": step, "step_start": 2 * step, "sampling_duration": 11 * step + 1}


def contents_of(data: DataSet, yaml_path: Path | None) -> dict[Path, bytes]:
    """All files to be written: path -> content. Links to features are apart, in data.links."""
    config, contents = data.config, {}
    labels = {split: data.labels(split) if data.fps else {} for split in SPLITS}
    has_labels = all(labels.values())
    for split in SPLITS:
        durations = {f"{video}.npy": file.length for video, file in data.videos[split].items()}
        contents[index_file(config.data_root, split, "duration")] = pickle.dumps(durations)
        probed = list(labels[split] if has_labels else data.videos[split])
        subset = draw_subset(split, probed, config.seed)
        contents[index_file(config.data_root, split, "subset_list")] = pickle.dumps(subset)
        if has_labels:
            for video, values in labels[split].items():
                path = label_folder(config.label_base, split) / f"{video}.npy"
                contents[path] = npy_bytes(values)
    if not video_paths([f for f in feature_folders(config.visualizing_dir) if f.is_dir()]):
        data.links |= links_to_draw(data)
    if data.annotations and data.without_files:
        path = feature_folders(config.data_root)[0] / BLOCK_LIST
        contents[path] = block_list(data.without_files)
    if yaml_path is not None:
        about = "# Made by python -m sola.prepare. yamls/hacs_canonical.yaml explains every key.\n"
        contents[yaml_path] = (about + config.to_yaml()).encode()
    return contents


def links_to_draw(data: DataSet) -> dict[Path, Path]:
    """Links in visualizing_dir to validation videos spread over the lengths."""
    videos = sorted(data.videos["validation"].items(), key=lambda item: item[1].length)
    places = np.unique(np.linspace(0, len(videos) - 1, min(DRAWN, len(videos))).round().astype(int))
    roots = feature_folders(data.config.data_root)
    homes = feature_folders(data.config.visualizing_dir)
    if len(homes) != len(roots):
        return {}  # the first validation videos are drawn then
    return {
        home / f"{videos[place][0]}.npy": root / "validation" / f"{videos[place][0]}.npy"
        for place in places
        for home, root in zip(homes, roots, strict=True)
    }


def npy_bytes(array: np.ndarray) -> bytes:
    """What np.save writes of an array."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def write_all(contents: dict[Path, bytes], links: dict[Path, Path], *, overwrite: bool) -> None:
    """Write files and relative links; nothing when any of them is there with another content."""
    files = {path: data for path, data in contents.items() if not _holds(path, data)}
    new_links = {link: target for link, target in links.items() if not _points_to(link, target)}
    for path in [*files, *new_links]:
        if (path.exists() or path.is_symlink()) and not overwrite:
            raise SolaError(f"{path}: is there with another content; --overwrite replaces it")
        if path in links and path.exists() and not path.is_symlink():
            raise SolaError(f"{path}: is a file where a link is to be made; move it away")
    for folder in dict.fromkeys(path.parent for path in reversed([*new_links, *files])):
        try:  # the YAML's first
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SolaError(f"{folder}: cannot be made: {error.strerror}") from error
    for link, target in progress(new_links.items(), desc="links", unit="file"):
        try:
            link.unlink(missing_ok=True)
            link.symlink_to(os.path.relpath(target.resolve(), link.parent.resolve()))
        except OSError as error:
            raise SolaError(f"{link}: cannot be made: {error.strerror}") from error
    for path, data in progress(files.items(), desc="files", unit="file"):
        write_atomically(path, data)
    print(f"{len(files)} files and {len(new_links)} links written, the others were there")


def _holds(path: Path, data: bytes) -> bool:
    return path.is_file() and path.read_bytes() == data


def _points_to(link: Path, target: Path) -> bool:
    return link.exists() and link.resolve() == target.resolve()


if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))

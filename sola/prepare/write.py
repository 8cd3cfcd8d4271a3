"""What is written: a YAML and its data folder, or what the data_root of a YAML lacks."""

import filecmp
import os
import pickle
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sola.data.annotations import BLOCK_LIST, block_list
from sola.data.features import FeatureFile, open_array
from sola.data.index_files import feature_folders, index_file, read_subset_list
from sola.data.labels import label_folder
from sola.data.videos import SPLITS, draw_subset, feature_paths, video_paths
from sola.errors import BadFileError, DataError, SolaError, shown
from sola.prepare.dataset import DataSet, data_folder
from sola.system.cli import progress
from sola.system.files import only_user_of, read_bytes, set_aside, write_atomically, write_npy

DRAWN = 6
PICKLE_PROTOCOL = 4  # which the original's Python reads
ABOUT = "# Made by python -m sola.prepare. yamls/hacs_canonical.yaml explains every key.\n"

Content = bytes | np.ndarray | str | Path  # str: a link to this real path; Path: a copy of it


def index_and_label_files(data: DataSet) -> dict[Path, Content]:
    """Index pickles, labels and the list of annotated videos without features.

    Labels, and a probe of labelled videos only, when there are any of both splits.
    """
    config, files = data.config, {}
    for split in SPLITS:
        durations = {f"{video}.npy": file.length for video, file in data.videos[split].items()}
        probed = list(data.videos[split] if data.lacks_labels else data.labels[split])
        subset = draw_subset(split, probed, config.seed)
        for kind, content in (("duration", durations), ("subset_list", subset)):
            path = index_file(config.data_root, split, kind)
            files[path] = pickle.dumps(content, protocol=PICKLE_PROTOCOL)
        if not data.lacks_labels:
            folder = label_folder(config.label_base, split)
            labels = data.labels[split].items()
            files |= {folder / f"{video}.npy": y.astype(np.int64) for video, y in labels}
    missing = feature_folders(config.data_root)[0] / BLOCK_LIST
    if data.annotations and (data.without_files or missing.exists()):
        files[missing] = block_list(data.without_files)
    return files


def _features(
    folders: Sequence[Path], videos: dict[str, FeatureFile], copies: bool
) -> dict[Path, Content]:
    """Links to the videos' files, or copies: of the first one of each in the first folder, etc."""
    kind = Path if copies else str
    return {
        folder / f"{video}.npy": kind(os.path.realpath(part.path))
        for video, file in videos.items()
        for folder, part in zip(folders, file.files, strict=True)
    }


def features_to_draw(data: DataSet, copies: bool = False) -> dict[Path, Content]:
    """Links or copies in visualizing_dir of DRAWN validation videos, spread over the lengths.

    None where visualizing_dir has another number of folders than data_root.
    """
    videos = sorted(data.videos["validation"].items(), key=lambda item: item[1].length)
    places = np.linspace(0, len(videos) - 1, min(DRAWN, len(videos))).round().astype(int)
    folders = feature_folders(data.config.visualizing_dir)
    if len(folders) != len(feature_folders(data.config.data_root)):
        return {}  # the first validation videos are drawn then
    return _features(folders, dict(videos[place] for place in places), copies)


def write_new(data: DataSet, yaml_path: str, *, overwrite: bool, copies: bool = False) -> None:
    """Write a YAML and its data folder, unless they are there with the same content.

    The folder is filled beside and appears whole, with links to features, or copies of them. Others
    that are there are refused; overwrite renames them to a dated name first.
    """
    folder, yaml_file = data_folder(yaml_path), Path(yaml_path)
    contents = index_and_label_files(data) | features_to_draw(data, copies)
    for split in SPLITS:
        roots = feature_folders(data.config.data_root)
        contents |= _features([root / split for root in roots], data.videos[split], copies)
    _check_features_lie_outside(folder, contents)
    text = (ABOUT + data.config.to_yaml()).encode()
    unfinished = folder.with_name(f".{folder.name}.tmp")
    with only_user_of(folder):
        shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed
        other_yaml = None if _holds(yaml_file, text) else f"{yaml_file}: has other content"
        other_folder = _difference(folder, contents)
        for path, other in ((yaml_file, other_yaml), (folder, other_folder)):
            if other and os.path.lexists(path) and not overwrite:
                raise SolaError(f"{other}; --overwrite makes {path} anew and keeps the old one")
        if other_folder:
            try:
                _write({unfinished / path.relative_to(folder): contents[path] for path in contents})
                set_aside(yaml_file)  # first, so that no YAML ever stands beside another's data
                set_aside(folder)
                os.rename(unfinished, folder)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
        if not _holds(yaml_file, text):
            set_aside(yaml_file)
            write_atomically(yaml_file, text)
    written = f"{len(contents)} files and links written"
    print(f"{folder}: {written if other_folder else 'is there already, with the same content'}")


def complete(data: DataSet, *, overwrite: bool, copies: bool = False) -> None:
    """Write what the data_root, label_base and visualizing_dir of a YAML lack.

    Index files that are there stay: durations unless overwrite, subset lists in any case. Other
    files of another content are refused unless overwrite, which also sets label folders aside that
    hold labels of other videos.
    """
    config, contents = data.config, index_and_label_files(data)
    has_labels = not data.lacks_labels
    for split in SPLITS:
        for kind in ("duration", "subset_list"):
            path = index_file(config.data_root, split, kind)
            if path.exists() and not (overwrite and kind == "duration"):
                del contents[path]
                print(f"{path}: stays as it is")
    if has_labels:
        _check_subsets(data)
    to_draw = [folder for folder in feature_folders(config.visualizing_dir) if folder.is_dir()]
    if not video_paths(to_draw):
        contents |= features_to_draw(data, copies)
    place = index_file(config.data_root, "training", "duration")
    with only_user_of(config.label_base if has_labels else place):
        for path in contents:
            if path.is_dir():
                raise SolaError(f"{path}: is a folder where a file is to be written; move it away")
        for split, labels in data.labels.items() if overwrite and has_labels else ():
            folder = label_folder(config.label_base, split)
            if folder.is_dir() and feature_paths(folder).keys() - labels.keys():
                set_aside(folder)
        new = {path: content for path, content in contents.items() if not _holds(path, content)}
        for path in new:
            if os.path.lexists(path) and not overwrite:
                raise SolaError(f"{path}: has other content; --overwrite replaces it")
        _write(new)
    print(f"{len(new)} files and links written, {len(contents) - len(new)} were there")


def _check_subsets(data: DataSet) -> None:
    """Raise DataError when a subset list, which stays, names a video that gets no labels."""
    for split in SPLITS:
        path = index_file(data.config.data_root, split, "subset_list")
        listed = read_subset_list(path) or []
        without = [video for video in listed if video not in data.labels[split]]
        if without and data.config.on_bad_file != "skip":
            raise DataError(
                f"{path}: {len(without)} of its {len(listed)} videos have no features or are not "
                f"annotated, first {shown(without[0])}; move it away to have one made"
            )


def _check_features_lie_outside(folder: Path, contents: dict[Path, Content]) -> None:
    """Raise SolaError for features in the folder that is to be made: they would be set aside."""
    inside = os.path.realpath(folder) + os.sep
    for content in contents.values():
        if isinstance(content, str | Path) and str(content).startswith(inside):
            raise SolaError(
                f"{content}: lies in {folder}, which is made anew; move the features out of it, or "
                "give the YAML another name"
            )


def _difference(folder: Path, contents: dict[Path, Content]) -> str | None:
    """The first thing that is not in a folder as it would be written; None when all is."""
    there = {path for path in folder.rglob("[!.]*") if path.is_symlink() or not path.is_dir()}
    if there - contents.keys():
        return f"{min(there - contents.keys())}: would not be written now"
    other = (path for path, content in contents.items() if not _holds(path, content))
    return next((f"{path}: is missing or has other content" for path in other), None)


def _holds(path: Path, content: Content) -> bool:
    """Whether a file is there with this content, an array's in any dtype, or a link or copy."""
    if isinstance(content, str):
        return os.path.realpath(path) == content
    if not path.is_file():
        return False
    if isinstance(content, Path):
        return not path.is_symlink() and filecmp.cmp(path, content)  # by size, time, then bytes
    if isinstance(content, bytes):
        return read_bytes(path) == content
    try:
        return np.array_equal(open_array(path).read(), content)
    except BadFileError:
        return False


def _write(contents: dict[Path, Content]) -> None:
    """Write files, copies, and links as relative ones, with their folders."""
    for path, content in progress(contents.items(), desc="files", unit="file"):
        if isinstance(content, bytes):
            write_atomically(path, content, is_synced=False)
        elif isinstance(content, np.ndarray):
            write_npy(path, content, is_synced=False)
        else:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                if isinstance(content, Path):
                    temporary = path.with_name(f".{path.name}.tmp")
                    temporary.unlink(missing_ok=True)  # of a run that was killed
                    os.replace(shutil.copy2(content, temporary), path)
                else:
                    path.symlink_to(os.path.relpath(content, os.path.realpath(path.parent)))
            except OSError as error:
                to_do = "" if isinstance(content, Path) else "; --copy makes copies of features"
                raise SolaError(f"{path}: cannot be made: {error.strerror}{to_do}") from error

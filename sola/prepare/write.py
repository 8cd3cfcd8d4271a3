"""What is written: a YAML and its data folder, or what the data_root of a YAML lacks."""

import contextlib
import filecmp
import glob
import os
import pickle
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sola.data.annotations import BLOCK_LIST, block_list
from sola.data.features import open_array
from sola.data.index_files import feature_folders, index_file
from sola.data.labels import label_folder
from sola.data.videos import DRAWN_BY_DEFAULT, SPLITS, video_paths
from sola.errors import BadFileError, SolaError
from sola.prepare.dataset import DataSet, Video
from sola.prepare.new_yaml import data_folder
from sola.system.cli import progress
from sola.system.files import (
    clear_temporary,
    only_user_of,
    read_bytes,
    set_aside,
    write_atomically,
    write_npy,
)

PICKLE_PROTOCOL = 4  # which the original's Python reads
ABOUT = "# Made by python -m sola.prepare. yamls/hacs_canonical.yaml explains every key.\n"

Content = bytes | np.ndarray | str | Path  # str: a link to this real path; Path: a copy of it


def index_and_label_files(data: DataSet) -> dict[Path, Content]:
    """Index pickles, labels unless they are lacking, and the annotated videos without features."""
    config, files = data.config, {}
    for split in SPLITS:
        durations = {f"{video.name}.npy": video.file.length for video in data.of(split)}
        subset = [video.name for video in data.probed(split)]
        for kind, content in (("duration", durations), ("subset_list", subset)):
            path = index_file(config.data_root, split, kind)
            files[path] = pickle.dumps(content, protocol=PICKLE_PROTOCOL)
        for video in data.labelled(split):
            path = label_folder(config.label_base, split) / f"{video.name}.npy"
            files[path] = video.labels.astype(np.int64)
    missing = feature_folders(config.data_root)[0] / BLOCK_LIST
    if data.annotations and (data.without_files or missing.exists()):
        files[missing] = block_list(data.without_files)
    return files


def _features(
    folders: Sequence[Path], videos: Sequence[Video], *, copies: bool
) -> dict[Path, Content]:
    """Links to the videos' files, or copies: of the first one of each in the first folder, etc."""
    kind = Path if copies else str
    return {
        folder / f"{video.name}.npy": kind(os.path.realpath(part.path))
        for video in videos
        for folder, part in zip(folders, video.file.files, strict=True)
    }


def features_to_draw(data: DataSet, *, copies: bool) -> dict[Path, Content]:
    """DRAWN_BY_DEFAULT validation videos for visualizing_dir, spread over the lengths.

    None where visualizing_dir has another number of folders than data_root: the first validation
    videos are drawn then.
    """
    folders = feature_folders(data.config.visualizing_dir)
    if len(folders) != len(feature_folders(data.config.data_root)):
        return {}
    videos = sorted(data.of("validation"), key=lambda video: video.file.length)
    places = np.linspace(0, len(videos) - 1, min(DRAWN_BY_DEFAULT, len(videos))).round().astype(int)
    return _features(folders, [videos[place] for place in places], copies=copies)


def write_new(data: DataSet, yaml_path: str, *, overwrite: bool, copies: bool) -> None:
    """Write a YAML and its data folder, unless they are there with the same content.

    The folder is filled beside and appears whole, with links to features, or copies of them. Others
    that are there are refused; overwrite renames them to a dated name first.
    """
    folder, yaml_file = data_folder(yaml_path), Path(yaml_path)
    contents = index_and_label_files(data) | features_to_draw(data, copies=copies)
    for split in SPLITS:
        roots = [root / split for root in feature_folders(data.config.data_root)]
        contents |= _features(roots, data.of(split), copies=copies)
    _check_features_lie_outside(folder, contents)
    text = (ABOUT + data.config.to_yaml()).encode()
    unfinished = folder.with_name(f".{folder.name}.tmp")
    staged = yaml_file.with_name(f".{yaml_file.name}.tmp")
    with only_user_of(folder):
        shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed, as what follows
        clear_temporary(staged.parent, glob.escape(staged.name))
        other_yaml = None if _holds(yaml_file, text) else f"{yaml_file}: has other content"
        other_folder = _difference(folder, contents)
        for path, other in ((yaml_file, other_yaml), (folder, other_folder)):
            if other and os.path.lexists(path) and not overwrite:
                raise SolaError(f"{other}; --overwrite makes {path} anew and keeps the old one")
        try:
            write_atomically(staged, text)  # where it cannot be written, nothing is
            if other_folder:
                _write({unfinished / path.relative_to(folder): contents[path] for path in contents})
                set_aside(yaml_file)  # first, so that no YAML ever stands beside another's data
                set_aside(folder)
                os.rename(unfinished, folder)
            Path(data.config.label_base).mkdir(exist_ok=True)  # empty without labels
            if other_folder or other_yaml:
                set_aside(yaml_file)
                os.replace(staged, yaml_file)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
            with contextlib.suppress(OSError):
                staged.unlink()
    written = f"{len(contents)} files and links written"
    print(f"{folder}: {written if other_folder else 'is there already, with the same content'}")


def complete(data: DataSet, *, overwrite: bool, copies: bool) -> None:
    """Write what the data_root, label_base and visualizing_dir of a YAML lack.

    Index files that are there stay: durations unless overwrite, subset lists in any case. Other
    files of another content are refused unless overwrite, which also sets label folders aside that
    hold labels of other videos.
    """
    config, contents = data.config, index_and_label_files(data)
    for split in SPLITS:
        for kind in ("duration", "subset_list"):
            path = index_file(config.data_root, split, kind)
            if path.exists() and not (overwrite and kind == "duration"):
                del contents[path]
                print(f"{path}: stays as it is")
    to_draw = feature_folders(config.visualizing_dir)
    unfinished = to_draw[0] / ".unfinished"  # is there while videos to draw are written
    if unfinished.exists() or not video_paths([folder for folder in to_draw if folder.is_dir()]):
        contents |= features_to_draw(data, copies=copies)
    folders = [label_folder(config.label_base, s) for s in SPLITS] if data.annotations else []
    place = index_file(config.data_root, "training", "duration")
    with only_user_of(config.label_base if folders else place):
        there = [path for folder in folders for path in folder.glob("[!.]*.npy")]
        stale = {path.parent for path in there if overwrite and path not in contents}
        if there and data.lacks_labels and not overwrite:
            what = f"{there[0].parent}: holds labels, but {data.lacks_labels}"
            raise SolaError(f"{what}; --overwrite keeps them under a dated name")
        new = {p: c for p, c in contents.items() if p.parent in stale or not _holds(p, c)}
        for path in new:
            if path.is_dir():
                raise SolaError(f"{path}: is a folder where a file is to be written; move it away")
            if os.path.lexists(path) and not overwrite:
                raise SolaError(f"{path}: has other content; --overwrite replaces it")
        for folder in sorted(stale):
            set_aside(folder)
        if any(path.parent in to_draw for path in new):
            write_atomically(unfinished, b"", is_synced=False)
        _write(new)
        if unfinished.exists():
            unfinished.unlink()
    print(f"{len(new)} files and links written, {len(contents) - len(new)} were there")


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
    for folder in {path.parent for path in contents}:
        clear_temporary(folder)
    for path, content in progress(contents.items(), desc="files", unit="file"):
        if isinstance(content, bytes):
            write_atomically(path, content, is_synced=False)
        elif isinstance(content, np.ndarray):
            write_npy(path, content, is_synced=False)
        elif isinstance(content, Path):
            write_atomically(path, read_bytes(content), is_synced=False)
            shutil.copystat(content, path)
        else:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.symlink_to(os.path.relpath(content, os.path.realpath(path.parent)))
            except OSError as error:
                to_do = "--copy makes copies of features"
                raise SolaError(f"{path}: cannot be made: {error.strerror}; {to_do}") from error

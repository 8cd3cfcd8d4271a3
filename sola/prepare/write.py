"""What a training reads beside features, and links to these; nothing where one is in the way."""

import os
import pickle
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from sola.data.annotations import block_list
from sola.data.features import BadFileError, open_array
from sola.data.videos import SPLITS, draw_subset, feature_folders, index_file, label_folder
from sola.export.heads import BLOCK_LIST
from sola.prepare.report import DataSet
from sola.system.cli import SolaError, progress
from sola.system.files import write_atomically, write_npy

DRAWN = 6
PICKLE_PROTOCOL = 4  # which the original's Python reads


def index_and_label_files(data: DataSet) -> dict[Path, bytes | np.ndarray]:
    """Path -> content of index pickles, labels and the list of annotated videos without features.

    Labels, and a probe of labelled videos only, when there are any of both splits.
    """
    config, contents = data.config, {}
    has_labels = all(data.annotated.values())
    for split in SPLITS:
        durations = {f"{video}.npy": file.length for video, file in data.videos[split].items()}
        probed = list(data.labels[split] if has_labels else data.videos[split])
        subset = draw_subset(split, probed, config.seed)
        for kind, content in (("duration", durations), ("subset_list", subset)):
            path = index_file(config.data_root, split, kind)
            contents[path] = pickle.dumps(content, protocol=PICKLE_PROTOCOL)
        if has_labels:
            folder = label_folder(config.label_base, split)
            contents |= {folder / f"{v}.npy": labels for v, labels in data.labels[split].items()}
    missing = feature_folders(config.data_root)[0] / BLOCK_LIST
    if data.annotations and (data.without_files or missing.exists()):
        contents[missing] = block_list(data.without_files)
    return contents


def links_to_features(data: DataSet, sources: dict[str, list[Path]]) -> dict[Path, Path]:
    """Link in the data_root -> feature file. sources: the folders of each split's features."""
    roots = feature_folders(data.config.data_root)
    return {
        root / split / f"{video}.npy": folder / f"{video}.npy"
        for split in SPLITS
        for root, folder in zip(roots, sources[split], strict=True)
        for video in data.videos[split]
    }


def links_to_draw(data: DataSet) -> dict[Path, Path]:
    """Link in visualizing_dir -> one of DRAWN validation videos that are spread over the lengths.

    None where visualizing_dir has another number of folders than data_root.
    """
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


def write_all(
    contents: dict[Path, bytes | np.ndarray],
    links: dict[Path, Path],
    *,
    home: Path | None,
    overwrite: bool,
) -> None:
    """Write files and relative links; nothing when any of them is there with another content.

    home: a folder of this program's own, in which folders of links hold no others. links: link ->
    what it leads to.
    """
    files = {path: content for path, content in contents.items() if not _holds(path, content)}
    new_links = {link: target for link, target in links.items() if not _leads_to(link, target)}
    stale = [] if home is None else _other_links(links)
    for path in [*files, *new_links, *stale]:
        _check_place(path, home, is_link=path in links, overwrite=overwrite or path in stale)
    if stale and not overwrite:
        raise SolaError(f"{stale[0]}: leads to what is no longer wanted; --overwrite removes it")
    for folder in dict.fromkeys(path.parent for path in reversed([*new_links, *files])):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SolaError(f"{folder}: cannot be made: {error.strerror}") from error
    for link in stale:
        link.unlink()
    for link, target in progress(new_links.items(), desc="links", unit="file"):
        try:
            link.unlink(missing_ok=True)
            link.symlink_to(os.path.relpath(target.resolve(), link.parent.resolve()))
        except OSError as error:
            raise SolaError(f"{link}: cannot be made: {error.strerror}") from error
    for path, content in progress(files.items(), desc="files", unit="file"):
        write = write_atomically if isinstance(content, bytes) else write_npy
        write(path, content)
    removed = f", {len(stale)} links removed" if stale else ""
    print(f"{len(files)} files and {len(new_links)} links written{removed}, the others were there")


def _holds(path: Path, content: bytes | np.ndarray) -> bool:
    """Whether the file is there with this content, an array's in any dtype."""
    if not path.is_file():
        return False
    if isinstance(content, bytes):
        return path.read_bytes() == content
    try:
        return np.array_equal(open_array(path).read(), content)
    except BadFileError:
        return False


def _leads_to(link: Path, target: Path) -> bool:
    return link.exists() and link.resolve() == target.resolve()


def _other_links(links: Iterable[Path]) -> list[Path]:
    """Links in the folders of these, but for these."""
    folders = {link.parent for link in links}
    there = [path for folder in folders if folder.is_dir() for path in folder.iterdir()]
    return sorted(path for path in there if path.is_symlink() and path not in links)


def _check_place(path: Path, home: Path | None, *, is_link: bool, overwrite: bool) -> None:
    """Raise SolaError when what lies at a path, or a link above it, must not be written over."""
    if path.is_dir() and not path.is_symlink():
        raise SolaError(f"{path}: is a folder where a file is to be written; move it away")
    if (path.exists() or path.is_symlink()) and not overwrite:
        raise SolaError(f"{path}: is there with another content; --overwrite replaces it")
    if is_link and path.exists() and not path.is_symlink():
        raise SolaError(f"{path}: is a file where a link is to be made; move it away")
    for folder in path.parents:
        if home in folder.parents and folder.is_symlink():
            raise SolaError(f"{folder}: is a link, and what it leads to is not this program's")

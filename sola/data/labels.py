"""Per-snippet action labels: a file a video, in a folder a split."""

from pathlib import Path

import numpy as np

from sola.config import Config
from sola.data.features import FeatureFile, open_array
from sola.data.videos import SPLITS, BadFiles
from sola.errors import BadFileError, DataError
from sola.system.cli import progress

MOST_SHOWN = 5  # values that labels hold


def read_labels(
    folder: str | Path, videos: dict[str, FeatureFile], bad_files: BadFiles
) -> dict[str, np.ndarray]:
    """Per-snippet action labels of videos: bool [T], true where the label file holds 1.

    Says what else than 0 and 1 they hold. Raises DataError for a label file that is missing or of
    another length than the features.
    """
    labels, odd = {}, {}
    for video, features in progress(videos.items(), desc="labels", unit="file"):
        with bad_files.met():
            path = Path(folder) / f"{video}.npy"
            values = read_label(path, features.length)
            labels[video] = values == 1
            if not np.isin(values, (0, 1)).all():
                odd[path] = np.unique(values)
    if odd:
        found = [f"{value:g}" for value in np.unique(np.concatenate([*odd.values()]))]
        held = ", ".join(found[:MOST_SHOWN] + ["others"] * (len(found) > MOST_SHOWN))
        where = f"in {len(odd)} files, first {next(iter(odd))}"
        print(f"warning: labels hold {held} ({where}); 1 alone counts as action")
    return labels


def read_label(path: Path, length: int) -> np.ndarray:
    """One video's label file: [T], as it is. Raises BadFileError for none, or one of another T."""
    if not path.is_file():
        raise BadFileError(path, "no such label file, and the linear probe needs it")
    array = open_array(path)
    if array.shape != (length,):
        what = f"labels of shape {list(array.shape)} where the features have {length} snippets"
        raise BadFileError(path, what)
    return array.read()


def label_folder(label_base: str | Path, split: str) -> Path:
    """Folder of a split's label files."""
    return Path(label_base) / f"{split}_label"


def has_labels(label_base: str | Path) -> bool:
    """Whether label folders exist; without any the linear probe is skipped.

    Raises DataError when only one of the two splits has its folder, and for a label_base that is
    not there, unless it is the usual one.
    """
    if label_base != Config.label_base and not Path(label_base).is_dir():
        what = "no such folder; make it, empty, to train without labels and probe"
        raise DataError(f"label_base: {label_base}: {what}")
    folders = [label_folder(label_base, split) for split in SPLITS]
    absent = [folder for folder in folders if not folder.is_dir()]
    if len(absent) == 1:
        raise DataError(f"{absent[0]}: no such folder, though the other split's is")
    return not absent

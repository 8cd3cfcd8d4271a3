"""Annotation files of HACS, ActivityNet and THUMOS, and the snippet labels that they give."""

import json
import math
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sola.data.index_files import check_names
from sola.errors import DataError, encoded, parsing, shown
from sola.system.files import read_bytes

BLOCK_LIST = "missing_files.txt"  # annotated videos without features, a line each
SUBSETS = {  # name of a subset or of a folder, in lower case -> which one it is
    "training": "training", "train": "training",
    "validation": "validation", "valid": "validation", "val": "validation",
    "testing": "testing", "test": "testing",
}  # fmt: skip
AMBIGUOUS = "ambiguous"  # THUMOS: where annotators did not agree whether there is an action
LARGEST_LABEL_ID = 2**31 - 1


@dataclass(frozen=True)
class Action:
    """An annotated segment: start and end in seconds, and the number of its label if it has one."""

    label: str
    start: float
    end: float
    label_id: int | None = None


@dataclass(frozen=True)
class Annotation:
    """What an annotation file says of one video.

    subset: in lower case. fps: frames a second. actions: None where the file has none for the
    video, not even an empty list. ambiguous: segments that are left out of them.
    """

    subset: str
    duration: float | None = None  # seconds
    actions: tuple[Action, ...] | None = None
    fps: float | None = None
    ambiguous: int = 0


def read_annotations(path: str | Path) -> dict[str, Annotation]:
    """Video -> annotation of {"database": {id: {"subset", "duration", "annotations"}}}.

    The database may stand alone. In place of annotations, lists of {"label", "segment"}, there may
    be actions, lists of [class, start, end], as of MultiTHUMOS and Charades. Durations and segments
    may be numbers or their text, as in HACS. Raises DataError, naming the file and the video.
    """
    try:
        content = read_bytes(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    with parsing(path, "not a JSON file with a database of videos", "name another, or mend it"):
        database = json.loads(content)
        if "database" in database:
            database = database["database"]
        else:  # it stands alone, beside a version at most
            database = {video: e for video, e in database.items() if isinstance(e, dict)}
        if not isinstance(database, dict) or not database:
            raise ValueError("its database is empty")
    check_names(path, database)
    annotations = {}
    for video, entry in database.items():
        with parsing(path, f"bad entry of {shown(video)!r}", "mend or remove it"):
            annotations[video] = _annotation(entry)
    return annotations


def _annotation(entry: dict[str, Any]) -> Annotation:
    if not isinstance(entry["subset"], str):
        raise TypeError(f"its subset is {shown(entry['subset'])}")
    entry = {"duration": entry.get("duration_second")} | entry
    known = {"subset": entry["subset"].strip().lower()}
    for key in ("duration", "fps"):
        if entry.get(key) is not None:
            known[key] = _number(entry[key])
            if not 1e-3 <= known[key] <= 1e9:
                raise ValueError(f"its {key} is {known[key]}")
    given = entry["annotations"] if entry.get("annotations") is not None else entry.get("actions")
    if given is None:
        return Annotation(**known)
    actions = [_action(action) for action in given]
    clear = tuple(action for action in actions if action.label.lower() != AMBIGUOUS)
    return Annotation(actions=clear, ambiguous=len(actions) - len(clear), **known)


def _action(action: dict[str, Any] | list[Any]) -> Action:
    if isinstance(action, list):
        label, start, end = action
        return Action(str(label), _number(start), _number(end))
    start, end = map(_number, action["segment"])
    label_id = action.get("label_id")
    if label_id is not None and (
        type(label_id) is not int or not 0 <= label_id <= LARGEST_LABEL_ID
    ):
        raise ValueError(f"its label_id is {shown(label_id)}")
    return Action(str(action.get("label", "action")), start, end, label_id)


def _number(value: float | str) -> float:
    if type(value) in (int, float, str) and math.isfinite(float(value)):
        return float(value)
    raise ValueError(f"{shown(value)} is no number")


def split_of_names(names: Iterable[str]) -> dict[str, str]:
    """Subset or folder, in lower case -> training or validation, of those that are either.

    names: all that there are. Where none is for validation, test validates; where none is for
    training, as in THUMOS, validation is trained on and test validated on.
    """
    kinds = {name: SUBSETS[name] for name in names if name in SUBSETS}
    roles = {"training": "training", "validation": "validation"}
    if "validation" not in kinds.values():
        roles["testing"] = "validation"
    elif "training" not in kinds.values():
        roles = {"validation": "training", "testing": "validation"}
    return {name: roles[kind] for name, kind in kinds.items() if kind in roles}


def split_of_subset(annotations: dict[str, Annotation]) -> dict[str, str]:
    """Subset -> training or validation; the videos of any other subset are left out."""
    return split_of_names({annotation.subset for annotation in annotations.values()})


def match(annotations: dict[str, Annotation], videos: Iterable[str]) -> dict[str, str]:
    """Video -> its name in an annotation file, of the feature files that have one there.

    The same name is taken first, then one with or without ActivityNet's v_ before either, then one
    that differs in case and in Unicode form alone, if there is no other such. Raises DataError,
    with examples, when no video has one.
    """
    videos = list(videos)
    there = {*videos}
    counts = Counter(map(_folded, annotations)), Counter(map(_folded, videos))
    of_folded = {_folded(name): name for name in annotations}
    found = {}
    for video in videos:
        names = [n for n in (video, video.removeprefix("v_"), f"v_{video}") if n in annotations]
        if all(count[_folded(video)] == 1 for count in counts):
            names.append(of_folded[_folded(video)])
        if names and (names[0] == video or names[0] not in there):  # else it is that file's
            found[video] = names[0]
    if not found:
        annotated, file = shown(next(iter(annotations))), shown(videos[0])
        raise DataError(
            f"none of the {len(annotations)} annotated videos, as {annotated!r}, has the name of a "
            f"feature file, as {file!r}"
        )
    return found


def _folded(name: str) -> str:
    """A name without v_, in one case and Unicode form."""
    return unicodedata.normalize("NFC", name).casefold().removeprefix("v_")


def action_labels(actions: Iterable[Action], centres: np.ndarray) -> np.ndarray:
    """Which snippets' centres [T], in seconds, lie in a segment [start, end): bool [T]."""
    labels = np.zeros(len(centres), bool)
    for action in actions:
        labels |= (centres >= action.start) & (centres < action.end)
    return labels


def block_list(videos: Iterable[str]) -> bytes:
    """Videos without features, a line each, as OpenTAD takes them."""
    lines = (" ".join(video.splitlines()) for video in videos)
    return encoded("".join(f"{line}\n" for line in lines))

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
from sola.errors import DataError, parsing, shown
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
    duration: float | None  # seconds
    actions: tuple[Action, ...] | None
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
        is_database = all(isinstance(e, dict) and "subset" in e for e in database.values())
        database = database if is_database else database["database"]
        if not isinstance(database, dict) or not database:
            raise ValueError("its database is empty")
    check_names(path, database)
    annotations = {}
    for video, entry in database.items():
        with parsing(path, f"bad entry of {shown(video)!r}", "mend or remove it"):
            annotations[video] = _annotation(entry)
    return annotations


def _annotation(entry: dict[str, Any]) -> Annotation:
    subset, duration, fps = entry["subset"], entry.get("duration"), entry.get("fps")
    if not isinstance(subset, str):
        raise TypeError(f"its subset is {shown(subset)}")
    seconds = None if duration is None else _seconds(duration)
    if seconds is not None and seconds < 1e-3:
        raise ValueError(f"its duration is {seconds}")
    frames = None if fps is None else _seconds(fps)
    if frames is not None and not 1e-3 <= frames <= 1e6:
        raise ValueError(f"its fps is {frames}")
    given = entry.get("annotations", entry.get("actions"))
    if given is None:
        return Annotation(subset.lower(), seconds, None, frames)
    actions = [_action(action) for action in given]
    clear = tuple(action for action in actions if action.label.lower() != AMBIGUOUS)
    return Annotation(subset.lower(), seconds, clear, frames, len(actions) - len(clear))


def _action(action: dict[str, Any] | list[Any]) -> Action:
    if isinstance(action, list):
        label, start, end = action
        return Action(str(label), _seconds(start), _seconds(end))
    start, end = map(_seconds, action["segment"])
    label_id = action.get("label_id")
    if label_id is not None and (
        type(label_id) is not int or not 0 <= label_id <= LARGEST_LABEL_ID
    ):
        raise ValueError(f"its label_id is {shown(label_id)}")
    return Action(str(action.get("label", "action")), start, end, label_id)


def _seconds(value: float | str) -> float:
    if type(value) in (int, float, str):
        seconds = float(value)
        if math.isfinite(seconds):
            return seconds
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
    videos, folded = list(videos), Counter(map(_folded, annotations))
    of_folded = {_folded(name): name for name in annotations if folded[_folded(name)] == 1}
    in_folder = Counter(map(_folded, videos))
    found = {}
    for video in videos:
        names = [n for n in (video, video.removeprefix("v_"), f"v_{video}") if n in annotations]
        if not names and in_folder[_folded(video)] == 1 and _folded(video) in of_folded:
            names = [of_folded[_folded(video)]]
        if names:
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
    return "".join(f"{line}\n" for line in lines).encode(errors="backslashreplace")


def _all_actions(annotations: dict[str, Annotation]) -> list[Action]:
    return [action for entry in annotations.values() for action in entry.actions or ()]


def label_numbers(annotations: dict[str, Annotation]) -> dict[str, int]:
    """Label -> its label_id where the file gives each label one; else its alphabetical place."""
    actions = _all_actions(annotations)
    given = {action.label: action.label_id for action in actions}
    if all(a.label_id is not None and a.label_id == given[a.label] for a in actions):
        return given
    return {label: number for number, label in enumerate(sorted(given))}


def is_renumbered(annotations: dict[str, Annotation]) -> bool:
    """Whether label_numbers leaves a label_id of the file aside."""
    numbers = label_numbers(annotations)
    return any(a.label_id not in (None, numbers[a.label]) for a in _all_actions(annotations))


def numeric_annotations(
    annotations: dict[str, Annotation], videos: dict[str, str], rates: dict[str, float]
) -> dict[str, Any]:
    """The content of an annotation file as ActionFormer reads it: numbers, and a number a label.

    Holds those that have a duration and a rate, with their subsets: the loader stops at a video
    without features. videos: name in it -> name in annotations. rates: the same -> snippets a
    second, as they are written. See label_numbers.
    """
    numbers = label_numbers(annotations)
    return {
        "version": "numeric",
        "database": {
            video: {
                "subset": annotations[name].subset,
                "duration": annotations[name].duration,
                "fps": rates[video],
                "annotations": [
                    {
                        "label": action.label,
                        "label_id": numbers[action.label],
                        "segment": [action.start, action.end],
                    }
                    for action in annotations[name].actions or ()
                ],
            }
            for video, name in videos.items()
            if annotations[name].duration is not None and video in rates
        },
    }

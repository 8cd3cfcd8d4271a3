"""Annotation files of HACS, ActivityNet and THUMOS, and the snippet labels that they give."""

import json
import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sola.data.index_files import check_names
from sola.errors import DataError, parsing, shown
from sola.system.files import read_bytes

BLOCK_LIST = "missing_files.txt"  # annotated videos without features, a line each
TRAINING_NAMES = ("training", "train")
VALIDATION_NAMES = ("validation", "val")
TEST_NAMES = ("testing", "test")
LARGEST_LABEL_ID = 2**31 - 1
WRONG_RATE = 0.05  # what a given rate may be off, relatively


@dataclass(frozen=True)
class Action:
    """An annotated segment: start and end in seconds, and the number of its label if it has one."""

    label: str
    start: float
    end: float
    label_id: int | None = None


@dataclass(frozen=True)
class Annotation:
    """What an annotation file says of one video. subset: in lower case."""

    subset: str
    duration: float | None  # seconds
    actions: tuple[Action, ...]


def read_annotations(path: str | Path) -> dict[str, Annotation]:
    """Video -> annotation of {"database": {id: {"subset", "duration", "annotations"}}}.

    Durations and segments may be numbers or their text, as in HACS. Raises DataError, naming the
    file and the video.
    """
    try:
        content = read_bytes(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    with parsing(path, "not a JSON file with a database of videos", "name another, or mend it"):
        database = json.loads(content)["database"]
        if not isinstance(database, dict) or not database:
            raise ValueError("its database is empty")
    check_names(path, database)
    annotations = {}
    for video, entry in database.items():
        with parsing(path, f"bad entry of {shown(video)!r}", "mend or remove it"):
            annotations[video] = _annotation(entry)
    return annotations


def _annotation(entry: dict[str, Any]) -> Annotation:
    subset, duration = entry["subset"], entry.get("duration")
    if not isinstance(subset, str):
        raise TypeError(f"its subset is {shown(subset)}")
    seconds = None if duration is None else _seconds(duration)
    if seconds is not None and seconds < 1e-3:
        raise ValueError(f"its duration is {seconds}")
    actions = tuple(_action(action) for action in entry.get("annotations", []))
    return Annotation(subset.lower(), seconds, actions)


def _action(action: dict[str, Any]) -> Action:
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
    raise ValueError(f"{shown(value)} is no number of seconds")


def split_of_subset(annotations: dict[str, Annotation]) -> dict[str, str]:
    """Subset -> training or validation; the videos of any other subset are left out.

    Where nothing is called training, as in THUMOS, validation is trained on and test validated on.
    """
    of_training, of_validation = TRAINING_NAMES, VALIDATION_NAMES
    if {annotation.subset for annotation in annotations.values()}.isdisjoint(TRAINING_NAMES):
        of_training, of_validation = VALIDATION_NAMES, TEST_NAMES
    return dict.fromkeys(of_training, "training") | dict.fromkeys(of_validation, "validation")


def find_annotation(annotations: dict[str, Annotation], video: str) -> Annotation | None:
    """The annotation of a feature file's name, with or without ActivityNet's v_ before either."""
    names = (video, video.removeprefix("v_"), f"v_{video}")
    return next((annotations[name] for name in names if name in annotations), None)


def find_annotations(
    annotations: dict[str, Annotation], videos: Iterable[str]
) -> dict[str, Annotation]:
    """Video -> annotation, of the videos that have one."""
    found = {video: find_annotation(annotations, video) for video in videos}
    return {video: entry for video, entry in found.items() if entry is not None}


def match(annotations: dict[str, Annotation], videos: Iterable[str]) -> dict[str, Annotation]:
    """The same. Raises DataError, with examples, when no video has one."""
    videos = list(videos)
    found = find_annotations(annotations, videos)
    if not found:
        annotated, file = shown(next(iter(annotations))), shown(videos[0])
        raise DataError(
            f"none of the {len(annotations)} annotated videos, as {annotated!r}, has the name of a "
            f"feature file, as {file!r}"
        )
    return found


def snippet_rate(annotations: dict[str, Annotation], lengths: dict[str, int]) -> float | None:
    """Snippets a second: the median of T / duration over the videos that have both.

    lengths: video -> T.
    """
    rates = [
        lengths[video] / entry.duration for video, entry in annotations.items() if entry.duration
    ]
    return statistics.median(rates) if rates else None


def wrong_rate(
    annotations: dict[str, Annotation], lengths: dict[str, int], fps: float
) -> float | None:
    """The snippet_rate of the data, where fps is off by more than WRONG_RATE; else None."""
    rate = snippet_rate(annotations, lengths)
    return rate if rate is not None and abs(rate / fps - 1) > WRONG_RATE else None


def action_labels(actions: Iterable[Action], length: int, fps: float) -> np.ndarray:
    """Which snippets' centres, (i + 0.5) / fps, lie in a segment [start, end): bool [T]."""
    centres = (np.arange(length) + 0.5) / fps
    labels = np.zeros(length, bool)
    for action in actions:
        labels |= (centres >= action.start) & (centres < action.end)
    return labels


def block_list(videos: Iterable[str]) -> bytes:
    """Videos without features, a line each, as OpenTAD takes them."""
    lines = (" ".join(video.splitlines()) for video in videos)
    return "".join(f"{line}\n" for line in lines).encode(errors="backslashreplace")


def _all_actions(annotations: dict[str, Annotation]) -> list[Action]:
    return [action for entry in annotations.values() for action in entry.actions]


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
    annotations: dict[str, Annotation],
    videos: Iterable[str],
    fps: float,
    resize: int | None = None,
) -> dict[str, Any]:
    """The content of an annotation file as ActionFormer reads it: numbers, and a number a label.

    Holds those of the videos given that have a duration, with their subsets: the loader stops at a
    video without features. fps: of the snippets; resize: to so many each, which then gives a rate
    for each video. See label_numbers.
    """
    numbers = label_numbers(annotations)
    database = {}
    for video in videos:
        annotation = find_annotation(annotations, video)
        if annotation is None or annotation.duration is None:
            continue
        database[video] = {
            "subset": annotation.subset,
            "duration": annotation.duration,
            "fps": resize / annotation.duration if resize else fps,
            "annotations": [
                {
                    "label": action.label,
                    "label_id": numbers[action.label],
                    "segment": [action.start, action.end],
                }
                for action in annotation.actions
            ],
        }
    return {"version": "numeric", "database": database}

"""The annotation files that heads read beside features, made from the user's own."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sola.data.annotations import BLOCK_LIST, Action, Annotation, block_list, split_of_subset
from sola.errors import SolaError, parsing, shown
from sola.system.files import read_bytes

if TYPE_CHECKING:
    from sola.data.times import TimeAxis

ANNOTATIONS = "annotations.json"
CLASSES = "classes.txt"  # a label a line, in the order of their numbers: OpenTAD's class_map
OF_BMN = ("video_info.csv", "anet_anno.json")  # what BMN and G-TAD's branch anet read

NO_FEATURES, NO_DURATION = "without features", "without a duration"
NO_SEGMENT = "of training without a segment within their features, at which loaders stop"
SCORED = "that would be scored, without features or duration: a score leaves them out"
MISPLACED = "with features in the folder of another split than their subset's"
UNREADABLE = (NO_FEATURES, NO_DURATION, SCORED)


@dataclass(frozen=True)
class GroundTruth:
    """What heads are told of the videos that have features and a duration.

    source: SHA-256 of the user's file. entries: id -> its entry in ANNOTATIONS. lengths: id -> T of
    its features. classes: label -> its number, from 0. old_numbers: label -> number in the user's
    file, where one changes. left_out: why -> names in the user's file.
    """

    source: str
    entries: dict[str, dict[str, Any]]
    lengths: dict[str, int]
    classes: dict[str, int]
    old_numbers: dict[str, int]
    left_out: dict[str, list[str]]

    def describe(self) -> list[str]:
        """Lines on what is in the files and what is not."""
        lines = [f"{ANNOTATIONS}: {len(self.entries)} videos, {len(self.classes)} classes"]
        for why, names in self.left_out.items():
            first = ", ".join(shown(name) for name in names[:3])
            lines.append(f"not in it: {len(names)} {why} ({first}{', ...' if names[3:] else ''})")
        if self.old_numbers:
            old = self.old_numbers
            changes = [f"{shown(v)} {old[v]} -> {n}" for v, n in self.classes.items() if v in old]
            lines.append(f"labels are numbered anew, without gaps: {', '.join(changes)}")
        return lines

    def files(self, *, is_of_bmn: bool, prefix: str) -> dict[str, bytes]:
        """Name -> content of the files. prefix: before the ids in names of features."""
        missing = [
            name for why, names in self.left_out.items() if why in UNREADABLE for name in names
        ]
        files = {
            ANNOTATIONS: _json({"source": self.source, "prefix": prefix, "database": self.entries}),
            BLOCK_LIST: block_list(missing),
            CLASSES: block_list(self.classes),  # as lines, too
        }
        return files | (self._of_bmn(prefix) if is_of_bmn else {})

    def _of_bmn(self, prefix: str) -> dict[str, bytes]:
        """BMN's two files. In them a video is duration_frame frames long, feature_frame of which
        have features: T snippets and the snippets that its duration would make.
        """
        table, content = io.StringIO(), {}
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["video", "numFrame", "seconds", "fps", "rfps", "subset", "featureFrame"])
        for video, entry in self.entries.items():
            seconds, rate, length = entry["duration"], entry["fps"], self.lengths[video]
            frames = round(seconds * rate, 3)
            row = [prefix + video, frames, seconds, rate, rate, entry["subset"], length]
            writer.writerow(row)
            content[prefix + video] = {
                "duration_second": seconds,
                "duration_frame": frames,
                "feature_frame": length,
                "annotations": entry["annotations"],
            }
        return dict(zip(OF_BMN, (table.getvalue().encode(), _json(content)), strict=True))


def ground_truth(
    source: str,
    annotations: dict[str, Annotation],
    names: dict[str, str],
    axes: dict[str, TimeAxis],
    lengths: dict[str, int],
    places: dict[str, str],
) -> GroundTruth:
    """What heads are told.

    names: id -> name in annotations, of the videos with features. axes, lengths: id -> where its
    features lie in time, and how many they are. places: id -> the split that its file lies in, if
    it lies in one. Subsets are named training and validation, as the folders and as heads ask for,
    whatever the annotations call them. In the training subset segments are clipped to the
    features; those that are scored stay as they are annotated.
    """
    split_of, of_name = split_of_subset(annotations), {name: video for video, name in names.items()}
    kept: dict[str, tuple[Annotation, list[Action]]] = {}
    left_out: dict[str, list[str]] = {why: [] for why in (*UNREADABLE, MISPLACED, NO_SEGMENT)}
    for name, entry in annotations.items():
        video, actions = of_name.get(name), list(entry.actions or ())
        is_trained_on = split_of.get(entry.subset) == "training"
        if is_trained_on and video in axes:
            actions = _clipped(actions, *axes[video].span(lengths[video]))
        if video is None or entry.duration is None or video not in axes:
            why = NO_FEATURES if video is None else NO_DURATION
            left_out[SCORED if split_of.get(entry.subset) == "validation" else why].append(name)
        elif places.get(video, split_of.get(entry.subset)) != split_of.get(entry.subset):
            left_out[MISPLACED].append(name)
        elif is_trained_on and not actions:
            left_out[NO_SEGMENT].append(name)
        else:
            kept[video] = entry, actions
    classes, old_numbers = _numbers([action for _, actions in kept.values() for action in actions])
    entries = {
        video: {
            "subset": split_of.get(entry.subset, entry.subset),
            "duration": entry.duration,
            "fps": axes[video].rate,
            "clip": axes[video].clip,
            "annotations": [
                {"label": a.label, "label_id": classes[a.label], "segment": [a.start, a.end]}
                for a in actions
            ],
        }
        for video, (entry, actions) in kept.items()
    }
    left_out = {why: found for why, found in left_out.items() if found}
    return GroundTruth(source, entries, lengths, classes, old_numbers, left_out)


def _clipped(actions: list[Action], start: float, end: float) -> list[Action]:
    """The parts of segments that lie within the features' time."""
    parts = (replace(a, start=max(a.start, start), end=min(a.end, end)) for a in actions)
    return [part for part in parts if part.end > part.start]


def _numbers(actions: list[Action]) -> tuple[dict[str, int], dict[str, int]]:
    """Label -> number from 0 without gaps; and, if any differs, label -> number it had.

    The order is that of the label_ids where each label has one of its own, else the alphabet's.
    """
    given = {action.label: action.label_id for action in actions}
    has_ids = all(a.label_id is not None and a.label_id == given[a.label] for a in actions)
    is_numbered = has_ids and len({*given.values()}) == len(given)
    order = sorted(given, key=given.__getitem__) if is_numbered else sorted(given)
    numbers = {label: number for number, label in enumerate(order)}
    old = {label: number for label, number in given.items() if number is not None}
    return numbers, old if any(old[label] != numbers[label] for label in old) else {}


def _json(content: Any) -> bytes:
    return json.dumps(content, indent=1).encode()


def source_of(path: Path) -> str | None:
    """The source of an ANNOTATIONS file; None when there is none, or it is not of this program."""
    if not path.exists():
        return None
    with parsing(path, "was not written by this program", "move it away", SolaError):
        return json.loads(read_bytes(path)).get("source")

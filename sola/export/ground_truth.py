"""The annotation files that heads read beside features, made from the user's own."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sola.data.annotations import BLOCK_LIST, Action, Annotation, block_list, split_of_subset
from sola.data.videos import SPLITS
from sola.errors import encoded, shown

if TYPE_CHECKING:
    from sola.export.source import Video

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

    files: name -> content. classes: how many. notes: what is in the files and what is not.
    """

    files: dict[str, bytes]
    classes: int
    notes: list[str]


def ground_truth(
    annotations: dict[str, Annotation],
    videos: dict[str, Video],
    prefix: str,
    *,
    is_of_bmn: bool,
) -> GroundTruth:
    """What heads are told.

    videos: id -> video with features. prefix: before the ids in names of features. is_of_bmn:
    whether BMN's files are wanted. Subsets are named training and validation, as the folders and as
    heads ask for, whatever the annotations call them. In the training subset segments are clipped
    to the features; those that are scored stay as they are annotated.
    """
    split_of, of_name = split_of_subset(annotations), {v.annotated: i for i, v in videos.items()}
    kept: dict[str, tuple[Annotation, list[Action]]] = {}
    left_out: dict[str, list[str]] = {why: [] for why in (*UNREADABLE, MISPLACED, NO_SEGMENT)}
    for name, entry in annotations.items():
        actions, split = list(entry.actions or ()), split_of.get(entry.subset)
        video = videos[of_name[name]] if name in of_name else None
        if split == "training" and video and video.axis:
            actions = _clipped(actions, *video.axis.span(video.length))
        if video is None or entry.duration is None or video.axis is None:
            why = NO_FEATURES if video is None else NO_DURATION
            left_out[SCORED if split == "validation" else why].append(name)
        elif video.split in SPLITS and video.split != split:
            left_out[MISPLACED].append(name)
        elif split == "training" and not actions:
            left_out[NO_SEGMENT].append(name)
        else:
            kept[of_name[name]] = entry, actions
    classes, notes = _numbers([action for _, actions in kept.values() for action in actions])
    entries = {
        video: {
            "subset": split_of.get(entry.subset, entry.subset),
            "duration": entry.duration,
            "fps": videos[video].axis.rate,
            "clip": videos[video].axis.clip,
            "annotations": [
                {"label": a.label, "label_id": classes[a.label], "segment": [a.start, a.end]}
                for a in actions
            ],
        }
        for video, (entry, actions) in kept.items()
    }
    files = {
        ANNOTATIONS: _json({"prefix": prefix, "database": entries}),
        BLOCK_LIST: block_list(name for why in UNREADABLE for name in left_out[why]),
        CLASSES: block_list(classes),  # as lines, too
    }
    if is_of_bmn:
        files |= _of_bmn({prefix + v: (e, videos[v].length) for v, e in entries.items()})
    said = [f"{ANNOTATIONS}: {len(entries)} videos, {len(classes)} classes"]
    for why, names in left_out.items():
        first = ", ".join(shown(name) for name in names[:3])
        if names:
            said.append(f"not in it: {len(names)} {why} ({first}{', ...' if names[3:] else ''})")
    return GroundTruth(files, len(classes), said + notes)


def _clipped(actions: list[Action], start: float, end: float) -> list[Action]:
    """The parts of segments that lie within the features' time."""
    parts = (replace(a, start=max(a.start, start), end=min(a.end, end)) for a in actions)
    return [part for part in parts if part.end > part.start]


def _numbers(actions: list[Action]) -> tuple[dict[str, int], list[str]]:
    """Label -> number from 0 without gaps; and a note where a label had another.

    The order is that of the label_ids where each label has one of its own, else the alphabet's.
    """
    given = {action.label: action.label_id for action in actions}
    has_ids = all(a.label_id is not None and a.label_id == given[a.label] for a in actions)
    is_numbered = has_ids and len({*given.values()}) == len(given)
    order = sorted(given, key=given.__getitem__) if is_numbered else sorted(given)
    numbers = {label: number for number, label in enumerate(order)}
    old = {label: given[label] for label in order if given[label] is not None}
    changes = ", ".join(f"{shown(v)} {number} -> {numbers[v]}" for v, number in old.items())
    is_other = any(number != numbers[label] for label, number in old.items())
    return numbers, [f"labels are numbered anew, without gaps: {changes}"] if is_other else []


def _of_bmn(videos: dict[str, tuple[dict[str, Any], int]]) -> dict[str, bytes]:
    """BMN's two files of the videos' entries and T. In them a video is duration_frame frames long,
    feature_frame of which have features: T snippets and those that its duration would make.
    """
    table, content = io.StringIO(), {}
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["video", "numFrame", "seconds", "fps", "rfps", "subset", "featureFrame"])
    for video, (entry, length) in videos.items():
        seconds, rate = entry["duration"], entry["fps"]
        frames = round(seconds * rate, 3)
        writer.writerow([video, frames, seconds, rate, rate, entry["subset"], length])
        content[video] = {
            "duration_second": seconds,
            "duration_frame": frames,
            "feature_frame": length,
            "annotations": entry["annotations"],
        }
    return dict(zip(OF_BMN, (encoded(table.getvalue()), _json(content)), strict=True))


def _json(content: Any) -> bytes:
    return json.dumps(content, indent=1).encode()

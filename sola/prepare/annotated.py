"""Annotations held against the data: what is odd is said, what is nonsense refused."""

import statistics
from collections.abc import Sequence

from sola.data.annotations import SUBSETS, Action, split_of_subset
from sola.data.videos import SPLITS
from sola.errors import DataError, shown
from sola.prepare.dataset import DataSet

NAMED = 5  # videos, of many
BEYOND = 1.05  # of the duration, that a segment may end at
FEWEST_SNIPPETS = 4  # of a median action, below which it is hard to see


def of_annotations(data: DataSet) -> list[str]:
    """Lines on whose annotations there are, and on segments that do not fit their videos."""
    split_of = split_of_subset(data.annotations)
    renamed = [video for video, name in data.names.items() if video != name]
    lines = [
        *if_any("annotated, without features", data.without_files),
        *if_any("note: annotated under a name that differs in v_, case or Unicode form", renamed),
    ]
    if "validation" in (split_of.get(name) for name, kind in SUBSETS.items() if kind == "testing"):
        lines.append("note: the test subset validates")
    for split in SPLITS:
        entries = data.annotated[split]
        others = [video for video, entry in entries.items() if split_of.get(entry.subset) != split]
        lines += if_any(f"warning: in {split}, of another subset by annotation", others)
    return [*lines, *_of_segments(data), *_of_labels(data)]


def check_annotations(data: DataSet) -> None:
    """Raise DataError for annotations that would make labels which mean nothing."""
    for split, entries in data.annotated.items():
        bare = [video for video, entry in entries.items() if entry.actions is None]
        if bare:
            what = f"{split}: {named(bare)} annotated without a list of annotations"
            raise DataError(f"{what}, which may be empty: mend these entries, or remove them")
    timed = list(_timed(data))
    beyond = [segment for segment in timed if segment[1].end > BEYOND * segment[2]]
    if len(beyond) > len(timed) / 2:
        video, action, duration = beyond[0]
        raise DataError(
            f"{len(beyond)} of {len(timed)} segments end after their video, as "
            f"{action.start:g} to {action.end:g} in {shown(video)} of {duration:g} s: are they in "
            "frames? Give segments in seconds"
        )
    if timed and all(action.end <= 1 < duration for _, action, duration in timed):
        raise DataError(
            f"all {len(timed)} segments lie below 1, durations do not: are they fractions of the "
            "duration? Give segments in seconds"
        )


def of_span(data: DataSet, rate: float) -> list[str]:
    """A line on the length of actions beside the window's, and a note where it is far from it."""
    entries = [entry for entries in data.annotated.values() for entry in entries.values()]
    lengths = [a.end - a.start for entry in entries for a in entry.actions or ()]
    config = data.config
    if not lengths:
        return []
    median, span = statistics.median(lengths), config.step * (config.tsm_size - 1) / rate
    about = f"actions: {len(lengths)}, median {median:.1f} s, {median * rate:.1f} snippets"
    lines = [f"{about}; the gathered positions span {span:.1f} s"]
    if median < max(span / 2, FEWEST_SNIPPETS / rate):
        lines.append(
            f"note: actions are short beside that; --span={max(median, 1):.2g} compares snippets "
            "over so many seconds, and features of a smaller stride show more of an action"
        )
    return lines


def _timed(data: DataSet) -> list[tuple[str, Action, float]]:
    """Video, segment and duration, of the videos that have one."""
    return [
        (video, action, entry.duration)
        for entries in data.annotated.values()
        for video, entry in entries.items()
        for action in entry.actions or ()
        if entry.duration is not None
    ]


def _of_segments(data: DataSet) -> list[str]:
    """Lines on segments that are left out, or do not fit their video."""
    entries = data.annotated["training"] | data.annotated["validation"]
    ambiguous = sum(entry.ambiguous for entry in entries.values())
    lines = [f"note: {ambiguous} Ambiguous segments are left out"] if ambiguous else []
    backward = [v for v, e in entries.items() if any(a.end <= a.start for a in e.actions or ())]
    beyond = [v for v, a, duration in _timed(data) if a.start < duration < a.end / BEYOND]
    late = [video for video, action, duration in _timed(data) if action.start >= duration]
    return [
        *lines,
        *if_any("warning: segments that do not end after their start", backward),
        *if_any("warning: segments that end over 5 % after their video", beyond),
        *if_any("warning: segments that start after their video's end", late),
    ]


def _of_labels(data: DataSet) -> list[str]:
    """Lines on the labels of each split, or why there are none."""
    lines = []
    for split, labels in data.labels.items():
        without = [video for video in data.videos[split] if video not in data.annotated[split]]
        lines += if_any(f"{split} without annotation, so without labels", without)
        untimed = [video for video in data.annotated[split] if video not in labels]
        lines += if_any(f"{split} without a duration, so without labels", untimed)
        if labels:
            snippets = sum(map(len, labels.values()))
            share = sum(int(values.sum()) for values in labels.values()) / snippets
            lines.append(f"{split}: {len(labels)} videos with labels, action share {share:.3f}")
        empty = [video for video, values in labels.items() if not values.any()]
        lines += if_any(f"{split} without an action snippet", empty)
        lines += if_any(f"{split} all action", [v for v, y in labels.items() if y.all()])
    if data.lacks_labels:
        what = "no labels are written and the training runs without a probe"
        lines.append(f"warning: {data.lacks_labels}, so {what}")
    return lines


def if_any(what: str, videos: Sequence[str]) -> list[str]:
    return [f"{what}: {named(videos)}"] if videos else []


def named(videos: Sequence[str]) -> str:
    """How many, and the first ones by name."""
    names = ", ".join(shown(video) for video in videos[:NAMED])
    return f"{len(videos)} ({names}{', ...' if len(videos) > NAMED else ''})"

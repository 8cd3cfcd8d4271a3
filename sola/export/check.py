"""A finished dump read as a head's loader would: what would stop it there."""

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sola.config import Config
from sola.data.annotations import split_of_names
from sola.data.times import TimeAxis
from sola.errors import BadFileError, SolaError, encoded, parsing, shown
from sola.export.dump import output_folder
from sola.export.encoder import find_checkpoint
from sola.export.formats import Form, shape_of
from sola.export.ground_truth import ANNOTATIONS, OF_BMN
from sola.export.heads import HEADS, LEVELS, link_of
from sola.export.manifest import read_manifest
from sola.export.source import Target
from sola.system.cli import progress
from sola.system.files import read_bytes

SHOWN = 10  # problems
ANEW = "write it anew with --overwrite"


class Entry(NamedTuple):
    """What is said of a video in the annotations that a head reads."""

    file: str  # its name, without the ending
    subset: str
    duration: float
    axis: TimeAxis
    segments: list[tuple[float, float]]
    label_ids: list[int]


def check_features(config: Config, load_model: str, target: Target) -> None:
    """Say that a head's loader reads the features. Raises SolaError, saying first why it would not.

    Nothing but what was written is looked at, under the names that the head makes.
    """
    name, _ = find_checkpoint(config, load_model)
    folder, head = output_folder(config, name, target).absolute(), target.head
    manifest = read_manifest(folder)
    if manifest is None:
        raise SolaError(f"{folder}: holds no features of this program; write them first")
    entries = _read_entries(folder)
    guide = _read(folder / f"{head}.md").decode(errors="replace")
    root = link_of(folder) if head == "gtad-hacs" else folder
    problems = [] if manifest.get("finished") is True else ["not finished: write it once more"]
    if root.resolve() != folder.resolve():
        problems.append(f"{root}: does not lead to the features")
    if head != "bmn" and encoded(str(root)).decode() not in guide:
        problems.append("moved since its settings were written: write them once more")
    with parsing(folder, "what is beside the features is damaged", ANEW, SolaError):
        problems += _of_annotations(folder, head, entries)
        problems += _of_videos(root, head, guide, manifest, entries)
    for problem in problems[:SHOWN]:
        print(f"problem: {' '.join(problem.splitlines())}")
    if problems:
        raise SolaError(f"{folder}: {len(problems)} problems, as above, would stop {head}")
    print(f"{folder}: {head} reads all {len(entries)} videos")


def _read(path: Path) -> bytes:
    if not path.exists():
        raise SolaError(f"{path}: is missing; write it with --for and --annotations=JSON")
    return read_bytes(path)


def _read_entries(folder: Path) -> dict[str, Entry]:
    path = folder / ANNOTATIONS
    text = _read(path)
    with parsing(path, "not readable", ANEW, SolaError):
        content = json.loads(text)
        return {
            video: Entry(
                content["prefix"] + video,
                entry["subset"],
                entry["duration"],
                TimeAxis(entry["fps"], entry["clip"]),
                [(start, end) for start, end in (a["segment"] for a in entry["annotations"])],
                [action["label_id"] for action in entry["annotations"]],
            )
            for video, entry in content["database"].items()
        }


def _of_annotations(folder: Path, head: str, entries: dict[str, Entry]) -> Iterator[str]:
    """What is wrong with the labels, and with BMN's files."""
    ids = sorted({number for entry in entries.values() for number in entry.label_ids})
    if ids != [*range(len(ids))]:
        yield f"label ids {shown(ids)} do not run from 0 without gaps"
    if HEADS[head].is_of_bmn:
        table, content = (_read(folder / name) for name in OF_BMN)
        listed = {row["video"] for row in csv.DictReader(io.StringIO(table.decode(), newline=""))}
        files = {entry.file for entry in entries.values()}
        if not files == listed == {*json.loads(content)}:
            yield f"{' and '.join(OF_BMN)} have other videos than {ANNOTATIONS}"


def _of_videos(
    root: Path, head: str, guide: str, manifest: dict[str, Any], entries: dict[str, Entry]
) -> Iterator[str]:
    """What is wrong with each video's file, also beside what the head is set to."""
    form = Form(**manifest["form"])
    width = re.search(r"(?:input_dim|feat_dim|in_channels)\W+(\d+)", guide)
    longest = re.search(r"max_seq_len\W+(\d+)", guide)
    split_of = split_of_names({entry.subset for entry in entries.values()})
    for video, entry in progress(entries.items(), desc="check", unit="video"):
        is_by_subset = head in ("gtad-hacs", "tridet")  # whose folders are named as the subsets
        splits = [entry.subset] if is_by_subset else manifest["splits"]
        paths = [form.place(root, split) / f"{entry.file}.{form.format}" for split in splits]
        try:
            path = next(filter(Path.is_file, paths), paths[0])
            length, channels = shape_of(path, form.format)
        except (BadFileError, OSError) as error:
            what = f"{error.path}: {error.what}" if isinstance(error, BadFileError) else error
            yield f"{shown(video)}: {what}; without --check it is written anew"
            continue
        if width and channels != int(width[1]):
            yield f"{shown(video)}: {channels} channels, the head is set to {width[1]}"
        if form.resize and length != form.resize:
            yield f"{shown(video)}: T is {length}, not {form.resize} as of all"
        if longest and length > int(longest[1]):
            yield f"{shown(video)}: T is {length}, beyond a max_seq_len of {longest[1]}"
        if not form.resize and not entry.axis.fits(length, entry.duration):
            made = f"{entry.duration:g} s at {entry.axis.rate:.4g} a second make another"
            yield f"{shown(video)}: T is {length}, {made}"
        first, last = entry.axis.span(length)
        is_seen = any(start < last and end > first for start, end in entry.segments)
        if split_of.get(entry.subset) == "training" and not is_seen:
            yield f"{shown(video)}: no segment lies within its features, training stops there"
    if longest and int(longest[1]) % LEVELS and not form.resize:
        yield f"max_seq_len is {longest[1]}: must be a multiple of {LEVELS}"

"""What each TAL head reads: one table, and what a user has to set in the head itself."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sola.data.annotations import Annotation
    from sola.data.times import TimeAxis
    from sola.export.formats import Form

NUMERIC_ANNOTATIONS, BLOCK_LIST = "annotations.json", "missing_files.txt"


ONE_RATE = ("opentad",)  # heads with one rate for all videos, where time is not resized


@dataclass(frozen=True)
class Head:
    """How to write features for a head, and how to set the head.

    advice: what to set, and behind "Trap: " what goes wrong; {folder} and the other fields are
    filled in by advice(). form: settings of formats.Form. folder: below the output. beside: a file
    that it wants beside the features, made from annotations by BESIDE.
    """

    advice: str
    form: dict[str, Any] = field(default_factory=dict)
    folder: str = ""
    beside: str | None = None


HEADS = {
    "gtad-hacs": Head(
        "G-TAD, branch hacs, npy mode: feature_path: {folder}/ (it must end with /, hold no comma "
        "and contain I3D: link it, ln -s {folder} I3D_sola). Official HACS JSON as it is; "
        "input width {feature_dim}. Trap: its loader interpolates every video to 100 steps, and "
        "one missing file stops it; compare with raw features by the same route (--load_model=0)",
    ),
    "gtad-h5": Head(
        "G-TAD, branches hacs and anet, h5 mode: feature_path: {folder}, files {prefix}<id>.h5 "
        "with the dataset {prefix}<id>, [{resize}, {feature_dim}]. Trap: features pooled offline "
        "and those of the npy mode score differently: compare with raw features by the same route "
        "(--load_model=0)",
        {"format": "h5", "layout": "flat", "prefix": "v_", "resize": 100, "resize_mode": "pool"},
    ),
    "tridet": Head(
        "TriDet, hacs_i3d.yaml: feat_folder: {folder}, input_dim: {feature_dim}, feat_stride: 1, "
        "num_frames: {clip}, default_fps: {fps}, max_seq_len: {max_seq_len}. Trap: its i3d branch "
        "reads an attribute that is never set; one line of its loader needs a patch",
    ),
    "opentad": Head(
        "OpenTAD: data_path: {folders}, prefix: {prefix!r}, "
        "in_channels: {feature_dim}, fps: {twice_fps}, feature_stride: 2, sample_stride: 1, "
        "offset_frames: {clip}, pad_len: {max_seq_len}, block_list: {folder}/missing_files.txt. "
        "Trap: a video of the annotations without a file stops it unless it is on that list",
        beside=BLOCK_LIST,
    ),
    "actionformer": Head(
        "ActionFormer: feat_folder: {folder}, json_file: {folder}/annotations.json, "
        "file_prefix: {prefix!r}, input_dim: {feature_dim}, feat_stride: 1, num_frames: {clip}, "
        "default_fps: {fps}, max_seq_len: {max_seq_len}. Trap: it wants numeric durations and a "
        "label_id for each segment, which that file has and HACS's own has not",
        {"layout": "flat"},
        beside=NUMERIC_ANNOTATIONS,
    ),
    "bmn": Head(
        "BMN and mmaction2's BMN and BSN: feature_path: {folder}, files {prefix}<id>.csv with a "
        "header, [{resize}, {feature_dim}], feat_dim: {feature_dim}, temporal_scale: {resize}. "
        "Trap: time is pooled to {resize} bins offline, so that durations must come from the "
        "annotations",
        {"format": "csv", "layout": "flat", "prefix": "v_", "resize": 100, "resize_mode": "pool"},
        folder="csv_mean_100",
    ),
}


@dataclass(frozen=True)
class Written:
    """Features that were written for a head.

    lengths: name of the feature file -> T of its input. axes: the same -> where the snippets
    written lie in time, where that is known. names: the same -> its name in the annotations.
    """

    folder: Path
    form: Form
    splits: Sequence[str]
    lengths: dict[str, int]
    feature_dim: int
    axes: dict[str, TimeAxis]
    annotations: dict[str, Annotation]
    names: dict[str, str]

    def prefix(self, usual: str = "v_") -> str:
        """What stands before the ids in all names: the form's, or the usual one, ActivityNet's."""
        for prefix in filter(None, (self.form.prefix, usual)):
            if all(name.startswith(prefix) for name in self.lengths):
                return "" if any(name in self.annotations for name in self.lengths) else prefix
        return ""


def write_for_head(name: str, written: Written) -> None:
    """Say what to set in a head; write what it wants beside the features, from annotations."""
    usual = HEADS[name].form.get("prefix") or "v_"
    print(advice(name, written, written.prefix(usual)))
    for note in differences(name, written):
        print(note if note.startswith("warning") else f"note: {note}")
    beside = HEADS[name].beside
    if beside and written.annotations:
        BESIDE[beside](written)
    elif beside and not (written.folder / beside).exists():
        print(f"note: there is no {beside} yet; --annotations=JSON makes it")


def advice(name: str, written: Written, prefix: str) -> str:
    """What to set in a head."""
    form, folder = written.form, written.folder.absolute()
    longest = form.resize or max(written.lengths.values())
    places = dict.fromkeys(str(form.place(folder, split)) for split in written.splits)
    rates = {axis.rate for axis in written.axes.values()}
    clips = {f"{axis.clip_snippets:.4g}" for axis in written.axes.values()}
    rate = rates.pop() if len(rates) == 1 else None
    return HEADS[name].advice.format(
        folder=folder,
        folders=" and ".join(places),
        feature_dim=written.feature_dim,
        max_seq_len=1 << max(longest - 1, 1).bit_length(),
        resize=form.resize or "T",
        prefix=prefix,
        fps=f"{rate:g}" if rate else "null",
        twice_fps=f"{2 * rate:g}" if rate else "(twice the snippets a second)",
        clip=clips.pop() if len(clips) == 1 else "1",
    )


def differences(name: str, written: Written) -> Iterator[str]:
    """In what the features differ from what a head expects."""
    usual = type(written.form)(**HEADS[name].form)
    for option, value in dataclasses.asdict(written.form).items():
        expected = getattr(usual, option)
        if option == "prefix" and all(file.startswith(expected) for file in written.lengths):
            continue  # all names had it before
        if value != expected:
            yield f"{option} is {value}, {name} expects {expected}: adapt its loader"
    axes = written.axes.values()
    if name in ONE_RATE and len({axis.rate for axis in axes}) > 1:
        rates = [axis.rate for axis in axes]
        span = f"{min(rates):.3g} to {max(rates):.3g} snippets a second"
        yield f"warning: the videos have {span}, {name} knows one rate: use --resize"
    if len({round(axis.clip_snippets, 3) for axis in axes}) > 1:
        yield "warning: clips of another number of strides in each video, heads know one"
    if usual.layout == "split" and written.splits == [""]:
        yield f"{name} reads training/ and validation/, these are in one folder as the input"


def write_block_list(written: Written) -> None:
    """Write which annotated videos have no features."""
    from sola.data.annotations import block_list
    from sola.system.files import write_atomically

    missing = [name for name in written.annotations if name not in {*written.names.values()}]
    write_atomically(written.folder / BLOCK_LIST, block_list(missing))


def write_numeric(written: Written) -> None:
    """Write numeric_annotations of the videos written, and say what to set for them."""
    from sola.data.annotations import is_renumbered, label_numbers, numeric_annotations
    from sola.system.files import write_atomically

    annotations, prefix = written.annotations, written.prefix()
    ids = {file.removeprefix(prefix): name for file, name in written.names.items()}
    rates = {file.removeprefix(prefix): axis.rate for file, axis in written.axes.items()}
    content = numeric_annotations(annotations, ids, rates)
    path, entries = written.folder / NUMERIC_ANNOTATIONS, content["database"].values()
    subsets = sorted({entry["subset"] for entry in entries})
    classes = max(label_numbers(annotations).values(), default=-1) + 1
    said = f"train_split and val_split are of {subsets}, num_classes: {classes}"
    print(f"{path.absolute()}: {len(entries)} videos; {said}")
    if len(entries) < len(annotations):
        print(
            f"note: {len(annotations) - len(entries)} annotated videos without features or "
            "duration are not in it; a score against it leaves them out"
        )
    if is_renumbered(annotations):
        print("note: labels are renumbered, since not every segment has the label_id of its label")
    write_atomically(path, json.dumps(content).encode())


BESIDE = {NUMERIC_ANNOTATIONS: write_numeric, BLOCK_LIST: write_block_list}

"""What each TAL head reads: one table, and what a user has to set in the head itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sola.annotations import Annotation


NUMERIC_ANNOTATIONS, BLOCK_LIST = "annotations.json", "missing_files.txt"
FOR_HEADS = (NUMERIC_ANNOTATIONS, BLOCK_LIST)  # what may lie beside the features


@dataclass(frozen=True)
class Head:
    """How to write features for a head, and how to set the head.

    advice: has fields that write_for_head fills in. form: settings of formats.Form. folder: below
    the output. Some want annotations with numbers, or a list of the videos without features.
    """

    advice: str
    form: dict[str, Any] = field(default_factory=dict)
    folder: str = ""
    needs_numeric_annotations: bool = False
    needs_block_list: bool = False


HEADS = {
    "gtad-hacs": Head(
        "G-TAD, branch hacs, npy mode: feature_path: {folder}/ (it must end with /, hold no comma "
        "and contain I3D: link it, ln -s {folder} I3D_sola). Official HACS JSON as it is; "
        "input width {feature_dim}. Trap: its loader interpolates every video to 100 steps, and "
        "one missing file stops it; compare with raw features by the same route (--load_model=0)",
    ),
    "gtad-h5": Head(
        "G-TAD, branches hacs and anet, h5 mode: feature_path: {folder}, files v_<id>.h5 with the "
        "dataset v_<id>, [100, {feature_dim}]. Trap: features pooled offline and those of the npy "
        "mode score differently: compare with raw features by the same route (--load_model=0)",
        {"format": "h5", "layout": "flat", "prefix": "v_", "resize": 100, "resize_mode": "pool"},
    ),
    "tridet": Head(
        "TriDet, hacs_i3d.yaml: feat_folder: {folder}, input_dim: {feature_dim}, feat_stride: 1, "
        "num_frames: 1, default_fps: {fps}, max_seq_len: {max_seq_len}. Trap: its i3d branch reads "
        "an attribute that is never set; one line of its loader needs a patch",
    ),
    "opentad": Head(
        "OpenTAD: data_path: {folders}, prefix: none, "
        "in_channels: {feature_dim}, fps: {fps}, feature_stride: 1, sample_stride: 1, "
        "offset_frames: 0, pad_len: {max_seq_len}, block_list: {folder}/missing_files.txt. "
        "Trap: a video of the annotations without a file stops it unless it is on that list",
        needs_block_list=True,
    ),
    "actionformer": Head(
        "ActionFormer: feat_folder: {folder}, json_file: {folder}/annotations.json, "
        "file_prefix: none, input_dim: {feature_dim}, feat_stride: 1, num_frames: 1, "
        "default_fps: {fps}, max_seq_len: {max_seq_len}. Trap: it wants numeric durations and a "
        "label_id for each segment, which that file has and HACS's own has not",
        {"layout": "flat"},
        needs_numeric_annotations=True,
    ),
    "bmn": Head(
        "BMN and mmaction2's BMN and BSN: feature_path: {folder}, files v_<id>.csv with a header, "
        "[100, {feature_dim}], feat_dim: {feature_dim}, temporal_scale: 100. Trap: time is pooled "
        "to 100 bins offline, so that durations must come from the annotations",
        {"format": "csv", "layout": "flat", "prefix": "v_", "resize": 100, "resize_mode": "pool"},
        folder="csv_mean_100",
    ),
}


def write_for_head(
    name: str,
    folder: Path,
    splits: Sequence[str],
    lengths: dict[str, int],
    feature_dim: int,
    annotations: dict[str, Annotation],
    fps: float,
) -> None:
    """Write what a head wants beside its features, from annotations; say what to set in it.

    splits: folders below it. lengths: video -> snippets of its features as they are written.
    """
    from sola.annotations import block_list, find_annotation, numeric_annotations
    from sola.files import write_atomically

    head = HEADS[name]
    if head.needs_numeric_annotations and annotations:
        content = numeric_annotations(annotations, lengths, fps)
        write_atomically(folder / NUMERIC_ANNOTATIONS, json.dumps(content).encode())
    if head.needs_block_list and annotations:
        there = {id(find_annotation(annotations, video)) for video in lengths}
        missing = [video for video, entry in annotations.items() if id(entry) not in there]
        write_atomically(folder / BLOCK_LIST, block_list(missing))
    max_seq_len = 1 << max(max(lengths.values()) - 1, 1).bit_length()
    settings = {"folder": folder, "feature_dim": feature_dim, "max_seq_len": max_seq_len}
    folders = " and ".join(str(folder / split) for split in splits)
    print(head.advice.format(**settings, folders=folders, fps=f"{fps:g}"))
    if (head.needs_numeric_annotations or head.needs_block_list) and not annotations:
        print("note: it names a file that is not there yet; --annotations=JSON writes it")

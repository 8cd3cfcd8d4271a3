"""What each TAL head reads: one table, and its settings in the head's own language.

The rules are those of the heads' own loaders; docs/heads.md says where each comes from.
"""

from __future__ import annotations

import math
import pprint
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from sola.data.annotations import split_of_names

if TYPE_CHECKING:
    from sola.data.times import TimeAxis
    from sola.export.formats import Form
    from sola.export.ground_truth import GroundTruth
    from sola.export.source import Video

LEVELS = 576  # which the stride times the window of every level divides, in the heads' own YAMLs
OF_ANET = {"video_info": "video_info.csv", "video_anno": "anet_anno.json"}
BINS = {"layout": "flat", "prefix": "v_", "resize": 100, "resize_mode": "pool"}


@dataclass(frozen=True)
class Written:
    """Features that were written for a head.

    prefix: before the ids in all names of files. truth: of the annotations, if there are any.
    """

    folder: Path  # absolute
    form: Form
    videos: list[Video]
    feature_dim: int
    prefix: str
    truth: GroundTruth | None

    @property
    def axes(self) -> list[TimeAxis]:
        """Where the snippets of videos lie in time, of those where it is known."""
        return [video.axis for video in self.videos if video.axis]

    @property
    def sequence_length(self) -> int:
        """max_seq_len: the longest video, brought up to what fits every level."""
        return LEVELS * math.ceil(max(video.length for video in self.videos) / LEVELS)

    @property
    def rate(self) -> float | None:
        """Snippets a second, where they are the same in all videos."""
        rates = {axis.rate for axis in self.axes}
        return _short(rates.pop()) if len(rates) == 1 else None

    @property
    def clip(self) -> float:
        """What a snippet looks at, in strides."""
        clips = sorted(axis.clip_snippets for axis in self.axes)
        return _short(clips[len(clips) // 2]) if clips else 1

    def beside(self, **files: str) -> dict[str, str]:
        """Setting -> path, of files that are beside the features if there are annotations."""
        return {key: str(self.folder / name) for key, name in files.items()} if self.truth else {}


def _short(value: float) -> float:
    """A whole number where it is one, as people write it."""
    return round(value) if math.isclose(value, round(value), rel_tol=1e-6) else round(value, 6)


@dataclass(frozen=True)
class Head:
    """How to write features for a head, and how to set the head.

    settings: what to set in it, in this language: yaml, python or bash. traps: what goes wrong
    else. form: settings of formats.Form. folder: below the output. is_of_bmn: reads BMN's files.
    knows_rates: whether each video may have a rate of its own.
    """

    settings: Callable[[Written], str]
    language: str
    traps: tuple[str, ...]
    form: dict[str, Any] = field(default_factory=dict)
    folder: str = ""
    is_of_bmn: bool = False
    knows_rates: bool = True


def _actionformer(written: Written, dataset_name: str = "anet") -> str:
    classes = {"num_classes": written.truth.classes} if written.truth else {}
    settings = {
        "dataset_name": dataset_name,
        "train_split": ["training"],
        "val_split": ["validation"],
        "dataset": {
            **written.beside(json_file="annotations.json"),
            "feat_folder": str(written.folder),
            "file_prefix": written.prefix,
            "file_ext": ".npy",
            **classes,
            "input_dim": written.feature_dim,
            "feat_stride": 1,
            "num_frames": written.clip,
            "max_seq_len": written.sequence_length,
            "default_fps": None,
            "force_upsampling": False,
        },
        "test_cfg": {"multiclass_nms": True, "ext_score_file": None},
    }
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)


def _opentad(written: Written) -> str:
    length = written.form.resize or written.sequence_length
    files = {"ann_file": "annotations.json", "class_map": "classes.txt"}
    common = written.beside(**files, block_list="missing_files.txt") | {"prefix": written.prefix}
    if not written.form.resize:
        common["fps"] = _short(2 * written.rate) if written.rate else None
        common |= {"feature_stride": 2, "sample_stride": 1, "offset_frames": written.clip}
    parts, split_of = {}, split_of_names({video.split for video in written.videos})
    for part, split in (("train", "training"), ("val", "validation"), ("test", "validation")):
        folder = next((name for name, of in split_of.items() if of == split), "")
        place = written.form.place(written.folder, folder)
        parts[part] = {"subset_name": split, "data_path": str(place)} | common
    model = {"projection": {"in_channels": written.feature_dim, "max_seq_len": length}}
    name = "resize_length" if written.form.resize else "pad_len"
    config = {"dataset": parts, name: length, "model": model}
    if written.truth:
        model["rpn_head"] = {"num_classes": written.truth.classes}
        ground_truth = {"ground_truth_filename": common["ann_file"], "subset": "validation"}
        config["evaluation"] = ground_truth
    return "".join(f"{k} = {pprint.pformat(v, sort_dicts=False)}\n" for k, v in config.items())


def _command(program: str, written: Written, feature_path: str | Path, **files: str) -> str:
    """A command line of G-TAD or BMN, with the files that exist."""
    given = written.beside(**files)
    given |= {"feature_path": f"{feature_path}/", "feat_dim": str(written.feature_dim)}
    given |= {"temporal_scale": str(written.form.resize or 100)}
    options = [text for option, value in given.items() for text in (f"--{option}", value)]
    return shlex.join(["python", *program.split(), *options]) + "\n"


def link_of(folder: Path) -> Path:
    """The link beside a dump by which G-TAD, branch hacs, knows it for npy files."""
    return folder.absolute().with_name(f"I3D_{folder.absolute().name}")


def _gtad_hacs(written: Written, path: Path | None = None) -> str:
    path = path or link_of(written.folder)
    return _command("gtad_train.py", written, path, video_anno="annotations.json")


def _gtad_h5(written: Written) -> str:
    anet = _command("gtad_train.py", written, written.folder, **OF_ANET)
    return f"# branch hacs\n{_gtad_hacs(written, written.folder)}# branch anet\n{anet}"


def _bmn(written: Written) -> str:
    of_mmaction = {"data_root": f"{written.folder}/", **written.beside(ann_file="anet_anno.json")}
    of_mmaction |= {"temporal_dim": written.form.resize, "feat_dim": written.feature_dim}
    lines = "".join(f"#   {key} = {value!r}\n" for key, value in of_mmaction.items())
    command = _command("main.py --mode train", written, written.folder.parent, **OF_ANET)
    return f"# BMN (JJBOY)\n{command}# mmaction2, in its Python configuration\n{lines}"


HEADS = {
    "gtad-hacs": Head(
        _gtad_hacs,
        "bash",
        (
            "npy mode is chosen by feature_path: it must end with /, contain I3D and hold no "
            "comma; the link I3D_... beside the features is this dump's own",
            "the loader interpolates every video to temporal_scale steps, whatever its length",
            "one missing file, or a training video without segments, stops it",
        ),
    ),
    "gtad-h5": Head(
        _gtad_h5,
        "bash",
        (
            "h5 mode is chosen by feature_path: it must end with / and hold no I3D and no comma",
            "features pooled offline and those of the npy mode score differently",
            "one missing file, or a training video without segments, stops it",
        ),
        {"format": "h5", **BINS},
        is_of_bmn=True,
    ),
    "tridet": Head(
        lambda written: _actionformer(written, "hacs"),
        "yaml",
        (
            "libs/datasets/hacs.py, line 149, uses self.file_prefix, which is never set: drop it "
            "there",
            "a video of the JSON without a file stops it, and so does one of training whose "
            "segments all lie beyond its features: the JSON here holds neither",
        ),
    ),
    "opentad": Head(
        _opentad,
        "python",
        (
            "data_path is one folder a split: a list of folders joins channels",
            "its grid is (i * feature_stride + offset_frames) / fps: twice the rate and a stride "
            "of 2 put it on the middle of snippets; datasets that resize take none of the three",
            "max_seq_len of its HACS configuration is a multiple of 192",
        ),
        knows_rates=False,
    ),
    "actionformer": Head(
        _actionformer,
        "yaml",
        (
            "a default_fps wins over the rates in the JSON: leave it null",
            "of anet_i3d.yaml force_upsampling and ext_score_file must go",
            "max_seq_len is divided by the stride times the window of every level: keep a "
            f"multiple of {LEVELS}",
        ),
        {"layout": "flat"},
    ),
    "bmn": Head(
        _bmn,
        "bash",
        (
            "feature_path is the folder above csv_mean_100, with / at its end",
            "time is pooled to bins offline, so that durations must come from the annotations",
        ),
        {"format": "csv", **BINS},
        folder="csv_mean_100",
        is_of_bmn=True,
    ),
}

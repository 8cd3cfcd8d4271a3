"""What is exported: which checkpoint encodes, which videos it encodes, and for which target."""

import dataclasses
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from sola.config import Config, load_config
from sola.data.annotations import Annotation, match, read_annotations
from sola.data.features import FeatureFile, is_finite
from sola.data.index_files import feature_folders
from sola.data.times import Sampling
from sola.data.videos import SPLITS, BadFiles, Split, feature_paths, open_split, open_videos
from sola.errors import CheckpointError, DataError, SolaError, shown
from sola.export.formats import Form
from sola.method.module import SoLaModule, encode_video
from sola.method.weights import file_sha256, load_module
from sola.records import best_evaluation, comparable, gain, read_records, saved_epochs
from sola.system.ranks import from_first_rank

UNTOUCHED = "none: epoch 0, features untouched"


@dataclass(frozen=True, kw_only=True)
class Target:
    """Which features are written, where, in which form and for which head.

    source: features to read in place of the configuration's: a folder, with split folders or
    without, or a file, or several with commas between them to be joined on channels. output: where
    to write them, else below feature_save_path under the name of the checkpoint and of what differs
    from the plain form. annotations: a file that some heads want converted.
    """

    form: Form = dataclasses.field(default_factory=Form)
    head: str | None = None
    source: str | None = None
    output: str | None = None
    suffix: str = ""
    annotations: str | None = None


@dataclass(frozen=True)
class Encoder:
    """What turns features into those to be written: a module, or nothing for epoch 0."""

    name: str  # of the output folder
    checkpoint: str  # its path
    sha256: str
    dilations: list[int]
    settings: str  # YAML of the training, as far as known
    module: SoLaModule | None

    def encode(self, file: FeatureFile, features: np.ndarray) -> np.ndarray:
        """Features of a file to those written: float32 [T, C_in] -> [T, C_out].

        Raises DataError when they are not finite.
        """
        if self.module is not None:
            features = encode_video(self.module, features)
        if not is_finite(features):
            raise DataError(f"{file.path}: the module's output is NaN or infinite there")
        return features

    def output_dim(self, input_dim: int) -> int:
        """C of the features written."""
        return self.module.conv_network[-1].out_channels if self.module else input_dim

    def check_input(self, input_dim: int, where: str) -> None:
        """Raise CheckpointError when it is made for another number of channels."""
        made_for = self.module.conv_network[0].in_channels if self.module else input_dim
        if made_for != input_dim:
            what = f"made for {made_for} channels, not for the {input_dim} of {where}"
            raise CheckpointError(f"{self.checkpoint}: {what}")


def open_encoder(config: Config, load_model: str, device: torch.device) -> Encoder:
    """The module that --load_model names, on a device. Raises CheckpointError without it."""
    name, path = from_first_rank(lambda: find_checkpoint(config, load_model))
    if path is None:
        return Encoder(name, UNTOUCHED, UNTOUCHED, [], config.to_yaml(), None)
    beside = path.parent / "config.yaml"
    trained_with = load_config(beside) if beside.is_file() else config
    module = load_module(path, dilations=trained_with.dilations)
    return Encoder(
        name,
        checkpoint=str(path),
        sha256=file_sha256(path),
        dilations=list(trained_with.dilations),
        settings=trained_with.to_yaml(),
        module=module.to(device),
    )


def find_checkpoint(config: Config, load_model: str) -> tuple[str, Path | None]:
    """What --load_model asks for: a name for the output and the checkpoint, None for epoch 0.

    load_model: an epoch, best (highest probe accuracy), last, 0 (features untouched) or a file.
    Raises CheckpointError, saying which epochs are there.
    """
    if load_model.endswith(".pt"):
        return Path(load_model).stem, Path(load_model)
    epochs = saved_epochs(config)
    epoch = int(load_model) if re.fullmatch(r"[0-9]{1,12}", load_model) else -1
    asked = f"--load_model={shown(load_model)}"
    if epoch == 0:
        return f"{config.exp_name}_0", None
    if not epochs:
        raise CheckpointError(f"{asked}: no checkpoint in {config.run_folder}")
    there = f"saved epochs in {config.run_folder}: {', '.join(map(str, epochs))}"
    if load_model == "last":
        epoch = epochs[-1]
    elif load_model == "best":
        epoch = _best_epoch(config, epochs)
        if epoch is None:
            raise CheckpointError(f"{asked}: no linear probe was run; use last ({there})")
    elif epoch not in epochs:
        raise CheckpointError(f"{asked}: must be EPOCH, best, last, 0 or FILE.pt; {there}")
    return f"{config.exp_name}_{epoch}", config.model_file(epoch)


def _best_epoch(config: Config, epochs: Sequence[int]) -> int | None:
    """The saved epoch of highest accuracy among evaluations that can be compared, if any."""
    scores = comparable(read_records(config.metrics_file), config.eval_protocol)
    best = best_evaluation(record for record in scores if record["epoch"] in epochs)
    if best is None:
        return None
    above_untouched = gain(scores, best)
    if above_untouched is not None and above_untouched <= 0:
        print(f"note: epoch {best['epoch']}, the best one, is not above the untouched features (0)")
    return best["epoch"]


class Video(NamedTuple):
    """A video to encode."""

    split: str  # empty where an --input holds the files itself
    name: str
    file: FeatureFile


@dataclass(frozen=True)
class Sources:
    """The videos to encode, all of one width, and what else is read."""

    data_root: str  # a folder, or several with commas between them
    videos: list[Video]
    skipped: dict[str, str]  # file -> what is wrong with it
    annotations: dict[str, Annotation]
    names: dict[str, str]  # video -> its name in the annotations

    @property
    def input_dim(self) -> int:
        """C of the features read."""
        return self.videos[0].file.shape[1]

    @property
    def splits(self) -> list[str]:
        return list(dict.fromkeys(video.split for video in self.videos))

    def form_for(self, form: Form) -> Form:
        """The form, but for a prefix that all names have already.

        Raises DataError when a flat layout gives videos of two splits the same file.
        """
        split_of = {}
        for split, name, _ in self.videos:
            earlier = split_of.setdefault(name, split)
            if form.layout == "flat" and earlier != split:
                what = f"in {earlier} and in {split}, which --layout=flat would write to one file"
                raise DataError(f"{shown(name)}: {what}")
        has_prefix = all(name.startswith(form.prefix) for name in split_of)
        return dataclasses.replace(form, prefix="") if has_prefix else form

    def real_paths(self) -> set[str]:
        """The folders that are read, links followed."""
        files = [part.path for video in self.videos for part in video.file.files]
        folders = {*feature_folders(self.data_root), *map(os.path.dirname, files)}
        of_links = {os.path.dirname(os.path.realpath(file)) for file in files}
        return {*map(os.path.realpath, folders), *of_links}


def names_files(source: str) -> bool:
    """Whether --input names files, not folders. Raises DataError where it does both or neither."""
    paths = feature_folders(source)
    for path in paths:
        if not path.exists():
            raise DataError(f"--input: {path}: no such file or folder")
        if path.is_file() != paths[0].is_file():
            raise DataError(f"--input: {path}: give files only, or folders only")
    return paths[0].is_file()


def open_sources(config: Config, encoder: Encoder, target: Target) -> Sources:
    """What is read: the configuration's two splits, or what lies in target.source."""
    annotations = read_annotations(target.annotations) if target.annotations else {}
    bad_files = BadFiles(config.on_bad_file)
    if target.source:
        splits = _open_input(target, bad_files)
    else:
        root, width = config.data_root, config.in_feature_dim
        splits = [open_split(root, name, width, bad_files) for name in SPLITS]
    bad_files.report()
    videos = [Video(split.name, *item) for split in splits for item in split.videos.items()]
    names = match(annotations, [video.name for video in videos]) if annotations else {}
    root = target.source or config.data_root
    sources = Sources(root, videos, bad_files.skipped, annotations, names)
    for _, _, file in videos:
        if file.shape[1] != sources.input_dim:
            what = f"has {file.shape[1]} channels, others have {sources.input_dim}"
            raise DataError(f"{file.path}: {what}")
    encoder.check_input(sources.input_dim, sources.data_root)
    if annotations:
        print(f"{len(names)} of {len(videos)} videos are annotated in {target.annotations}")
        _warn_of_misfits(sources, Sampling.of(config))
    return sources


def _open_input(target: Target, bad_files: BadFiles) -> list[Split]:
    """The splits of --input: its folders that hold features, or itself under an empty name."""
    folders = feature_folders(target.source)
    names = ["", *(path.name for path in folders[0].iterdir() if path.is_dir())]
    names = sorted(name for name in names if feature_paths(folders[0] / name))
    if not names:
        raise DataError(f"--input: {folders[0]}: holds no .npy files, nor folders with any")
    if names[0] == "" and len(names) > 1:
        what = f"holds .npy files beside the folder {shown(names[1])} with more"
        raise DataError(f"--input: {folders[0]}: {what}; name one of these")
    if str(target.output).endswith((".npy", ".h5", ".csv")):
        raise SolaError(f"--output={target.output}: must be a folder, as --input is one")
    return [Split(n, open_videos([f / n for f in folders], None, bad_files)) for n in names]


def _warn_of_misfits(sources: Sources, sampling: Sampling) -> None:
    """Say where the time of snippets that heads are told does not fit durations."""
    off = []
    for video in sources.videos:
        entry = sources.annotations.get(sources.names.get(video.name, ""))
        axis = sampling.axis(video.file.length, entry)
        if entry and entry.duration and axis and not axis.fits(video.file.length, entry.duration):
            rate = video.file.length / entry.duration
            off.append(f"{shown(video.name)}: {rate:.3g} snippets a second, told {axis.rate:.3g}")
    if off:
        print(
            f"warning: the rate does not fit {len(off)} of {len(sources.names)} videos ({off[0]}); "
            "give the right --fps, or --fps=per_video"
        )

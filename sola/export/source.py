"""What is exported: features that a user names, and the form in which a head wants them."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from sola.config import Config
from sola.data.annotations import Annotation, match, wrong_rate
from sola.data.features import DataError
from sola.data.videos import (
    SPLITS,
    BadFiles,
    Split,
    feature_folders,
    feature_paths,
    open_split,
    open_videos,
)
from sola.export.encoder import Encoder, check_width
from sola.export.formats import Form
from sola.method.weights import CheckpointError
from sola.system.cli import SolaError


@dataclass(frozen=True, kw_only=True)
class Target:
    """Which features are written, where, in which form and for which head.

    source: features to read in place of the configuration's: a folder, with split folders or
    without, or a file, or several with commas between them to be joined on channels. output: where
    to write them, else below feature_save_path under the name of the checkpoint and of what differs
    from the plain form. annotations: a file that some heads want converted. fps: snippets a second.
    """

    form: Form = dataclasses.field(default_factory=Form)
    head: str | None = None
    source: str | None = None
    output: str | None = None
    suffix: str = ""
    annotations: str | None = None
    fps: float = 2.0


def names_files(source: str) -> bool:
    """Whether --input names files, not folders. Raises DataError where it does both or neither."""
    paths = feature_folders(source)
    for path in paths:
        if not path.exists():
            raise DataError(f"--input: {path}: no such file or folder")
    files = [path for path in paths if path.is_file()]
    if files and len(files) < len(paths):
        raise DataError(f"--input: {files[0]}: is a file, among folders")
    return bool(files)


def open_sources(config: Config, encoder: Encoder, target: Target, bad: BadFiles) -> list[Split]:
    """The videos to encode: the configuration's two splits, or what lies in target.source."""
    if target.source is None:
        if encoder.feature_dim not in (None, config.in_feature_dim):
            raise CheckpointError(
                f"{encoder.source}: made for {encoder.feature_dim} channels, in_feature_dim is "
                f"{config.in_feature_dim}"
            )
        return [open_split(config.data_root, s, config.in_feature_dim, bad) for s in SPLITS]
    folders = feature_folders(target.source)
    if target.output.endswith((".npy", ".h5", ".csv")):
        raise SolaError(f"--output={target.output}: must be a folder, as --input is one")
    names = sorted(p.name for p in folders[0].iterdir() if p.is_dir() and feature_paths(p))
    if feature_paths(folders[0]):
        if names:
            raise DataError(
                f"--input: {folders[0]}: holds .npy files beside the folder {names[0]} with more; "
                "name one of these"
            )
        names = [""]
    if not names:
        raise DataError(f"--input: {folders[0]}: holds no .npy files, nor folders with any")
    splits = [Split(name, open_videos([f / name for f in folders], None, bad), 0) for name in names]
    width = next(iter(splits[0].videos.values())).shape[1]
    for split in splits:
        for file in split.videos.values():
            check_width(file, encoder)
            if file.shape[1] != width:
                raise DataError(f"{file.path}: has {file.shape[1]} channels, others have {width}")
    return splits


def form_of(target: Target, splits: Sequence[Split]) -> Form:
    """The form of the target, but for a prefix that all names have already."""
    has_prefix = all(name.startswith(target.form.prefix) for s in splits for name in s.videos)
    return dataclasses.replace(target.form, prefix="") if has_prefix else target.form


def compare(annotations: dict[str, Annotation], splits: Sequence[Split], target: Target) -> None:
    """Say how many videos are annotated, and warn of another rate than target.fps.

    Raises DataError when none is.
    """
    lengths = {name: file.length for split in splits for name, file in split.videos.items()}
    matched = match(annotations, lengths)
    print(f"{len(matched)} of {len(lengths)} videos are annotated in {target.annotations}")
    rate = wrong_rate(matched, lengths, target.fps)
    if rate is not None:
        print(f"warning: T / duration is {rate:.3g} snippets a second, --fps is {target.fps:g}")


def check_no_clash(splits: Sequence[Split], form: Form) -> None:
    """Raise DataError when a flat layout gives videos of two splits the same file."""
    if form.layout == "flat":
        for number, split in enumerate(splits):
            for earlier in splits[:number]:
                both = split.videos.keys() & earlier.videos.keys()
                if both:
                    raise DataError(
                        f"{min(both)}: in {earlier.name} and in {split.name}, which --layout=flat "
                        "would write to one file"
                    )

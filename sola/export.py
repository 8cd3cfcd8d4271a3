"""SoLa features on disk, for the heads that read them."""

import dataclasses
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sola.annotations import Annotation, match, read_annotations, wrong_rate
from sola.arrays import DataError, FeatureFile, is_finite, open_joined, read_features
from sola.checkpoint import CheckpointError
from sola.config import Config
from sola.dataset import (
    SPLITS,
    BadFiles,
    Split,
    feature_folders,
    feature_paths,
    open_split,
    open_videos,
)
from sola.encode import batches_of_videos, encode_video
from sola.encoder import Encoder, check_width, open_encoder
from sola.files import FolderLock, clear_temporary
from sola.formats import Form
from sola.heads import HEADS, Written, write_for_head
from sola.manifest import Manifest, Video, files_beside
from sola.pipeline import in_background
from sola.ranks import (
    from_all_ranks,
    from_first_rank,
    is_first_rank,
    join_ranks,
    rank,
    rank_count,
)
from sola.runtime import SolaError, progress, resolve_device

BATCHES_PER_ROUND = 64  # of each rank, before the first one hears of them
WRITERS = 4
WRITES_AHEAD = 16


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


def export_features(
    config: Config, load_model: str, target: Target | None = None, *, overwrite: bool = False
) -> Path:
    """Write the features of both splits, float32 [T, C] with T as in the input unless told else.

    load_model: see find_checkpoint. Without a target they are
    <feature_save_path>/<name>/<split>/<video>.npy. Videos that the manifest lists as complete are
    left as they are unless `overwrite`. Under torchrun the ranks share the videos, and the first
    alone keeps the manifest. Returns the folder.
    """
    target = target or Target()
    annotations = read_annotations(target.annotations) if target.annotations else {}
    device = resolve_device(config.device)
    join_ranks(device)
    encoder = open_encoder(config, load_model, device)
    if target.source and from_first_rank(lambda: names_files(target.source)):
        return from_first_rank(lambda: encode_file(encoder, target, overwrite=overwrite))
    folder = Path(target.output or Path(config.feature_save_path) / (encoder.name + target.suffix))
    folder /= HEADS[target.head].folder if target.head else ""
    lock = FolderLock(folder)
    from_first_rank(lock.acquire)
    try:
        splits, manifest, batches = from_first_rank(
            lambda: open_export(config, folder, encoder, target, annotations, overwrite)
        )
        encode_and_write(folder, encoder, manifest, batches)
        if target.head and is_first_rank():
            written = Written(
                folder=folder.absolute(),
                form=target.form,
                splits=[split.name for split in splits],
                shapes={
                    f"{manifest.form.prefix}{name}": file.shape
                    for s in splits
                    for name, file in s.videos.items()
                },
                fps=target.fps,
            )
            write_for_head(target.head, written, annotations)
    finally:
        lock.release()
    return folder


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


def encode_file(encoder: Encoder, target: Target, *, overwrite: bool) -> Path:
    """Write the features of a single file to target.output, a file too."""
    if target.annotations:
        raise SolaError("--annotations: are for a folder of features, --input is a file")
    output = Path(target.output)
    if output.suffix != f".{target.form.format}":
        raise SolaError(f"--output={output}: must end in .{target.form.format}, as a file's output")
    file = open_joined(feature_folders(target.source))
    check_width(file, encoder)
    if any(output.exists() and output.samefile(path) for path in feature_folders(target.source)):
        raise SolaError(f"{output}: is the input; name another output")
    if output.exists() and not overwrite:
        raise SolaError(f"{output}: is there already; --overwrite replaces it")
    features = read_features(file)
    if encoder.module is not None:
        features = encode_video(encoder.module, features)
    _check_output(file, features)
    target.form.write(output, features)
    print(f"{output}: {file.length} snippets")
    if target.head:
        written = Written(
            folder=output.parent.absolute(),
            form=dataclasses.replace(target.form, layout="flat"),
            splits=[""],
            shapes={output.stem: file.shape},
            fps=target.fps,
        )
        write_for_head(target.head, written, {})
    return output


def encode_and_write(
    folder: Path, encoder: Encoder, manifest: Manifest, batches: list[list[Video]]
) -> None:
    """Write what is not complete, in rounds of batches that the ranks share; list it."""
    pending = [video for batch in batches for video in batch if not video.is_complete]
    started = time.perf_counter()
    finished = False
    try:
        with progress(total=len(pending), desc="features", unit="video") as bar:
            for first in range(0, len(batches), BATCHES_PER_ROUND * rank_count()):
                of_round = batches[first : first + BATCHES_PER_ROUND * rank_count()]
                of_rank = of_round[rank() :: rank_count()]
                written = []
                for video in write_features(folder, encoder, manifest.form, of_rank):
                    manifest.add(video)
                    written.append(video)
                    bar.update()
                for video in from_all_ranks(written):
                    manifest.add(video)
                others = [v for batch in of_round for v in batch if not v.is_complete]
                bar.update(len(others) - len(written))
        finished = True
    finally:
        manifest.save(finished=finished)
    total = sum(len(videos) for videos in manifest.content["features"].values())
    snippets = sum(video.file.length for video in pending)
    seconds = time.perf_counter() - started
    print(f"{folder}: {total} videos complete, {snippets} snippets encoded in {seconds:.1f} s")


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


def open_export(
    config: Config,
    folder: Path,
    encoder: Encoder,
    target: Target,
    annotations: dict[str, Annotation],
    overwrite: bool,
) -> tuple[list[Split], Manifest, list[list[Video]]]:
    """Make the output folder ready; the videos, the manifest, the batches not complete."""
    bad_files = BadFiles(config.on_bad_file)
    splits = open_sources(config, encoder, target, bad_files)
    bad_files.report()
    if annotations:
        compare(annotations, splits, target)
    data_root = target.source or config.data_root
    form, names = form_of(target, splits), [split.name for split in splits]
    places = {form.path(folder, name, "").parent for name in names} | {folder}
    inputs = [root / name for root in feature_folders(data_root) for name in ("", *names)]
    if {place.resolve() for place in places} & {path.resolve() for path in inputs}:
        raise SolaError(f"{folder}: holds the input; write to another folder")
    files = [part for s in splits for file in s.videos.values() for part in file.path.split(" + ")]
    if {Path(os.path.realpath(file)).parent for file in files} & {p.resolve() for p in places}:
        raise SolaError(f"{folder}: holds the input, by way of links; write to another folder")
    check_no_clash(splits, form)
    about = {
        "checkpoint": encoder.source,
        "sha256": encoder.sha256,
        "dilations": encoder.dilations,
        "data_root": data_root,
        "settings": encoder.settings,
        "skipped": bad_files.skipped,
    }
    beside = HEADS[target.head].beside if annotations else None
    if beside:
        about["beside"] = sorted({beside, *files_beside(folder)})
        check_beside(folder / beside, target)
    names_of = {split.name: list(split.videos) for split in splits}
    may_replace = overwrite or target.output is None
    manifest = Manifest(folder, form, names_of, about, overwrite=overwrite, may_replace=may_replace)
    for place in places:
        clear_temporary(place, f".{form.format}")
    videos = [
        Video(split.name, name, file, manifest.holds(split.name, name, file))
        for split in splits
        for name, file in split.videos.items()
    ]
    # a batch is the same whatever is complete, so that a killed run ends as an uninterrupted one
    batches = [
        [videos[number] for number in numbers]
        for numbers in batches_of_videos([video.file.length for video in videos])
    ]
    pending = sum(not video.is_complete for video in videos)
    rest = ", the others are complete" if pending < len(videos) else ""
    print(f"{pending} of {len(videos)} videos to encode with {encoder.source}{rest}", flush=True)
    batches = [batch for batch in batches if not all(v.is_complete for v in batch)]
    return splits, manifest, batches


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


def check_beside(path: Path, target: Target) -> None:
    """Raise SolaError when the file that a head wants beside its features is the user's."""
    if path.exists() and path.name not in files_beside(path.parent):
        raise SolaError(f"{path}: is not of this program; write to another folder")
    if Path(target.annotations).resolve() == path.resolve():
        raise SolaError(f"{target.annotations}: would be replaced; write to another folder")


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


def write_features(
    folder: Path, encoder: Encoder, form: Form, batches: list[list[Video]]
) -> Iterator[Video]:
    """Encode batches and write those of their videos that are not complete; these, once written."""

    def write(job: tuple[Video, np.ndarray]) -> Video:
        video, features = job
        _check_output(video.file, features)
        form.write(form.path(folder, video.split, video.name), features)
        return video

    encoded = zip(
        batches, encoder.encode([[video.file for video in b] for b in batches]), strict=True
    )
    jobs = (
        (video, features)
        for batch, of_batch in encoded
        for video, features in zip(batch, of_batch, strict=True)
        if not video.is_complete
    )
    return in_background(write, jobs, threads=WRITERS, ahead=WRITES_AHEAD)


def _check_output(file: FeatureFile, features: np.ndarray) -> None:
    if not is_finite(features):
        raise DataError(f"{file.path}: the module's output is NaN or infinite there")

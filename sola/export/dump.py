"""SoLa features on disk, for the heads that read them."""

import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sola.config import Config
from sola.data.annotations import Annotation, read_annotations
from sola.data.features import DataError, FeatureFile, is_finite, open_joined, read_features
from sola.data.videos import (
    BadFiles,
    Split,
    feature_folders,
)
from sola.export.encoder import Encoder, check_width, open_encoder
from sola.export.formats import Form
from sola.export.heads import HEADS, Written, write_for_head
from sola.export.manifest import Manifest, Video, files_beside
from sola.export.source import (
    Target,
    check_no_clash,
    compare,
    form_of,
    names_files,
    open_sources,
)
from sola.probe.snippets import batches_of_videos, encode_video
from sola.system.cli import SolaError, progress, resolve_device
from sola.system.files import FolderLock, clear_temporary
from sola.system.prefetch import in_background
from sola.system.ranks import (
    from_all_ranks,
    from_first_rank,
    is_first_rank,
    join_ranks,
    rank,
    rank_count,
)

BATCHES_PER_ROUND = 64  # of each rank, before the first one hears of them
WRITERS = 4
WRITES_AHEAD = 16


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
    parts = [part for s in splits for file in s.videos.values() for part in file.files]
    if {Path(os.path.realpath(part.path)).parent for part in parts} & {p.resolve() for p in places}:
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


def check_beside(path: Path, target: Target) -> None:
    """Raise SolaError when the file that a head wants beside its features is the user's."""
    if path.exists() and path.name not in files_beside(path.parent):
        raise SolaError(f"{path}: is not of this program; write to another folder")
    if Path(target.annotations).resolve() == path.resolve():
        raise SolaError(f"{target.annotations}: would be replaced; write to another folder")


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

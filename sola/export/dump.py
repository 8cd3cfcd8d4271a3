"""SoLa features on disk, video by video, in the form that a head reads."""

import contextlib
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from sola.config import Config
from sola.data.features import open_joined, read_features
from sola.data.index_files import feature_folders
from sola.errors import SolaError
from sola.export.advice import check_place, check_source, file_names, handed_over, write_for_head
from sola.export.encoder import Encoder, open_encoder
from sola.export.formats import Form
from sola.export.heads import HEADS
from sola.export.manifest import make_ready, write_manifest
from sola.export.source import Sources, Target, Video, names_files, open_sources
from sola.export.spread import Spread
from sola.system.cli import progress
from sola.system.device import resolve_device
from sola.system.files import only_user_of, sync_folder
from sola.system.prefetch import in_background
from sola.system.ranks import (
    from_all_ranks,
    from_first_rank,
    is_first_rank,
    join_ranks,
    rank,
    rank_count,
)

READERS = WRITERS = 4  # threads
AHEAD = 8  # videos in memory that are read and not yet encoded, and as many not yet written


def export_features(
    config: Config, load_model: str, target: Target | None = None, *, overwrite: bool = False
) -> Path:
    """Write the features of both splits, float32 [T, C] with T as in the input unless told else.

    load_model: see find_checkpoint. Without a target they are
    <feature_save_path>/<name>/<split>/<video>.npy. Videos that are complete are left as they are
    unless `overwrite`. Under torchrun the ranks share the videos, and the first alone keeps the
    manifest. Returns the folder; the file where the target's source is one.
    """
    target = target or Target()
    device = resolve_device(config.device)
    join_ranks(device)
    encoder = open_encoder(config, load_model, device)
    if target.source and from_first_rank(lambda: names_files(target.source)):
        return from_first_rank(lambda: encode_file(encoder, target, overwrite=overwrite))
    folder = output_folder(config, encoder.name, target)
    sources = from_first_rank(lambda: open_sources(config, target))
    encoder.check_input(sources.input_dim, sources.data_root)
    form = sources.form
    with contextlib.ExitStack() as lock:
        from_first_rank(lambda: lock.enter_context(only_user_of(folder)))
        content, pending = from_first_rank(
            lambda: begin(folder, encoder, sources, target, overwrite=overwrite)
        )
        started = time.perf_counter()
        write_features(folder, form, encoder, pending)
        if is_first_rank():
            encoded = f"{sum(video.file.length for video in pending)} snippets encoded"
            seconds = time.perf_counter() - started
            print(f"{folder}: {len(sources.videos)} videos complete, {encoded} in {seconds:.1f} s")
            if target.head:
                width = encoder.output_dim(sources.input_dim)
                write_for_head(target.head, handed_over(target.head, folder, width, sources))
            write_manifest(folder, content, finished=True)
    return folder


def output_folder(config: Config, name: str, target: Target) -> Path:
    """Where the features of a checkpoint of that name go. Raises SolaError where a head stops."""
    name += target.suffix
    folder = Path(target.output or config.feature_save_path)
    if target.output is None or target.is_one_of_many:
        folder /= name
    if target.head:
        folder /= HEADS[target.head].folder
        check_place(target.head, folder)
    return folder


def encode_file(encoder: Encoder, target: Target, *, overwrite: bool) -> Path:
    """Write the features of a single file to target.output, a file too."""
    form, output, inputs = target.form, Path(target.output), feature_folders(target.source)
    if target.annotations:
        raise SolaError("--annotations: are for a folder of features, --input is a file")
    if output.suffix != f".{form.format}":
        raise SolaError(f"--output={output}: must end in .{form.format}, as a file's output")
    if any(output.exists() and output.samefile(path) for path in inputs):
        raise SolaError(f"{output}: is the input; name another output")
    file = open_joined(inputs)
    encoder.check_input(file.shape[1], file.path)
    features = encoder.encode(file, read_features(file))
    with only_user_of(output):
        if output.exists() and not overwrite:
            raise SolaError(f"{output}: is there already; --overwrite replaces it")
        form.write(output, features)
    print(f"{output}: {file.length} snippets")
    if target.head:
        print(f"note: --for={target.head} is told of folders, not of a single file")
    return output


def begin(
    folder: Path, encoder: Encoder, sources: Sources, target: Target, *, overwrite: bool
) -> tuple[dict[str, Any], list[Video]]:
    """Make the output folder ready; its manifest, and the videos whose features it lacks."""
    beside = []
    if target.head:
        beside = [f"{target.head}.md", *(file_names(target.head) if sources.annotations else [])]
        check_source(folder, sources.source, overwrite=overwrite)
    about = {
        "checkpoint": encoder.checkpoint,
        "sha256": encoder.sha256,
        "dilations": encoder.dilations,
        "data_root": sources.data_root,
        "splits": sources.splits,
        "beside": beside,
        "settings": encoder.settings,
        "skipped": sources.skipped,
    }
    form, inputs = sources.form, sources.real_paths()
    if target.annotations:
        inputs.add(os.path.realpath(target.annotations))
    may_replace = overwrite or target.output is None
    content = make_ready(folder, form, about, inputs, overwrite=overwrite, may_replace=may_replace)
    width = encoder.output_dim(sources.input_dim)
    pending = [
        video
        for video in sources.videos
        if not form.is_written(form.path(folder, video.split, video.name), video.length, width)
    ]
    rest = ", the others are complete" if len(pending) < len(sources.videos) else ""
    said = f"{len(pending)} of {len(sources.videos)} videos to encode"
    print(f"{said} with {encoder.checkpoint}{rest}", flush=True)
    return content, pending


def write_features(folder: Path, form: Form, encoder: Encoder, pending: list[Video]) -> None:
    """Write this rank's share of the videos; returns when all ranks have written theirs."""
    share = pending[rank() :: rank_count()]
    files = [video.file for video in share]
    read = in_background(read_features, files, threads=READERS, ahead=AHEAD)
    spread = Spread()

    def encode(video: Video, features: np.ndarray) -> tuple[Video, np.ndarray]:
        made = encoder.encode(video.file, features)
        spread.add(features, made)
        return video, made

    encoded = map(encode, share, read)

    def write(job: tuple[Video, np.ndarray]) -> None:
        video, features = job
        form.write(form.path(folder, video.split, video.name), features)

    written = in_background(write, encoded, threads=WRITERS, ahead=AHEAD)
    for _ in progress(written, total=len(share), desc="features", unit="video"):
        pass
    for place in {form.place(folder, video.split) for video in share}:
        sync_folder(place)  # the files in it are: by the threads that write them
    if is_first_rank() and (line := spread.describe()):
        print(line)
    from_all_ranks([rank()])  # waits for all of them

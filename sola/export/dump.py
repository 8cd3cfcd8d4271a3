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
from sola.data.times import Sampling
from sola.errors import SolaError
from sola.export.formats import Form
from sola.export.heads import HEADS, Written, write_for_head
from sola.export.manifest import make_ready, write_manifest
from sola.export.source import (
    Encoder,
    Sources,
    Target,
    Video,
    names_files,
    open_encoder,
    open_sources,
)
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
    folder = Path(target.output or Path(config.feature_save_path) / (encoder.name + target.suffix))
    folder /= HEADS[target.head].folder if target.head else ""
    sources = from_first_rank(lambda: open_sources(config, encoder, target))
    form = from_first_rank(lambda: sources.form_for(target.form))
    with contextlib.ExitStack() as lock:
        from_first_rank(lambda: lock.enter_context(only_user_of(folder)))
        content, pending = from_first_rank(
            lambda: begin(folder, form, encoder, sources, target, overwrite=overwrite)
        )
        started = time.perf_counter()
        write_features(folder, form, encoder, pending)
        if is_first_rank():
            encoded = f"{sum(video.file.length for video in pending)} snippets encoded"
            seconds = time.perf_counter() - started
            print(f"{folder}: {len(sources.videos)} videos complete, {encoded} in {seconds:.1f} s")
            if target.head:
                write_for_head(target.head, written_by(config, folder, form, encoder, sources))
            write_manifest(folder, content, finished=True)
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
        lengths, width = {output.stem: file.length}, features.shape[1]
        written = Written(output.parent, form, [""], lengths, width, {}, {}, {})
        write_for_head(target.head, written)
    return output


def written_by(
    config: Config, folder: Path, form: Form, encoder: Encoder, sources: Sources
) -> Written:
    """What is to be told to a head."""
    sampling = Sampling.of(config)
    lengths, axes, names = {}, {}, {}
    for _, video, file in sources.videos:
        name = f"{form.prefix}{video}"
        lengths[name] = file.length
        if video in sources.names:
            names[name] = sources.names[video]
        axis = sampling.axis(file.length, sources.annotations.get(names.get(name, "")))
        if axis is not None:
            axes[name] = axis.resized(file.length, form.resize) if form.resize else axis
    width = encoder.output_dim(sources.input_dim)
    return Written(folder, form, sources.splits, lengths, width, axes, sources.annotations, names)


def begin(
    folder: Path, form: Form, encoder: Encoder, sources: Sources, target: Target, *, overwrite: bool
) -> tuple[dict[str, Any], list[Video]]:
    """Make the output folder ready; its manifest, and the videos whose features it lacks."""
    beside = HEADS[target.head].beside if sources.annotations else None
    about = {
        "checkpoint": encoder.checkpoint,
        "sha256": encoder.sha256,
        "dilations": encoder.dilations,
        "data_root": sources.data_root,
        "splits": sources.splits,
        "beside": [beside] if beside else [],
        "settings": encoder.settings,
        "skipped": sources.skipped,
    }
    inputs = sources.real_paths()
    if target.annotations:
        inputs.add(os.path.realpath(target.annotations))
    may_replace = overwrite or target.output is None
    content = make_ready(folder, form, about, inputs, overwrite=overwrite, may_replace=may_replace)
    width = encoder.output_dim(sources.input_dim)
    pending = [
        video
        for video in sources.videos
        if not form.is_written(form.path(folder, video.split, video.name), video.file.length, width)
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
    encoded = (
        (video, encoder.encode(video.file, features))
        for video, features in zip(share, read, strict=True)
    )

    def write(job: tuple[Video, np.ndarray]) -> None:
        video, features = job
        form.write(form.path(folder, video.split, video.name), features)

    written = in_background(write, encoded, threads=WRITERS, ahead=AHEAD)
    for _ in progress(written, total=len(share), desc="features", unit="video"):
        pass
    for place in {form.place(folder, video.split) for video in share}:
        sync_folder(place)  # the files in it are: by the threads that write them
    from_all_ranks([rank()])  # waits for all of them

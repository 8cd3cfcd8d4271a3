"""SoLa features on disk, video by video, in the form that a head reads."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sola.config import Config
from sola.data.features import open_joined, read_features
from sola.data.index_files import feature_folders
from sola.errors import SolaError
from sola.export.advice import check_place, handed_over, write_for_head
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
    with contextlib.ExitStack() as lock:

        def begun() -> Dump:
            sources = open_sources(config, target)
            encoder.check_input(sources.input_dim, sources.data_root)
            lock.enter_context(only_user_of(folder))
            return begin(folder, encoder, sources, target, overwrite=overwrite)

        dump = from_first_rank(begun)
        started = time.perf_counter()
        write_features(folder, dump.form, encoder, dump.pending)
        if is_first_rank():
            encoded = f"{sum(video.file.length for video in dump.pending)} snippets encoded"
            seconds = time.perf_counter() - started
            print(f"{folder}: {dump.videos} videos complete, {encoded} in {seconds:.1f} s")
            if target.head:
                write_for_head(target.head, folder, dump.beside)
            write_manifest(folder, dump.manifest, finished=True)
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


class Dump(NamedTuple):
    """A folder of features that is begun."""

    form: Form
    manifest: dict[str, Any]
    beside: dict[str, bytes]  # name -> content of the files for a head
    videos: int
    pending: list[Video]  # those whose features are not there


def begin(
    folder: Path, encoder: Encoder, sources: Sources, target: Target, *, overwrite: bool
) -> Dump:
    """Make the output folder ready; what is to be written there."""
    form, width = sources.form, encoder.output_dim(sources.input_dim)
    beside = handed_over(target.head, folder, width, sources) if target.head else {}
    about = encoder.about | {
        "data_root": sources.data_root,
        "splits": sources.splits,
        "beside": [*beside],
        "annotations": sources.source,
        "skipped": sources.skipped,
    }
    inputs = sources.real_paths()
    if target.annotations:
        inputs.add(os.path.realpath(target.annotations))
    may_replace = overwrite or target.output is None
    content = make_ready(folder, form, about, inputs, overwrite=overwrite, may_replace=may_replace)
    pending = [
        video
        for video in sources.videos
        if not form.is_written(form.path(folder, video.split, video.name), video.length, width)
    ]
    rest = ", the others are complete" if len(pending) < len(sources.videos) else ""
    said = f"{len(pending)} of {len(sources.videos)} videos to encode"
    print(f"{said} with {encoder.about['checkpoint']}{rest}", flush=True)
    return Dump(form, content, beside, len(sources.videos), pending)


def write_features(folder: Path, form: Form, encoder: Encoder, pending: list[Video]) -> None:
    """Write this rank's share of the videos; returns when all ranks have written theirs."""
    share = pending[rank() :: rank_count()]
    files = [video.file for video in share]
    read = in_background(read_features, files, threads=READERS, ahead=AHEAD)
    spread = Spread()

    def encoded() -> Iterator[tuple[Path, np.ndarray]]:
        for video, features in zip(share, read, strict=True):
            made = encoder.encode(video.file, features)
            spread.add(features, made)
            yield form.path(folder, video.split, video.name), made

    written = in_background(lambda job: form.write(*job), encoded(), threads=WRITERS, ahead=AHEAD)
    for _ in progress(written, total=len(share), desc="features", unit="video"):
        pass
    for place in {form.place(folder, video.split) for video in share}:
        sync_folder(place)  # the files in it are: by the threads that write them
    if is_first_rank() and (line := spread.describe()):
        print(line)
    from_all_ranks([rank()])  # waits for all of them

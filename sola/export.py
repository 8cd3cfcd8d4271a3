"""SoLa features on disk, for the heads that read them."""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sola.arrays import ArrayFile, BadFileError, DataError, is_finite, open_features, read_features
from sola.checkpoint import CheckpointError, file_sha256, find_checkpoint
from sola.config import Config, load_config
from sola.dataset import SPLITS, BadFiles, feature_paths, open_split
from sola.encode import batches_of_videos, encode_batches
from sola.files import FolderLock, clear_temporary, read_bytes, write_atomically, write_npy
from sola.model import SoLaModule, load_module
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

MANIFEST = "manifest.json"
MANIFEST_SECONDS = 10.0  # a killed run repeats at most so much work
BATCHES_PER_ROUND = 64  # of each rank, before the first one hears of them
WRITERS = 4
WRITES_AHEAD = 16
IDENTITY = ("sha256", "dilations", "data_root")  # what features must share to lie side by side
UNTOUCHED = "none: epoch 0, features untouched"


@dataclass(frozen=True)
class Encoder:
    """What turns features into those to be written: a module, or nothing for epoch 0."""

    name: str  # of the output folder
    source: str  # the checkpoint's path
    sha256: str
    dilations: list[int]
    settings: str  # YAML of the training, as far as known
    module: SoLaModule | None

    def encode(self, batches: list[list[ArrayFile]]) -> Iterator[list[np.ndarray]]:
        """Features of batches of videos, float32 [T, C] each."""
        if self.module is None:
            return ([read_features(video) for video in batch] for batch in batches)
        return encode_batches(self.module, batches)


def open_encoder(config: Config, load_model: str, device: torch.device) -> Encoder:
    """The module that --load_model names, on a device.

    Raises CheckpointError when it is not there or of another width than in_feature_dim.
    """
    name, path = find_checkpoint(config, load_model)
    if path is None:
        return Encoder(name, UNTOUCHED, UNTOUCHED, [], config.to_yaml(), None)
    beside = path.parent / "config.yaml"
    trained_with = load_config(beside) if beside.is_file() else config
    module = load_module(path, dilations=trained_with.dilations)
    feature_dim = module.conv_network[0].in_channels
    if feature_dim != config.in_feature_dim:
        raise CheckpointError(
            f"{path}: made for {feature_dim} channels, in_feature_dim is {config.in_feature_dim}"
        )
    return Encoder(
        name,
        source=str(path),
        sha256=file_sha256(path),
        dilations=list(trained_with.dilations),
        settings=trained_with.to_yaml(),
        module=module.to(device),
    )


@dataclass(frozen=True)
class Video:
    """A video to encode."""

    split: str
    name: str
    file: ArrayFile
    is_complete: bool  # an earlier run has written its features


class Manifest:
    """Which videos of an output folder are complete, and from which checkpoint.

    A folder with a manifest belongs to this program; one with features but without is left alone.
    """

    def __init__(
        self,
        folder: Path,
        encoder: Encoder,
        data_root: str,
        skipped: dict[str, str],
        overwrite: bool,
    ) -> None:
        self.path = folder / MANIFEST
        self.content = {
            "checkpoint": encoder.source,
            "sha256": encoder.sha256,
            "dilations": encoder.dilations,
            "data_root": data_root,
            "settings": encoder.settings,
            "finished": False,
            "skipped": skipped,
            "features": {split: {} for split in SPLITS},
        }
        folders = [folder / split for split in SPLITS if (folder / split).is_dir()]
        outputs = [path for found in folders for path in feature_paths(found).values()]
        if not self.path.exists():
            if outputs:
                raise SolaError(
                    f"{folder}: features of unknown origin, without {MANIFEST}; move them away"
                )
        else:
            earlier = _read_manifest(self.path)
            if any(earlier[key] != self.content[key] for key in IDENTITY):
                for path in outputs:
                    os.unlink(path)
                print(f"{folder}: features of another {' or '.join(IDENTITY)} removed", flush=True)
            elif not overwrite:
                self.content["features"] = earlier["features"]
        self.save()
        self.saved_at = time.monotonic()

    def holds(self, split: str, video: str, array: ArrayFile) -> bool:
        """Whether a video's features are complete: listed with this T, and there as listed."""
        if self.content["features"][split].get(video) != array.length:
            return False
        try:
            return open_features(self.path.parent / split / f"{video}.npy").shape == array.shape
        except BadFileError:
            return False

    def add(self, video: Video) -> None:
        """List a video as complete; on disk within MANIFEST_SECONDS."""
        self.content["features"][video.split][video.name] = video.file.length
        if time.monotonic() - self.saved_at > MANIFEST_SECONDS:
            self.save()
            self.saved_at = time.monotonic()

    def save(self, *, finished: bool = False) -> None:
        """Write the manifest to disk, if this is the first rank."""
        self.content["finished"] = finished
        if is_first_rank():
            write_atomically(self.path, json.dumps(self.content, indent=1).encode())


def _read_manifest(path: Path) -> dict:
    try:
        content = json.loads(read_bytes(path))
        listed = [content["features"][split] for split in SPLITS]
        if all(isinstance(videos, dict) for videos in listed) and content.keys() >= set(IDENTITY):
            return content
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise SolaError(f"{path}: damaged; remove its folder to compute the features anew")


def export_features(config: Config, load_model: str, *, overwrite: bool = False) -> Path:
    """Write the features of both splits as <feature_save_path>/<name>/<split>/<video>.npy.

    load_model: see find_checkpoint. float32 [T, C] each, T as in the input. Videos that the
    manifest lists as complete are left as they are unless `overwrite`. Under torchrun the ranks
    share the videos, and the first alone keeps the manifest. Returns the folder.
    """
    device = resolve_device(config.device)
    join_ranks(device)
    encoder = open_encoder(config, load_model, device)
    folder = Path(config.feature_save_path) / encoder.name
    lock = FolderLock(folder)
    from_first_rank(lock.acquire)
    try:
        manifest, batches = from_first_rank(lambda: open_export(config, folder, encoder, overwrite))
        encode_and_write(folder, encoder, manifest, batches)
    finally:
        lock.release()
    return folder


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
                written = []
                for video in write_features(folder, encoder, of_round[rank() :: rank_count()]):
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
    config: Config, folder: Path, encoder: Encoder, overwrite: bool
) -> tuple[Manifest, list[list[Video]]]:
    """Make the output folder ready; its manifest, and the batches that are not complete."""
    bad_files = BadFiles(config.on_bad_file)
    splits = [
        open_split(config.data_root, split, config.in_feature_dim, bad_files) for split in SPLITS
    ]
    bad_files.report()
    if folder.resolve() == Path(config.data_root).resolve():
        raise SolaError(f"{folder}: holds the input; set feature_save_path to another folder")
    for place in (folder, *(folder / split for split in SPLITS)):
        clear_temporary(place)
    manifest = Manifest(folder, encoder, config.data_root, bad_files.skipped, overwrite)
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
    print(f"{pending} of {len(videos)} videos to encode with {encoder.source}", flush=True)
    return manifest, [batch for batch in batches if not all(v.is_complete for v in batch)]


def write_features(folder: Path, encoder: Encoder, batches: list[list[Video]]) -> Iterator[Video]:
    """Encode batches and write those of their videos that are not complete; these, once written."""

    def write(job: tuple[Video, np.ndarray]) -> Video:
        video, features = job
        if not is_finite(features):
            raise DataError(f"{video.file.path}: the module's output is NaN or infinite there")
        write_npy(folder / video.split / f"{video.name}.npy", features)
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

"""SoLa features on disk, for the heads that read them."""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sola.checkpoint import (
    CheckpointError,
    clear_temporary,
    file_sha256,
    find_checkpoint,
    write_atomically,
    write_npy,
)
from sola.config import Config, load_config
from sola.dataset import (
    SPLITS,
    ArrayFile,
    DataError,
    check_finite,
    feature_paths,
    open_features,
    open_split,
    read_features,
)
from sola.encode import encode_video
from sola.model import SoLaModule, load_module
from sola.runtime import SolaError, progress, resolve_device

MANIFEST = "manifest.json"
MANIFEST_SECONDS = 10.0  # a killed run repeats at most so much work
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

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """float32 [T, C] -> float32 [T, C]."""
        return features if self.module is None else encode_video(self.module, features)


def open_encoder(config: Config, load_model: str) -> Encoder:
    """The module that --load_model names, on the configured device.

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
        module=module.to(resolve_device(config.device)),
    )


class Manifest:
    """Which videos of an output folder are complete, and from which checkpoint.

    A folder with a manifest belongs to this program; one with features but without is left alone.
    """

    def __init__(self, folder: Path, encoder: Encoder, data_root: str, overwrite: bool) -> None:
        self.path = folder / MANIFEST
        self.content = {
            "checkpoint": encoder.source,
            "sha256": encoder.sha256,
            "dilations": encoder.dilations,
            "data_root": data_root,
            "settings": encoder.settings,
            "finished": False,
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
        except (DataError, OSError):
            return False

    def add(self, split: str, video: str, length: int) -> None:
        """List a video as complete; on disk within MANIFEST_SECONDS."""
        self.content["features"][split][video] = length
        if time.monotonic() - self.saved_at > MANIFEST_SECONDS:
            self.save()
            self.saved_at = time.monotonic()

    def save(self, *, finished: bool = False) -> None:
        """Write the manifest to disk."""
        self.content["finished"] = finished
        write_atomically(self.path, json.dumps(self.content, indent=1).encode())


def _read_manifest(path: Path) -> dict:
    try:
        content = json.loads(path.read_bytes())
        listed = [content["features"][split] for split in SPLITS]
        if all(isinstance(videos, dict) for videos in listed) and content.keys() >= set(IDENTITY):
            return content
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise SolaError(f"{path}: damaged; remove its folder to compute the features anew")


def export_features(config: Config, load_model: str, *, overwrite: bool = False) -> Path:
    """Write the features of both splits as <feature_save_path>/<name>/<split>/<video>.npy.

    load_model: see find_checkpoint. float32 [T, C] each, T as in the input. Videos that the
    manifest lists as complete are left as they are unless `overwrite`. Returns the folder.
    """
    encoder = open_encoder(config, load_model)
    splits = [open_split(config.data_root, split, config.in_feature_dim) for split in SPLITS]
    folder = Path(config.feature_save_path) / encoder.name
    if folder.resolve() == Path(config.data_root).resolve():
        raise SolaError(f"{folder}: holds the input; set feature_save_path to another folder")
    for place in (folder, *(folder / split for split in SPLITS)):
        clear_temporary(place)
    manifest = Manifest(folder, encoder, config.data_root, overwrite)
    pending = [
        (split.name, video, array)
        for split in splits
        for video, array in split.videos.items()
        if not manifest.holds(split.name, video, array)
    ]
    total = sum(len(split.videos) for split in splits)
    print(f"{len(pending)} of {total} videos to encode with {encoder.source}", flush=True)
    started = time.perf_counter()
    finished = False
    try:
        for split, video, encoded in _encoded(encoder, pending):
            write_npy(folder / split / f"{video}.npy", encoded)
            manifest.add(split, video, len(encoded))
        finished = True
    finally:
        manifest.save(finished=finished)
    snippets = sum(array.length for _, _, array in pending)
    seconds = time.perf_counter() - started
    print(f"{folder}: {total} videos complete, {snippets} snippets encoded in {seconds:.1f} s")
    return folder


def _encoded(
    encoder: Encoder, pending: list[tuple[str, str, ArrayFile]]
) -> Iterator[tuple[str, str, np.ndarray]]:
    for split, video, array in progress(pending, desc="features", unit="video"):
        encoded = encoder(read_features(array))
        check_finite(encoded, f"{array.path}: the module's output")
        yield split, video, encoded

"""What --load_model names: the module that turns features into those to be written, or nothing."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from sola.config import Config, load_config
from sola.data.features import DataError, FeatureFile, read_features
from sola.method.module import SoLaModule, load_module
from sola.method.weights import file_sha256, find_checkpoint
from sola.probe.snippets import encode_batches

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

    @property
    def feature_dim(self) -> int | None:
        """C of the features it takes; None for any."""
        return self.module.conv_network[0].in_channels if self.module else None

    def encode(self, batches: list[list[FeatureFile]]) -> Iterator[list[np.ndarray]]:
        """Features of batches of videos, float32 [T, C] each."""
        if self.module is None:
            return ([read_features(video) for video in batch] for batch in batches)
        return encode_batches(self.module, batches)


def open_encoder(config: Config, load_model: str, device: torch.device) -> Encoder:
    """The module that --load_model names, on a device. Raises CheckpointError without it."""
    name, path = find_checkpoint(config, load_model)
    if path is None:
        return Encoder(name, UNTOUCHED, UNTOUCHED, [], config.to_yaml(), None)
    beside = path.parent / "config.yaml"
    trained_with = load_config(beside) if beside.is_file() else config
    module = load_module(path, dilations=trained_with.dilations)
    return Encoder(
        name,
        source=str(path),
        sha256=file_sha256(path),
        dilations=list(trained_with.dilations),
        settings=trained_with.to_yaml(),
        module=module.to(device),
    )


def check_width(file: FeatureFile, encoder: Encoder) -> None:
    """Raise DataError when a checkpoint is made for another number of channels."""
    if encoder.feature_dim not in (None, file.shape[1]):
        raise DataError(
            f"{file.path}: {list(file.shape)}, but {encoder.source} is made for [T, "
            f"{encoder.feature_dim}]"
        )

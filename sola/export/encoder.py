"""What turns features into those to be written: a checkpoint, or a control to compare it with."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from sola.config import Config, load_config
from sola.data.features import FeatureFile, is_finite
from sola.errors import CheckpointError, DataError, SolaError, shown
from sola.method.module import SoLaModule, encode_video, in_blocks
from sola.method.weights import file_sha256, load_module
from sola.records import (
    best_evaluation,
    best_head,
    comparable,
    gain,
    head_evaluations,
    read_records,
    saved_epochs,
)
from sola.system.ranks import from_first_rank

UNTOUCHED = "none: epoch 0, features untouched"
AVERAGE = "moving_average"


@dataclass(frozen=True)
class Encoder:
    """What turns features into those to be written: a module, or nothing for epoch 0."""

    name: str  # of the output folder
    about: dict[str, Any]  # checkpoint, sha256, dilations and settings, a YAML, for the manifest
    module: SoLaModule | None
    averaged: int = 1  # snippets that each is the mean of, without a module

    def encode(self, file: FeatureFile, features: np.ndarray) -> np.ndarray:
        """Features of a file to those written: float32 [T, C_in] -> [T, C_out].

        Raises DataError when they are not finite.
        """
        if self.module is not None:
            features = encode_video(self.module, features)
        elif self.averaged > 1:
            average = partial(moving_average, count=self.averaged)
            features = in_blocks(average, features, self.averaged // 2)
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
            raise CheckpointError(f"{self.about['checkpoint']}: {what}")


def open_encoder(config: Config, load_model: str, device: torch.device) -> Encoder:
    """The module that --load_model names, on a device. Raises CheckpointError without it."""
    name, path = from_first_rank(lambda: find_checkpoint(config, load_model))
    if path is None:
        count = _averaged(load_model) if load_model.startswith(AVERAGE) else 1
        what = UNTOUCHED if count == 1 else f"none: moving average over {count} snippets"
        about = {"checkpoint": what, "sha256": what, "dilations": []}
        return Encoder(name, about | {"settings": config.to_yaml()}, None, count)
    beside = path.parent / "config.yaml"
    trained_with = load_config(beside) if beside.is_file() else config
    module = load_module(path, dilations=trained_with.dilations)
    about = {"checkpoint": str(path), "sha256": file_sha256(path)}
    about |= {"dilations": [*trained_with.dilations], "settings": trained_with.to_yaml()}
    return Encoder(name, about, module.to(device))


def _averaged(load_model: str) -> int:
    """N of moving_average:N."""
    text = load_model.removeprefix(f"{AVERAGE}:")
    count = int(text) if re.fullmatch(r"[0-9]{1,3}", text) else 0
    if count % 2 == 0:
        what = f"N of {AVERAGE}:N must be odd, below 1000"
        raise SolaError(f"--load_model={shown(load_model)}: {what}")
    return count


def moving_average(features: np.ndarray, count: int) -> np.ndarray:
    """Mean of each snippet and its neighbours, of those that exist: [T, C] -> [T, C].

    count: snippets in a mean, odd. A control for what SoLa gains beyond smoothing.
    """
    x = torch.from_numpy(features).T[None].double()  # [1, C, T]
    means = F.avg_pool1d(x, count, stride=1, padding=count // 2, count_include_pad=False)
    return means[0].T.float().contiguous().numpy()


def find_checkpoint(config: Config, load_model: str) -> tuple[str, Path | None]:
    """What --load_model asks for: a name for the output and the checkpoint, None for epoch 0.

    load_model: an epoch, best (highest probe accuracy), best_head (of the temporal head), last, 0
    (features untouched), moving_average:N or a file.
    Raises CheckpointError, saying which epochs are there.
    """
    if load_model.endswith((".pt", ".pth")):
        return Path(load_model).stem, Path(load_model)
    if load_model.startswith(AVERAGE):
        return f"{config.exp_name}_{AVERAGE}{_averaged(load_model)}", None  # as no epoch's
    if re.fullmatch(r"[0-9]{1,9}", load_model):
        load_model = str(int(load_model))
    if load_model == "0":
        return f"{config.exp_name}_0", None
    asked, epochs = f"--load_model={shown(load_model)}", saved_epochs(config)
    if not epochs:
        raise CheckpointError(f"{asked}: no checkpoint in {config.run_folder}")
    of_name = {str(epoch): epoch for epoch in epochs}
    there = f"saved epochs in {config.run_folder}: {', '.join(of_name)}"
    if load_model in of_name:
        epoch = of_name[load_model]
    elif load_model == "last":
        epoch = epochs[-1]
    elif load_model in ("best", "best_head"):
        epoch = _best_epoch(config, epochs, of_head=load_model == "best_head")
        if epoch is None:
            what = "no temporal head" if load_model == "best_head" else "no linear probe"
            raise CheckpointError(f"{asked}: {what} scored a saved epoch; use last ({there})")
    else:
        raise CheckpointError(
            f"{asked}: must be EPOCH, best, best_head, last, 0, {AVERAGE}:N or FILE.pt; {there}"
        )
    return f"{config.exp_name}_{epoch}", config.model_file(epoch)


def _best_epoch(config: Config, epochs: Sequence[int], *, of_head: bool) -> int | None:
    """The best saved epoch among evaluations that can be compared, of a probe; None without any."""
    records = read_records(config.metrics_file)
    scores = head_evaluations(records) if of_head else comparable(records, config.eval_protocol)
    saved = [record for record in scores if record["epoch"] in {0, *epochs}]
    best = best_head(saved) if of_head else best_evaluation(saved)
    if best is None:
        return None
    above = gain(scores, best, "roc_auc" if of_head else "accuracy")
    if above is not None and above <= 0:
        print(f"note: epoch {best['epoch']}, the best one, is not above the untouched features (0)")
    return best["epoch"]

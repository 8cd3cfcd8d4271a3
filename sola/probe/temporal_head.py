"""A second probe, with temporal context: a small convolutional head on frozen features.

Two temporal convolutions and a linear layer, the same whatever the features, are trained from
scratch on whole training videos and scored on whole validation videos, with several seeds. Each
figure is given twice: with channels standardised by the training videos, and with the features as
they are, which is how most heads read them.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sola.config import Config
from sola.data.features import FeatureFile, read_features
from sola.method.module import SoLaModule, encode_video
from sola.probe.scores import Scores, figures
from sola.probe.snippets import READERS, ProbeVideos, check_finite, mean_and_deviation
from sola.system.cli import progress
from sola.system.device import random_generator
from sola.system.prefetch import in_background

WIDTH, KERNEL, DROPOUT = 64, 9, 0.3
STEPS, CROPS, CROP = 100, 16, 128  # CROPS crops of CROP snippets a step
LEARNING_RATE, WEIGHT_DECAY = 3e-3, 0.01  # of AdamW
FIGURES = ("accuracy", "balanced_accuracy", "roc_auc", "average_precision")
NO_LABEL = -100  # of what pads a short video, ignored by the loss

Scaling = tuple[Tensor, Tensor]  # mean and deviation of every channel, [C] each


def drawn(split: str, videos: Sequence[Any], count: int, seed: int) -> list[Any]:
    """At most count of a split's videos, in their order, the same for the same seed."""
    if count >= len(videos):
        return [*videos]
    generator = random_generator(f"{split} videos of the head", seed)
    return [videos[i] for i in np.sort(generator.choice(len(videos), count, replace=False))]


def seen(videos: Sequence[ProbeVideos], config: Config) -> list[ProbeVideos]:
    """The videos that heads see, training and validation. Raises DataError for one class alone."""
    most = config.eval_head_videos, config.eval_head_videos_validation
    parts = []
    for of, count in zip(videos, most, strict=True):
        pairs = [*zip(of.files, of.labels, strict=True)]
        files, labels = zip(*drawn(of.name, pairs, count, config.seed), strict=True)
        parts.append(ProbeVideos(of.name, [*files], [*labels]))
    return parts


def counts(videos: Sequence[ProbeVideos], seeds: int) -> Scores:
    """What scores must share to be compared: seeds, and the videos seen."""
    training, validation = (len(part.files) for part in videos)
    return {"seeds": seeds, "training_videos": training, "videos": validation}


def probe(
    module: SoLaModule | None, videos: Sequence[ProbeVideos], seeds: int, device: torch.device
) -> Scores:
    """Scores of heads on a module's features of the videos seen, or on untouched ones.

    Memory: all their snippets, C * 4 bytes each, and 30 * CROPS * CROP * C * 4 under way.
    """
    started = time.perf_counter()
    held = [hold(part.files, part.labels, device, module) for part in videos]
    encoding = {"seconds_encoding": round(time.perf_counter() - started, 3)}
    return binary_scores(*held, seeds) | encoding | counts(videos, seeds)


def binary_scores(training: "Held", validation: "Held", seeds: int) -> Scores:
    """Means of FIGURES over heads of several seeds, and with _std their deviation.

    Those of features as they are have _unscaled before. The global random state stays as it is.
    """
    scores, labels = {}, np.concatenate(validation.labels) > 0
    scalings = {"": mean_and_deviation(training.features), "_unscaled": None}
    for suffix, scaling in scalings.items():
        found = predictions(training, validation, scaling, classes=2, seeds=seeds)
        of_seeds = [figures(logits[:, 1] - logits[:, 0], labels) for logits in found]
        for name in FIGURES:
            scores |= mean_and_spread(name + suffix, [of_seed[name] for of_seed in of_seeds])
    return scores | {"snippets": len(labels)}


def class_scores(training: "Held", validation: "Held", seeds: int, classes: int) -> Scores:
    """Accuracy over several classes, labels 0 to classes - 1, on standardised features."""
    labels = np.concatenate(validation.labels)
    scaling = mean_and_deviation(training.features)
    found = predictions(training, validation, scaling, classes=classes, seeds=seeds)
    hits = [float((logits.argmax(axis=1) == labels).mean()) for logits in found]
    return mean_and_spread("class_accuracy", hits)


def mean_and_spread(name: str, values: Sequence[float]) -> Scores:
    """Mean and, with _std, standard deviation; that of a single value is 0."""
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {name: float(np.mean(values)), f"{name}_std": spread}


@dataclass(frozen=True)
class Held:
    """Whole videos in memory: features, [T, C] on the device that trains, and labels, [T].

    labels: 0 without action, else the number of the action's class, or true.
    """

    features: list[Tensor]
    labels: list[np.ndarray]

    def crops(self, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Random crops of random videos, short ones padded: [CROPS, CROP, C], [CROPS, CROP]."""
        first = self.features[0]
        x = first.new_zeros(CROPS, CROP, first.shape[1])
        y = torch.full((CROPS, CROP), NO_LABEL)
        for row, video in enumerate(generator.integers(len(self.features), size=CROPS)):
            length = len(self.features[video])
            start = generator.integers(max(length - CROP, 0) + 1)
            rows, size = slice(start, start + CROP), min(length, CROP)
            x[row, :size] = self.features[video][rows]
            y[row, :size] = torch.from_numpy(self.labels[video][rows]).long()
        return x, y.to(x.device)


def hold(
    files: Sequence[FeatureFile],
    labels: list[np.ndarray],
    device: torch.device,
    module: SoLaModule | None = None,
) -> Held:
    """Whole videos as the module makes them, or untouched."""
    read = in_background(read_features, files, threads=READERS, ahead=2 * READERS)
    features = []
    for file, x in zip(files, progress(read, total=len(files)), strict=True):
        x = x if module is None else encode_video(module, x)
        check_finite(file, x)
        features.append(torch.from_numpy(x).to(device))
    return Held(features, labels)


def predictions(
    training: Held, validation: Held, scaling: Scaling | None, *, classes: int, seeds: int
) -> Iterator[np.ndarray]:
    """Logits of all validation snippets by heads of seeds 0, 1, ...: [N, classes] each.

    Labels above the last class count as that one: with two classes, as action.
    """

    def scaled(x: Tensor) -> Tensor:
        return x if scaling is None else (x - scaling[0]) / scaling[1]

    for seed in range(seeds):
        with _own_randomness(training.features[0].device, seed):
            head = _trained(training, scaled, classes, seed)
        with torch.inference_mode():
            logits = [head(scaled(x)[None])[0].cpu() for x in validation.features]
        yield torch.cat(logits).numpy()


class Head(nn.Module):
    """[B, T, C] -> logits, [B, T, classes]."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(channels, WIDTH, KERNEL, padding="same"),
            nn.ReLU(),
            nn.Conv1d(WIDTH, WIDTH, KERNEL, padding="same"),
            nn.ReLU(),
            nn.Dropout(DROPOUT),
            nn.Conv1d(WIDTH, classes, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.transpose(1, 2)).transpose(1, 2)


def _trained(training: Held, scaled: Callable[[Tensor], Tensor], classes: int, seed: int) -> Head:
    """A head after STEPS steps."""
    first, generator = training.features[0], random_generator("head", seed)
    head = Head(first.shape[1], classes).to(first.device)
    optimiser = torch.optim.AdamW(head.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    for _ in progress(range(STEPS), desc=f"head {seed}", unit="step"):
        x, y = training.crops(generator)
        logits, y = head(scaled(x)).flatten(0, 1), y.flatten().clamp(max=classes - 1)
        loss = F.cross_entropy(logits, y, ignore_index=NO_LABEL)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return head.eval()


@contextmanager
def _own_randomness(device: torch.device, seed: int) -> Iterator[None]:
    """Inside, PyTorch's random state is the seed's and algorithms are deterministic; then not."""
    devices = [device] if device.type == "cuda" else []
    cudnn = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
    with torch.random.fork_rng(devices), cudnn:
        torch.manual_seed(seed)
        yield

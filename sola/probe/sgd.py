"""eval_protocol: sgd, the original's: one random snippet of a hundred, for comparing figures."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from sola.config import Config
from sola.errors import DataError
from sola.method.module import SoLaModule
from sola.probe.scores import Scores, figures
from sola.probe.snippets import ProbeVideos
from sola.system.device import random_generator

GROUP_SIZE = 100  # snippets of one class that one is drawn from
SCORED_PASSES = slice(5, 15)  # counted from 0


def check(training: ProbeVideos, validation: ProbeVideos, config: Config) -> None:
    """Raise DataError for what would fail after epochs of training."""
    for videos in (training, validation):
        groups_of(videos, random_generator("check", config.seed))


def probe(
    module: SoLaModule, training: ProbeVideos, validation: ProbeVideos, config: Config, epoch: int
) -> Scores:
    """Scores of a linear layer trained by SGD, means over the validation passes 5 to 14.

    Groups are formed anew at each evaluation, so that they depend on the epoch evaluated. Raises
    DataError for a class that is too small to form a group.
    """
    generator = random_generator("sgd probe", config.seed, epoch)
    x, y, draws = _draw_passes(module, training, config.eval_epoch, generator)
    x_val, y_val, draws_val = _draw_passes(module, validation, config.eval_epoch, generator)
    device = module.alpha.device
    classifier = _seeded_linear(x.shape[1], generator).to(device)
    optimiser = torch.optim.SGD(
        classifier.parameters(), lr=config.eval_lr, momentum=config.eval_momentum
    )
    passes = []
    for drawn, drawn_val in zip(draws, draws_val, strict=True):
        for first in range(0, len(drawn), config.eval_batch_size):
            batch = drawn[first : first + config.eval_batch_size]
            logits = classifier(torch.from_numpy(x[batch]).to(device))
            loss = F.cross_entropy(logits, torch.from_numpy(y[batch]).long().to(device))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            logits = classifier(torch.from_numpy(x_val[drawn_val]).to(device)).cpu()
        passes.append(figures((logits[:, 1] - logits[:, 0]).numpy(), y_val[drawn_val]))
    scored = passes[SCORED_PASSES]
    means = {name: float(np.mean([scores[name] for scores in scored])) for name in scored[0]}
    return means | {"snippets": sum(scores["snippets"] for scores in scored)}


def groups_of(videos: ProbeVideos, generator: np.random.Generator) -> np.ndarray:
    """Groups of 100 snippets of one class over the shuffled videos: [G, 100], indices.

    The last 1 to 100 snippets of a class form no group, as in the original. Raises DataError for a
    class without a group.
    """
    starts = np.cumsum([0, *map(len, videos.labels)])
    order = generator.permutation(len(videos.labels))
    shuffled = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in order])
    is_action = np.concatenate([videos.labels[i] for i in order])
    groups = []
    for members in (shuffled[~is_action], shuffled[is_action]):
        count = (len(members) - 1) // GROUP_SIZE
        if count < 1:
            raise DataError(
                f"{videos.name}: eval_protocol: sgd needs more than {GROUP_SIZE} snippets of a "
                f"class, one has {len(members)}; use eval_protocol: logistic_regression"
            )
        groups.append(members[: count * GROUP_SIZE].reshape(count, GROUP_SIZE))
    return np.concatenate(groups)


def _draw_passes(
    module: SoLaModule, videos: ProbeVideos, passes: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features [n, C] and labels [n] of all snippets that any pass draws, and the draws.

    draws: [passes, G], indices into the n snippets, one of every group in random order.
    """
    groups = groups_of(videos, generator)  # [G, 100]
    columns = generator.integers(GROUP_SIZE, size=(passes, len(groups)))
    drawn = generator.permuted(groups[np.arange(len(groups)), columns], axis=1)
    snippets, draws = np.unique(drawn, return_inverse=True)
    return *videos.encode(module, snippets), draws.reshape(drawn.shape)


def _seeded_linear(feature_dim: int, generator: np.random.Generator) -> nn.Linear:
    """Linear(C, 2) with PyTorch's default distribution, leaving the global random state alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator.integers(2**63)))
        return nn.Linear(feature_dim, 2)

"""Linear probe: how well a linear classifier tells action from non-action snippets.

The module is a guest here: its weights, its mode and the global random state stay as they are.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from sola.dataset import ArrayFile, DataError
from sola.encode import encode_snippets
from sola.model import SoLaModule
from sola.runtime import random_generator

MAX_ITERATIONS = 2000
GROUP_SIZE = 100  # snippets of one class that the sgd protocol draws one from
FIRST_SCORED_PASS, LAST_SCORED_PASS = 5, 14  # of the sgd protocol, counted from 0

Scores = dict[str, float | int]


@dataclass(frozen=True)
class ProbeVideos:
    """Videos that the probe looks at: feature files and per-snippet action labels, bool [T]."""

    name: str
    files: list[ArrayFile]
    labels: list[np.ndarray]

    def __post_init__(self) -> None:
        counts = [sum(int((labels == kind).sum()) for labels in self.labels) for kind in (0, 1)]
        if 0 in counts:
            raise DataError(
                f"{self.name} labels: {counts[0]} non-action and {counts[1]} action snippets in "
                f"the {len(self.files)} videos of the subset; the linear probe needs both"
            )

    @property
    def flat_labels(self) -> np.ndarray:
        """Labels of all snippets, video after video: bool [N]."""
        return np.concatenate(self.labels)

    def encode(self, module: SoLaModule, snippets: np.ndarray) -> np.ndarray:
        """L2-normalised SoLa features of some snippets.

        snippets: ascending indices into flat_labels, [n]. Returns float32 [n, C].
        """
        ends = np.cumsum([len(labels) for labels in self.labels])
        parts = np.split(snippets, np.searchsorted(snippets, ends[:-1]))
        starts = np.concatenate([[0], ends[:-1]])
        positions = [part - start for part, start in zip(parts, starts, strict=True)]
        features = encode_snippets(module, self.files, positions)
        features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
        return features


def probe_logistic_regression(
    module: SoLaModule,
    training: ProbeVideos,
    validation: ProbeVideos,
    *,
    eval_snippets: int,
    eval_snippets_validation: int,
    seed: int,
) -> Scores:
    """Converged logistic regression on snippets drawn with the seed, the same ones every time.

    Features are standardised after normalising: on raw L2-normalised features lbfgs stops at once.
    Memory: (eval_snippets + eval_snippets_validation) * C * 4 bytes.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    x, y = _draw(module, training, eval_snippets, seed)
    mean, deviation = _mean_and_deviation(x)
    _standardise(x, mean, deviation)
    classifier = LogisticRegression(max_iter=MAX_ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # recorded below
        classifier.fit(x, y)
    iterations = int(classifier.n_iter_[0])
    del x
    x, y = _draw(module, validation, eval_snippets_validation, seed)
    _standardise(x, mean, deviation)
    scores = _scores(classifier.decision_function(x), y)
    return scores | {"converged": 0 < iterations < MAX_ITERATIONS, "iterations": iterations}


def _draw(
    module: SoLaModule, videos: ProbeVideos, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Features [n, C] and labels [n] of at most count snippets, both classes among them."""
    labels = videos.flat_labels
    snippets = np.arange(len(labels))
    if count < len(labels):
        generator = random_generator(f"{videos.name} snippets", seed)
        snippets = np.sort(generator.choice(len(labels), count, replace=False))
    labels = labels[snippets]
    if labels.all() or not labels.any():
        raise DataError(
            f"{videos.name}: only one class among {count} snippets; raise eval_snippets"
        )
    return videos.encode(module, snippets), labels


def _mean_and_deviation(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of every channel, [C] and [C]; a constant channel has deviation 1."""
    mean = x.mean(axis=0, dtype=np.float64)
    square = np.einsum("nc,nc->c", x, x, dtype=np.float64) / len(x)
    variance = np.maximum(square - mean**2, 0)
    constant = variance <= 1e-12 * square
    return mean.astype(np.float32), np.sqrt(np.where(constant, 1, variance)).astype(np.float32)


def _standardise(x: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> None:
    x -= mean
    x /= deviation


def _scores(decision: np.ndarray, labels: np.ndarray) -> Scores:
    """Figures of a classifier that says action where decision [N] is positive."""
    from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score

    share = labels.mean()
    return {
        "accuracy": float(((decision > 0) == labels).mean()),
        "balanced_accuracy": float(balanced_accuracy_score(labels, decision > 0)),
        "roc_auc": float(roc_auc_score(labels, decision)),
        "average_precision": float(average_precision_score(labels, decision)),
        "majority_share": float(max(share, 1 - share)),
        "snippets": len(labels),
    }


def probe_sgd(
    module: SoLaModule,
    training: ProbeVideos,
    validation: ProbeVideos,
    *,
    eval_batch_size: int,
    eval_lr: float,
    eval_momentum: float,
    eval_epoch: int,
    epoch: int,
    seed: int,
) -> Scores:
    """The original's protocol: a linear layer trained by SGD on one random snippet of a hundred.

    Groups are formed anew at each evaluation, so that they depend on the epoch evaluated. The
    result is the mean over the validation passes 5 to 14. Raises DataError for a class that is
    too small to form a group.
    """
    generator = random_generator("sgd probe", seed, epoch)
    x, y, draws = _draw_passes(module, training, eval_epoch, generator)
    x_val, y_val, draws_val = _draw_passes(module, validation, eval_epoch, generator)
    device = module.alpha.device
    classifier = _seeded_linear(x.shape[1], generator).to(device)
    optimiser = torch.optim.SGD(classifier.parameters(), lr=eval_lr, momentum=eval_momentum)
    passes = []
    for index in range(eval_epoch):
        shuffled = generator.permutation(draws[index])
        for first in range(0, len(shuffled), eval_batch_size):
            batch = shuffled[first : first + eval_batch_size]
            logits = classifier(torch.from_numpy(x[batch]).to(device))
            loss = F.cross_entropy(logits, torch.from_numpy(y[batch]).long().to(device))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        if FIRST_SCORED_PASS <= index <= LAST_SCORED_PASS:
            with torch.no_grad():
                logits = classifier(torch.from_numpy(x_val[draws_val[index]]).to(device)).cpu()
            passes.append(_scores((logits[:, 1] - logits[:, 0]).numpy(), y_val[draws_val[index]]))
    scores = {name: float(np.mean([scores[name] for scores in passes])) for name in passes[0]}
    return scores | {"snippets": sum(scores["snippets"] for scores in passes)}


def _draw_passes(
    module: SoLaModule, videos: ProbeVideos, passes: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features [n, C] and labels [n] of all snippets that any pass draws, and the draws.

    draws: [passes, groups], indices into the n snippets.
    """
    groups = same_class_groups(videos.labels, generator)  # [G, 100]
    if len(np.unique(videos.flat_labels[groups[:, 0]])) < 2:
        raise DataError(
            f"{videos.name}: eval_protocol: sgd needs more than {GROUP_SIZE} snippets of each "
            "class; use eval_protocol: logistic_regression"
        )
    columns = generator.integers(GROUP_SIZE, size=(passes, len(groups)))
    drawn = groups[np.arange(len(groups)), columns]
    snippets, draws = np.unique(drawn, return_inverse=True)
    return (
        videos.encode(module, snippets),
        videos.flat_labels[snippets],
        draws.reshape(drawn.shape),
    )


def same_class_groups(labels: Sequence[np.ndarray], generator: np.random.Generator) -> np.ndarray:
    """Groups of 100 snippets of one class over the shuffled videos: [G, 100], flat indices.

    The last 1 to 100 snippets of a class form no group, as in the original.
    """
    starts = np.cumsum([0, *(len(video_labels) for video_labels in labels)])
    order = generator.permutation(len(labels))
    shuffled = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in order])
    is_action = np.concatenate([labels[i] for i in order])
    groups = []
    for members in (shuffled[~is_action], shuffled[is_action]):
        count = max(0, len(members) - 1) // GROUP_SIZE
        groups.append(members[: count * GROUP_SIZE].reshape(count, GROUP_SIZE))
    return np.concatenate(groups)


def _seeded_linear(feature_dim: int, generator: np.random.Generator) -> nn.Linear:
    """Linear(C, 2) with PyTorch's default distribution, leaving the global random state alone."""
    classifier = nn.utils.skip_init(nn.Linear, feature_dim, 2)
    bound = feature_dim**-0.5
    with torch.no_grad():
        for parameter in classifier.parameters():
            values = generator.uniform(-bound, bound, parameter.shape)
            parameter.copy_(torch.from_numpy(values))
    return classifier

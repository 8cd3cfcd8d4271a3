"""Linear probe: how well a linear classifier tells action from non-action snippets.

The module is a guest here: its weights, its mode and the global random state stay as they are.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from sola.data.features import DataError, FeatureFile, is_finite
from sola.method.module import SoLaModule
from sola.probe.snippets import encode_snippets
from sola.system.cli import progress, random_generator

MAX_ITERATIONS = 2000
NARROW = 512  # channels up to which the logistic regression takes Newton's method
GROUP_SIZE = 100  # snippets of one class that the sgd protocol draws one from
SCORED_PASSES = slice(5, 15)  # of the sgd protocol, counted from 0

Scores = dict[str, float | int]


@dataclass(frozen=True)
class ProbeVideos:
    """Videos that the probe looks at: feature files and per-snippet action labels, bool [T]."""

    name: str
    files: list[FeatureFile]
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

    def draw(self, count: int, seed: int) -> np.ndarray:
        """At most count snippets, the same for the same seed: ascending indices [n].

        Raises DataError when one of the classes is not among them.
        """
        labels = self.flat_labels
        snippets = np.arange(len(labels))
        if count < len(labels):
            generator = random_generator(f"{self.name} snippets", seed)
            snippets = np.sort(generator.choice(len(labels), count, replace=False))
        if len(np.unique(labels[snippets])) < 2:
            raise DataError(f"{self.name}: only one class among {count} snippets drawn; draw more")
        return snippets

    def groups(self, generator: np.random.Generator) -> np.ndarray:
        """Groups of 100 snippets of one class over the shuffled videos: [G, 100], indices.

        The last 1 to 100 snippets of a class form no group, as in the original. Raises DataError
        for a class without a group.
        """
        starts = np.cumsum([0, *map(len, self.labels)])
        order = generator.permutation(len(self.labels))
        shuffled = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in order])
        is_action = np.concatenate([self.labels[i] for i in order])
        groups = []
        for members in (shuffled[~is_action], shuffled[is_action]):
            count = (len(members) - 1) // GROUP_SIZE
            if count < 1:
                raise DataError(
                    f"{self.name}: eval_protocol: sgd needs more than {GROUP_SIZE} snippets of a "
                    f"class, one has {len(members)}; use eval_protocol: logistic_regression"
                )
            groups.append(members[: count * GROUP_SIZE].reshape(count, GROUP_SIZE))
        return np.concatenate(groups)

    def encode(self, module: SoLaModule, snippets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """L2-normalised SoLa features and labels of some snippets.

        snippets: ascending indices into flat_labels, [n]. Returns float32 [n, C], bool [n].
        """
        ends = np.cumsum([*map(len, self.labels)])
        parts = np.split(snippets, np.searchsorted(snippets, ends[:-1]))
        starts = np.concatenate([[0], ends[:-1]])
        positions = [part - start for part, start in zip(parts, starts, strict=True)]
        features = encode_snippets(module, self.files, positions)
        if not is_finite(features):
            row = np.flatnonzero(~np.isfinite(features).all(axis=1))[0]
            video = self.files[np.searchsorted(ends, snippets[row], side="right")]
            raise DataError(f"{video.path}: the module's output is NaN or infinite there")
        norms = np.sqrt(np.einsum("nc,nc->n", features, features))  # without a copy of all
        features /= np.maximum(norms, 1e-12)[:, None]
        return features, self.flat_labels[snippets]


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
    Memory: the larger of eval_snippets and eval_snippets_validation, times C * 4 bytes (16 up to
    C = NARROW), and some batches of snippets under way (0.1 GB or so at C = 2048).
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    x, y = training.encode(module, training.draw(eval_snippets, seed))
    mean, deviation = _mean_and_deviation(x)
    _standardise(x, mean, deviation)
    if x.shape[1] <= NARROW:  # Newton's method is exact in a few steps while C x C is cheap
        x, solver = x.astype(np.float64), "newton-cholesky"
    else:
        solver = "lbfgs"
    classifier = LogisticRegression(solver=solver, max_iter=MAX_ITERATIONS)
    fitting = progress(total=1, desc="probe: fitting", bar_format="{desc}", delay=0)
    with fitting, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        classifier.fit(x, y)
    iterations = int(classifier.n_iter_[0])
    complaints = [warning for warning in caught if warning.category is ConvergenceWarning]
    del x
    x, y = validation.encode(module, validation.draw(eval_snippets_validation, seed))
    _standardise(x, mean, deviation)
    scores = _scores(classifier.decision_function(x), y)
    return scores | {"converged": iterations > 0 and not complaints, "iterations": iterations}


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
    classifier = _seeded_linear(x.shape[1], generator).to(module.alpha.device)
    optimiser = torch.optim.SGD(classifier.parameters(), lr=eval_lr, momentum=eval_momentum)
    passes = []
    for drawn, drawn_val in zip(draws, draws_val, strict=True):
        for first in range(0, len(drawn), eval_batch_size):
            batch = drawn[first : first + eval_batch_size]
            logits = classifier(torch.from_numpy(x[batch]).to(module.alpha.device))
            loss = F.cross_entropy(logits, torch.from_numpy(y[batch]).long().to(logits.device))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            logits = classifier(torch.from_numpy(x_val[drawn_val]).to(module.alpha.device)).cpu()
        passes.append(_scores((logits[:, 1] - logits[:, 0]).numpy(), y_val[drawn_val]))
    scored = passes[SCORED_PASSES]
    means = {name: float(np.mean([scores[name] for scores in scored])) for name in scored[0]}
    return means | {"snippets": sum(scores["snippets"] for scores in scored)}


def _draw_passes(
    module: SoLaModule, videos: ProbeVideos, passes: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features [n, C] and labels [n] of all snippets that any pass draws, and the draws.

    draws: [passes, G], indices into the n snippets, one of every group in random order.
    """
    groups = videos.groups(generator)  # [G, 100]
    columns = generator.integers(GROUP_SIZE, size=(passes, len(groups)))
    drawn = generator.permuted(groups[np.arange(len(groups)), columns], axis=1)
    snippets, draws = np.unique(drawn, return_inverse=True)
    return *videos.encode(module, snippets), draws.reshape(drawn.shape)


def _seeded_linear(feature_dim: int, generator: np.random.Generator) -> nn.Linear:
    """Linear(C, 2) with PyTorch's default distribution, leaving the global random state alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator.integers(2**63)))
        return nn.Linear(feature_dim, 2)

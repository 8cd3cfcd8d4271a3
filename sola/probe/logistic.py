"""eval_protocol: logistic_regression. Converged, deterministic, always on the same snippets."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from sola.config import Config
from sola.method.module import SoLaModule
from sola.probe.scores import Scores, figures
from sola.probe.snippets import ProbeVideos
from sola.system.cli import progress

MAX_ITERATIONS = 1000
REMEMBERED = 20  # steps that L-BFGS looks back at
GRADIENT, SMALL_GRADIENT = 1e-6, 1e-4  # at which it ends, and at which it is near enough
BLOCK = {"cpu": 2**21, "cuda": 2**27}  # values that are in float64 at a time: 16 MB on a CPU


def check(training: ProbeVideos, validation: ProbeVideos, config: Config) -> None:
    """Raise DataError for what would fail after epochs of training."""
    training.draw(config.eval_snippets, config.seed)
    validation.draw(config.eval_snippets_validation, config.seed)


def probe(
    module: SoLaModule, training: ProbeVideos, validation: ProbeVideos, config: Config, epoch: int
) -> Scores:
    """Scores on snippets drawn with the seed; whatever the epoch, the same ones.

    Features are standardised after normalising. Memory: the larger of eval_snippets and
    eval_snippets_validation, times C * 4 bytes, 16 C^2 bytes for the factor, and some batches of
    snippets under way (0.1 GB or so at C = 2048).
    """
    x, y = training.encode(module, training.draw(config.eval_snippets, config.seed))
    mean, deviation = mean_and_deviation(x)
    _standardise(x, mean, deviation)
    count, device = len(x), module.alpha.device
    with progress(total=1, desc="probe: fitting", bar_format="{desc}", delay=0):
        fitted = fit(torch.from_numpy(x).to(device), torch.from_numpy(y).to(device))
    del x
    snippets = validation.draw(config.eval_snippets_validation, config.seed)
    x, y = validation.encode(module, snippets)
    _standardise(x, mean, deviation)
    decision = x @ fitted.weight.astype(np.float32) + fitted.intercept
    scores = figures(decision, y) | {"training_snippets": count}
    return scores | {"converged": fitted.has_converged, "iterations": fitted.iterations}


@dataclass(frozen=True)
class Fit:
    """A linear classifier: action where weight @ x + intercept is positive."""

    weight: np.ndarray  # [C]
    intercept: float
    iterations: int
    has_converged: bool


def fit(x: Tensor, y: Tensor) -> Fit:
    """Logistic regression on standardised features [N, C] and labels, bool [N], on their device.

    Minimises sum(log(1 + exp(-s * (weight @ x + intercept)))) + |weight|^2 / 2, s = +-1: that of
    scikit-learn with C = 1. With R of the Cholesky factorisation R'R of the Hessian at 0, R @
    weight is what L-BFGS looks for: however channels depend on one another, it takes a few dozen
    steps (a factor of some snippets is not enough: channels may be rarely not 0). Sums are in
    float64, by blocks of rows, without a copy of all.
    """
    from scipy.linalg import cholesky, solve_triangular
    from scipy.optimize import minimize

    count, channels = x.shape
    hessian = (x.T @ x).double().cpu().numpy() / 4 + np.eye(channels)
    factor = cholesky(hessian)
    rows = BLOCK[x.device.type] // channels + 1
    blocks = [*zip(x.split(rows), y.double().split(rows), strict=True)]
    held = x.new_empty((rows, channels), dtype=torch.float64)
    scale = math.sqrt(count) / 2  # of the intercept, alike

    def loss_and_gradient(variables: np.ndarray) -> tuple[float, np.ndarray]:
        weight, intercept = solve_triangular(factor, variables[:-1]), variables[-1] / scale
        w, loss = torch.from_numpy(weight).to(x.device), x.new_zeros((), dtype=torch.float64)
        gradient = torch.zeros_like(w), torch.zeros_like(loss)
        for features, labels in blocks:
            features = held[: len(features)].copy_(features)  # fresh memory is slow
            decision = features @ w + intercept  # [rows]
            loss += (softplus(decision) - labels * decision).sum()
            residual = decision.sigmoid() - labels
            gradient[0].addmv_(features.T, residual)
            gradient[1].add_(residual.sum())
        of_weight = solve_triangular(factor, gradient[0].cpu().numpy() + weight, trans="T")
        total = loss.item() + weight @ weight / 2
        return total, np.append(of_weight, gradient[1].item() / scale)

    limits = {"maxiter": MAX_ITERATIONS, "maxfun": 2 * MAX_ITERATIONS, "gtol": GRADIENT, "ftol": 0}
    found = minimize(
        loss_and_gradient, np.zeros(channels + 1), jac=True, method="L-BFGS-B",
        options=limits | {"maxcor": REMEMBERED},
    )  # fmt: skip
    is_near = np.abs(found.jac).max() < SMALL_GRADIENT  # where rounding stops the line search
    weight, intercept = solve_triangular(factor, found.x[:-1]), found.x[-1] / scale
    return Fit(weight, float(intercept), int(found.nit), bool(found.success or is_near))


def mean_and_deviation(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of every channel, [C] and [C]; a constant channel has deviation 1."""
    mean = x.mean(axis=0, dtype=np.float64)
    square = np.einsum("nc,nc->c", x, x, dtype=np.float64) / len(x)
    variance = np.maximum(square - mean**2, 0)
    constant = variance <= 1e-12 * square
    return mean.astype(np.float32), np.sqrt(np.where(constant, 1, variance)).astype(np.float32)


def _standardise(x: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> None:
    x -= mean
    x /= deviation

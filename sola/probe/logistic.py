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
from sola.probe.snippets import ProbeVideos, mean_and_deviation
from sola.system.cli import progress

MAX_ITERATIONS = 1000
LOST = 1e-6  # of the Hessian's trace: what float32's rounding may take from it
REMEMBERED = 20  # steps that L-BFGS looks back at
GRADIENTS = 1e-3, 1e-6  # largest of each round's end
NEAR_ENOUGH = 1e-4  # of the last, which rounding may keep from its end
ROWS = 1024  # that are in float64 at a time


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
    mean, deviation = (of.numpy() for of in mean_and_deviation(torch.from_numpy(x).split(ROWS)))
    x -= mean
    x /= deviation
    count, device = len(x), module.alpha.device
    with progress(total=1, desc="probe: fitting", bar_format="{desc}", delay=0):
        fitted = fit(torch.from_numpy(x).to(device), torch.from_numpy(y).to(device))
    del x
    snippets = validation.draw(config.eval_snippets_validation, config.seed)
    x, y = validation.encode(module, snippets)
    x -= mean
    x /= deviation
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
    scikit-learn with C = 1. How many steps it takes, some dozens, does not follow from how channels
    depend on one another.
    """
    from scipy.optimize import minimize
    from threadpoolctl import threadpool_limits

    loss = _Loss(x, y)
    at, unit, iterations = np.zeros(x.shape[1] + 1), 1.0, 0  # unit: of the first move
    options = {"maxiter": MAX_ITERATIONS, "maxfun": 2 * MAX_ITERATIONS, "maxcor": REMEMBERED}
    with threadpool_limits(1, user_api="blas"):  # SciPy's threads would spin in PyTorch's way
        for largest in GRADIENTS:
            if iterations:
                loss.recompute()
            found = minimize(
                loss, np.zeros_like(at), (at, unit), "L-BFGS-B", jac=True,
                options=options | {"gtol": unit * largest, "ftol": 0},
            )  # fmt: skip
            at, gradient = at + unit * found.x, found.jac / unit
            unit, iterations = max(np.linalg.norm(gradient), largest), iterations + int(found.nit)
    weight, intercept = loss.weight_and_intercept(at)
    has_converged = bool(np.abs(gradient).max() < NEAR_ENOUGH)
    return Fit(weight.cpu().numpy(), intercept, iterations, has_converged)


class _Loss:
    """What is minimised, and its gradient, of variables in which it is nearly round.

    With R of the Cholesky factorisation R'R of the Hessian at 0, they are R @ weight (a factor of
    some snippets is not enough: channels may be rarely not 0). Only what has changed since the
    evaluation before goes through float32, whose rounding so fades.
    """

    def __init__(self, x: Tensor, y: Tensor) -> None:
        count, channels = x.shape
        rows = x.numpy() if x.device.type == "cpu" else x  # a symmetric product: half the time
        gram = torch.as_tensor(rows.T @ rows)
        eye = torch.eye(channels, dtype=torch.float64, device=x.device)
        hessian = gram.double() / 4 + eye
        hessian += LOST * hessian.trace() * eye
        self.factor = torch.linalg.cholesky(hessian, upper=True)
        self.scale = math.sqrt(count) / 2  # of the intercept, alike
        self.x, self.labels = x, y.double()
        self.weight = eye.new_zeros(channels)  # at the last evaluation, as the others
        self.decision, self.residual = eye.new_zeros(count), eye.new_zeros(count)
        self.correlation = eye.new_zeros(channels)  # of features and residual

    def recompute(self) -> None:
        """What is known of the last evaluation, all in float64."""
        parts = self.x.split(ROWS)
        self.decision = torch.cat([rows.double() @ self.weight for rows in parts])
        residuals = self.residual.split(ROWS)
        self.correlation = sum(map(lambda rows, part: rows.double().T @ part, parts, residuals))

    def weight_and_intercept(self, variables: np.ndarray) -> tuple[Tensor, float]:
        changed = torch.from_numpy(variables[:-1]).to(self.x.device)[:, None]
        weight = torch.linalg.solve_triangular(self.factor, changed, upper=True)[:, 0]
        return weight, float(variables[-1] / self.scale)

    def __call__(
        self, moves: np.ndarray, start: np.ndarray, unit: float
    ) -> tuple[float, np.ndarray]:
        """At start + unit * moves, the gradient that of moves."""
        weight, intercept = self.weight_and_intercept(start + unit * moves)
        self.decision += self.x @ (weight - self.weight).float()
        decision = self.decision + intercept
        residual = decision.sigmoid() - self.labels
        self.correlation += self.x.T @ (residual - self.residual).float()
        self.weight, self.residual = weight, residual
        loss = (softplus(decision) - self.labels * decision).sum() + weight @ weight / 2
        gradient = (self.correlation + weight)[:, None]
        gradient = torch.linalg.solve_triangular(self.factor.T, gradient, upper=False)[:, 0]
        gradient = torch.cat([gradient, residual.sum()[None] / self.scale])
        return loss.item(), unit * gradient.cpu().numpy()

"""eval_protocol: logistic_regression. Converged, deterministic, always on the same snippets."""

import warnings

import numpy as np

from sola.config import Config
from sola.method.module import SoLaModule
from sola.probe.scores import Scores, figures
from sola.probe.snippets import ProbeVideos
from sola.system.cli import progress

MAX_ITERATIONS = 2000
NARROW = 512  # channels up to which Newton's method is taken


def check(training: ProbeVideos, validation: ProbeVideos, config: Config) -> None:
    """Raise DataError for what would fail after epochs of training."""
    training.draw(config.eval_snippets, config.seed)
    validation.draw(config.eval_snippets_validation, config.seed)


def probe(
    module: SoLaModule, training: ProbeVideos, validation: ProbeVideos, config: Config, epoch: int
) -> Scores:
    """Scores on snippets drawn with the seed; whatever the epoch, the same ones.

    Features are standardised after normalising: on raw L2-normalised features lbfgs stops at once.
    Memory: the larger of eval_snippets and eval_snippets_validation, times C * 4 bytes (16 up to
    C = NARROW), and some batches of snippets under way (0.1 GB or so at C = 2048).
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    x, y = training.encode(module, training.draw(config.eval_snippets, config.seed))
    mean, deviation = mean_and_deviation(x)
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
    count = len(x)
    del x
    snippets = validation.draw(config.eval_snippets_validation, config.seed)
    x, y = validation.encode(module, snippets)
    _standardise(x, mean, deviation)
    has_converged = iterations > 0 and not complaints
    scores = figures(classifier.decision_function(x), y) | {"training_snippets": count}
    return scores | {"converged": has_converged, "iterations": iterations}


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

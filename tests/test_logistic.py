"""The logistic regression, judged by scikit-learn's at its tightest, on features of all kinds."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from sola.probe import logistic
from sola.probe.logistic import fit


def standardised(x):
    deviation = x.std(axis=0)
    return ((x - x.mean(axis=0)) / np.where(deviation > 0, deviation, 1)).astype(np.float32)


def correlated(generator, count, channels):
    """Few latents of falling strength in many channels, and a little noise."""
    latents = generator.normal(size=(count, 16)) / np.arange(1, 17)
    x = latents @ generator.normal(size=(16, channels))
    x += 0.01 * generator.normal(size=x.shape)
    return x, latents[:, 5] * 6 + latents[:, 9] * 8 + 0.5 * generator.normal(size=count) > 0


def noise(generator, count, channels):
    return generator.normal(size=(count, channels)), generator.random(count) < 0.3


def separable(generator, count, channels):
    x = generator.normal(size=(count, channels))
    return x, x[:, 0] > 0


def constant_channels(generator, count, channels):
    x, y = separable(generator, count, channels)
    x[:, 1] = 3
    return x, y


def rare(generator, count, channels):
    """Channels that are 0 but in few snippets, by which they then tell much."""
    x, y = noise(generator, count, channels)
    x[:, ::2] *= generator.random((count, len(range(0, channels, 2)))) < 0.005
    return x, y


def doubled(generator, count, channels):
    x, y = correlated(generator, count, channels // 2)
    return np.concatenate([x, x], axis=1), y


@pytest.mark.parametrize(
    ("kind", "count", "channels"),
    [
        (correlated, 2000, 96), (noise, 2000, 96), (separable, 2000, 96), (noise, 90, 160),
        (separable, 90, 160), (constant_channels, 500, 8), (doubled, 900, 64), (noise, 700, 1),
        (rare, 3000, 40), (separable, 20000, 256),
    ],
)  # fmt: skip
def test_the_optimum_is_that_of_scikit_learn(kind, count, channels):
    x, y = kind(np.random.default_rng(channels), count, channels)
    x = standardised(x)
    found = fit(torch.from_numpy(x), torch.from_numpy(y))
    assert found.has_converged
    assert found.iterations < 80
    judge = LogisticRegression(solver="newton-cholesky", tol=1e-10, max_iter=1000)
    wanted = judge.fit(x.astype(np.float64), y).decision_function(x.astype(np.float64))
    decision = x.astype(np.float64) @ found.weight + found.intercept
    assert np.abs(decision - wanted).max() < 1e-3
    assert roc_auc_score(y, decision) == pytest.approx(roc_auc_score(y, wanted), abs=1e-4)


def test_iterations_do_not_depend_on_how_channels_depend_on_one_another():
    generator = np.random.default_rng(0)
    x, y = correlated(generator, 4000, 64)
    mixed = x @ generator.normal(size=(64, 64))  # the same columns in another basis
    counts = [
        fit(torch.from_numpy(standardised(features)), torch.from_numpy(y)).iterations
        for features in (x, mixed)
    ]
    assert max(counts) < 40


def test_rounding_of_float32_is_undone_by_the_second_round(monkeypatch):
    x, y = separable(np.random.default_rng(1), 20_000, 64)
    x, y = torch.from_numpy(standardised(x)), torch.from_numpy(y)
    monkeypatch.setattr(logistic, "GRADIENTS", (1e-9, 1e-9))
    tight = fit(x, y).weight
    monkeypatch.setattr(logistic, "GRADIENTS", (1e-3, 1e-6))
    error = np.abs(fit(x, y).weight - tight).max()
    monkeypatch.setattr(logistic, "GRADIENTS", (1e-6,))
    assert 10 * error < np.abs(fit(x, y).weight - tight).max()


def test_channels_that_are_all_one_are_no_end():
    one = np.random.default_rng(0).normal(size=(20_000, 1)).astype(np.float32)
    x = np.repeat(standardised(one), 256, axis=1)
    assert fit(torch.from_numpy(x), torch.from_numpy(one[:, 0] > 1)).has_converged


def test_a_fit_that_is_stopped_early_says_so(monkeypatch):
    monkeypatch.setattr(logistic, "MAX_ITERATIONS", 2)
    x, y = correlated(np.random.default_rng(1), 1000, 16)
    assert not fit(torch.from_numpy(standardised(x)), torch.from_numpy(y)).has_converged

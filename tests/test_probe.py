"""The linear probe: both protocols, against independent solutions."""

import numpy as np
import pytest
import scipy.optimize
import torch

from sola.dataset import DataError, open_features
from sola.model import SoLaModule
from sola.probe import ProbeVideos, probe_logistic_regression, probe_sgd, same_class_groups

C = 8


def make_videos(folder, name, separation, seed, videos=12, shuffle=False) -> ProbeVideos:
    generator = np.random.default_rng(seed)
    direction = np.zeros(C)
    direction[0] = separation
    files, labels = [], []
    for number in range(videos):
        y = np.repeat(generator.random(12) < 0.5, 10)
        x = generator.standard_normal((120, C)) + np.outer(2 * y - 1, direction)
        np.save(folder / f"{name}{number}.npy", x.astype(np.float32))
        files.append(open_features(folder / f"{name}{number}.npy"))
        labels.append(generator.permutation(y) if shuffle else y)
    return ProbeVideos(name, files, labels)


def run(protocol, module, training, validation, seed=0, epoch=0, eval_snippets=10**6):
    if protocol == "sgd":
        return probe_sgd(
            module, training, validation,
            eval_batch_size=4, eval_lr=0.5, eval_momentum=0.9, eval_epoch=16,
            epoch=epoch, seed=seed,
        )  # fmt: skip
    return probe_logistic_regression(
        module, training, validation,
        eval_snippets=eval_snippets, eval_snippets_validation=eval_snippets, seed=seed,
    )  # fmt: skip


PROTOCOLS = ["logistic_regression", "sgd"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_separable_features_score_one(tmp_path, protocol):
    training = make_videos(tmp_path, "training", 30, seed=0)
    validation = make_videos(tmp_path, "validation", 30, seed=1)
    scores = run(protocol, SoLaModule(C, 4), training, validation)
    for figure in ("accuracy", "balanced_accuracy", "roc_auc", "average_precision"):
        assert scores[figure] == 1.0
    assert 0.5 <= scores["majority_share"] < 0.6


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_shuffled_labels_score_half(tmp_path, protocol):
    training = make_videos(tmp_path, "training", 30, seed=0, shuffle=True)
    validation = make_videos(tmp_path, "validation", 30, seed=1, shuffle=True)
    scores = run(protocol, SoLaModule(C, 4), training, validation)
    tolerance = {"logistic_regression": 0.05, "sgd": 0.2}[protocol]  # 1,440 or ~130 snippets
    assert scores["balanced_accuracy"] == pytest.approx(0.5, abs=tolerance)


def test_logistic_regression_agrees_with_an_independent_solution(tmp_path):
    training = make_videos(tmp_path, "training", 0.5, seed=0)
    validation = make_videos(tmp_path, "validation", 0.5, seed=1)
    scores = run("logistic_regression", SoLaModule(C, 4), training, validation)
    assert scores["converged"]

    def load(videos):
        x = np.concatenate([np.load(file.path) for file in videos.files]).astype(np.float64)
        return x / np.linalg.norm(x, axis=1, keepdims=True), videos.flat_labels

    x, y = load(training)
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    x = (x - mean) / deviation

    def objective(w):
        return np.logaddexp(0, -(2 * y - 1) * (x @ w[:C] + w[C])).sum() + 0.5 * w[:C] @ w[:C]

    w = scipy.optimize.minimize(objective, np.zeros(C + 1), tol=1e-10).x
    x, y = load(validation)
    decision = (x - mean) / deviation @ w[:C] + w[C]
    assert scores["accuracy"] == pytest.approx(((decision > 0) == y).mean(), abs=1e-3)
    action, rest = decision[y], decision[~y]
    auc = (action[:, None] > rest[None, :]).mean()
    assert scores["roc_auc"] == pytest.approx(auc, abs=1e-4)
    recalls = [(action > 0).mean(), (rest <= 0).mean()]
    assert scores["balanced_accuracy"] == pytest.approx(np.mean(recalls), abs=1e-3)
    assert scores["majority_share"] == pytest.approx(max(y.mean(), 1 - y.mean()))
    assert scores["snippets"] == len(y)


def test_raw_wide_float32_features_still_converge(tmp_path):
    """Unit-norm features with a large common mean, where lbfgs alone stops at its first step."""
    generator = np.random.default_rng(0)
    parts = []
    for name in ("training", "validation"):
        y = generator.random(800) < 0.5
        x = 1 + 0.01 * generator.standard_normal((800, 64))
        x[:, 5] += 0.02 * y
        np.save(tmp_path / f"{name}.npy", x.astype(np.float32))
        parts.append(ProbeVideos(name, [open_features(tmp_path / f"{name}.npy")], [y]))
    scores = run("logistic_regression", SoLaModule(64, 4), *parts)
    assert scores["converged"]
    assert scores["accuracy"] > 0.75


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_probe_is_repeatable_and_leaves_no_trace(tmp_path, protocol):
    training = make_videos(tmp_path, "training", 0.5, seed=0)
    validation = make_videos(tmp_path, "validation", 0.5, seed=1)
    module = SoLaModule(C, 4).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    torch_state, numpy_state = torch.get_rng_state(), str(np.random.get_state())  # noqa: NPY002
    scores = run(protocol, module, training, validation)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert str(np.random.get_state()) == numpy_state  # noqa: NPY002
    assert module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters())
    assert run(protocol, module, training, validation) == scores


def test_sgd_groups_are_formed_anew_and_snippets_stay(tmp_path):
    training = make_videos(tmp_path, "training", 0.5, seed=0)
    validation = make_videos(tmp_path, "validation", 0.5, seed=1)
    module = SoLaModule(C, 4)
    assert run("sgd", module, training, validation, epoch=1) != run(
        "sgd", module, training, validation, epoch=2
    )
    draws = [
        run("logistic_regression", module, training, validation, seed, 0, 200) for seed in (0, 1)
    ]
    assert draws[0] != draws[1]
    assert draws[0]["snippets"] == 200


@pytest.mark.parametrize(("count", "groups"), [(100, 0), (101, 1), (200, 1), (201, 2), (350, 3)])
def test_groups_of_a_hundred_drop_the_remainder_of_1_to_100(count, groups):
    labels = [np.ones(count // 2, bool), np.zeros(777, bool), np.ones(count - count // 2, bool)]
    flat = np.concatenate(labels)
    result = same_class_groups(labels, np.random.default_rng(0))
    assert result.shape == (groups + 7, 100)
    assert len(np.unique(result)) == result.size
    kinds = flat[result]
    assert (kinds == kinds[:, :1]).all()
    assert kinds[:, 0].sum() == groups


def test_sgd_refuses_a_class_without_a_group(tmp_path):
    training = make_videos(tmp_path, "training", 1, seed=0, videos=1)
    with pytest.raises(DataError, match="more than 100"):
        run("sgd", SoLaModule(C, 4), training, training)


def test_one_class_alone_is_refused(tmp_path):
    np.save(tmp_path / "v.npy", np.zeros((5, C)))
    with pytest.raises(DataError, match="5 non-action and 0 action"):
        ProbeVideos("training", [open_features(tmp_path / "v.npy")], [np.zeros(5, bool)])

"""The linear probe: both protocols, against independent solutions."""

import numpy as np
import pytest
import scipy.optimize
import torch

from sola.config import Config
from sola.data.features import open_features, read_features
from sola.data.videos import BadFiles, open_split
from sola.errors import DataError
from sola.method.module import SoLaModule, encode_video
from sola.probe.protocols import PROTOCOLS
from sola.probe.sgd import _draw_passes, _seeded_linear, groups_of
from sola.probe.snippets import ProbeVideos, encode_snippets
from sola.system.device import random_generator

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


def run(protocol, module, training, validation, epoch=0, eval_snippets=10**6, **settings):
    sgd = {"eval_batch_size": 4, "eval_lr": 0.5, "eval_momentum": 0.9, "eval_epoch": 16}
    drawn = {"eval_snippets": eval_snippets, "eval_snippets_validation": eval_snippets}
    config = Config(exp_name="x", **(sgd | drawn | settings))
    return PROTOCOLS[protocol].probe(module, training, validation, config, epoch)


@pytest.mark.parametrize("protocol", [*PROTOCOLS])
def test_separable_features_score_one(tmp_path, protocol):
    training = make_videos(tmp_path, "training", 30, seed=0)
    validation = make_videos(tmp_path, "validation", 30, seed=1)
    scores = run(protocol, SoLaModule(C, 4), training, validation)
    for figure in ("accuracy", "balanced_accuracy", "roc_auc", "average_precision"):
        assert scores[figure] == 1.0
    assert 0.5 <= scores["majority_share"] < 0.6


@pytest.mark.parametrize("protocol", [*PROTOCOLS])
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


def test_raw_float32_features_still_converge(tmp_path):
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


@pytest.mark.parametrize("protocol", [*PROTOCOLS])
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
        run("logistic_regression", module, training, validation, eval_snippets=200, seed=seed)
        for seed in (0, 1)
    ]
    assert draws[0] != draws[1]
    assert draws[0]["snippets"] == draws[0]["training_snippets"] == 200


@pytest.mark.parametrize(("count", "groups"), [(101, 1), (200, 1), (201, 2), (350, 3)])
def test_groups_of_a_hundred_drop_the_remainder_of_1_to_100(count, groups):
    labels = [np.ones(count // 2, bool), np.zeros(777, bool), np.ones(count - count // 2, bool)]
    flat = np.concatenate(labels)
    result = groups_of(ProbeVideos("training", [], labels), np.random.default_rng(0))
    assert result.shape == (groups + 7, 100)
    assert len(np.unique(result)) == result.size
    kinds = flat[result]
    assert (kinds == kinds[:, :1]).all()
    assert kinds[:, 0].sum() == groups


def test_groups_are_formed_over_shuffled_videos():
    labels = [np.repeat([False, True], 30)] * 40
    videos = ProbeVideos("training", [], labels)
    first, second = (groups_of(videos, np.random.default_rng(seed))[0] // 60 for seed in (0, 1))
    assert len(set(first)) == 4  # a hundred snippets, thirty a video, video after video
    assert set(first) != set(second)
    assert set(first) != {0, 1, 2, 3}


def test_every_pass_draws_one_snippet_of_every_group_anew(tmp_path):
    videos = make_videos(tmp_path, "training", 1, seed=0)
    groups = groups_of(videos, np.random.default_rng(3))
    _, y, draws = _draw_passes(SoLaModule(C, 4), videos, 7, np.random.default_rng(3))
    assert draws.shape == (7, len(groups))
    assert all(y[drawn].sum() == videos.flat_labels[groups[:, 0]].sum() for drawn in draws)
    assert len({tuple(sorted(drawn)) for drawn in draws}) == 7
    assert len(np.unique(draws)) > 5 * len(groups)


def test_sgd_matches_a_slow_reference(tmp_path):
    """Softmax regression by hand, with momentum, over the passes' own draws."""
    training = make_videos(tmp_path, "training", 0.5, seed=0)
    validation = make_videos(tmp_path, "validation", 0.5, seed=1)
    module = SoLaModule(C, 4)
    options = {"eval_batch_size": 3, "eval_lr": 0.7, "eval_momentum": 0.8, "eval_epoch": 17}
    scores = run("sgd", module, training, validation, epoch=2, seed=9, **options)

    generator = random_generator("sgd probe", 9, 2)
    x, y, draws = _draw_passes(module, training, 17, generator)
    x_val, y_val, draws_val = _draw_passes(module, validation, 17, generator)
    linear = _seeded_linear(C, generator)
    w, b = linear.weight.detach().double().numpy(), linear.bias.detach().double().numpy()
    speed_w, speed_b, accuracies = 0, 0, []
    for drawn, drawn_val in zip(draws, draws_val, strict=True):
        for first in range(0, len(drawn), 3):
            batch = drawn[first : first + 3]
            logits = x[batch] @ w.T + b
            p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            error = (p - np.eye(2)[y[batch].astype(int)]) / len(batch)
            speed_w = 0.8 * speed_w + error.T @ x[batch]
            speed_b = 0.8 * speed_b + error.sum(axis=0)
            w, b = w - 0.7 * speed_w, b - 0.7 * speed_b
        said = (x_val[drawn_val] @ w.T + b).argmax(axis=1)
        accuracies.append((said == y_val[drawn_val]).mean())
    assert scores["accuracy"] == pytest.approx(np.mean(accuracies[5:15]), abs=1e-9)
    assert scores["snippets"] == 10 * draws_val.shape[1]


def test_a_module_that_gives_nan_is_an_error(tmp_path):
    training = make_videos(tmp_path, "training", 1, seed=0)
    module = SoLaModule(C, 4)
    torch.nn.init.constant_(module.alpha, float("nan"))
    with pytest.raises(DataError, match=r"\.npy: the module's output is NaN"):
        run("logistic_regression", module, training, training)


def test_sgd_refuses_a_class_without_a_group(tmp_path):
    labels = [np.repeat([False, True], [100, 300])]
    with pytest.raises(DataError, match="one has 100"):
        groups_of(ProbeVideos("training", [], labels), np.random.default_rng(0))


def test_one_class_alone_is_refused():
    with pytest.raises(DataError, match="5 non-action and 0 action"):
        ProbeVideos("training", [], [np.zeros(5, bool)])


@pytest.mark.parametrize("kernel_sizes", [(5, 3), (1, 1)])
def test_snippets_equal_those_of_whole_videos(workplace, monkeypatch, kernel_sizes):
    monkeypatch.setattr("sola.probe.snippets.ROWS_PER_BATCH", 40)  # batches cut through videos
    torch.manual_seed(0)
    module = SoLaModule(16, 8, kernel_sizes, (2, 1))  # reach 5: some videos are shorter
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    files = [*open_split("HACS_DATA", "validation", 16, BadFiles("error")).videos.values()]
    shares = [0.4, 0.4, 0.4, 0.4, 0.05, 0.4, 0.05, 0.05]
    draws = [np.random.default_rng(v).random(file.length) for v, file in enumerate(files)]
    chosen = [draw < share for draw, share in zip(draws, shares, strict=True)]
    chosen[0][:] = chosen[4][[0, 1, 2, -2, -1]] = True  # one snippet, and both borders
    chosen[5][:] = False
    whole = [encode_video(module, read_features(file)) for file in files]
    expected = np.concatenate([y[wanted] for y, wanted in zip(whole, chosen, strict=True)])
    videos = np.repeat(np.arange(len(files)), [wanted.sum() for wanted in chosen])
    times = np.concatenate([np.flatnonzero(wanted) for wanted in chosen])
    encoded = encode_snippets(module, files, videos, times)
    assert encoded.dtype == np.float32
    np.testing.assert_allclose(encoded, expected, atol=1e-5)

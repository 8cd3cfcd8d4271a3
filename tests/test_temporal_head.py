"""The second probe: what it finds that a linear one cannot, and that it is a guest."""

import numpy as np
import pytest
import torch
from helpers import same

from sola.config import Config
from sola.data.features import open_features
from sola.errors import DataError
from sola.method.module import SoLaModule
from sola.probe import temporal_head
from sola.probe.protocols import PROTOCOLS
from sola.probe.snippets import ProbeVideos, mean_and_deviation
from sola.probe.temporal_head import probe

C, CPU = 6, torch.device("cpu")


@pytest.fixture(autouse=True)
def fewer_steps(monkeypatch):
    """Enough for easy features, at a larger rate; tests of a whole run have less."""
    for name, value in (("STEPS", 30), ("CROPS", 6), ("LEARNING_RATE", 1e-2)):
        monkeypatch.setattr(temporal_head, name, value)


@pytest.fixture
def few_steps(monkeypatch):
    monkeypatch.setattr(temporal_head, "STEPS", 3)


def noise(generator, length):
    return generator.standard_normal((length, C)), generator.random(length) < 0.5


def separable(generator, length):
    x, y = noise(generator, length)
    x[:, 0] += 20 * y
    return x, y


def ordered(generator, length):
    """Action where the snippet before is above the one after: that between them tells nothing."""
    x, _ = noise(generator, length)
    y = np.zeros(length, bool)
    y[1:-1] = x[:-2, 0] > x[2:, 0]
    return x, y


def make_videos(folder, name, kind, seed, videos=10) -> ProbeVideos:
    generator = np.random.default_rng(seed)
    files, labels = [], []
    for number in range(videos):
        x, y = kind(generator, int(generator.integers(90, 200)))
        path = folder / f"{name}{number}.npy"
        np.save(path, x.astype(np.float32))
        files.append(open_features(path))
        labels.append(y)
    return ProbeVideos(name, files, labels)


def both(folder, kind):
    return [make_videos(folder, name, kind, seed) for seed, name in enumerate(("a", "b"))]


def settings(**changes):
    return Config(exp_name="x", **changes)


def test_a_score_is_how_far_action_is_above_no_action(monkeypatch):
    """Of both logits: either alone would order these snippets otherwise."""
    logits = np.array([[0.0, 1.0], [9.0, 8.0], [-9.0, -8.0], [2.0, 1.0]])
    monkeypatch.setattr(temporal_head, "predictions", lambda *_, **__: [logits])
    labels = np.array([True, False, True, False])
    held = temporal_head.Held([torch.zeros(4, C)], [labels])
    scores = temporal_head.binary_scores(held, held, seeds=1)
    assert (scores["accuracy"], scores["roc_auc"]) == (1.0, 1.0)


def test_separable_features_score_one(tmp_path):
    scores = probe(None, both(tmp_path, separable), 2, CPU)
    for figure in ("accuracy", "balanced_accuracy", "roc_auc", "average_precision"):
        assert scores[figure] > 0.999
        assert scores[f"{figure}_unscaled"] > 0.99
        assert scores[f"{figure}_std"] < 0.001
        assert f"{figure}_unscaled_std" in scores


def test_labels_that_nothing_tells_score_half(tmp_path):
    scores = probe(None, both(tmp_path, noise), 1, CPU)
    assert scores["roc_auc"] == pytest.approx(0.5, abs=0.06)
    assert scores["balanced_accuracy_unscaled"] == pytest.approx(0.5, abs=0.06)


def test_context_is_found_by_the_head_and_not_by_the_linear_probe(tmp_path):
    videos = both(tmp_path, ordered)
    linear = PROTOCOLS["logistic_regression"].probe(SoLaModule(C, 4), *videos, settings(), 0)
    scores = probe(None, videos, 1, CPU)
    assert linear["roc_auc"] < 0.55
    assert scores["roc_auc"] > 0.9


@pytest.mark.usefixtures("few_steps")
def test_a_seed_gives_the_same_figures_and_nothing_else_is_touched(tmp_path):
    videos = both(tmp_path, ordered)
    module = SoLaModule(C, 4).train()
    torch.nn.init.constant_(module.alpha, 0.5)
    before, state = module.state_dict(), torch.random.get_rng_state()
    before = {name: value.clone() for name, value in before.items()}
    first, second = (probe(module, videos, 2, CPU) for _ in range(2))
    seconds = {"seconds_encoding"}
    assert {k: first[k] for k in first.keys() - seconds} == {
        k: second[k] for k in second.keys() - seconds
    }
    assert first["roc_auc_std"] > 0
    assert same(before, module.state_dict())
    assert module.training
    assert torch.equal(state, torch.random.get_rng_state())
    untouched = probe(None, videos, 2, CPU)
    assert untouched["roc_auc"] != first["roc_auc"]


def test_scaling_is_that_of_the_training_videos_and_of_the_scaled_figures(tmp_path, monkeypatch):
    """A channel that tells is far below the others, until each is divided by its deviation."""

    def faint(generator, length):
        x, y = noise(generator, length)
        x[:, 0] = 1e-3 * y
        x[:, 1:] *= 30
        return x, y

    training = make_videos(tmp_path, "a", faint, 0)
    validation = make_videos(tmp_path, "b", faint, 1)
    scores = probe(None, [training, validation], 1, CPU)
    assert scores["roc_auc"] > 0.9 > 0.7 > scores["roc_auc_unscaled"]
    scaled_by = []
    monkeypatch.setattr(
        temporal_head,
        "mean_and_deviation",
        lambda parts: scaled_by.append(parts) or mean_and_deviation(parts),
    )
    few = temporal_head.Held([torch.randn(40, C)], [np.arange(40) % 2])
    many = temporal_head.Held([torch.randn(40, C)] * 2, [np.arange(40) % 2] * 2)
    temporal_head.binary_scores(many, few, seeds=1)
    temporal_head.class_scores(many, few, seeds=1, classes=2)
    assert scaled_by == [many.features] * 2


def test_classes_are_told_apart():
    generator = np.random.default_rng(0)
    labels = [generator.integers(3, size=80) for _ in range(8)]
    features = [torch.from_numpy(np.eye(3, dtype=np.float32)[of]) * 5 for of in labels]
    parts = [temporal_head.Held(features[part], labels[part]) for part in (slice(5), slice(5, 8))]
    assert temporal_head.class_scores(*parts, seeds=1, classes=3)["class_accuracy"] > 0.95


def test_seeds_have_other_weights_and_other_crops(monkeypatch, tmp_path):
    starts, weights = [], []
    crops, head = temporal_head.Held.crops, temporal_head.Head.__init__

    def spied_crops(held, generator):
        x, y = crops(held, generator)
        starts.append(x.sum().item())
        return x, y

    def spied_head(self, *sizes):
        head(self, *sizes)
        weights.append(self.layers[0].weight.sum().item())

    monkeypatch.setattr(temporal_head.Held, "crops", spied_crops)
    monkeypatch.setattr(temporal_head.Head, "__init__", spied_head)
    monkeypatch.setattr(temporal_head, "STEPS", 1)
    probe(None, both(tmp_path, noise), 3, CPU)
    assert len(set(starts[:3])) == len(set(weights[:3])) == 3
    assert starts[:3] == starts[3:]  # scaled or not: the same crops
    assert weights[:3] == weights[3:]


def test_fewer_videos_are_drawn_with_the_seed(tmp_path):
    videos = both(tmp_path, separable)
    drawn = [
        temporal_head.seen(
            videos, settings(eval_head_videos=4, eval_head_videos_validation=2, seed=seed)
        )
        for seed in (0, 0, 1)
    ]
    paths = [[[file.path for file in part.files] for part in parts] for parts in drawn]
    assert paths[0] == paths[1] != paths[2]
    assert [len(part) for part in paths[0]] == [4, 2]
    one_kind = ProbeVideos(
        "a",
        videos[0].files,
        [videos[0].labels[0]] + [np.zeros(file.length, bool) for file in videos[0].files[1:]],
    )
    with pytest.raises(DataError, match="needs both"):
        [
            temporal_head.seen([one_kind, videos[1]], settings(eval_head_videos=1, seed=seed))
            for seed in range(9)
        ]


def test_a_channels_mean_and_deviation_are_those_of_all_parts():
    generator = np.random.default_rng(0)
    x = generator.normal([3, 0, 5], [2, 1e-3, 0], (70, 3)).astype(np.float32)
    mean, deviation = mean_and_deviation(torch.from_numpy(x).split(50))
    np.testing.assert_allclose(mean, x.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(deviation, [x[:, 0].std(), x[:, 1].std(), 1], rtol=1e-4)


def test_what_pads_a_short_video_is_not_learned_from():
    held = temporal_head.Held([torch.ones(5, 2)], [np.ones(5, bool)])
    x, y = held.crops(np.random.default_rng(0))
    assert x.shape == (6, temporal_head.CROP, 2)
    assert (x[:, 5:] == 0).all()
    assert (y[:, :5] == 1).all()
    assert (y[:, 5:] == temporal_head.NO_LABEL).all()


def test_crops_come_from_everywhere_in_a_video():
    places = torch.arange(1000.0)[:, None]
    held = temporal_head.Held([places], [np.arange(1000) % 2])
    x, y = held.crops(np.random.default_rng(0))
    starts = x[:, 0, 0]
    assert starts.max() > 500 > starts.min()
    assert torch.equal(x[:, :, 0] - starts[:, None], places[: x.shape[1], 0].expand(len(x), -1))
    assert torch.equal(y, x[:, :, 0].long() % 2)

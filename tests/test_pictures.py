"""What of a run is drawn: its videos, its first windows, its records."""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import replace

from sola.data.features import read_features
from sola.data.windows import epoch_windows
from sola.method.matching import make_learner
from sola.training import draw_run as pictures
from sola.training.draw_run import draw_curves, draw_tsms, first_windows
from sola.training.inputs import open_data


@pytest.fixture
def drawn(drawing_config, monkeypatch):
    """Draw an epoch, and give what was drawn: {name of the function: its arguments}."""

    def draw(**changes):
        arguments = {}
        for name in ("tsm_sheet", "window_sheet"):
            real = getattr(pictures, name)

            def drawing(*given, name=name, real=real):
                arguments[name] = given
                return real(*given)

            monkeypatch.setattr(pictures, name, drawing)
        config = replace(drawing_config, **changes)
        data = open_data(config)
        learner = make_learner(config, torch.device("cpu"))
        torch.nn.init.constant_(learner.model.module.alpha, 0.5)
        draw_tsms(config, 7, learner, data)
        return arguments, learner, data, config

    return draw


def test_videos_are_drawn_with_what_the_module_makes_of_them(drawn, workplace):
    arguments, learner, _, config = drawn()
    title, (video,), fps = arguments["tsm_sheet"]
    assert title == "Temporal self-similarity, tiny, epoch 7"
    assert fps == 2.0
    assert video.name == "v6"
    x = torch.from_numpy(np.load("visualizing/v6.npy"))
    with torch.no_grad():
        y = learner.model.module(x[None])[0]
    for tsm, features in ((video.tsm, x), (video.sola_tsm, y)):
        cosines = torch.nn.functional.cosine_similarity(features[:, None], features[None], dim=-1)
        np.testing.assert_allclose(tsm, cosines, atol=1e-5)
    assert video.length == len(x)
    labels = np.load("evaluation/validation_label/v6.npy")
    np.testing.assert_array_equal(video.labels, labels)
    names = {path.name for path in config.picture_folder.iterdir()}
    assert names == {"tiny_epoch7.png", "tiny_batch.png"}


def test_without_a_rate_there_are_no_seconds(drawn):
    arguments, *_ = drawn(visualizing_fps=0.0)
    assert arguments["tsm_sheet"][2] is None


def test_the_first_windows_of_the_training_are_drawn(drawn):
    arguments, learner, data, config = drawn()
    _, names, cosines, target = arguments["window_sheet"]
    order, starts = epoch_windows(
        [video.length for video in data.videos], config.sampling_duration, seed=0, epoch=1
    )
    for index, name in enumerate(names):
        video = data.videos[order[index]]
        assert video.path.endswith(f"/{name}.npy")
        features = read_features(video)
        window = features[starts[index] : starts[index] + config.sampling_duration]
        with torch.no_grad():
            wanted = learner.model(torch.from_numpy(window)[None])[0]
        np.testing.assert_allclose(cosines[index], wanted, atol=1e-5)
    assert len(names) == 4
    np.testing.assert_array_equal(target, learner.target)


def test_fewer_windows_than_four_are_enough(drawn):
    _, learner, data, config = drawn()
    few = dataclasses.replace(data, videos=data.videos[:2])
    names, windows = first_windows(config, few, learner.times)
    assert len(names) == len(windows) == 2


def test_without_records_there_are_no_curves(drawing_config):
    draw_curves(drawing_config, [])
    assert not drawing_config.picture_folder.exists()

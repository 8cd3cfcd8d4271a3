"""What of a run is drawn, and that no picture can end a training."""

import dataclasses
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from helpers import replace

from sola.data.features import read_features
from sola.data.times import TimeAxis
from sola.data.windows import epoch_windows
from sola.method.matching import make_learner
from sola.plots.figure import new_figure
from sola.training import draw_run
from sola.training.draw_run import draw_curves, draw_tsms, first_windows
from sola.training.inputs import open_inputs
from sola.training.loop import train

EPOCH = {"record": "epoch", "epoch": 1, "loss": 0.4, "tanh_alpha": 0.1, "seconds": 1.0}

WARNING = "warning: the picture visualizing/tiny/{}.png was not drawn: {}"


@pytest.fixture
def learner(config):
    """One whose module changes what it is given."""
    learner = make_learner(config, torch.device("cpu"))
    torch.nn.init.constant_(learner.model.module.alpha, 0.5)
    return learner


@pytest.fixture
def inputs(config, capsys):
    inputs = open_inputs(config)
    capsys.readouterr()
    return inputs


@pytest.fixture
def drawn(monkeypatch):
    """Name of a function that makes a figure -> the arguments it was called with."""
    arguments = {}
    for name in ("tsm_sheet", "window_sheet", "curves"):
        real = getattr(draw_run, name)

        def draw(*given, name=name, real=real):
            arguments[name] = given
            return real(*given)

        monkeypatch.setattr(draw_run, name, draw)
    return arguments


def test_videos_are_drawn_with_what_the_module_makes_of_them(
    config, learner, inputs, drawn, capsys
):
    draw_tsms(config, 7, learner, inputs)
    title, (video,), axis = drawn["tsm_sheet"]
    assert title == "Temporal self-similarity, tiny, epoch 7"
    assert axis == TimeAxis(rate=2.0, clip=0.5)
    x = torch.from_numpy(np.load("visualizing/v6.npy"))
    with torch.no_grad():
        y = learner.model.module(x[None])[0]
    for tsm, features in ((video.tsm, x), (video.sola_tsm, y)):
        cosines = torch.nn.functional.cosine_similarity(features[:, None], features[None], dim=-1)
        np.testing.assert_allclose(tsm, cosines, atol=1e-5)
    assert (video.name, video.length) == ("v6", len(x))
    np.testing.assert_array_equal(video.labels, np.load("evaluation/validation_label/v6.npy"))
    names = {path.name for path in config.picture_folder.iterdir()}
    assert names == {"tiny_epoch7.png", "tiny_batch.png"}
    assert capsys.readouterr().out == ""
    frames = {"feat_stride": 4, "num_frames": 16, "video_fps": 30.0}
    for settings, axis in (
        ({"fps": 0.0}, None),  # an unknown rate: no seconds
        ({"fps": 2.0, "clip": 4.0}, TimeAxis(2.0, 4.0)),
        ({"fps": 7.5} | frames, TimeAxis(7.5, 16 / 30)),
    ):
        draw_tsms(replace(config, **settings), 7, learner, inputs)
        assert drawn["tsm_sheet"][2] == axis


def test_the_first_windows_of_the_training_are_drawn(config, learner, inputs, drawn):
    draw_tsms(config, 7, learner, inputs)
    title, names, before, cosines, target = drawn["window_sheet"]
    assert title == "Training windows and their target, tiny, epoch 7"
    lengths = [video.length for video in inputs.videos]
    order, starts = epoch_windows(lengths, config.sampling_duration, seed=0, epoch=1)
    for name, number, start, drawn_cosines in zip(names, order, starts, cosines, strict=False):
        video = inputs.videos[number]
        assert video.path.endswith(f"/{name}.npy")
        window = read_features(video)[start : start + config.sampling_duration]
        with torch.no_grad():
            wanted = learner.model(torch.from_numpy(window)[None])[0]
        np.testing.assert_allclose(drawn_cosines, wanted, atol=1e-5)
    assert len(names) == len(cosines) == len(before) == 4
    gathered = torch.from_numpy(window)[config.gathered_positions]
    wanted = torch.nn.functional.cosine_similarity(gathered[:, None], gathered[None], dim=-1)
    np.testing.assert_allclose(before[-1], wanted, atol=1e-5)
    np.testing.assert_array_equal(target, learner.target)
    few = dataclasses.replace(inputs, videos=inputs.videos[:2])
    names, windows = first_windows(config, few)
    assert (len(names), windows.shape) == (2, (2, 23, 16))


def test_curves_are_drawn_of_what_is_on_record(config, drawn, capsys):
    draw_curves(config, [])
    assert not config.picture_folder.exists()
    draw_curves(config, [EPOCH])
    assert drawn["curves"] == ({"tiny": [EPOCH]},)
    assert [path.name for path in config.picture_folder.iterdir()] == ["curves.png"]
    assert capsys.readouterr().out == ""


def test_a_picture_that_fails_is_a_warning(config, learner, inputs, monkeypatch, capsys):
    monkeypatch.setattr(draw_run, "tsm_sheet", Mock(side_effect=ValueError("two\nlines")))
    draw_tsms(config, 2, learner, inputs)
    output, errors = capsys.readouterr()
    assert output == WARNING.format("tiny_epoch2", r"ValueError('two\nlines')") + "\n"
    assert errors == ""
    assert [path.name for path in config.picture_folder.iterdir()] == ["tiny_batch.png"]
    monkeypatch.setenv("SOLA_TRACEBACK", "1")
    draw_curves(config, [{"record": "epoch", "loss": 0.4}])  # an odd record
    output, errors = capsys.readouterr()
    assert output == WARNING.format("curves", "KeyError('epoch')") + "\n"
    assert errors.startswith("Traceback (most recent call last):")
    assert errors.endswith("KeyError: 'epoch'\n")
    monkeypatch.setattr(draw_run, "curves", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        draw_curves(config, [EPOCH])


def test_a_training_goes_on_without_its_pictures(drawing_config, workplace, monkeypatch, capsys):
    for name in ("tsm_sheet", "window_sheet", "curves"):  # quicker
        monkeypatch.setattr(draw_run, name, lambda *_: new_figure(9, 9))
    config = replace(drawing_config, epoch=2)
    (workplace / "visualizing/tiny").write_text("")  # where their folder would be
    records = train(config)
    assert [(r["record"], r["epoch"]) for r in records] == [
        ("evaluation", 0), ("epoch", 1), ("epoch", 2), ("evaluation", 2),
    ]  # fmt: skip
    assert config.model_file(2).is_file()
    lines = [line for line in capsys.readouterr().out.splitlines() if "warning: the p" in line]
    pictures = ("tiny_epoch0", "tiny_batch", "curves", "tiny_epoch2", "tiny_batch", "curves")
    for line, picture in zip(lines, pictures, strict=True):
        assert line.startswith(WARNING.format(picture, "cannot write its "))

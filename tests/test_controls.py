"""What SoLa features are compared with: moving averages, and several models in one command."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import FEATURE_DIM, process

from sola.errors import SolaError
from sola.export.encoder import moving_average
from sola.method.module import SoLaModule
from sola.records import NEEDED, append_record


def averaged(x, count):
    """A mean of those within count // 2, one snippet at a time."""
    half = count // 2
    return np.array([x[max(i - half, 0) : i + half + 1].mean(axis=0) for i in range(len(x))])


def test_a_moving_average_of_a_long_video_is_as_exact():
    x = np.random.default_rng(1).normal(1000, 1, (20000, 2)).astype(np.float32)
    np.testing.assert_allclose(moving_average(x, 3)[-9:], averaged(x[-50:], 3)[-9:], rtol=1e-6)


def test_untouched_best_and_a_moving_average_in_one_command(config, capsys):
    config.run_folder.mkdir(parents=True)
    torch.save(SoLaModule(FEATURE_DIM, 16).state_dict(), config.model_file(2))
    record = {"record": "evaluation"} | dict.fromkeys(NEEDED["evaluation"], 0.5) | {"epoch": 2}
    append_record(config.metrics_file, record)
    names = ["tiny_0", "tiny_2", "tiny_moving_average3", "tiny_moving_average99"]
    several = "0,best,moving_average:3,moving_average:99"
    for options, parent in (([], "transformed_features"), (["--output=mine"], "mine")):
        process(*options, load_model=several)
        assert sorted(path.name for path in Path(parent).iterdir()) == names
        assert len(list(Path(parent).glob("*/*/*.npy"))) == 4 * 21
        for count, name in ((1, "tiny_0"), (3, names[2]), (99, names[3])):
            for path in Path("HACS_DATA").glob("*/*.npy"):
                array = np.load(Path(parent, name, *path.parts[1:]))
                assert array.dtype == np.float32
                np.testing.assert_allclose(array, averaged(np.load(path), count), atol=1e-5)
    manifest = json.loads(Path("mine/tiny_moving_average3/manifest.json").read_text())
    assert manifest["checkpoint"] == "none: moving average over 3 snippets"
    process("--for=bmn", load_model="0,moving_average:3")  # the same form for all
    assert {path.name for path in Path("transformed_features").glob("*bmn")} == {
        "tiny_0_bmn",
        "tiny_moving_average3_bmn",
    }
    process("--input=HACS_DATA/training/t5.npy", "--output=t5.npy", load_model="moving_average:5")
    x = np.load("HACS_DATA/training/t5.npy")
    np.testing.assert_allclose(np.load("t5.npy"), averaged(x, 5), atol=1e-5)


@pytest.mark.parametrize(
    ("load_model", "words"),
    [
        ("moving_average:4", "moving_average:4: N of moving_average:N must be odd"),
        ("moving_average:0", "must be odd"),
        ("moving_average", "must be odd"),
        ("moving_average:x", "must be odd"),
        ("moving_average:-1", "must be odd"),
        ("a/x.pt,b/x.pt", "two would be written as one"),
        ("0,0", "two would be written as one"),
    ],
)
def test_lists_and_averages_that_cannot_be(config, load_model, words):
    with pytest.raises(SolaError, match=words):
        process(load_model=load_model)
    assert not Path("transformed_features").exists()


def test_several_need_a_folder(config):
    one = ["--input=HACS_DATA/training/t5.npy", "--output=t5.npy"]
    with pytest.raises(SolaError, match=r"--output=t5\.npy: must be a folder, for several"):
        process(*one, load_model="0,moving_average:3")

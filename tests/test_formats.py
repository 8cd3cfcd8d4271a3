"""The forms in which features are written."""

import numpy as np
import pytest
from loaders import LOADERS
from test_heads import bmn_pool

from sola.errors import DataError, SolaError
from sola.export.formats import Form, resize_linear, resize_pool
from sola.export.heads import HEADS


@pytest.mark.parametrize("length", [1, 2, 3, 40, 100, 250])
def test_resizing(length):
    x = np.random.default_rng(length).standard_normal((length, 5)).astype(np.float32)
    np.testing.assert_allclose(resize_pool(x, 100), bmn_pool(x), atol=1e-5)
    assert resize_pool(x, 100).dtype == np.float32
    linear = resize_linear(x, 100)
    for i in range(100):  # no aligned corners: output i stands at (i + 0.5) / 100 of the video
        place = np.clip((i + 0.5) * length / 100 - 0.5, 0, length - 1)
        before = int(place)
        after = min(before + 1, length - 1)
        between = x[before] + (place - before) * (x[after] - x[before])
        np.testing.assert_allclose(linear[i], between, atol=1e-5)


def test_what_a_form_cannot_hold(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="beyond the range of float16"):
        Form(dtype="float16").write(tmp_path / "x.npy", np.full((2, 2), 1e6, np.float32))
    with pytest.raises(DataError, match="its name is no UTF-8"):
        Form(format="h5").write(tmp_path / "a\udcff.h5", np.ones((2, 2), np.float32))
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SolaError, match="pip install h5py"):
        Form(format="h5")


def test_every_head_has_settings_that_are_a_form():
    assert HEADS.keys() == LOADERS.keys()
    for head in HEADS.values():
        Form(**head.form)
        assert head.traps

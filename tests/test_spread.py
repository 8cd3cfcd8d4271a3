"""How writing features changed the scale of their channels."""

import re
from pathlib import Path

import numpy as np
from helpers import FEATURE_DIM, process

from sola.export.spread import VIDEOS, Spread


def spread_of(output):
    return re.findall(
        r"^deviation of a channel, written over read: median ([\d.]+), largest ([\d.]+) "
        r"\((\d+) videos\); heads do not normalise$",
        output,
        re.M,
    )


def test_the_spread_is_that_of_each_channel_over_all_videos(config, capsys):
    for path in Path("HACS_DATA").glob("*/*.npy"):
        x = np.load(path) * np.geomspace(1e-3, 1e3, FEATURE_DIM, dtype=np.float32)
        x[:, 3] = 5  # varies nowhere: no ratio
        path.unlink()
        np.save(path, x)
    process(load_model="0")
    assert spread_of(capsys.readouterr().out) == []
    process(load_model="moving_average:5")
    (said,) = spread_of(capsys.readouterr().out)
    read, written = (
        np.concatenate([np.load(path) for path in sorted(Path(folder).glob("*/*.npy"))])
        for folder in ("HACS_DATA", "transformed_features/tiny_moving_average5")
    )
    ratios = np.delete(written.std(0, dtype=float) / np.maximum(read.std(0, dtype=float), 1e-9), 3)
    assert said == (f"{np.median(ratios):.2f}", f"{ratios.max():.2f}", "21")
    process(load_model="moving_average:5")
    assert spread_of(capsys.readouterr().out) == []  # nothing was to be written


def test_the_spread_of_known_numbers():
    spread = Spread()
    assert spread.describe() == ""
    x = np.array([[0, 0, 0], [2, 2, 2]], np.float32)
    for _ in range(VIDEOS + 5):
        spread.add(x, x * np.array([1, 2, 6], np.float32))
    assert spread_of(spread.describe()) == [("2.00", "6.00", str(VIDEOS))]
    other_width = Spread()
    other_width.add(x, x[:, :2])
    constant = Spread()
    constant.add(np.ones_like(x), x)
    assert other_width.describe() == constant.describe() == ""

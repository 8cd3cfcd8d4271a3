"""TSM sheets: the numbers that are drawn, and that they are."""

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread

from sola.plots import MAX_PIXELS, VideoPicture, draw_tsm_sheet, pool, segments, self_similarity


def test_self_similarity_is_cosines():
    features = np.array([[1.0, 0], [0, 2], [3, 3], [0, 0]])
    half = 0.5**0.5
    expected = [[1, 0, half, 0], [0, 1, half, 0], [half, half, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(self_similarity(features), expected, atol=1e-12)


def test_long_tsms_are_averaged_not_subsampled():
    tsm = np.arange(36.0).reshape(6, 6)
    blocks = tsm.reshape(3, 2, 3, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(pool(tsm, 3), blocks)
    assert pool(tsm, 6) is tsm
    uneven = pool(tsm, 4)  # rows 0 | 1 2 | 3 | 4 5
    assert uneven.shape == (4, 4)
    assert uneven[0, 1] == tsm[0, 1:3].mean()
    assert uneven[3, 1] == tsm[4:6, 1:3].mean()
    assert pool(np.ones((5000, 5000)), MAX_PIXELS).shape == (MAX_PIXELS, MAX_PIXELS)


def test_segments_of_labels():
    assert segments(np.array([1, 1, 0, 0, 1], bool)) == [(0, 2), (4, 5)]
    assert segments(np.zeros(3, bool)) == []


def picture(length, labels=None, seed=0):
    features = np.random.default_rng(seed).standard_normal((length, 4))
    return VideoPicture(f"video_{length}", features, np.ones((length, 4)), labels)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_any_number_of_videos_of_any_length(tmp_path, count):
    pictures = [picture(length) for length in (1, 2, 30, 600, 5, 6, 7)[:count]]
    draw_tsm_sheet(tmp_path / "new" / "sheet.png", "title", pictures)
    assert imread(tmp_path / "new" / "sheet.png").ndim == 3
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["sheet.png"]


def test_sheet_shows_both_tsms_on_one_scale_and_the_segments(tmp_path):
    labels = np.zeros(40, bool)
    labels[10:20] = True
    blocks = np.repeat(np.eye(2), 20, axis=0)  # two halves, orthogonal to one another
    video = VideoPicture("a_$tricky$_name", blocks, np.ones((40, 2)), labels)
    draw_tsm_sheet(tmp_path / "sheet.png", "title", [video])
    pixels = (imread(tmp_path / "sheet.png")[..., :3] * 255).round().astype(int).reshape(-1, 3)

    def count(colour):
        wanted = (np.array(matplotlib.colors.to_rgb(colour)) * 255).round().astype(int)
        return (abs(pixels - wanted).max(axis=1) <= 1).sum()

    viridis = matplotlib.colormaps["viridis"]
    ones, zeros = count(viridis(1.0)), count(viridis(0.5))
    assert zeros > 5000
    assert ones / zeros == pytest.approx(3, rel=0.1)  # half of the left panel, all of the right
    assert count("#d62728") > 500


def test_nothing_global_in_matplotlib_changes(tmp_path):
    before, backend = dict(matplotlib.rcParams), matplotlib.rcParams._get("backend")
    draw_tsm_sheet(tmp_path / "sheet.png", "title", [picture(5)])
    assert matplotlib.rcParams._get("backend") is backend
    assert dict(matplotlib.rcParams) == before

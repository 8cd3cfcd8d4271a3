"""Pictures of TSMs: the numbers that are drawn, and where they land."""

import itertools
import os
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from helpers import REPOSITORY
from matplotlib.image import imread

from sola.data.times import TimeAxis
from sola.plots.figure import DPI, save_figure
from sola.plots.tsms import (
    ACTION_COLOUR,
    LEVELS,
    SIDE,
    STRIP,
    VideoPicture,
    self_similarity,
    tsm_sheet,
    window_sheet,
)

VIRIDIS = matplotlib.colormaps["viridis"].resampled(LEVELS)


def rendered(figure, tmp_path):
    """The picture as colours [H, W, 3] from 0 to 255, and each axes' box of pixels in it."""
    save_figure(tmp_path / "picture.png", figure)
    pixels = (imread(tmp_path / "picture.png")[..., :3] * 255).round().astype(int)
    boxes = []
    for axes in figure.axes:
        box = axes.get_window_extent()
        left, right, bottom, top = (round(v) for v in (box.x0, box.x1, box.y0, box.y1))
        boxes.append((slice(len(pixels) - top, len(pixels) - bottom), slice(left, right)))
    return pixels, boxes


def assert_in_place(figure):
    """Nothing is cut off by the figure's edges or overlaps something else."""
    figure.draw_without_rendering()
    boxes = [drawn.get_tightbbox() for drawn in (*figure.axes, *figure.legends, *figure.texts)]
    for box in boxes:
        assert 0 <= box.x0 < box.x1 <= figure.get_figwidth() * DPI
        assert 0 <= box.y0 < box.y1 <= figure.get_figheight() * DPI
    assert not any(first.overlaps(second) for first, second in itertools.combinations(boxes, 2))


def rgb(colour):
    return (np.array(matplotlib.colors.to_rgb(colour)) * 255).round().astype(int)


def cells(pixels, count):
    """The colours in the middle of count x count cells of a square."""
    places = ((np.arange(count) + 0.5) * len(pixels) / count).astype(int)
    return pixels[np.ix_(places, places)]


def has_colours(pixels, values, lowest=-1.0, highest=1.0, part=None):
    """Whether cells have the colours of values [N, N] on that scale, or some [N, N] of them."""
    wanted = VIRIDIS((np.asarray(values) - lowest) / (highest - lowest))[..., :3] * 255
    far = abs(cells(pixels, len(values)) - wanted)
    return (far if part is None else far[part]).max() <= 8  # as near as the colours of the file are


def picture(length, labels=None, seed=0, name=None):
    features = np.random.default_rng(seed).standard_normal((length, 4))
    return of(name or f"video_{length}", features, np.ones((length, 4)), labels)


def of(name, features, sola_features, labels=None):
    tsms = self_similarity(features), self_similarity(sola_features)
    return VideoPicture(name, len(features), *tsms, labels)


def test_self_similarity_is_cosines():
    features = np.array([[1.0, 0], [0, 2], [3, 3], [0, 0]])
    half = 0.5**0.5
    expected = [[1, 0, half, 0], [0, 1, half, 0], [half, half, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(self_similarity(features), expected, atol=1e-12)
    for scale in (1e-30, 1e30):  # whose squares float32 does not hold
        scaled = self_similarity((features * scale).astype(np.float32))
        np.testing.assert_allclose(scaled, expected, atol=1e-6)


@pytest.mark.parametrize("length", [6, 7, 100])
def test_long_tsms_are_averaged_not_subsampled(length):
    features = np.random.default_rng(length).standard_normal((length, 5))
    tsm = self_similarity(features)
    assert tsm.shape == (length, length)
    edges = np.linspace(0, length, 7).astype(int)
    expected = [
        [tsm[a:b, c:d].mean() for c, d in itertools.pairwise(edges)]
        for a, b in itertools.pairwise(edges)
    ]
    np.testing.assert_allclose(self_similarity(features, side=6), expected, atol=1e-12)


@pytest.mark.parametrize("length", [4, 100, 1000])  # of a snippet 60 pixels, 2.4, a quarter
def test_values_land_where_they_should(tmp_path, length):
    quarters = np.repeat(np.array([[1, 0], [0, 1], [-1, 0], [1, 1]]), length // 4, axis=0)
    alike = np.ones((length, 2))
    figure = tsm_sheet("title", [of("a", quarters.astype(float), alike)])
    pixels, (before, after, bar) = rendered(figure, tmp_path)
    assert pixels[before].shape == pixels[after].shape == (SIDE, SIDE, 3)
    half = 0.5**0.5
    wanted = [[1, 0, -1, half], [0, 1, 0, half], [-1, 0, 1, -half], [half, half, -half, 1]]
    above, below = np.triu(np.ones((4, 4), bool), 1), np.tri(4, k=-1, dtype=bool)
    assert has_colours(pixels[before], wanted, part=above)
    tsm = self_similarity(quarters.astype(float))
    ends = np.percentile(tsm[np.tri(len(tsm), k=-1, dtype=bool)], (2, 98))
    assert has_colours(pixels[before], np.clip(wanted, *ends), *ends, part=below)
    assert has_colours(pixels[after], np.ones((4, 4)))  # without any structure
    ends = pixels[bar][[2, -3], 5]  # of the colour bar: 1 above, -1 below
    assert abs(ends - [rgb(VIRIDIS(1.0)), rgb(VIRIDIS(0.0))]).max() <= 8
    shown = [text.get_text() for text in figure.axes[2].get_yticklabels()]
    assert (shown[0], shown[-1]) == ("-1", "1")


def test_the_bars_words_stand_clear_of_its_figures():
    figure = tsm_sheet("title", [picture(30)])
    figure.draw_without_rendering()
    bar = figure.axes[2]
    for axis in (bar.yaxis, bar.child_axes[0].yaxis):
        words = axis.label.get_window_extent()
        figures = [tick.get_window_extent() for tick in axis.get_ticklabels() if tick.get_text()]
        assert figures
        assert not any(words.overlaps(box) for box in figures)


def test_below_the_diagonal_structure_is_seen_wherever_the_cosines_lie(tmp_path):
    angles = np.repeat([0.0, 0.2, 0.1], 30)  # cosines from 0.980 to 1
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    figure = tsm_sheet("title", [of("a", features, features)])
    pixels, (before, *_) = rendered(figure, tmp_path)
    tsm = self_similarity(
        np.array([[1, 0], [np.cos(0.2), np.sin(0.2)], [np.cos(0.1), np.sin(0.1)]])
    )
    above, below = np.triu(np.ones((3, 3), bool), 1), np.tri(3, k=-1, dtype=bool)
    assert has_colours(pixels[before], tsm, part=above)
    assert has_colours(pixels[before], tsm, np.cos(0.2), 1.0, part=below)
    assert not has_colours(pixels[before], tsm, part=below)
    assert "(0.98 to 1.00)" in figure.axes[0].get_title()


@pytest.mark.parametrize("axis", [None, TimeAxis(2.0, 0.5), TimeAxis(2.0, 8.0)])
def test_strips_stand_along_both_axes_at_the_labels(tmp_path, axis):
    labels = np.zeros(36, bool)
    labels[:5] = labels[10:20] = labels[31:] = True
    figure = tsm_sheet("title", [picture(36, labels)], axis)
    pixels, boxes = rendered(figure, tmp_path)
    for rows, columns in boxes[:2]:
        for distance, has_strip in ((STRIP - 2, False), (12, True), (2 * STRIP + 2, False)):
            above = pixels[rows.start - distance, columns]
            left = pixels[rows, columns.start - distance]
            for line in (above, left):
                far = abs(line - rgb(ACTION_COLOUR)).max(axis=1)
                if not has_strip:
                    assert (far > 9).all()
                    continue
                is_red = (far <= 1).reshape(36, -1)
                assert (is_red.mean(axis=1) > 0.8).tolist() == labels.tolist()
                assert is_red.any(axis=1).sum() <= labels.sum() + 2  # a pixel more at an end
    assert "red strips: action segments" in figure.get_supxlabel()
    assert [len(axes.collections) for axes in figure.axes[:2]] == [1, 1]  # quick for thousands


def test_axes_are_in_seconds_where_the_rate_is_known():
    for axis, end, unit in ((None, 30, "snippets"), (TimeAxis(2.0, 0.5), 15, "s")):
        figure = tsm_sheet("title", [picture(30)], axis)
        for axes in figure.axes[:2]:
            assert axes.get_xlim() == (0, end)
            assert axes.get_ylim() == (end, 0)  # time runs downwards
        assert figure.get_supxlabel() == f"time ({unit}) along both axes"  # no labels, no strips
    mean = picture(30).tsm.mean()
    title = figure.axes[0].get_title()
    assert title.startswith(f"video_30\ninput, T = 30, 15.0 s, mean {mean:.2f} (-0.")
    assert figure.axes[1].get_title() == "video_30\nSoLa, mean 1.00 (1.00 to 1.00)"


@pytest.mark.parametrize("length", [30, 600])  # 600: averaged
def test_a_snippet_stands_at_the_middle_of_its_clip(length):
    labels = np.zeros(length, bool)
    labels[[0, 1, length - 1]] = True
    figure = tsm_sheet("title", [picture(length, labels)], TimeAxis(rate=2.0, clip=4.0))
    end = 1.75 + length / 2  # the first snippet's clip has its middle at 2 s
    for axes in figure.axes[:2]:
        assert axes.get_xlim() == (1.75, end)
        assert axes.get_ylim() == (end, 1.75)
        bars = [path.get_extents() for path in axes.collections[0].get_paths()]
        spans = [(1.75, 2.75), (end - 0.5, end)]
        assert [(bar.x0, bar.x1) for bar in bars[:2]] == spans
        assert [(bar.y0, bar.y1) for bar in bars[2:]] == spans
        assert all(bar.y1 < 1.75 for bar in bars[:2])
        assert all(bar.x1 < 1.75 for bar in bars[2:])
    covered = (length - 1) / 2 + 4.0  # seconds, from the first clip's start to the last one's end
    assert f", {covered:.1f} s, mean" in figure.axes[0].get_title()


def test_any_name_can_be_drawn(tmp_path):
    names = ["$^$", "a_$tricky$_name", "caf\udce9", "\u4e2d\n\t\x1b", "n" * 200]
    sheet = tsm_sheet(names[0], [picture(3, name=name) for name in names])
    ones = np.ones((5, 3, 3))
    windows = window_sheet(names[4], names, ones, ones, ones[0])
    for figure in (sheet, windows):
        save_figure(tmp_path / "sheet.png", figure)
    titles = [axes.get_title().split("\n") for axes in sheet.axes[:-1:2]]
    assert [name for name, _ in titles[:4]] == [r"\$^\$", r"a_\$tricky\$_name", "caf?", "中???"]
    assert titles[4][0] == "n" * 16 + "…" + "n" * 17
    assert len(windows.axes[4].get_title().split("\n")[0]) == 24


def test_a_wrong_backend_does_no_harm_and_pyplot_is_not_needed(workplace):
    code = "import os, sys; from sola.plots.figure import new_figure, save_figure\n"
    code += "save_figure('x.png', new_figure(100, 100)); print(os.environ['MPLBACKEND'])\n"
    code += "print('matplotlib.pyplot' in sys.modules)"
    environment = {"MPLBACKEND": "module://nowhere.at_all", "PYTHONPATH": str(REPOSITORY)}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=os.environ | environment,
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert (result.stdout, result.stderr) == ("module://nowhere.at_all\nFalse\n", "")
    assert imread("x.png").shape == (100, 100, 4)


@pytest.mark.parametrize("count", [1, 7])
def test_any_number_of_videos_of_any_length(tmp_path, count):
    lengths = (1, 2, 30, 600, 5, 6, 7)[:count]
    figure = tsm_sheet("title", [picture(n, np.ones(n, bool)) for n in lengths])
    pixels, boxes = rendered(figure, tmp_path)
    assert len(boxes) == 2 * count + 1
    for after in boxes[1:-1:2]:
        assert has_colours(pixels[after], [[1.0]])
    assert_in_place(figure)
    assert ("above T = 180 averaged" in figure.get_supxlabel()) == (600 in lengths)


def test_a_sheet_of_noise_is_no_large_file(tmp_path):
    generator = np.random.default_rng(0)
    noise = generator.standard_normal((6, 2, SIDE, 8))
    videos = [of(f"video_{n}", before, after) for n, (before, after) in enumerate(noise)]
    save_figure(tmp_path / "a.png", tsm_sheet("title", videos))
    assert (tmp_path / "a.png").stat().st_size < 300_000


def test_windows_before_and_after_stand_beside_the_target(tmp_path):
    generator = np.random.default_rng(1)
    before, cosines = generator.uniform(0, 1, (4, 3, 3)), generator.uniform(-0.5, 1, (4, 3, 3))
    target = np.array([[1, 0.7, 0.6], [0.7, 1, 0.7], [0.6, 0.7, 1]])
    figure = window_sheet("title", list("abcd"), before, cosines, target)
    pixels, boxes = rendered(figure, tmp_path)
    rows = [(1 + tsms) / 2 for tsms in (before, cosines)]
    lowest = min(np.percentile(tsms, 2) for tsms in rows)
    drawn = [[*tsms, tsms.mean(axis=0), target] for tsms in rows]
    for box, values in zip(boxes, [*drawn[0], *drawn[1]], strict=False):
        assert has_colours(pixels[box], values, lowest, 1.0)
    titles = [axes.get_title() for axes in figure.axes[:-1]]
    assert titles[:2] == ["a\nuntouched", "b\nuntouched"]
    assert titles[6:] == [
        *(f"{name}\npredicted" for name in ("a", "b", "c", "d", "mean of these")), "target",
    ]  # fmt: skip
    assert_in_place(figure)

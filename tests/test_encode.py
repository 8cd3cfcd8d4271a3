"""Whole videos and single snippets through the module."""

import numpy as np
import pytest
import torch
from conftest import FEATURE_DIM

from sola.data.features import read_features
from sola.data.videos import open_split
from sola.method.module import SoLaModule
from sola.probe.snippets import batches_of_videos, encode_batches, encode_snippets, encode_video


def test_snippets_equal_those_of_whole_videos(workplace, monkeypatch):
    monkeypatch.setattr("sola.probe.snippets.SNIPPETS_PER_BATCH", 7)  # batches cut through videos
    torch.manual_seed(0)
    module = SoLaModule(FEATURE_DIM, 8, (5, 3), (2, 1))
    torch.nn.init.constant_(module.alpha, 0.5)
    videos = list(open_split("HACS_DATA", "validation", FEATURE_DIM).videos.values())
    generator = np.random.default_rng(0)
    positions = [np.flatnonzero(generator.random(video.length) < 0.4) for video in videos]
    positions[5] = np.arange(0)
    positions[0] = np.array([0])  # a video of one snippet
    whole = [encode_video(module, read_features(video)) for video in videos]
    expected = np.concatenate([y[wanted] for y, wanted in zip(whole, positions, strict=True)])
    encoded = encode_snippets(module, videos, positions)
    assert encoded.dtype == np.float32
    np.testing.assert_allclose(encoded, expected, atol=1e-5)


@pytest.mark.parametrize("kernel_sizes", [(5, 1), (5, 3), (1, 1)])
def test_videos_in_batches_do_not_see_one_another(workplace, monkeypatch, kernel_sizes):
    monkeypatch.setattr("sola.probe.snippets.ROWS_PER_BATCH", 70)
    torch.manual_seed(0)
    module = SoLaModule(FEATURE_DIM, 8, kernel_sizes, (2, 1))
    torch.nn.init.constant_(module.alpha, 0.5)
    videos = list(open_split("HACS_DATA", "validation", FEATURE_DIM).videos.values())
    videos += list(open_split("HACS_DATA", "training", FEATURE_DIM).videos.values())
    batches = [videos[b.start : b.stop] for b in batches_of_videos([v.length for v in videos])]
    assert [video for batch in batches for video in batch] == videos
    assert len(batches) > 5  # buffers are used again
    assert max(map(len, batches)) > 3
    encoded = [y for batch in encode_batches(module, batches) for y in batch]
    for video, y in zip(videos, encoded, strict=True):
        assert y.flags.c_contiguous
        np.testing.assert_allclose(y, encode_video(module, read_features(video)), atol=1e-5)


def test_batches_of_videos_hold_so_many_rows(monkeypatch):
    monkeypatch.setattr("sola.probe.snippets.ROWS_PER_BATCH", 10)
    batches = batches_of_videos([4, 6, 1, 30, 10, 2, 2])
    assert batches == [range(2), range(2, 3), range(3, 4), range(4, 5), range(5, 7)]


def test_encoding_keeps_shape_and_leaves_no_graph():
    module = SoLaModule(6, 4)
    for length in (1, 2, 3, 4, 50):
        features = np.random.default_rng(0).standard_normal((length, 6)).astype(np.float32)
        encoded = encode_video(module, features)
        assert encoded.shape == (length, 6)
        np.testing.assert_array_equal(encoded, features)  # alpha is 0

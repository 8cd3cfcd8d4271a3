"""Which windows an epoch sees, and that they arrive as they lie on disk."""

import threading

import numpy as np
import pytest
from conftest import FEATURE_DIM

from sola.dataset import DataError, open_split
from sola.windows import epoch_windows, window_batches


def test_every_video_once_and_starts_uniform_over_all_places():
    lengths = np.array([24, 30, 26] * 4000)
    order, starts = epoch_windows(lengths, 23, seed=0, epoch=1)
    assert sorted(order) == list(range(len(lengths)))
    for length in (24, 26, 30):
        places = length - 23 + 1
        counts = np.bincount(starts[lengths[order] == length], minlength=places)
        assert len(counts) == places  # 0..T-W inclusive
        assert np.abs(counts / counts.mean() - 1).max() < 0.12


def test_windows_depend_on_seed_and_epoch_alone():
    lengths = [40] * 50
    first = np.concatenate(epoch_windows(lengths, 23, seed=3, epoch=7))
    np.random.default_rng().random(3)
    assert np.array_equal(first, np.concatenate(epoch_windows(lengths, 23, seed=3, epoch=7)))
    for seed, epoch in ((4, 7), (3, 8), (7, 3)):
        other = np.concatenate(epoch_windows(lengths, 23, seed=seed, epoch=epoch))
        assert not np.array_equal(first, other)


def batches_of(videos, windows, num_workers=2, batch_size=4):
    return window_batches(
        videos, windows, sampling_duration=23, batch_size=batch_size, num_workers=num_workers
    )


@pytest.mark.parametrize("num_workers", [0, 1, 5])
@pytest.mark.parametrize("batch_size", [1, 4, 40])
def test_batches_hold_the_windows(workplace, num_workers, batch_size):
    split = open_split("HACS_DATA", "training", FEATURE_DIM)
    videos = [video for video in split.videos.values() if video.length > 23]
    order, starts = epoch_windows([video.length for video in videos], 23, seed=0, epoch=1)
    batches = list(batches_of(videos, (order, starts), num_workers, batch_size))
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    windows = np.concatenate([batch.numpy() for batch in batches])
    assert len(windows) == len(videos)
    for window, video, start in zip(windows, order, starts, strict=True):
        whole = np.load(videos[video].path)
        np.testing.assert_array_equal(window, whole[start : start + 23])


def test_a_bad_file_stops_the_epoch_and_leaves_no_reader_behind(workplace):
    split = open_split("HACS_DATA", "training", FEATURE_DIM)
    videos = [video for video in split.videos.values() if video.length > 23]
    bad = workplace / "HACS_DATA/training/t6.npy"
    features = np.load(bad)
    features[:, 3] = np.nan
    bad.unlink()
    np.save(bad, features)
    windows = epoch_windows([video.length for video in videos], 23, seed=0, epoch=1)
    with pytest.raises(DataError, match=r"t6\.npy"):
        list(batches_of(videos, windows))
    assert not [t for t in threading.enumerate() if t.name.startswith("ThreadPoolExecutor")]


def test_reading_stays_a_few_batches_ahead(workplace, monkeypatch):
    split = open_split("HACS_DATA", "training", FEATURE_DIM)
    videos = [video for video in split.videos.values() if video.length > 23]
    reads = []
    monkeypatch.setattr(
        "sola.windows.read_features",
        lambda array, rows: reads.append(1) or np.zeros((23, FEATURE_DIM), np.float32),
    )
    windows = (np.zeros(50, int), np.zeros(50, int))
    batches = batches_of(videos, windows, num_workers=1, batch_size=2)
    next(batches)
    assert len(reads) <= 2 * 4
    batches.close()

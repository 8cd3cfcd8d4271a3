"""Which windows an epoch sees, and that they arrive as they lie on disk."""

import threading

import numpy as np
import pytest
import torch
from helpers import FEATURE_DIM, as_rank

from sola.config import Config
from sola.data.videos import BadFiles, open_split
from sola.data.windows import FileWindows, HeldWindows, epoch_windows, open_windows, rank_part
from sola.errors import DataError, SolaError
from sola.system.device import free_memory


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


WINDOW = 23
CPU = torch.device("cpu")


def trainable(workplace):
    split = open_split("HACS_DATA", "training", FEATURE_DIM, BadFiles("error"))
    videos = [video for video in split.videos.values() if video.length > 23]
    return videos, epoch_windows([video.length for video in videos], 23, seed=0, epoch=1)


def store_of(videos, storage="files", batch_size=4, num_workers=2, dtype="float32"):
    config = Config(
        exp_name="x", sampling_duration=WINDOW, storage=storage, storage_dtype=dtype,
        batch_size=batch_size, num_workers=num_workers,
    )  # fmt: skip
    return open_windows(config, videos, CPU)


def parts_of(windows, batch_size):
    count = len(windows[0])
    return [(first, min(first + batch_size, count)) for first in range(0, count, batch_size)]


@pytest.mark.parametrize("storage", ["files", "device"])
@pytest.mark.parametrize("num_workers", [0, 5])
@pytest.mark.parametrize("batch_size", [1, 4, 40])
def test_batches_hold_the_windows(workplace, storage, num_workers, batch_size):
    videos, (order, starts) = trainable(workplace)
    store = store_of(videos, storage, batch_size, num_workers)
    for _ in range(2):  # an epoch after another
        batches = store.batches((order, starts), parts_of((order, starts), batch_size))
        batches = [batch.clone() for batch in batches]
        assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
        windows = np.concatenate([batch.numpy() for batch in batches])
        assert len(windows) == len(videos)
        for window, video, start in zip(windows, order, starts, strict=True):
            whole = np.load(videos[video].path)
            np.testing.assert_array_equal(window, whole[start : start + WINDOW])


def test_any_slice_of_a_batch_can_be_asked_for(workplace):
    videos, windows = trainable(workplace)
    whole = [b.clone() for b in store_of(videos).batches(windows, [(0, 4), (4, 8)])]
    for storage in ("files", "device"):
        parts = [b.clone() for b in store_of(videos, storage).batches(windows, [(1, 3), (7, 8)])]
        assert torch.equal(parts[0], whole[0][1:3])
        assert torch.equal(parts[1], whole[1][3:4])


def test_half_precision_rounds_and_refuses_what_it_cannot_hold(workplace):
    videos, windows = trainable(workplace)
    (batch,) = store_of(videos, "device", dtype="float16").batches(windows, [(0, 11)])
    (exact,) = store_of(videos, "files").batches(windows, [(0, 4)])
    assert batch.dtype == torch.float32
    assert torch.equal(batch[:4], exact.half().float())
    assert not torch.equal(batch[:4], exact)
    spoil(workplace, 1e5)
    with pytest.raises(DataError, match=r"t6\.npy.*float16"):
        store_of(videos, "device", dtype="float16")


@pytest.mark.parametrize(
    ("free", "chosen"), [(10**9, HeldWindows), (2 * 16 * 4 * 400, FileWindows), (0, FileWindows)]
)
def test_auto_goes_by_the_room_there_is(workplace, monkeypatch, capsys, free, chosen):
    monkeypatch.setattr("sola.data.windows.free_memory", lambda device: free)
    videos, _ = trainable(workplace)
    assert sum(video.length for video in videos) > 400
    assert isinstance(store_of(videos, "auto"), chosen)
    assert "GiB of training features, room for" in capsys.readouterr().out
    assert isinstance(store_of(videos, "files"), FileWindows)
    if chosen is FileWindows:
        with pytest.raises(SolaError, match=r"storage: device.*use storage: files"):
            store_of(videos, "device")


def test_free_memory_is_shared_between_ranks(monkeypatch):
    alone = free_memory(CPU)
    assert 2**27 < alone < 2**50
    as_rank(monkeypatch, 0, 4)
    assert 0.5 < 4 * free_memory(CPU) / alone < 2


@pytest.mark.parametrize(("size", "count"), [(256, 3), (5, 2), (2, 3), (1, 4)])
def test_the_ranks_share_a_batch(monkeypatch, size, count):
    parts = []
    for number in range(count):
        as_rank(monkeypatch, number, count)
        parts.append(rank_part(100, 100 + size))
    seen = [window for (first, last), share in parts if share for window in range(first, last)]
    assert seen == list(range(100, 100 + size))
    assert sum(share for _, share in parts) == pytest.approx(1)
    for (first, last), share in parts:
        assert 100 <= first < last <= 100 + size
        assert share == 0 or share == pytest.approx((last - first) / size)
        assert (last - first) * count < size + count


def spoil(workplace, value):
    bad = workplace / "HACS_DATA/training/t6.npy"
    features = np.load(bad)
    features[:, 3] = value
    bad.unlink()
    np.save(bad, features)


@pytest.mark.parametrize("storage", ["files", "device"])
def test_a_bad_file_stops_the_epoch_and_leaves_no_reader_behind(workplace, storage):
    videos, windows = trainable(workplace)
    spoil(workplace, np.nan)
    with pytest.raises(DataError, match=r"t6\.npy"):
        list(store_of(videos, storage).batches(windows, parts_of(windows, 4)))
    assert not [t for t in threading.enumerate() if t.name.startswith("ThreadPoolExecutor")]


def test_reading_stays_a_few_batches_ahead(workplace, monkeypatch):
    videos, _ = trainable(workplace)
    reads = []
    monkeypatch.setattr(
        "sola.data.windows.read_features",
        lambda array, rows, out: reads.append(out.fill(0)),
    )
    windows = (np.zeros(50, int), np.zeros(50, int))
    store = store_of(videos, "files", batch_size=2, num_workers=1)
    batches = store.batches(windows, parts_of(windows, 2))
    next(batches)
    assert len(reads) <= 2 * 4
    batches.close()

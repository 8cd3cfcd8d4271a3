"""Which windows an epoch sees, where their snippets are held, and how they reach the device.

Both stores give the same batches in the same order: [B, R, C] with a row for each of the `times` of
a window that the model can see, time-major in memory (see SoLaModule.forward).
"""

import itertools
import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from sola.dataset import ArrayFile, DataError, read_features
from sola.runtime import SolaError, free_memory, progress, random_generator, rank, rank_count

PREFETCHED_BATCHES = 2
WINDOWS_PER_READ = 16  # one reader's share of a batch at a time
SHARE_OF_MEMORY = {"cuda": 0.8, "cpu": 0.5}  # what held snippets may take of what is free
GIB = 2**30

Windows = tuple[np.ndarray, np.ndarray]  # video indices [V], window starts [V]
Part = tuple[int, int]  # the first window of a batch, and one after its last


def epoch_windows(
    lengths: Sequence[int], sampling_duration: int, *, seed: int, epoch: int
) -> Windows:
    """One window of every video, in random order: (video indices [V], window starts [V]).

    Starts are uniform over 0..T - sampling_duration. Depends on (seed, epoch) alone, so that an
    epoch is the same after a resume and for any number of readers and ranks.
    """
    generator = random_generator("windows", seed, epoch)
    starts = generator.integers(0, np.asarray(lengths) - sampling_duration + 1)
    order = generator.permutation(len(lengths))
    return order, starts[order]


def rank_part(first: int, last: int) -> tuple[Part, float]:
    """This rank's contiguous slice of a batch of windows, and its share of the batch.

    A rank that is left without a window computes the first one of its place, with a share of 0.
    """
    size = last - first
    begin, end = (first + size * number // rank_count() for number in (rank(), rank() + 1))
    return (begin, max(end, begin + 1)), (end - begin) / size


class FileWindows:
    """Windows read from the feature files, by threads that stay a few batches ahead."""

    def __init__(
        self,
        videos: Sequence[ArrayFile],
        times: Sequence[int],
        *,
        batch_size: int,
        num_workers: int,
        device: torch.device,
    ) -> None:
        self.videos = videos
        self.times = np.sort(times)  # as they lie in a file
        self.row_of_time = np.argsort(times)
        self.num_workers = max(1, num_workers)
        self.device = device
        size = min(batch_size, len(videos)) * len(times) * videos[0].shape[1]
        self.buffers = [
            torch.empty(size, pin_memory=device.type == "cuda")
            for _ in range(PREFETCHED_BATCHES + 1)
        ]

    def batches(self, windows: Windows, parts: Sequence[Part]) -> Iterator[Tensor]:
        """Batches of windows, float32 [B, R, C]; each is valid until the next is asked for."""
        copied = [None] * len(self.buffers)  # when each buffer's copy to a GPU was done
        buffer_numbers = itertools.cycle(range(len(self.buffers)))
        with ThreadPoolExecutor(self.num_workers) as pool:
            pending: deque[tuple[int, Tensor, list[Future]]] = deque()

            def next_batch() -> Tensor:
                number, batch, reads = pending.popleft()
                for read in reads:
                    read.result()
                if self.device.type == "cuda":
                    batch = batch.to(self.device, non_blocking=True)
                    copied[number] = torch.cuda.Event()
                    copied[number].record()
                return batch.transpose(0, 1)

            for number, (first, last) in zip(buffer_numbers, parts, strict=False):
                if copied[number]:
                    copied[number].synchronize()
                shape = (len(self.times), last - first, self.videos[0].shape[1])
                batch = self.buffers[number][: math.prod(shape)].view(shape)
                shares = range(first, last, WINDOWS_PER_READ)
                reads = [pool.submit(self._read, batch, windows, first, share) for share in shares]
                pending.append((number, batch, reads))
                if len(pending) > PREFETCHED_BATCHES:
                    yield next_batch()
            while pending:
                yield next_batch()

    def _read(self, batch: Tensor, windows: Windows, first: int, share: int) -> None:
        """Read one reader's share of a batch, which starts at window `first`."""
        rows = batch.numpy()  # [R, B, C]
        for window in range(share, min(share + WINDOWS_PER_READ, first + rows.shape[1])):
            video, start = self.videos[windows[0][window]], windows[1][window]
            rows[self.row_of_time, window - first] = read_features(video, start + self.times)


class HeldWindows:
    """Windows gathered from all snippets of all videos, which the device holds in its memory."""

    def __init__(
        self,
        videos: Sequence[ArrayFile],
        times: Sequence[int],
        *,
        dtype: torch.dtype,
        device: torch.device,
        num_workers: int,
    ) -> None:
        self.times = torch.tensor(times, device=device)
        self.first_rows = np.cumsum([0, *(video.length for video in videos)])
        shape = int(self.first_rows[-1]), videos[0].shape[1]
        self.snippets = torch.empty(shape, dtype=dtype, device=device)  # all T of all videos, C
        with ThreadPoolExecutor(max(1, num_workers)) as pool:
            loads = pool.map(self._load, videos, itertools.pairwise(self.first_rows))
            for _ in progress(loads, total=len(videos), desc="training features", unit="file"):
                pass

    def _load(self, video: ArrayFile, rows: Part) -> None:
        features = torch.from_numpy(read_features(video))
        if not features.to(self.snippets.dtype).isfinite().all():
            raise DataError(f"{video.path}: holds values beyond the range of {self.snippets.dtype}")
        self.snippets[slice(*rows)] = features

    def batches(self, windows: Windows, parts: Sequence[Part]) -> Iterator[Tensor]:
        """Batches of windows, float32 [B, R, C]."""
        first_rows = torch.from_numpy(self.first_rows[windows[0]] + windows[1])
        first_rows = first_rows.to(self.times.device)
        for first, last in parts:
            rows = self.times[:, None] + first_rows[first:last]  # [R, B]
            batch = self.snippets.index_select(0, rows.flatten()).float()
            yield batch.unflatten(0, rows.shape).transpose(0, 1)


def open_windows(
    videos: Sequence[ArrayFile],
    times: Sequence[int],
    *,
    storage: str,
    storage_dtype: str,
    batch_size: int,
    num_workers: int,
    device: torch.device,
) -> FileWindows | HeldWindows:
    """The store that `storage` names (see config.py), or the better one for auto, saying which.

    Raises SolaError when the device is to hold more than it has room for.
    """
    dtype = getattr(torch, storage_dtype)
    needed = sum(video.length for video in videos) * videos[0].shape[1] * dtype.itemsize
    free = free_memory(device) * SHARE_OF_MEMORY[device.type]
    place = f"{needed / GIB:.2f} GiB of training features, room for {free / GIB:.2f} on {device}"
    if storage == "auto":
        storage = "device" if needed <= free else "files"
    elif storage == "device" and needed > free:
        raise SolaError(f"storage: device: {place}; use storage: files")
    print(f"storage: {storage} ({place})", flush=True)
    if storage == "device":
        return HeldWindows(videos, times, dtype=dtype, device=device, num_workers=num_workers)
    return FileWindows(videos, times, batch_size=batch_size, num_workers=num_workers, device=device)

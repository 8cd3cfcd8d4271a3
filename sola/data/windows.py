"""Which windows an epoch sees, where their snippets are held, and how they reach the device.

Both stores give the same batches, float32 [B, W, C], in the same order.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from sola.config import Config
from sola.data.features import FeatureFile, read_features
from sola.errors import DataError, SolaError
from sola.system.cli import progress
from sola.system.device import free_memory, random_generator
from sola.system.prefetch import in_background
from sola.system.ranks import from_all_ranks, rank, rank_count

PREFETCHED_BATCHES = 2
WINDOWS_PER_READ = 16  # one reader's share of a batch at a time
SHARE_OF_MEMORY = {"cuda": 0.8, "cpu": 0.5}  # what held snippets may take of what is free
GIB = 2**30

Windows = tuple[np.ndarray, np.ndarray]  # video indices [V], window starts [V]
Part = tuple[int, int]  # the first window of a batch, and one after its last
Share = tuple[Tensor, int, range]  # a batch, its first window, those that one reader reads


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


@dataclass(frozen=True)
class EpochPlan:
    """The steps of an epoch: its windows, and of each step's batch what this rank computes."""

    windows: Windows
    parts: list[Part]
    shares: list[float]  # of the batch
    sizes: Tensor  # windows of each whole batch, [steps]


def plan_epoch(config: Config, lengths: Sequence[int], epoch: int) -> EpochPlan:
    """The steps of an epoch over videos of these lengths."""
    windows = epoch_windows(lengths, config.sampling_duration, seed=config.seed, epoch=epoch)
    firsts = range(0, len(lengths), config.batch_size)
    lasts = [min(first + config.batch_size, len(lengths)) for first in firsts]
    parts, shares = zip(*map(rank_part, firsts, lasts), strict=True)
    return EpochPlan(windows, [*parts], [*shares], torch.tensor(lasts) - torch.tensor(firsts))


def rank_part(first: int, last: int) -> tuple[Part, float]:
    """This rank's contiguous slice of a batch of windows, and its share of the batch.

    A rank that is left without a window computes the first one of its place, with a share of 0.
    """
    size = last - first
    begin, end = (first + size * number // rank_count() for number in (rank(), rank() + 1))
    return (begin, max(end, begin + 1)), (end - begin) / size


class FileWindows:
    """Windows read from the feature files, by threads that stay a few batches ahead."""

    def __init__(self, config: Config, videos: Sequence[FeatureFile], device: torch.device) -> None:
        self.videos, self.device, self.readers = videos, device, max(1, config.num_workers)
        self.shape = config.sampling_duration, videos[0].shape[1]

    def batches(self, windows: Windows, parts: Sequence[Part]) -> Iterator[Tensor]:
        """Batches of windows, copied to the GPU while the device computes."""
        ahead = PREFETCHED_BATCHES * max(len(range(*part, WINDOWS_PER_READ)) for part in parts)
        read = partial(self._read, windows)
        reads = in_background(read, self._shares(parts), threads=self.readers, ahead=ahead)
        for part in parts:
            for _ in range(*part, WINDOWS_PER_READ):
                x = next(reads)
            yield x.to(self.device, non_blocking=True)

    def _shares(self, parts: Sequence[Part]) -> Iterator[Share]:
        """What one reader reads at a time; a batch's memory is taken when its first is due.

        PyTorch keeps pinned memory for the next batch, once it is copied to the GPU.
        """
        for first, last in parts:
            x = torch.empty(last - first, *self.shape, pin_memory=self.device.type == "cuda")
            for begin in range(first, last, WINDOWS_PER_READ):
                yield x, first, range(begin, min(begin + WINDOWS_PER_READ, last))

    def _read(self, windows: Windows, share: Share) -> Tensor:
        """Read a share of a batch into it: the batch."""
        x, first, numbers = share
        for window in numbers:
            video, start = self.videos[windows[0][window]], windows[1][window]
            rows = start + np.arange(x.shape[1])
            read_features(video, rows, out=x[window - first].numpy())
        return x


class HeldWindows:
    """Windows gathered from all snippets of all videos, which a device holds in its memory."""

    def __init__(self, snippets: Tensor, lengths: Sequence[int], sampling_duration: int) -> None:
        """snippets: [sum of the lengths, C], video after video, on the device that trains."""
        self.snippets = snippets
        self.first_rows = np.cumsum([0, *lengths[:-1]])
        self.times = torch.arange(sampling_duration, device=snippets.device)

    def batches(self, windows: Windows, parts: Sequence[Part]) -> Iterator[Tensor]:
        """Batches of windows."""
        first_rows = torch.from_numpy(self.first_rows[windows[0]] + windows[1])
        first_rows = first_rows.to(self.times.device)
        for first, last in parts:
            rows = first_rows[first:last, None] + self.times  # [B, W]
            yield self.snippets.index_select(0, rows.flatten()).float().unflatten(0, rows.shape)


def load_snippets(
    videos: Sequence[FeatureFile], dtype: torch.dtype, device: torch.device, *, threads: int
) -> Tensor:
    """All snippets of all videos in the memory of a device, [sum of T, C].

    Raises DataError, naming the file, for values that dtype cannot hold.
    """
    ends = np.cumsum([0, *(video.length for video in videos)]).tolist()
    snippets = torch.empty(ends[-1], videos[0].shape[1], dtype=dtype, device=device)
    is_as_read = dtype == torch.float32 and device.type == "cpu"

    def load(job: tuple[FeatureFile, Part]) -> None:
        video, rows = job
        if is_as_read:
            read_features(video, out=snippets[slice(*rows)].numpy())
            return
        features = torch.from_numpy(read_features(video)).to(dtype)
        if not features.isfinite().all():
            raise DataError(f"{video.path}: holds values beyond the range of {dtype}")
        snippets[slice(*rows)] = features

    jobs = zip(videos, itertools.pairwise(ends), strict=True)
    loads = in_background(load, jobs, threads=threads, ahead=2 * threads)
    for _ in progress(loads, total=len(videos), desc="training features", unit="file"):
        pass
    return snippets


def open_windows(
    config: Config, videos: Sequence[FeatureFile], device: torch.device
) -> FileWindows | HeldWindows:
    """The store that `storage` names, or the better one for auto, saying which.

    Raises SolaError when the device is to hold more than it has room for.
    """
    storage, dtype = config.storage, getattr(torch, config.storage_dtype)
    needed = sum(video.length for video in videos) * videos[0].shape[1] * dtype.itemsize
    place = f"{needed / GIB:.2f} GiB of training features"
    if storage != "files":
        room = min(from_all_ranks([free_memory(device)])) * SHARE_OF_MEMORY[device.type]
        place += f", room for {room / GIB:.2f} on {device}"
        if storage == "device" and needed > room:
            raise SolaError(f"storage: device: {place}; use storage: files")
        storage = "device" if needed <= room else "files"
    print(f"storage: {storage} ({place})")
    if storage == "device":
        snippets = load_snippets(videos, dtype, device, threads=max(1, config.num_workers))
        return HeldWindows(snippets, [video.length for video in videos], config.sampling_duration)
    return FileWindows(config, videos, device)

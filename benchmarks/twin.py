"""A plain twin of the original program's data flow, to measure against.

Written from the description of the method alone: the convolution over whole windows, one memory
map a sample behind a DataLoader, three optimisers, norms looked at in every step, evaluation by way
of the disk. It computes the same module; only how it goes about it is slow.
"""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

WINDOW, POSITIONS, ORACLE_COEF = 23, range(4, 19, 2), 16.0
CHANNELS, HIDDEN = 2048, 512
GROUP = 100


class Windows(Dataset):
    """A random window of each video, through a memory map that is opened for it."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        features = np.load(self.paths[index], mmap_mode="r")
        start = np.random.default_rng().integers(0, len(features) - WINDOW + 1)
        return torch.from_numpy(np.array(features[start : start + WINDOW]))


class WholeVideos(Dataset):
    """Whole videos, one at a time."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        return torch.from_numpy(np.load(self.paths[index])), self.paths[index].name


class Module(nn.Module):
    """The SoLa module as three convolutions over the whole sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.full((1,), 0.1))
        self.network = nn.Sequential(
            nn.Conv1d(CHANNELS, HIDDEN, 5, padding=2),
            nn.ReLU(),
            nn.Conv1d(HIDDEN, HIDDEN, 1),
            nn.ReLU(),
            nn.Conv1d(HIDDEN, CHANNELS, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.alpha.tanh() * self.network(x.transpose(1, 2)).transpose(1, 2)


class Twin:
    """The three stages, each as a function of files."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.module = Module()
        self.projector = nn.Identity()
        self.predictor = nn.Sequential(
            nn.Linear(CHANNELS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CHANNELS)
        )
        place = torch.arange(len(POSITIONS), dtype=torch.float32)
        self.target = torch.sigmoid(ORACLE_COEF / (place[:, None] - place) ** 2)
        # the projector of the canonical run has no weights; its optimiser is there all the same
        scale = nn.Parameter(torch.ones(1))
        self.optimisers = [
            torch.optim.AdamW(weights, lr=1e-4)
            for weights in (self.module.parameters(), [scale], self.predictor.parameters())
        ]

    def train_epoch(self, paths: list[Path], batch_size: int, workers: int) -> float:
        """One window of every video; the mean loss."""
        losses = []
        loader = DataLoader(Windows(paths), batch_size, shuffle=True, num_workers=workers)
        for windows in loader:
            refined = self.module(windows)  # [B, W, C]
            gathered = refined[:, list(POSITIONS)]
            z = F.normalize(self.projector(gathered), dim=-1)
            prediction = self.predictor(z)
            z = z.detach()
            norms = z.norm(dim=-1)[:, :, None] * prediction.norm(dim=-1)[:, None, :]
            p = (1 + z @ prediction.transpose(1, 2) / (norms + 1e-8)) / 2
            p = torch.where(p >= 1, torch.full_like(p, 1 - 1e-5), p)
            p = torch.where(p <= 0, torch.full_like(p, 1e-5), p)
            loss = F.binary_cross_entropy(p, self.target.expand_as(p))
            for optimiser in self.optimisers:
                optimiser.zero_grad()
            loss.backward()
            for optimiser in self.optimisers:
                optimiser.step()
            with torch.no_grad():  # the size of the update, looked at in every step
                (refined - windows).norm(dim=-1).mean().item()
                windows.norm(dim=-1).mean().item()
            losses.append(loss.item())
        return math.fsum(losses) / len(losses)

    @torch.no_grad()
    def dump(self, paths: list[Path], folder: Path, workers: int) -> None:
        """Features of whole videos, a file each."""
        folder.mkdir(parents=True, exist_ok=True)
        loader = DataLoader(WholeVideos(paths), batch_size=1, num_workers=workers)
        for features, (name,) in loader:
            np.save(folder / name, self.module(features)[0].numpy())

    def evaluate(
        self,
        splits: list[list[Path]],
        labels: list[dict[str, np.ndarray]],
        folder: Path,
        workers: int,
    ) -> float:
        """The SGD probe by way of the disk; the accuracy."""
        blocks = []
        for number, (paths, of_split) in enumerate(zip(splits, labels, strict=True)):
            encoded = folder / f"encoded{number}"
            self.dump(paths, encoded, workers)
            blocks.append(self._write_blocks(paths, of_split, encoded, folder / f"blocks{number}"))
        classifier = nn.Linear(CHANNELS, 2)
        optimiser = torch.optim.SGD(classifier.parameters(), lr=0.01, momentum=0.9)
        accuracies = []
        for epoch in range(16):
            for x, y in DataLoader(Rows(blocks[0]), 256, shuffle=True, num_workers=workers):
                optimiser.zero_grad()
                F.cross_entropy(classifier(x), y).backward()
                optimiser.step()
            right = []
            with torch.no_grad():
                for x, y in DataLoader(Rows(blocks[1]), 256, num_workers=workers):
                    right.append((classifier(x).argmax(dim=1) == y).float())
            if 5 <= epoch < 15:
                accuracies.append(torch.cat(right).mean().item())
        return float(np.mean(accuracies))

    @staticmethod
    def _write_blocks(
        paths: list[Path], labels: dict[str, np.ndarray], encoded: Path, folder: Path
    ) -> list[tuple[Path, int]]:
        """Rewrite the features in blocks of GROUP snippets of one class."""
        folder.mkdir(parents=True, exist_ok=True)
        blocks, waiting = [], {0: [], 1: []}
        for path in paths:
            features = np.load(encoded / path.name)
            for label in (0, 1):
                waiting[label].extend(features[labels[path.name] == label])
                while len(waiting[label]) > GROUP:
                    file = folder / f"{len(blocks)}.npy"
                    np.save(file, np.stack(waiting[label][:GROUP]))
                    blocks.append((file, label))
                    del waiting[label][:GROUP]
        return blocks


class Rows(Dataset):
    """A random row of each block, which is read whole for it."""

    def __init__(self, blocks: list[tuple[Path, int]]) -> None:
        self.blocks = blocks

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.blocks[index]
        row = torch.from_numpy(np.load(path)[np.random.default_rng().integers(GROUP)])
        return F.normalize(row, dim=-1), label

"""A reference implementation of the original program's data flow, for speed.py to measure against.

Written from the description of the method alone and without anything of `sola`: the convolution
over whole windows, one memory map a sample behind a DataLoader, three optimisers, norms looked at
in every step, evaluation by way of the disk. It computes the same module; only how it goes about it
is slow.
"""

import os
import pickle
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

WINDOW, POSITIONS, ORACLE_COEF = 23, list(range(4, 19, 2)), 16.0
CHANNELS, HIDDEN, BATCH = 2048, 512, 256
SPLITS = ("training", "validation")
GROUP = 100  # snippets of one class in a block

Block = tuple[Path, int]  # GROUP snippets of one class in a file, and the class


def random_windows(paths: list[Path]) -> Tensor:
    """A random window of each video, [B, W, C], through a memory map that is opened for it."""
    windows = []
    for path in paths:
        features = np.load(path, mmap_mode="r")
        start = np.random.default_rng().integers(0, len(features) - WINDOW + 1)
        windows.append(torch.from_numpy(np.array(features[start : start + WINDOW])))
    return torch.stack(windows)


def whole_video(paths: list[Path]) -> tuple[Tensor, str]:
    """Features of the one video, [1, T, C], and the name of its file."""
    return torch.from_numpy(np.load(paths[0]))[None], paths[0].name


def random_rows(blocks: list[Block]) -> tuple[Tensor, Tensor]:
    """A random row of each block, which is read whole for it, [B, C], and the classes, [B]."""
    rows = [np.load(path)[np.random.default_rng().integers(GROUP)] for path, _ in blocks]
    labels = torch.tensor([label for _, label in blocks])
    return F.normalize(torch.from_numpy(np.stack(rows)), dim=-1), labels


def loader(items: Sequence, load: Callable, size: int = 1, shuffle: bool = False) -> DataLoader:
    """Batches of a size that worker processes load, as many as there are cores."""
    return DataLoader(items, size, shuffle, num_workers=os.cpu_count(), collate_fn=load)


class Module(nn.Module):
    """The SoLa module as three convolutions over the whole sequence: [B, T, C] -> [B, T, C]."""

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


class Reference:
    """Training, evaluation and dump of the features and labels in a folder."""

    def __init__(self, folder: Path, rounds: int) -> None:
        """rounds: windows of each training video in an epoch."""
        torch.manual_seed(0)
        self.folder, self.written, self.rounds = folder, folder / "reference", rounds
        self.module = Module()
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

    def train(self, _: str) -> None:
        """An epoch, always from the files."""
        paths = sorted(self.folder.glob("data/training/*.npy")) * self.rounds
        for windows in loader(paths, random_windows, BATCH, shuffle=True):
            refined = self.module(windows)  # [B, W, C]
            loss = self.loss(F.normalize(refined[:, POSITIONS], dim=-1))
            for optimiser in self.optimisers:
                optimiser.zero_grad()
            loss.backward()
            for optimiser in self.optimisers:
                optimiser.step()
            with torch.no_grad():  # looked at in every step: the loss and the size of the update
                loss.item()
                (refined - windows).norm(dim=-1).mean().item()
                windows.norm(dim=-1).mean().item()

    def loss(self, z: Tensor) -> Tensor:
        """Of normalised features at the gathered positions, [B, L, C]."""
        prediction, z = self.predictor(z), z.detach()
        norms = z.norm(dim=-1)[:, :, None] * prediction.norm(dim=-1)[:, None, :]
        p = (1 + z @ prediction.transpose(1, 2) / (norms + 1e-8)) / 2
        p = torch.where(p >= 1, torch.full_like(p, 1 - 1e-5), p)
        p = torch.where(p <= 0, torch.full_like(p, 1e-5), p)
        return F.binary_cross_entropy(p, self.target.expand_as(p))

    @torch.no_grad()
    def encode(self, paths: list[Path], folder: Path) -> None:
        """Features of whole videos, a file each."""
        folder.mkdir(parents=True, exist_ok=True)
        for features, name in loader(paths, whole_video):
            np.save(folder / name, self.module(features)[0].numpy())

    def dump(self) -> None:
        """Features of both splits."""
        for split in SPLITS:
            self.encode(sorted(self.folder.glob(f"data/{split}/*.npy")), self.written / split)

    def evaluate(self) -> float:
        """The SGD probe by way of the disk; the accuracy."""
        training, validation = map(self.write_blocks, SPLITS)
        classifier = nn.Linear(CHANNELS, 2)
        optimiser = torch.optim.SGD(classifier.parameters(), lr=0.01, momentum=0.9)
        accuracies = []
        for _ in range(16):
            for x, y in loader(training, random_rows, BATCH, shuffle=True):
                optimiser.zero_grad()
                F.cross_entropy(classifier(x), y).backward()
                optimiser.step()
            right = []
            with torch.no_grad():
                for x, y in loader(validation, random_rows, BATCH):
                    right.append((classifier(x).argmax(dim=1) == y).float())
            accuracies.append(torch.cat(right).mean().item())
        return float(np.mean(accuracies[5:15]))

    def write_blocks(self, split: str) -> list[Block]:
        """Encode a split's subset, and rewrite it in blocks of GROUP snippets of one class."""
        subset = pickle.loads((self.folder / f"data/{split}_subset_list.pkl").read_bytes())
        encoded, folder = self.written / split, self.written / f"{split}_blocks"
        self.encode([self.folder / f"data/{split}/{video}.npy" for video in subset], encoded)
        folder.mkdir()
        blocks, waiting = [], {0: [], 1: []}
        for video in subset:
            features = np.load(encoded / f"{video}.npy")
            is_action = np.load(self.folder / f"labels/{split}_label/{video}.npy")
            for label in (0, 1):
                waiting[label].extend(features[is_action == label])
                while len(waiting[label]) > GROUP:
                    blocks.append((folder / f"{len(blocks)}.npy", label))
                    np.save(blocks[-1][0], np.stack(waiting[label][:GROUP]))
                    del waiting[label][:GROUP]
        return blocks

    def clean(self) -> None:
        """Remove all that was written."""
        shutil.rmtree(self.written, ignore_errors=True)

"""The stages that speed.py times, ours and the twin's, each in a process of its own."""

import contextlib
import dataclasses
import io
import multiprocessing
import os
import resource
import shutil
import sys
import time
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from common import paths_of  # noqa: E402

VIDEOS = {"training": 600, "validation": 120}
ROUNDS = 4  # windows of each training video in an epoch; HACS has 15 times as many videos
EVALUATED = {"training": 300, "validation": 60}
SCORED = {"eval_snippets": 8_333, "eval_snippets_validation": 1_667}
MODULE_FLOP = 2 * (5 * 2048 * 512 + 512 * 512 + 512 * 2048)  # a snippet
WINDOW_FLOP = 331e6  # forward and backward, as the gathered positions need it


class Ours:
    """The program's own functions, at the canonical settings."""

    def __init__(self, folder: Path) -> None:
        import torch
        from common import config_for

        from sola.data.windows import open_windows
        from sola.method.matching import make_learner
        from sola.training.inputs import open_data

        self.folder, self.cpu = folder, torch.device("cpu")
        self.config = config_for(folder, "speed", **SCORED)
        data = open_data(self.config)
        self.data = dataclasses.replace(data, videos=data.videos * ROUNDS)
        self.learner = make_learner(self.config, self.cpu)
        module = self.learner.model.module
        torch.nn.init.constant_(module.alpha, 0.1)
        self.config.run_folder.mkdir(parents=True, exist_ok=True)
        torch.save(module.state_dict(), self.config.model_file(1))
        self.stores = {
            storage: open_windows(
                self.data.videos,
                self.learner.times,
                storage=storage,
                storage_dtype="float32",
                batch_size=self.config.batch_size,
                num_workers=self.config.num_workers,
                device=self.cpu,
            )
            for storage in ("files", "device")
        }

    def matrix_rates(self) -> tuple[float, float]:
        """GFLOP/s of a product of two 2048 x 2048 matrices: by torch.mm, and by oneDNN."""
        import torch

        from sola.method.module import linear

        a, b = torch.ones(2, 2048, 2048)
        rates = []
        for product in (torch.mm, linear):
            product(a, b)
            started = time.perf_counter()
            for _ in range(10):
                product(a, b)
            rates.append(10 * 2 * 2048**3 / (time.perf_counter() - started) / 1e9)
        return tuple(rates)

    def train_files(self) -> None:
        self._train("files")

    def train_device(self) -> None:
        self._train("device")

    def _train(self, storage: str) -> None:
        from sola.system.cli import DeferredSignals
        from sola.training.loop import Progress, train_epoch

        store, signals = self.stores[storage], DeferredSignals()
        train_epoch(self.config, self.learner, store, self.data, Progress(), signals)

    def evaluate(self) -> None:
        self._evaluate(**SCORED)

    def _evaluate(self, **snippets: int) -> None:
        from sola.probe.logistic import probe_logistic_regression

        module = self.learner.model.module
        probe_logistic_regression(module, *self.data.probe, **snippets, seed=0)

    def evaluate_at_defaults(self) -> float:
        """MB that an evaluation of 50,000 + 20,000 snippets takes at its peak."""
        from sola.probe.logistic import ProbeVideos

        videos = []
        for split in VIDEOS:
            files = [self._open(path) for path in paths_of(self.folder, split)]
            labels = [np.arange(file.length) % 3 > 0 for file in files]
            videos.append(ProbeVideos(split, files, labels))
        self.data = type(self.data)(self.data.training, [], tuple(videos), {}, {})
        self._evaluate(eval_snippets=1000, eval_snippets_validation=1000)  # imports
        before = _resident_mb()
        self._evaluate(eval_snippets=50_000, eval_snippets_validation=20_000)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3 - before

    @staticmethod
    def _open(path: Path):
        from sola.data.features import open_features

        return open_features(path)

    def dump(self) -> None:
        from sola.export.dump import export_features

        export_features(self.config, "1")

    def clean(self) -> None:
        shutil.rmtree(self.folder / "dumped", ignore_errors=True)


class Twin:
    """The plain twin, with as many workers as there are cores."""

    def __init__(self, folder: Path) -> None:
        import twin

        self.folder, self.twin, self.workers = folder, twin.Twin(), os.cpu_count()

    def train_files(self) -> None:
        self.twin.train_epoch(paths_of(self.folder, "training") * ROUNDS, 256, self.workers)

    train_device = train_files

    def evaluate(self) -> None:
        splits = [paths_of(self.folder, split)[:count] for split, count in EVALUATED.items()]
        labels = [
            {p.name: np.load(self.folder / "labels" / f"{split}_label" / p.name) for p in paths}
            for split, paths in zip(EVALUATED, splits, strict=True)
        ]
        self.twin.evaluate(splits, labels, self.folder / "twin", self.workers)

    def dump(self) -> None:
        for split in VIDEOS:
            self.twin.dump(paths_of(self.folder, split), self.folder / "twin" / split, self.workers)

    def clean(self) -> None:
        shutil.rmtree(self.folder / "twin", ignore_errors=True)


def _resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def serve(kind: type, folder: Path, connection) -> None:
    """In a process of its own: run the named methods, and answer (seconds, result)."""
    multiprocessing.set_start_method("fork", force=True)  # as a DataLoader's workers start
    with contextlib.redirect_stdout(io.StringIO()):
        worker = kind(folder)
        connection.send((0.0, None))
        for name in iter(connection.recv, ""):
            started = time.perf_counter()
            result = getattr(worker, name)()
            connection.send((time.perf_counter() - started, result))


class Process:
    """A worker in a process of its own, for its memory and settings not to touch another's."""

    def __init__(self, kind: type, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=serve, args=(kind, folder, other))
        self.process.start()
        self.connection.recv()

    def call(self, name: str) -> tuple[float, float | None]:
        self.connection.send(name)
        return self.connection.recv()

    def close(self) -> None:
        self.connection.send("")
        self.process.join()

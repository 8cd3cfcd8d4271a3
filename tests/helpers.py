"""What several test files use: a tiny data set, scripts in processes, runs compared."""

import dataclasses
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

import process_feature
from sola.config import Config
from sola.method.weights import load_weights
from sola.records import read_records
from sola.training import loop
from sola.training.loop import train

REPOSITORY = Path(__file__).resolve().parent.parent
FEATURE_DIM = 16
ENVIRONMENT = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
SCRIPT = [sys.executable, "-u", "-W", "error", str(REPOSITORY / "main_simsiam.py")]
TINY = {
    "exp_name": "tiny",
    "in_feature_dim": FEATURE_DIM,
    "out_feature_dim": FEATURE_DIM,
    "network_hidden_unit": 16,
    "mlphead_hidden_unit": 16,
    "dissim_proj_hidden_unit": 16,
    "dissim_proj_out": FEATURE_DIM,
    "batch_size": 5,
    "num_workers": 2,
    "epoch": 4,
    "saving_epoch": 2,
    "learning_rate": 1e-3,
    "device": "cpu",
}


def slowly_varying(length: int, generator: np.random.Generator, channels: int = FEATURE_DIM):
    """Features whose neighbours are alike, and labels that their first channel tells."""
    steps = generator.standard_normal((length, channels))
    features = 0.3 * np.cumsum(steps, axis=0) + generator.standard_normal(channels)
    labels = features[:, 0] > np.median(features[:, 0])
    return (features + generator.standard_normal(features.shape)).astype(np.float32), labels


def flat_folder(workplace: Path) -> str:
    """Links to all tiny videos in one folder, as an option of prepare."""
    (workplace / "flat").mkdir()
    for path in (workplace / "HACS_DATA").glob("*/*.npy"):
        (workplace / "flat" / f"v_{path.name}").symlink_to(path)
    return "--features=flat"


def two_folders(workplace: Path) -> None:
    """The tiny features as rgb of 10 channels and flow of 6."""
    for folder, channels in (("rgb", slice(10)), ("flow", slice(10, None))):
        for path in (workplace / "HACS_DATA").glob("*/*.npy"):
            (workplace / folder / path.parent.name).mkdir(parents=True, exist_ok=True)
            np.save(workplace / folder / path.parent.name / path.name, np.load(path)[:, channels])


def contents(folder: Path) -> dict[Path, bytes]:
    """Relative path -> bytes of all files in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder): path.read_bytes() for path in files}


def process(*arguments: str, load_model: str = "2") -> None:
    """Write features of the tiny data, or check them."""
    process_feature.main(["--yaml_path=tiny.yaml", f"--load_model={load_model}", *arguments])


def numeric(folder: str | Path) -> dict:
    """Video -> entry of the annotations.json that was written for heads."""
    return json.loads(Path(folder, "annotations.json").read_text())["database"]


def replace(config: Config, **changes) -> Config:
    return dataclasses.replace(config, **changes)


def run_script(*arguments: str, cwd: Path, path=REPOSITORY) -> subprocess.CompletedProcess:
    """Run a command of the README as a user would, in a working directory of its own."""
    environment = ENVIRONMENT | {"PYTHONPATH": str(path)}
    script = [str(REPOSITORY / arguments[0]), *arguments[1:]]
    return subprocess.run(
        [sys.executable, "-W", "error", *script],
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=100,
    )  # fmt: skip


def read_until(process: subprocess.Popen, start: str) -> None:
    """Read what a process prints up to a line with that start."""
    for line in process.stdout:
        if line.startswith(start):
            return
    raise AssertionError(f"no line with {start}")


def interrupts_at_step(patch, number, interrupt):
    """Do something right after the n-th training step of this process."""
    real, calls = loop.training_step, []

    def counting(*arguments):
        figures = real(*arguments)
        calls.append(1)
        if len(calls) == number:
            interrupt()
        return figures

    patch.setattr(loop, "training_step", counting)


def as_rank(monkeypatch, number: int, count: int) -> None:
    """Let the program take this process for one that torchrun has started."""
    values = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    for name, value in (values | {"MASTER_ADDR": "localhost"}).items():
        monkeypatch.setenv(name, str(value))


def weights_after(config, **options):
    train(config, **options)
    return load_weights(config.model_file(config.epoch))


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def without_seconds(config):
    records = read_records(config.metrics_file)
    return [{k: v for k, v in r.items() if not k.startswith("seconds")} for r in records]


def write_pickle(path, content, protocol=4):
    path.write_bytes(pickle.dumps(content, protocol))


def write_index_files(workplace: Path, splits=("training", "validation")) -> None:
    """The pickles of the original, for the tiny data."""
    for split in splits:
        paths = sorted((workplace / "HACS_DATA" / split).glob("*.npy"))
        durations = {path.name: len(np.load(path)) for path in paths}
        subset = [path.stem for path in paths]
        for name, content in (("duration", durations), ("subset_list", subset)):
            path = workplace / f"HACS_DATA/{split}_{name}.pkl"
            path.write_bytes(pickle.dumps(content))

"""Checkpoints of the tiny data, and dumps of its features.

Test files that use the fixtures name this file as their plugin.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import FEATURE_DIM

from sola.method.module import SoLaModule, encode_video
from sola.method.weights import file_sha256, load_module


@pytest.fixture
def trained(config):
    """The tiny configuration with checkpoints of two epochs, as a training leaves them."""
    config.run_folder.mkdir(parents=True)
    (config.run_folder / "config.yaml").write_text(config.to_yaml())
    for epoch in (2, 4):
        torch.manual_seed(epoch)
        module = SoLaModule(FEATURE_DIM, 16)
        torch.nn.init.constant_(module.alpha, 0.1 * epoch)
        torch.save(module.state_dict(), config.model_file(epoch))
    return config


@pytest.fixture
def five_videos(trained):
    """The same with fewer videos, for what is repeated many times."""
    for path in Path("HACS_DATA").glob("*/*.npy"):
        if path.stem not in ("t3", "t5", "t6", "v0", "v5"):
            path.unlink()
    return trained


def features_of(folder):
    return {path.relative_to(folder): np.load(path) for path in sorted(folder.glob("*/[!.]*.npy"))}


def times_of(folder):
    return {path: path.stat().st_mtime_ns for path in sorted(folder.glob("*/*.npy"))}


def manifest_of(folder):
    return json.loads((folder / "manifest.json").read_text())


def assert_complete(folder, checkpoint, data_root="HACS_DATA", dilations=(1, 1)):
    """What the checkpoint makes of all videos, each by itself, and nothing else."""
    module = load_module(checkpoint, dilations)
    inputs, outputs = features_of(Path(data_root)), features_of(folder)
    assert outputs.keys() == inputs.keys()
    for video, x in inputs.items():
        assert outputs[video].dtype == np.float32
        np.testing.assert_array_equal(outputs[video], encode_video(module, x))
    assert manifest_of(folder)["finished"] is True
    assert manifest_of(folder)["sha256"] == file_sha256(checkpoint)

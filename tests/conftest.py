"""A tiny data set in the HACS layout, and a YAML for it."""

import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from helpers import TINY, slowly_varying

from sola.config import Config, load_config
from sola.plots.figure import new_figure
from sola.training import draw_run, loop

pytest.register_assert_rewrite("dumps", "handing")  # plugins that are imported, too
torch.set_num_threads(1)  # tiny tensors; more threads only wait for one another


def pytest_addoption(parser):
    parser.addoption("--kills", type=int, default=2, help="processes killed by each such test")
    parser.addoption("--fuzz", type=int, default=8, help="damaged files that are tried")


@pytest.fixture
def kills(request) -> int:
    return request.config.getoption("--kills")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> Path:
    """The data set, shared by all tests, which only read it."""
    folder = tmp_path_factory.mktemp("tiny")
    generator = np.random.default_rng(5)
    lengths = {
        "training": [24, 25, 23, 10, *generator.integers(30, 60, 9).tolist()],
        "validation": [1, 2, 3, 4, *generator.integers(20, 50, 4).tolist()],
    }
    for split in lengths:
        (folder / "HACS_DATA" / split).mkdir(parents=True)
        (folder / "evaluation" / f"{split}_label").mkdir(parents=True)
        for number, length in enumerate(lengths[split]):
            features, labels = slowly_varying(length, generator)
            np.save(folder / "HACS_DATA" / split / f"{split[0]}{number}.npy", features)
            np.save(folder / "evaluation" / f"{split}_label" / f"{split[0]}{number}.npy", labels)
    return folder


@pytest.fixture
def workplace(tmp_path, tiny_data, monkeypatch) -> Path:
    """An empty working directory with links to the tiny data, a video to draw, and tiny.yaml."""
    for split in ("training", "validation"):
        for source in (f"HACS_DATA/{split}", f"evaluation/{split}_label"):
            (tmp_path / source).mkdir(parents=True)
            for file in (tiny_data / source).iterdir():
                (tmp_path / source / file.name).symlink_to(file)
    (tmp_path / "visualizing").mkdir()
    (tmp_path / "visualizing" / "v6.npy").symlink_to(tiny_data / "HACS_DATA/validation/v6.npy")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def config(workplace, monkeypatch) -> Config:
    """tiny.yaml, for runs without pictures, which would take most of their time."""
    monkeypatch.setattr(loop, "draw_tsms", lambda *_: None)
    monkeypatch.setattr(loop, "draw_curves", lambda *_: None)
    return load_config(workplace / "tiny.yaml")


@pytest.fixture
def grey_pictures(monkeypatch) -> None:
    """Figures that are quickly drawn: small, and of another grey for other content."""

    def grey_figure(*shown):
        content = re.sub(r"'seconds\w*': [\d.e-]+", "", repr(shown))
        figure = new_figure(9, 9)
        figure.set_facecolor(str(zlib.crc32(content.encode()) / 2**32))
        return figure

    for name in ("tsm_sheet", "window_sheet", "curves"):
        monkeypatch.setattr(draw_run, name, grey_figure)


@pytest.fixture
def drawing_config(config, grey_pictures, monkeypatch) -> Config:
    """tiny.yaml, for runs with pictures."""
    monkeypatch.setattr(loop, "draw_tsms", draw_run.draw_tsms)
    monkeypatch.setattr(loop, "draw_curves", draw_run.draw_curves)
    return config


@pytest.fixture
def annotations(workplace) -> dict[str, dict]:
    """Segments that cover every second third of each tiny video, at 2 snippets a second."""
    database = {}
    for path in sorted((workplace / "HACS_DATA").glob("*/*.npy")):
        length = len(np.load(path))
        database[path.stem] = {
            "subset": path.parent.name,
            "duration": str(length / 2),
            "annotations": [{"label": "x", "segment": [length / 6, length / 3]}],
        }
    return database

"""The demo's data set: what it holds, and where it is never written."""

import hashlib
import resource

import numpy as np
import pytest

from sola.data.labels import label_folder, read_labels
from sola.data.synthetic import ACTION, LENGTHS, VIDEOS, write_synthetic
from sola.data.videos import SPLITS, BadFiles, open_split
from sola.errors import SolaError


def write(tmp_path, **options):
    write_synthetic(
        tmp_path / "demo/features", tmp_path / "demo/labels", **({"feature_dim": 32} | options)
    )


def read(tmp_path, split):
    """Videos and labels of a split that was written."""
    bad_files = BadFiles("error")
    videos = open_split(tmp_path / "demo/features", split, 32, bad_files).videos
    return videos, read_labels(label_folder(tmp_path / "demo/labels", split), videos, bad_files)


@pytest.fixture(autouse=True)
def _few_videos(monkeypatch):
    monkeypatch.setitem(VIDEOS, "training", 6)
    monkeypatch.setitem(VIDEOS, "validation", 3)


def test_layout_lengths_and_labels(tmp_path):
    write(tmp_path)
    for split in SPLITS:
        videos, labels = read(tmp_path, split)
        assert len(videos) == VIDEOS[split]
        for video, array in videos.items():
            assert LENGTHS[0] <= array.length <= LENGTHS[1]
            assert 0 < labels[video].mean() < 1
    assert not list(tmp_path.glob(".*"))


def test_features_are_what_the_model_says(tmp_path, monkeypatch):
    """Action shifts the mean by its length; neighbours share the drift but not the noise."""
    monkeypatch.setitem(VIDEOS, "training", 60)
    write(tmp_path)
    videos, labels = read(tmp_path, "training")
    x = np.concatenate([video.read() for video in videos.values()])
    y = np.concatenate(list(labels.values()))
    shift = x[y].mean(axis=0) - x[~y].mean(axis=0)
    # mixing has expected gain sqrt(C / latents) on any direction
    assert np.linalg.norm(shift) == pytest.approx(ACTION * (32 / 24) ** 0.5, rel=0.25)
    near = np.mean([np.mean(v.read()[1:] * v.read()[:-1]) for v in videos.values()])
    assert 0.1 < near / x.var() < 0.6


def test_written_once_and_the_same_for_ever(tmp_path):
    """A demo that is there goes on with its files; labels, by their hash, never change."""
    write(tmp_path)
    path = tmp_path / "demo/features/training/training_003.npy"
    first, written = path.read_bytes(), path.stat().st_mtime_ns
    write(tmp_path)
    assert path.stat().st_mtime_ns == written
    write_synthetic(tmp_path / "two/features", tmp_path / "two/labels", feature_dim=32)
    assert (tmp_path / "two/features/training/training_003.npy").read_bytes() == first
    labels = (tmp_path / "demo/labels/training_label/training_003.npy").read_bytes()
    assert hashlib.sha256(labels).hexdigest()[:16] == "a0b85b41bb720a49"
    with pytest.raises(SolaError, match="other settings"):
        write(tmp_path, feature_dim=16)


def test_never_into_a_folder_of_other_files(tmp_path):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "thesis.txt").write_text("mine")
    with pytest.raises(SolaError, match="holds other files"):
        write(tmp_path)
    assert [path.name for path in (tmp_path / "demo").iterdir()] == ["thesis.txt"]


def test_a_killed_run_leaves_nothing_that_counts(tmp_path, monkeypatch):
    def dies(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", dies)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path)
    assert not (tmp_path / "demo").exists()
    (tmp_path / "demo").mkdir()  # empty: may be used
    write(tmp_path)
    assert len(list((tmp_path / "demo/features/training").iterdir())) == 6


def test_a_full_disk_is_named(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(SolaError, match=r"training_000\.npy: cannot write its \d+ bytes"):
            write(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (tmp_path / "demo").exists()

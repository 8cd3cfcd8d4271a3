"""Labels of snippets, and those that do not fit."""

import numpy as np
import pytest

from sola.data.features import open_features
from sola.data.labels import has_labels, read_labels
from sola.data.videos import (
    BadFiles,
)
from sola.errors import DataError

STRICT = BadFiles("error")
VALUES = np.arange(60).reshape(12, 5) / 7


@pytest.mark.parametrize("dtype", [bool, np.int64, np.float32, np.uint8])
def test_action_is_label_one(tmp_path, dtype):
    np.save(tmp_path / "v.npy", VALUES[:4])
    np.save(tmp_path / "labels.npy", np.array([0, 1, 1, 0], dtype))
    (tmp_path / "label").mkdir()
    (tmp_path / "labels.npy").rename(tmp_path / "label" / "v.npy")
    labels = read_labels(tmp_path / "label", {"v": open_features(tmp_path / "v.npy")}, STRICT)
    assert labels["v"].tolist() == [False, True, True, False]


@pytest.mark.parametrize(
    ("files", "said"),  # labels of a, b and c
    [
        ([[0, 1, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0]], None),
        ([np.array([0, 1, 0, 1.0]), np.array([True, False, True, False])], None),
        ([[0, 1, 0, 1], [2, 1, 0, 2], [0, 255, 0, 0]], "0, 1, 2, 255 (in 2 files, first {}/b"),
        ([[3, 3, 3, 3]], "3 (in 1 files, first {}/a"),
        (
            [[1.0, 0.5, np.nan, np.nan], [-1, 0, 1, 1]],
            "-1, 0, 0.5, 1, nan (in 2 files, first {}/a",
        ),
        (
            [[0, 1, 0.25, 0.5], [3, 4, 5, 6]],
            "0, 0.25, 0.5, 1, 3, others (in 2 files, first {}/a",
        ),
    ],
)
def test_other_label_values_are_said_and_are_not_action(tmp_path, capsys, files, said):
    folder = tmp_path / "label"
    folder.mkdir()
    videos = {}
    for video, values in zip("abc", files, strict=False):
        np.save(tmp_path / f"{video}.npy", VALUES[:4])
        np.save(folder / f"{video}.npy", values)
        videos[video] = open_features(tmp_path / f"{video}.npy")
    labels = read_labels(folder, videos, STRICT)
    for video, values in zip("abc", files, strict=False):
        assert labels[video].tolist() == [value == 1 for value in values]
    line = f"warning: labels hold {said}.npy); 1 alone counts as action\n" if said else ""
    assert capsys.readouterr().out == line.format(folder)


@pytest.mark.parametrize(
    "labels", [np.zeros(3), np.zeros(5), np.zeros((4, 1)), np.array(["a"] * 4)]
)
def test_labels_that_do_not_fit_are_refused(tmp_path, labels):
    np.save(tmp_path / "v.npy", VALUES[:4])
    (tmp_path / "label").mkdir()
    np.save(tmp_path / "label" / "v.npy", labels)
    with pytest.raises(DataError, match=r"label/v\.npy"):
        read_labels(tmp_path / "label", {"v": open_features(tmp_path / "v.npy")}, STRICT)


def test_a_label_folder_that_is_given_must_be_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not has_labels("evaluation")  # the usual one, which need not be there
    with pytest.raises(DataError, match="label_base: labels: no such folder"):
        has_labels("labels")
    (tmp_path / "labels").mkdir()
    assert not has_labels("labels")


def test_label_folders_come_in_pairs(tmp_path):
    assert not has_labels(tmp_path)
    (tmp_path / "training_label").mkdir()
    with pytest.raises(DataError, match="validation_label"):
        has_labels(tmp_path)
    (tmp_path / "validation_label").mkdir()
    assert has_labels(tmp_path)

"""Which files --features means, and the commands that mend what cannot be used."""

import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import torch

from sola.data.features import open_array, open_joined
from sola.data.videos import BadFiles, open_files
from sola.errors import BadFileError, DataError
from sola.prepare import __main__ as prepare
from sola.prepare.find import find_features


def run(*arguments, yaml="new.yaml"):
    prepare.main([f"--yaml_path={yaml}", *arguments])


def write(path: Path, database: dict) -> Path:
    path.write_text(json.dumps({"database": database}))
    return path


def save(path, array=None) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.ones((3, 4), np.float32) if array is None else array)


def paste(error: Exception) -> None:
    """Run the command that a message ends with, as a user would."""
    line = str(error).partition("; mend the file, or")[0]
    command = line[re.search(r"(find -L|python -c)", line).start() :]
    tools = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": tools, "PYTHONWARNINGS": "error"}
    assert "\n" not in command
    subprocess.run(["bash", "-c", command], env=environment, check=True)


def test_a_folder_without_splits(place):
    for name in ("f/b.npy", "f/a.npy", "f/.hidden.npy", "f/more/c.npy"):
        save(name)
    assert find_features([Path("f")]) == {"": {"a": ["f/a.npy"], "b": ["f/b.npy"]}}


@pytest.mark.parametrize(
    ("names", "expected", "notes"),
    [
        ("training validation", "training validation", []),
        ("Train VAL test", "Train VAL", []),
        ("TRAINING valid other", "TRAINING valid", []),
        ("train test", "train test", ["note: f/test: taken for validation"]),
        (
            "validation Testing",
            "validation Testing",
            ["note: f/Testing: taken for validation", "note: f/validation: taken for training"],
        ),
    ],
)
def test_folders_of_splits_in_their_usual_names(place, capsys, names, expected, notes):
    for name in names.split():
        save(f"f/{name}/of_{name}.npy")
    training, validation = expected.split()
    assert find_features([Path("f")]) == {
        "training": {f"of_{training}": [f"f/{training}/of_{training}.npy"]},
        "validation": {f"of_{validation}": [f"f/{validation}/of_{validation}.npy"]},
    }
    assert capsys.readouterr().out.splitlines() == notes


@pytest.mark.parametrize(
    ("there", "missing"), [("train", "validation"), ("val", "training"), ("test", "training")]
)
def test_one_split_without_the_other_is_refused(place, there, missing):
    save(f"f/{there}/a.npy")
    with pytest.raises(DataError, match=f"f/{missing}: no such folder, though the other"):
        find_features([Path("f")])


def test_several_folders_are_matched_by_video_also_where_one_lacks_it(place):
    for name in ("rgb/train/x/a", "rgb/val/b", "flow/TRAIN/a", "flow/valid/c"):
        save(f"{name}.npy")
    assert find_features([Path("rgb"), Path("flow")]) == {
        "training": {"a": ["rgb/train/x/a.npy", "flow/TRAIN/a.npy"]},
        "validation": {
            "b": ["rgb/val/b.npy", "flow/validation/b.npy"],
            "c": ["rgb/validation/c.npy", "flow/valid/c.npy"],
        },
    }
    save("flat/a.npy")
    with pytest.raises(DataError, match="flat/training: no such folder"):
        find_features([Path("rgb"), Path("flat")])


def test_folders_of_classes_are_taken_together(place):
    for name in ("f/jump/b", "f/Dive/a", "f/.trash/z"):
        save(f"{name}.npy")
    Path("f/empty").mkdir()
    assert find_features([Path("f")]) == {"": {"a": ["f/Dive/a.npy"], "b": ["f/jump/b.npy"]}}
    save("f/jump/a.npy")
    with pytest.raises(DataError, match=r"f/jump/a\.npy and f/Dive/a\.npy have one name"):
        find_features([Path("f")])


@pytest.mark.parametrize("splits", [[""], ["train", "val/some class"]])
def test_rgb_and_flow_in_one_folder_are_separated_by_the_command(place, splits):
    folder = Path("it's mine")
    for number, split in enumerate(splits):
        for kind, width in (("rgb", 4), ("flow", 2)):
            save(folder / split / f"v_1_{number}_{kind}.npy", np.full((5, width), number))
        save(folder / split / f"odd{number}.npy")
    with pytest.raises(DataError, match=r"1 videos, as v_1_0_rgb, .*--features=rgb,flow") as error:
        find_features([folder])
    paste(error.value)
    found = find_features([Path("rgb"), Path("flow")])
    videos = [v for split in found.values() for v in split]
    assert videos == [f"v_1_{number}" for number in range(len(splits))]
    last = open_joined([*found.values()][-1][videos[-1]])
    assert last.shape == (5, 6)
    np.testing.assert_array_equal(last.read(), np.full((5, 6), len(splits) - 1))


def test_a_few_such_pairs_are_names_like_others(place):
    for name in ("a_rgb", "a_flow", *"bcdef"):
        save(f"f/{name}.npy")
    assert len(find_features([Path("f")])[""]) == 7


VALUES = {
    name: np.random.default_rng(k).random((3 + k, 2), np.float32) for k, name in enumerate("ab")
}


def write_as(suffix: str, path: Path, values: np.ndarray) -> None:
    with open(path, "wb") as file:
        if suffix == ".npz":
            np.savez(file, features=values, other=np.ones(3))
        elif suffix in (".pt", ".pth"):
            torch.save(torch.tensor(values, requires_grad=True), file)
        elif suffix in (".pkl", ".pickle"):
            pickle.dump(values.tolist(), file)
        elif suffix in (".h5", ".hdf5"):
            with h5py.File(file, "w") as content:
                content["features"] = values
        elif suffix == ".csv":
            np.savetxt(file, values, delimiter=",")
        elif suffix == ".mat":
            scipy.io.savemat(file, {"feature": values})


SUFFIXES = [".npz", ".pt", ".pkl", ".pickle", ".h5", ".hdf5", ".csv", ".mat"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_command_for_other_formats_writes_npy_files_beside(place, suffix):
    folder = Path("of mine/inner")
    folder.mkdir(parents=True)
    for name, values in VALUES.items():
        write_as(suffix, folder / f"{name}.1{suffix}", values)
    (folder / "list.csv").write_text("a, b, c\n" if suffix != ".csv" else "1,2\n")
    count = 3 if suffix == ".csv" else 2
    words = rf"of mine: holds no \.npy files, {count} of \{suffix}; .*"
    words += {".pkl": "only of files you trust"}.get(suffix, "")
    with pytest.raises(DataError, match=words) as error:
        find_features([Path("of mine")])
    paste(error.value)
    found = find_features([Path("of mine")])[""]
    for name, values in VALUES.items():
        assert found[f"{name}.1"] == [f"{folder}/{name}.1.npy"]
        np.testing.assert_array_equal(open_joined(found[f"{name}.1"], 2).read(), values)


@pytest.mark.parametrize("suffix", [".h5", ".hdf5"])
def test_each_data_set_of_a_file_becomes_one(place, suffix):
    Path("f").mkdir()
    with h5py.File(f"f/all{suffix}", "w") as content:
        content.update(VALUES)
    with pytest.raises(DataError, match=rf"f/all\{suffix}: is a file, 1 of \{suffix}") as error:
        find_features([Path(f"f/all{suffix}")])
    paste(error.value)
    assert find_features([Path("f")]) == {"": {"a": ["f/a.npy"], "b": ["f/b.npy"]}}
    np.testing.assert_array_equal(np.load("f/b.npy"), VALUES["b"])


def test_what_holds_nothing_of_use_is_named(place):
    Path("f/train").mkdir(parents=True)
    save("f/val/a.npy")
    Path("f/train/a.mp4").write_bytes(b"")
    Path("f/gone").symlink_to("f/gone")
    with pytest.raises(DataError, match=r"f/train: holds no \.npy files; name a folder of <video>"):
        find_features([Path("f")])
    with pytest.raises(DataError, match=r"f/val/a\.npy: is a file; name a folder of <video>"):
        find_features([Path("f/val/a.npy")])
    for name in ("nowhere", "f/gone"):
        with pytest.raises(DataError, match=f"--features: {name}: no such folder"):
            find_features([Path(name)])


def test_a_link_to_nothing_says_where_it_leads(place):
    Path("f").mkdir()
    Path("f/a.npy").symlink_to("../gone/a.npy")
    words = f"f/a.npy: is a link to {place}/gone/a.npy, which is not there; run prepare again"
    with pytest.raises(BadFileError, match=re.escape(words)):
        open_array("f/a.npy")


@pytest.mark.parametrize(("bad", "is_refused"), [(2, False), (3, True), (4, True)])
def test_more_than_half_is_not_skipped(place, bad, is_refused):
    paths = {f"v{number}": [f"v{number}.npy"] for number in range(4)}
    for number, (path,) in enumerate(paths.values()):
        if number < bad:
            Path(path).write_text("no")
        else:
            save(path)
    if is_refused:
        words = (
            rf"mine: {bad} of 4 videos cannot be used, more than half; the first, v0\.npy: not a"
        )
        with pytest.raises(DataError, match=words):
            open_files(paths, "mine", None, BadFiles("skip"))
    else:
        assert list(open_files(paths, "mine", None, BadFiles("skip"))) == ["v2", "v3"]

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

from sola.data.features import open_array, open_features, open_joined
from sola.data.videos import BadFiles, open_files, video_paths
from sola.errors import BadFileError, DataError, SolaError
from sola.prepare import __main__ as prepare
from sola.prepare.find import check_axes, find_features


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


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


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


def opened(shapes, folder="f", parts=1):
    """Videos of the given shapes, in several files each of them."""
    for number, shape in enumerate(shapes):
        for part in range(parts):
            save(f"{folder}/{part}/v{number}.npy", np.arange(np.prod(shape)).reshape(shape))
    paths = video_paths([Path(folder, str(p)) for p in range(parts)])
    return open_files(paths, folder, None, BadFiles("error"))


@pytest.mark.parametrize("parts", [1, 2])
def test_channels_first_is_refused_with_the_command_that_transposes(place, parts):
    videos = opened([(16, 30), (16, 40), (16, 30)], parts=parts)  # two of three alike: a width
    assert check_axes(videos) == []
    videos = opened([(16, 30), (16, 40), (16, 30), (16, 50)], "my f", parts)
    words = r"my f/0: all files are \[16, T\], channels first, where \[T, C\] is wanted"
    with pytest.raises(DataError, match=words) as error:
        check_axes(videos)
    paste(error.value)
    mended = open_features("my f/0_transposed/v1.npy")
    assert not mended.fortran_order
    np.testing.assert_array_equal(mended.read(), np.load("my f/0/v1.npy").T)
    assert len(list(Path("my f/0_transposed").iterdir())) == 4


def test_all_folders_of_channels_first_are_transposed_together(place):
    shapes = {"train/x/a": (8, 9), "train/y/b": (8, 7), "val/c": (8, 6)}
    for name, shape in shapes.items():
        save(f"f/{name}.npy", np.ones(shape))
    found = find_features([Path("f")])
    both = {v: open_joined(paths) for part in found.values() for v, paths in part.items()}
    with pytest.raises(DataError, match=r"^f: all files are \[8, T\]") as error:
        check_axes(both)
    paste(error.value)
    for name, shape in shapes.items():
        assert np.load(f"f_transposed/{name}.npy").shape == shape[::-1]


@pytest.mark.parametrize("shapes", [[(16, 30), (16, 40)], [(30, 16), (40, 16), (50, 16)]])
def test_two_files_or_other_lengths_say_nothing(place, shapes):
    assert check_axes(opened(shapes)) == []


def test_files_of_one_size_are_noted_with_it(place):
    (note,) = check_axes(opened([(100, 400)] * 3))
    assert note.startswith("note: f/0: all 3 files are [100, 400], taken as [T, C]; transpose them")
    assert check_axes(opened([(100, 400)] * 2)) != []  # the third is still there
    assert len(check_axes(opened([(9, 4)] * 3, "g", parts=2))) == 2


@pytest.mark.parametrize("shape", [(1, 5, 4), (5, 1, 1, 4), (5, 4, 1), (1, 1, 5, 1, 4)])
def test_axes_of_one_are_squeezed_by_the_command(place, shape):
    values = np.arange(20).reshape(shape)
    save("f/a.npy", values)
    save("f/good.npy", values.reshape(5, 4))
    with pytest.raises(BadFileError, match=r"f/a\.npy: holds int64 .*, not features \[T, C\]") as e:
        open_features("f/a.npy")
    paste(e.value)
    for name in ("a", "good"):
        np.testing.assert_array_equal(np.load(f"f_squeezed/{name}.npy"), values.reshape(5, 4))


@pytest.mark.parametrize("shape", [(2, 5, 4), (1, 1, 4), (4,), (1, 4, 3, 2)])
def test_other_ranks_have_no_command(place, shape):
    save("f/a.npy", np.ones(shape))
    with pytest.raises(BadFileError, match=r"not features \[T, C\]; mend the file"):
        open_features("f/a.npy")


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


def files_in(folder) -> dict[str, Path]:
    return {path.name: path for path in Path(folder).rglob("*.npy")}


@pytest.mark.usefixtures("workplace")
def test_copies_are_made_in_place_of_links(capsys):
    run("--features=HACS_DATA", "--copy", yaml="new.yaml")
    copies = files_in("new_data/features")
    assert len(copies) == 21
    assert len(files_in("new_data/visualizing")) == 6
    for path in (*copies.values(), *files_in("new_data/visualizing").values()):
        source = files_in("HACS_DATA")[path.name]
        assert not path.is_symlink()
        assert path.stat().st_mtime_ns == source.stat().st_mtime_ns
        assert path.read_bytes() == source.read_bytes()
    before = {path: path.stat().st_ino for path in copies.values()}
    run("--features=HACS_DATA", "--copy")
    assert "is there already, with the same content" in capsys.readouterr().out
    os.utime(copies["t5.npy"], (0, 0))  # as a disk that keeps no times
    run("--features=HACS_DATA", "--copy")
    assert before == {path: path.stat().st_ino for path in copies.values()}
    with pytest.raises(SolaError, match=r"lies in new_data, which is made anew"):
        run("--features=new_data/features", "--copy", "--overwrite")
    with pytest.raises(SolaError, match=r"other content; --overwrite"):  # they are no links
        run("--features=HACS_DATA")
    copies["t5.npy"].unlink()
    copies["t5.npy"].symlink_to(files_in("HACS_DATA")["t5.npy"].resolve())
    with pytest.raises(SolaError, match=r"training/t5\.npy: is missing or has other content"):
        run("--features=HACS_DATA", "--copy")
    run("--features=HACS_DATA", "--copy", "--overwrite")
    copies["t6.npy"].write_bytes(copies["t6.npy"].read_bytes()[:-1] + b"!")
    with pytest.raises(SolaError, match=r"training/t6\.npy: is missing or has other content"):
        run("--features=HACS_DATA", "--copy")


def test_the_copies_of_a_yaml_that_is_there(workplace):
    (workplace / "visualizing/v6.npy").unlink()
    run("--copy", yaml="tiny.yaml")
    drawn = files_in("visualizing")
    assert len(drawn) == 6
    for name, path in drawn.items():
        assert not path.is_symlink()
        assert path.read_bytes() == (workplace / "HACS_DATA/validation" / name).read_bytes()
    assert not list(workplace.rglob("*.tmp"))


def test_where_links_cannot_be_made_copies_are_named(workplace, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    with pytest.raises(SolaError, match=r"Operation not permitted; --copy makes copies"):
        run("--features=HACS_DATA")
    run("--features=HACS_DATA", "--copy")
    assert len(files_in("new_data/features")) == 21


def test_stale_labels_are_set_aside_whole_with_overwrite(workplace, annotations):
    (workplace / "evaluation").rename(workplace / "given")
    run(f"--annotations={write(workplace / 'a.json', annotations)}", "--fps=2", yaml="tiny.yaml")
    del annotations["t5"]
    again = [f"--annotations={write(workplace / 'b.json', annotations)}", "--fps=2"]
    (workplace / "HACS_DATA/training_subset_list.pkl").unlink()
    run(*again, yaml="tiny.yaml")
    assert (workplace / "evaluation/training_label/t5.npy").exists()  # it stays as it is
    (workplace / "evaluation/validation_label/v6.npy").unlink()
    (workplace / "HACS_DATA/training_subset_list.pkl").unlink()
    run(*again, "--overwrite", yaml="tiny.yaml")
    (aside,) = (workplace / "evaluation").glob("*_until_*")
    assert aside.name.startswith("training_label_until_")
    assert (aside / "t5.npy").exists()
    assert len(files_in(aside)) == 13
    made = files_in("evaluation/training_label")
    assert sorted(made) == sorted(f"t{number}.npy" for number in range(13) if number != 5)
    assert len(files_in("evaluation/validation_label")) == 8
    run(*again, "--overwrite", yaml="tiny.yaml")
    assert len(list((workplace / "evaluation").glob("*_until_*"))) == 1

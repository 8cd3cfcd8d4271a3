"""What prepare writes: all of it or nothing, and never over anything of the user's."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from helpers import REPOSITORY, contents, flat_folder, two_folders, write_index_files
from test_annotations import write
from test_prepare import run

from sola.errors import SolaError

DIES = """
import os, sys
from sola.prepare.__main__ import main
name, count = sys.argv[1], int(sys.argv[2])
function = getattr(os, name)
def dies(*arguments, **options):
    global count
    count -= 1
    return function(*arguments, **options) if count else os._exit(9)
setattr(os, name, dies)
main(sys.argv[3:])
"""
HOLDS = """
import sys
from sola.system.files import only_user_of
with only_user_of(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def links(folder):
    return sorted(path.name for path in folder.iterdir() if path.is_symlink())


def python(code, *arguments, **options):
    """Another process, to be used in a with statement."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", code, *arguments], env=environment, **options)


def set_aside(workplace, name):
    return sorted(workplace.glob(f"{name}_until_*"))


def test_the_same_command_again_changes_nothing(workplace, annotations, capsys):
    file = write(workplace / "a.json", annotations)
    arguments = [flat_folder(workplace), f"--annotations={file}"]
    run(*arguments)
    before = contents(workplace)
    times = {path: path.lstat().st_mtime_ns for path in (workplace / "new_data").rglob("*")}
    run(*arguments)
    run(*arguments, "--overwrite")
    assert contents(workplace) == before
    assert times == {p: p.lstat().st_mtime_ns for p in (workplace / "new_data").rglob("*")}
    assert capsys.readouterr().out.count("new_data: is there already, with the same content") == 2


@pytest.mark.parametrize("kind", ["other", "missing", "label", "too_many", "elsewhere", "folder"])
def test_a_data_folder_of_other_content_is_refused_and_never_lost(workplace, annotations, kind):
    write(workplace / "a.json", annotations)
    arguments = ["--features=HACS_DATA", "--annotations=a.json"]
    run(*arguments)
    wanted = contents(workplace / "new_data")
    features, labels = workplace / "new_data/features", workplace / "new_data/labels"
    if kind == "other":
        (features / "training_duration.pkl").write_bytes(b"precious")
    elif kind == "label":
        np.save(labels / "training_label/t5.npy", np.zeros(3))
    elif kind == "too_many":
        (features / "training/mine.txt").write_text("precious")
    elif kind == "folder":  # a linked folder is never written into
        labels.rename(workplace / "labels")
        labels.symlink_to(workplace / "labels")
    else:
        (features / "training/t5.npy").unlink()
        if kind == "elsewhere":
            (features / "training/t5.npy").symlink_to(workplace / "HACS_DATA/training/t6.npy")
    before, old = contents(workplace), contents(workplace / "new_data")
    with pytest.raises(SolaError, match=r"^new_data/.*; --overwrite makes new_data anew"):
        run(*arguments)
    assert contents(workplace) == before
    run(*arguments, "--overwrite")
    assert contents(workplace / "new_data") == wanted
    (aside,) = set_aside(workplace, "new_data")
    assert contents(aside) == old
    assert not list(workplace.glob(".*"))


def test_a_yaml_of_other_content_is_refused_and_never_lost(workplace):
    before = (workplace / "tiny.yaml").read_bytes()
    with pytest.raises(SolaError, match=r"^tiny\.yaml: has other content; --overwrite makes tiny"):
        run("--features=HACS_DATA", yaml="tiny.yaml")
    assert not (workplace / "tiny_data").exists()
    run("--features=HACS_DATA", "--overwrite", yaml="tiny.yaml")
    run("--features=HACS_DATA", "--overwrite", "epoch=3", yaml="tiny.yaml")
    asides = set_aside(workplace, "tiny.yaml")  # two, though perhaps of the same second
    assert len(asides) == 2
    assert before in [path.read_bytes() for path in asides]
    assert "epoch: 3\n" in (workplace / "tiny.yaml").read_text()
    assert not set_aside(workplace, "tiny_data")


def test_what_is_no_longer_so_does_not_stay(workplace, annotations):
    write(workplace / "a.json", annotations)
    arguments = [flat_folder(workplace), "--annotations=a.json", "--overwrite"]
    run(*arguments)
    annotations["t5"]["subset"] = "validation"
    write(workplace / "a.json", annotations)
    (workplace / "flat/v_v6.npy").unlink()
    run(*arguments)
    data = workplace / "new_data"
    training, validation = (links(data / f"features/{s}") for s in ("training", "validation"))
    assert training == sorted(f"v_t{i}.npy" for i in range(13) if i != 5)
    assert validation == sorted(["v_t5.npy", *(f"v_v{i}.npy" for i in range(8) if i != 6)])
    assert set(links(data / "visualizing")) <= set(validation)
    assert (data / "features/missing_files.txt").read_text() == "v6\n"
    run("--features=flat", "--overwrite")
    assert not [*(data / "labels").iterdir()]
    assert len(links(data / "features/validation")) == 2  # a tenth
    assert len(links(data / "features/training")) == 18
    for link in data.glob("*/**/*.npy"):
        assert not os.path.isabs(os.readlink(link))
        assert link.resolve() == (workplace / "flat" / link.name).resolve()


def test_features_in_the_data_folder_are_refused(workplace):
    (workplace / "HACS_DATA/training/t5.npy").unlink()
    np.save(workplace / "HACS_DATA/training/t5.npy", np.ones((40, 16), np.float32))
    (workplace / "HACS_DATA").rename(workplace / "new_data")
    before = contents(workplace)
    with pytest.raises(SolaError, match=r"t5\.npy: lies in new_data, .* another name"):
        run("--features=new_data", "--overwrite")
    assert contents(workplace) == before


@pytest.mark.parametrize(
    ("function", "call"), [("symlink", 9), ("rename", 1), ("rename", 2), ("rename", 3)]
)
def test_a_killed_run_leaves_the_old_or_the_new(workplace, annotations, function, call):
    """Killed while links are made, before the YAML is set aside, and then before each rename."""
    write(workplace / "a.json", annotations)
    run("--features=HACS_DATA", "--annotations=a.json")
    old = contents(workplace / "new_data")
    del annotations["t5"]
    write(workplace / "a.json", annotations)
    again = ["--features=HACS_DATA", "--annotations=a.json", "--overwrite", "epoch=3"]
    with python(DIES, function, str(call), "--yaml_path=new.yaml", *again) as process:
        assert process.wait() == 9
    places = [workplace / "new_data", *set_aside(workplace, "new_data")]
    found = [contents(place) for place in places if place.exists()]
    (earlier,) = set_aside(workplace, "new.yaml") or [workplace / "new.yaml"]
    assert "epoch: 500\n" in earlier.read_text()
    assert (workplace / "new.yaml").exists() == (function == "symlink" or call == 1)
    run(*again)
    new = contents(workplace / "new_data")
    assert "epoch: 3\n" in (workplace / "new.yaml").read_text()
    assert found == [old]
    (aside,) = set_aside(workplace, "new_data")
    assert contents(aside) == old != new
    assert not (workplace / ".new_data.tmp").exists()


@pytest.mark.parametrize(
    ("place", "yaml", "argument"),
    [
        ("new_data", "new.yaml", "--features=HACS_DATA"),
        ("evaluation", "tiny.yaml", "--annotations=a.json"),
        ("HACS_DATA/training_duration.pkl", "tiny.yaml", "--fps=2"),
    ],
)
def test_two_at_a_time_are_refused(workplace, annotations, place, yaml, argument):
    write(workplace / "a.json", annotations)
    (workplace / "evaluation").rename(workplace / "given")
    before = contents(workplace)
    with python(HOLDS, place, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(SolaError, match=f"{place}: in use by process {other.pid}"):
            run(argument, yaml=yaml)
    assert contents(workplace) == before
    run(argument, yaml=yaml)


def test_index_files_that_are_there_stay_and_are_held_against_the_data(
    workplace, annotations, capsys
):
    write_index_files(workplace)
    (workplace / "evaluation").rename(workplace / "given")
    arguments = ["--annotations=a.json"]
    write(workplace / "a.json", {v: e for v, e in annotations.items() if v != "t5"})
    with pytest.raises(SolaError, match=r"training_subset_list\.pkl: 1 of its 13 .* first t5"):
        run(*arguments, yaml="tiny.yaml")
    write(workplace / "a.json", annotations)
    subset = workplace / "HACS_DATA/training_subset_list.pkl"
    durations = workplace / "HACS_DATA/training_duration.pkl"
    listed = pickle.loads(durations.read_bytes())
    durations.write_bytes(pickle.dumps(listed | {"t6.npy": 99}))
    with pytest.raises(
        SolaError, match=r"t6\.npy: has .* where HACS_DATA/training_duration\.pkl says"
    ):
        run(*arguments, yaml="tiny.yaml")
    assert not (workplace / "evaluation").exists()
    subset.write_bytes(pickle.dumps(["t5", "t6"], protocol=2))
    durations.write_bytes(pickle.dumps(listed | {"gone.npy": 30}, protocol=2))
    before = contents(workplace / "HACS_DATA")
    run(*arguments, yaml="tiny.yaml")
    assert contents(workplace / "HACS_DATA") == before
    assert "training_subset_list.pkl: stays as it is" in capsys.readouterr().out
    run(*arguments, "--overwrite", yaml="tiny.yaml")
    assert pickle.loads(subset.read_bytes()) == ["t5", "t6"]
    assert pickle.loads(durations.read_bytes()) == listed


def test_labels_that_are_there_stay_unless_overwritten(workplace, annotations):
    (workplace / "evaluation").rename(workplace / "given")
    arguments = [f"--annotations={write(workplace / 'a.json', annotations)}"]
    run(*arguments, yaml="tiny.yaml")
    labels = workplace / "evaluation/training_label"
    wanted = np.load(labels / "t5.npy")
    np.save(labels / "t5.npy", wanted.astype(np.int8))  # the same labels
    run(*arguments, yaml="tiny.yaml")
    assert np.load(labels / "t5.npy").dtype == np.int8
    assert links(workplace / "visualizing") == ["v6.npy"]  # the user's own choice
    np.save(labels / "t5.npy", np.zeros(3))
    (labels / "t6.npy").unlink()
    with pytest.raises(SolaError, match=r"training_label/t5\.npy: has other content; --overwrite"):
        run(*arguments, yaml="tiny.yaml")
    assert not (labels / "t6.npy").exists()  # nothing is half done
    run(*arguments, "--overwrite", yaml="tiny.yaml")
    assert np.array_equal(np.load(labels / "t5.npy"), wanted)
    (labels / "t6.npy").unlink()
    (labels / "t6.npy").mkdir()
    with pytest.raises(SolaError, match=r"t6\.npy: is a folder where a file is to be written"):
        run(*arguments, "--overwrite", yaml="tiny.yaml")


def test_leftovers_of_a_killed_run_are_cleared(workplace, annotations):
    write(workplace / "a.json", annotations)
    for name in (".new.yaml.tmp", "..new.yaml.tmp.12345678.tmp"):
        (workplace / name).touch()
    run("--features=HACS_DATA", "--annotations=a.json")
    places = ["HACS_DATA/.training_duration.pkl", "evaluation/training_label/.t5.npy"]
    (workplace / "evaluation/training_label/t5.npy").unlink()
    for place in places:
        (workplace / f"{place}.12345678.tmp").touch()
    run("--annotations=a.json", "--fps=2", "--overwrite", yaml="tiny.yaml")
    assert not list(workplace.rglob("*.tmp"))


def test_missing_files_of_a_data_root_are_listed_and_taken_off_again(workplace, annotations):
    arguments = [f"--annotations={write(workplace / 'a.json', annotations)}", "--overwrite"]
    path = workplace / "HACS_DATA/training/t5.npy"
    for place, text in ((workplace / "t5.npy", "t5\n"), (path, "")):
        path = path.rename(place)
        run(*arguments, yaml="tiny.yaml")
        assert (workplace / "HACS_DATA/missing_files.txt").read_text() == text


def test_joined_videos_are_drawn_from_as_many_folders(workplace):
    two_folders(workplace)
    run("--features=rgb,flow")
    data = workplace / "new_data"
    assert links(data / "visualizing") == links(data / "visualizing_2")
    assert os.readlink(data / "visualizing_2/v0.npy") == "../../flow/validation/v0.npy"
    (workplace / "visualizing/v6.npy").unlink()
    run("data_root=rgb,flow", yaml="tiny.yaml")  # of one visualizing_dir: none is picked
    assert not list((workplace / "visualizing").iterdir())
    run(yaml="tiny.yaml")
    assert len(links(workplace / "visualizing")) == 6

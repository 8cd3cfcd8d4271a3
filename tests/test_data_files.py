"""What prepare writes: all, or nothing where something is in the way."""

import pickle

import numpy as np
import pytest
from conftest import contents, flat_folder, two_folders, write_index_files
from test_annotations import write
from test_prepare import run

from sola.system.cli import SolaError


def links(folder):
    return sorted(path.name for path in folder.iterdir() if path.is_symlink())


def test_a_users_file_is_never_replaced_by_a_link(workplace):
    path = workplace / "new_data/features/training/t5.npy"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"precious")
    with pytest.raises(SolaError, match=r"t5\.npy: is a file where a link is to be made"):
        run("--features=HACS_DATA", "--overwrite")
    assert path.read_bytes() == b"precious"
    assert not (workplace / "new.yaml").exists()


def test_the_same_command_again_changes_nothing(workplace, annotations, capsys):
    arguments = [
        flat_folder(workplace),
        f"--annotations={write(workplace / 'a.json', annotations)}",
    ]
    run(*arguments)
    before = contents(workplace)
    run(*arguments)
    assert contents(workplace) == before
    assert "0 files and 0 links written" in capsys.readouterr().out
    (workplace / "new_data/features/training/old.npy").symlink_to(workplace / "flat/v_t5.npy")
    with pytest.raises(SolaError, match=r"old\.npy: leads to what is no longer wanted"):
        run(*arguments)


def test_a_video_of_another_split_is_not_left_in_the_former(workplace, annotations):
    arguments = [
        flat_folder(workplace),
        f"--annotations={write(workplace / 'a.json', annotations)}",
    ]
    run(*arguments)
    annotations["t5"]["subset"] = "validation"
    del annotations["v6"]
    write(workplace / "a.json", annotations)
    (workplace / "flat/v_v6.npy").unlink()
    before = contents(workplace)
    with pytest.raises(SolaError, match="--overwrite"):
        run(*arguments)
    assert contents(workplace) == before
    (workplace / "new_data/features/training/mine.txt").write_text("precious")
    run(*arguments, "--overwrite")
    data = workplace / "new_data"
    training = links(data / "features/training")
    validation = links(data / "features/validation")
    assert training == sorted(f"v_t{i}.npy" for i in range(13) if i != 5)
    assert validation == sorted(["v_t5.npy", *(f"v_v{i}.npy" for i in range(8) if i != 6)])
    assert set(links(data / "visualizing")) <= set(validation)
    assert len(links(data / "visualizing")) == 6
    assert (data / "features/training/mine.txt").read_text() == "precious"


def test_index_files_of_the_original_stay(workplace, annotations, capsys):
    write_index_files(workplace)
    subset = workplace / "HACS_DATA/training_subset_list.pkl"
    durations = workplace / "HACS_DATA/training_duration.pkl"
    listed = pickle.loads(durations.read_bytes())
    subset.write_bytes(pickle.dumps(["t5", "t6"], protocol=2))
    durations.write_bytes(pickle.dumps(listed | {"gone.npy": 30}, protocol=2))
    before = contents(workplace / "HACS_DATA")
    (workplace / "evaluation").rename(workplace / "given")
    file = write(workplace / "a.json", annotations)
    run(f"--annotations={file}", yaml="tiny.yaml")
    assert contents(workplace / "HACS_DATA") == before
    assert "training_subset_list.pkl: stays as it is" in capsys.readouterr().out
    run(f"--annotations={file}", "--overwrite", yaml="tiny.yaml")
    assert pickle.loads(subset.read_bytes()) == ["t5", "t6"]
    assert pickle.loads(durations.read_bytes()) == listed


def test_index_files_that_stay_are_held_against_the_data(workplace, annotations):
    write_index_files(workplace)
    (workplace / "evaluation").rename(workplace / "given")
    del annotations["t5"]
    file = write(workplace / "a.json", annotations)
    with pytest.raises(SolaError, match=r"training_subset_list\.pkl: 1 of its 13 .* first t5"):
        run(f"--annotations={file}", yaml="tiny.yaml")
    durations = workplace / "HACS_DATA/training_duration.pkl"
    listed = pickle.loads(durations.read_bytes())
    durations.write_bytes(pickle.dumps(listed | {"t6.npy": 99}))
    with pytest.raises(SolaError, match=r"t6\.npy: has .* where the duration pickle says"):
        run(f"--annotations={file}", yaml="tiny.yaml")
    assert not (workplace / "evaluation").exists()


def test_what_is_no_longer_so_does_not_stay(workplace, annotations, capsys):
    file = write(workplace / "a.json", annotations)
    missing = workplace / "flat/v_t5.npy"
    arguments = [flat_folder(workplace), f"--annotations={file}", "--overwrite"]
    target = missing.resolve()
    missing.unlink()
    run(*arguments)
    listed = workplace / "new_data/features/missing_files.txt"
    assert listed.read_text() == "t5\n"
    missing.symlink_to(target)
    run(*arguments)
    assert listed.read_text() == ""
    assert "warning" not in capsys.readouterr().out
    run(arguments[0], "--overwrite")
    assert "warning: the labels in new_data/labels stay and are used" in capsys.readouterr().out


def test_labels_of_another_dtype_are_the_same_labels(workplace, annotations):
    (workplace / "evaluation").rename(workplace / "given")
    file = write(workplace / "a.json", annotations)
    run(f"--annotations={file}", yaml="tiny.yaml")
    label = workplace / "evaluation/training_label/t5.npy"
    np.save(label, np.load(label).astype(np.int8))
    run(f"--annotations={file}", yaml="tiny.yaml")
    assert np.load(label).dtype == np.int8


def test_a_linked_folder_is_not_written_into(workplace):
    (workplace / "elsewhere/training").mkdir(parents=True)
    (workplace / "new_data").mkdir()
    (workplace / "new_data/features").symlink_to(workplace / "elsewhere")
    with pytest.raises(SolaError, match="new_data/features: is a link"):
        run("--features=HACS_DATA", "--overwrite")
    assert not contents(workplace / "elsewhere")
    assert not (workplace / "new.yaml").exists()


def test_a_folder_in_the_way_is_met_before_anything_is_written(workplace, annotations):
    (workplace / "new_data/labels/validation_label/v7.npy").mkdir(parents=True)
    file = write(workplace / "a.json", annotations)
    before = contents(workplace)
    with pytest.raises(SolaError, match=r"v7\.npy: is a folder where a file"):
        run("--features=HACS_DATA", f"--annotations={file}", "--overwrite")
    assert contents(workplace) == before


def test_joined_videos_are_drawn_from_as_many_folders(workplace):
    two_folders(workplace)
    run("--features=rgb,flow")
    drawn = workplace / "new_data/visualizing"
    assert links(drawn) == links(workplace / "new_data/visualizing_2")
    (workplace / "visualizing/v6.npy").unlink()
    run("data_root=rgb,flow", yaml="tiny.yaml")  # of one visualizing_dir: none is picked
    assert not list((workplace / "visualizing").iterdir())

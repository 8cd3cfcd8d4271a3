"""prepare --copy, and label folders that are set aside."""

import os
from pathlib import Path

import pytest
from test_annotations import write
from test_prepare import run

from sola.errors import SolaError


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

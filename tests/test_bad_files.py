"""on_bad_file: one bad file among many ends the run by name, or is left out of everything."""

import json
import shutil

import numpy as np
import pytest
from helpers import replace, same, weights_after, without_seconds, write_index_files

from sola.errors import BadFileError, DataError
from sola.export.dump import export_features
from sola.records import read_records
from sola.training.loop import train


def spoil(path, kind):
    """Put a file in the place of the linked one."""
    features = np.load(path)
    path.unlink()
    if kind == "text":
        path.write_text("not found, try again later")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "dead link":
        path.symlink_to("nowhere.npy")
    elif kind == "truncated":
        np.save(path, features)
        path.write_bytes(path.read_bytes()[:-5])
    elif kind == "nan":
        features[-1, -1] = np.nan
        np.save(path, features)
    elif kind == "width":
        np.save(path, features[:, 1:])
    elif kind == "other length":
        np.save(path, np.ones(3))


SPOILT = {
    "HACS_DATA/training/t5.npy": "truncated",
    "HACS_DATA/training/t6.npy": "nan",
    "HACS_DATA/training/t7.npy": "width",
    "HACS_DATA/validation/v5.npy": "text",
    "HACS_DATA/validation/v7.npy": "dead link",
    "evaluation/training_label/t8.npy": "other length",
    "evaluation/validation_label/v4.npy": "gone",
    "visualizing/v6.npy": "empty",
}


@pytest.mark.parametrize("path", SPOILT)
def test_a_bad_file_ends_the_run_by_name(workplace, config, path):
    spoil(workplace / path, SPOILT[path])
    config = replace(config, storage="device")  # which reads all values at the start
    with pytest.raises(BadFileError, match=rf"{path}: .*on_bad_file: skip"):
        train(config)
    assert not list(config.run_folder.glob("*_4.pt"))


def test_bad_files_are_left_out_as_if_they_were_not_there(workplace, config, capsys):
    write_index_files(workplace)
    for path, kind in SPOILT.items():
        spoil(workplace / path, kind)
    skipping = replace(config, on_bad_file="skip", exp_name="skipping")
    weights = weights_after(skipping)
    records = without_seconds(skipping)
    output = capsys.readouterr().out
    assert "skipped: HACS_DATA/training/t6.npy: holds NaN or infinite values\n" in output
    assert "skipped: 3 more\n" in output
    for record in records:
        assert record.pop("skipped") == sorted(SPOILT)
    folder = export_features(skipping, "4")
    written = {path.stem for path in folder.glob("*/*.npy")}
    manifest = json.loads((folder / "manifest.json").read_text())

    for path in SPOILT:  # now they are gone in earnest, and nobody asks for them
        (workplace / path).unlink(missing_ok=True)
    for split, unlabelled in (("training", "t8"), ("validation", "v4")):
        array = workplace / f"HACS_DATA/{split}/{unlabelled}.npy"
        aside = shutil.move(array, workplace / "aside.npy")
        write_index_files(workplace, splits=[split])
        shutil.move(aside, array)
        (workplace / f"HACS_DATA/{split}_duration.pkl").unlink()
    assert same(weights, weights_after(config))
    assert without_seconds(config) == records
    features = {path.stem for path in (workplace / "HACS_DATA").glob("*/*.npy")}
    assert written == features
    assert manifest["skipped"].keys() == {path for path in SPOILT if path.startswith("HACS_DATA")}


def test_a_listed_video_that_is_not_there(workplace, config):
    write_index_files(workplace)
    (workplace / "HACS_DATA/validation/v5.npy").unlink()
    with pytest.raises(DataError, match=r"subset_list\.pkl: 1 of its 8 .*v5.*on_bad_file: skip"):
        train(config)
    train(replace(config, on_bad_file="skip", epoch=1))
    assert read_records(config.metrics_file)[0]["skipped"] == ["HACS_DATA/validation/v5.npy"]


def test_a_good_run_can_be_continued_either_way(config):
    train(replace(config, epoch=2))
    records = train(replace(config, on_bad_file="skip"))
    assert all("skipped" not in record for record in records)


def test_a_link_to_itself_is_a_bad_file(workplace, config):
    path = workplace / "HACS_DATA/training/t5.npy"
    path.unlink()
    path.symlink_to(path)
    with pytest.raises(BadFileError, match=r"t5\.npy: cannot be read: Too many levels"):
        train(config)
    records = train(replace(config, on_bad_file="skip", epoch=1))
    assert records[0]["skipped"] == ["HACS_DATA/training/t5.npy"]


def test_nothing_left_is_an_error(workplace, config):
    for path in (workplace / "HACS_DATA/validation").iterdir():
        spoil(path, "text")
    spoil(workplace / "HACS_DATA/training/t5.npy", "text")
    with pytest.raises(DataError, match=r"validation: 8 of 8 videos cannot .* first, .*v0\.npy"):
        train(replace(config, on_bad_file="skip"))


def test_what_appears_only_during_the_run_is_named_and_nothing_is_lost(workplace, config):
    train(replace(config, epoch=2))
    saved = {path: path.read_bytes() for path in config.run_folder.glob("*.pt")}
    path = workplace / "HACS_DATA/training/t5.npy"
    features = np.load(path)
    path.unlink()
    np.save(path, features * np.float32(np.inf))
    with pytest.raises(BadFileError, match=r"training/t5\.npy: holds NaN or infinite values"):
        train(replace(config, storage="files"))
    assert {path: path.read_bytes() for path in saved} == saved

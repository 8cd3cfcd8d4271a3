"""Features on disk: complete or not there, and never of two checkpoints."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import FEATURE_DIM, replace

from sola.data.features import DataError
from sola.export import dump as export
from sola.export import formats
from sola.export.dump import export_features
from sola.method.module import SoLaModule, load_module
from sola.method.weights import CheckpointError, file_sha256
from sola.records import NUMBERS, append_record
from sola.system.cli import SolaError

SCORES = NUMBERS["evaluation"]


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


def files_of(folder):
    return {path: path.stat().st_mtime_ns for path in sorted(folder.glob("*/*.npy"))}


def test_features_of_every_video_keep_their_length(workplace, trained):
    folder = export_features(trained, "4")
    assert str(folder) == "transformed_features/tiny_4"
    module = load_module(trained.model_file(4))
    sources = sorted((workplace / "HACS_DATA").glob("*/*.npy"))
    assert len(files_of(folder)) == len(sources) == 21
    for source in sources:
        x = np.load(source)
        y = np.load(folder / source.parent.name / source.name)
        assert y.dtype == np.float32
        assert y.shape == x.shape
        with torch.no_grad():
            expected = module(torch.from_numpy(x)[None])[0]
        np.testing.assert_allclose(y, expected, atol=1e-6)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["finished"]
    assert manifest["sha256"] == file_sha256(trained.model_file(4))
    assert manifest["features"]["validation"] == {
        f"v{i}": len(np.load(workplace / f"HACS_DATA/validation/v{i}.npy")) for i in range(8)
    }
    assert manifest["features"]["validation"]["v0"] == 1


def test_epoch_0_is_the_input_untouched(workplace, trained):
    folder = export_features(trained, "0")
    assert folder.name == "tiny_0"
    for source in (workplace / "HACS_DATA").glob("*/*.npy"):
        copied = np.load(folder / source.parent.name / source.name)
        np.testing.assert_array_equal(copied, np.load(source))


def test_best_last_and_a_file(workplace, trained):
    with pytest.raises(CheckpointError, match=r"best: no linear probe .* use last"):
        export_features(trained, "best")
    for epoch, accuracy in ((0, 0.9), (1, 0.8), (2, 0.6), (4, 0.6)):  # epoch 1 was not saved
        record = {"record": "evaluation", "epoch": epoch} | dict.fromkeys(SCORES, accuracy)
        append_record(trained.metrics_file, record)
    assert export_features(trained, "best").name == "tiny_2"  # the earliest on a tie
    assert export_features(trained, "last").name == "tiny_4"
    torch.save(torch.load(trained.model_file(2)), workplace / "mine.pt")
    folder = export_features(trained, "mine.pt")
    assert folder.name == "mine"
    a, b = (
        np.load(workplace / f"transformed_features/{n}/training/t5.npy") for n in ("mine", "tiny_2")
    )
    np.testing.assert_array_equal(a, b)


def test_best_says_when_the_untouched_features_were_better(trained, capsys):
    for epoch, accuracy in ((0, 0.9), (2, 0.6)):
        record = {"record": "evaluation", "epoch": epoch} | dict.fromkeys(SCORES, accuracy)
        append_record(trained.metrics_file, record)
    export_features(trained, "best")
    assert "not above the untouched features" in capsys.readouterr().out


@pytest.mark.parametrize("load_model", ["3", "x", "", "-1", "absent.pt", "9" * 5000])
def test_checkpoints_that_are_not_there(trained, load_model):
    with pytest.raises(CheckpointError, match=r"saved epochs in .*2, 4|absent"):
        export_features(trained, load_model)


def test_dilations_come_from_the_yaml_beside_the_checkpoint(trained):
    beside = replace(trained, dilation1=3)
    (trained.run_folder / "config.yaml").write_text(beside.to_yaml())
    folder = export_features(trained, "2")
    x = np.load("HACS_DATA/training/t5.npy")
    module = load_module(trained.model_file(2), dilations=(3, 1))
    with torch.no_grad():
        expected = module(torch.from_numpy(x)[None])[0]
    np.testing.assert_allclose(np.load(folder / "training/t5.npy"), expected, atol=1e-6)


def test_features_of_two_dilations_are_never_mixed(workplace, trained):
    torch.save(torch.load(trained.model_file(2)), "mine.pt")  # no config.yaml beside it
    export_features(trained, "mine.pt")
    folder = export_features(replace(trained, dilation1=3), "mine.pt")
    module = load_module("mine.pt", dilations=(3, 1))
    with torch.no_grad():
        expected = module(torch.from_numpy(np.load("HACS_DATA/training/t5.npy"))[None])[0]
    np.testing.assert_allclose(np.load(folder / "training/t5.npy"), expected, atol=1e-6)


def test_complete_videos_are_not_computed_again(trained):
    folder = export_features(trained, "2")
    before = files_of(folder)
    paths = list(before)
    paths[3].unlink()
    paths[4].write_bytes(paths[4].read_bytes()[:-4])
    np.save(paths[5], np.zeros((2, FEATURE_DIM), np.float32))
    export_features(trained, "2")
    after = files_of(folder)
    changed = {path for path in before if before[path] != after[path]}
    assert changed == set(paths[3:6])
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["features"]["training"]["t5"]  # as if written after the manifest was
    (folder / "manifest.json").write_text(json.dumps(manifest))
    export_features(trained, "2")
    assert {path.stem for path in after if files_of(folder)[path] != after[path]} == {"t5"}
    export_features(trained, "2", overwrite=True)
    assert all(files_of(folder)[path] != before[path] for path in before)


def test_features_of_two_checkpoints_are_never_mixed(trained, capsys):
    folder = export_features(trained, "2")
    foreign = folder / "training" / "foreign.npy"
    foreign.write_bytes(b"of the user")
    torch.save(torch.load(trained.model_file(4)), trained.model_file(2))
    with pytest.raises(SolaError, match=r"foreign\.npy: of unknown origin; move it away"):
        export_features(trained, "2")
    assert foreign.read_bytes() == b"of the user"
    foreign.unlink()
    export_features(trained, "2")
    assert "features of another sha256" in capsys.readouterr().out
    x = torch.from_numpy(np.load("HACS_DATA/training/t5.npy"))[None]
    with torch.no_grad():
        expected = load_module(trained.model_file(4))(x)[0]
    np.testing.assert_allclose(np.load(folder / "training/t5.npy"), expected, atol=1e-6)


def test_features_of_two_inputs_are_never_mixed(workplace, trained):
    export_features(trained, "0")
    (workplace / "flow").mkdir()
    for source in sorted((workplace / "HACS_DATA").glob("*/*.npy")):
        (workplace / "flow" / source.parent.name).mkdir(exist_ok=True)
        np.save(workplace / "flow" / source.parent.name / source.name, -np.load(source))
    folder = export_features(replace(trained, data_root="flow"), "0")
    for output in files_of(folder):
        source = workplace / "HACS_DATA" / output.parent.name / output.name
        np.testing.assert_array_equal(np.load(output), -np.load(source))


def test_an_output_named_by_the_user_is_not_emptied_unasked(workplace, trained, capsys):
    target = export.Target(output="mine")
    export_features(trained, "2", target)
    before = {path: path.read_bytes() for path in files_of(workplace / "mine")}
    with pytest.raises(SolaError, match="mine: holds features of another sha256; --overwrite"):
        export_features(trained, "4", target)
    assert {path: path.read_bytes() for path in files_of(workplace / "mine")} == before
    export_features(trained, "4", target, overwrite=True)
    assert "features of another sha256 removed" in capsys.readouterr().out
    assert len(files_of(workplace / "mine")) == 21
    (workplace / "mine/.x.tmp").write_text("of the user")
    (workplace / "one/training").mkdir(parents=True)
    shutil.copy("HACS_DATA/training/t5.npy", "one/training/t5.npy")
    export_features(trained, "4", export.Target(output="mine", source="one"), overwrite=True)
    assert [path.name for path in files_of(workplace / "mine")] == ["t5.npy"]  # of both splits
    assert (workplace / "mine/.x.tmp").read_text() == "of the user"


def test_the_same_input_may_be_written_otherwise(workplace, trained, capsys):
    folder = export_features(trained, "2")
    before = files_of(folder)
    for data_root in ("HACS_DATA/", "./HACS_DATA", str(workplace / "HACS_DATA")):
        export_features(replace(trained, data_root=data_root), "2")
        assert "0 of 21 videos to encode" in capsys.readouterr().out
    assert files_of(folder) == before


def test_no_checkpoint_at_all(config):
    for load_model in ("best", "last", "150"):
        with pytest.raises(CheckpointError, match="no checkpoint in models/tiny"):
            export_features(config, load_model)


def test_features_of_unknown_origin_are_left_alone(workplace, trained):
    foreign = workplace / "transformed_features/tiny_2/training/t0.npy"
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"mine")
    with pytest.raises(SolaError, match="unknown origin"):
        export_features(trained, "2", overwrite=True)
    assert foreign.read_bytes() == b"mine"


def test_a_damaged_manifest_is_refused(trained):
    folder = export_features(trained, "2")
    good = json.loads((folder / "manifest.json").read_text())
    beside = json.dumps(good | {"beside": [["precious"]]})
    path_like = json.dumps(good | {"features": {"training": {"../../precious": 3}}})
    for content in ("", "[]", "{", '{"sha256": 3, "features": {}}', "[" * 10000, path_like, beside):
        (folder / "manifest.json").write_text(content)
        with pytest.raises(SolaError, match=r"manifest\.json: damaged"):
            export_features(trained, "2")


def dump_dies_at(monkeypatch, number, config, **options):
    """Interrupt a dump at its n-th video."""
    real = formats.write_npy
    names = sorted(path.name for path in Path(config.data_root, "training").glob("*.npy"))

    def dying(path, features):
        if path.parts[-2:] == ("training", names[number - 1]):
            raise KeyboardInterrupt
        real(path, features)

    with monkeypatch.context() as patch:
        patch.setattr(formats, "write_npy", dying)
        with pytest.raises(KeyboardInterrupt):
            export_features(config, "2", **options)


def test_an_interrupted_dump_lists_what_is_complete_and_goes_on(workplace, trained, monkeypatch):
    dump_dies_at(monkeypatch, 5, trained)
    folder = workplace / "transformed_features/tiny_2"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert sum(len(videos) for videos in manifest["features"].values()) == 4
    assert not manifest["finished"]
    (folder / "training" / ".t9.npy.tmp").write_bytes(b"half")
    listed = [folder / split / f"{v}.npy" for split, vs in manifest["features"].items() for v in vs]
    before = files_of(folder)
    export_features(trained, "2")
    assert all(files_of(folder)[path] == before[path] for path in listed)
    assert len(files_of(folder)) == 21
    assert not list(folder.glob("*/.*"))


def test_an_interrupted_dump_ends_as_an_uninterrupted_one(trained, monkeypatch):
    monkeypatch.setattr("sola.probe.snippets.ROWS_PER_BATCH", 100)
    folder = export_features(trained, "2")
    whole = {path: path.read_bytes() for path in files_of(folder)}
    shutil.rmtree(folder)
    dump_dies_at(monkeypatch, 9, trained)
    export_features(trained, "2")
    assert {path: path.read_bytes() for path in files_of(folder)} == whole


def test_ranks_share_the_batches_and_leave_none_out(trained, monkeypatch):
    monkeypatch.setattr("sola.probe.snippets.ROWS_PER_BATCH", 100)
    monkeypatch.setattr(export, "BATCHES_PER_ROUND", 1)
    folder = export_features(trained, "2")
    whole = {path: path.read_bytes() for path in files_of(folder)}
    shutil.rmtree(folder)
    written = []
    monkeypatch.setattr(export, "rank_count", lambda: 2)
    monkeypatch.setattr(export, "from_all_ranks", lambda videos: written.append(videos) or videos)
    for number in (1, 0):
        monkeypatch.setattr(export, "rank", lambda number=number: number)
        export_features(trained, "2", overwrite=True)
    assert len(written) > 4
    names = sorted((video.split, video.name) for videos in written for video in videos)
    assert names == sorted((path.parent.name, path.stem) for path in whole)
    assert {path: path.read_bytes() for path in files_of(folder)} == whole


def test_an_interrupted_overwrite_goes_on_with_what_it_had_not_reached(
    workplace, trained, monkeypatch
):
    export_features(trained, "2")
    for source in sorted((workplace / "HACS_DATA").glob("*/*.npy")):
        values = np.load(source)
        source.unlink()
        np.save(source, -values)  # of the same length: only --overwrite tells
    dump_dies_at(monkeypatch, 5, trained, overwrite=True)
    folder = export_features(trained, "2")
    module = load_module(trained.model_file(2))
    for output in files_of(folder):
        x = np.load(workplace / "HACS_DATA" / output.parent.name / output.name)
        with torch.no_grad():
            expected = module(torch.from_numpy(x)[None])[0]
        np.testing.assert_allclose(np.load(output), expected, atol=1e-6)


def test_what_is_not_finite_is_never_written(workplace, trained):
    path = workplace / "HACS_DATA/validation/v5.npy"
    features = np.load(path)
    path.unlink()
    features[2, 2] = np.nan
    np.save(path, features)
    with pytest.raises(DataError, match=r"v5\.npy"):
        export_features(trained, "2")
    assert not (workplace / "transformed_features/tiny_2/validation/v5.npy").exists()
    np.save(path, np.nan_to_num(features))
    weights = torch.load(trained.model_file(2))
    torch.save({name: value * 1e15 for name, value in weights.items()}, trained.model_file(2))
    with pytest.raises(DataError, match=r"\.npy: the module's output"):
        export_features(trained, "2")
    assert not files_of(workplace / "transformed_features/tiny_2")


def test_a_checkpoint_of_another_width_is_refused(trained):
    torch.save(SoLaModule(FEATURE_DIM + 1, 4).state_dict(), trained.model_file(2))
    with pytest.raises(CheckpointError, match="17 channels"):
        export_features(trained, "2")


def test_the_input_is_never_the_output(workplace, trained):
    config = replace(trained, feature_save_path=".")
    (workplace / "HACS_DATA").rename(workplace / "tiny_2")
    with pytest.raises(SolaError, match="holds the input"):
        export_features(replace(config, data_root="tiny_2"), "2")
    assert len(files_of(workplace / "tiny_2")) == 21

"""Features on disk: complete or not there, and never of two checkpoints."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from dumps import assert_complete, features_of, manifest_of, times_of
from helpers import FEATURE_DIM, contents, replace
from loaders import settings

from sola.errors import CheckpointError, DataError
from sola.export import encoder
from sola.export.dump import export_features
from sola.export.formats import Form, csv_blocks
from sola.export.source import Target
from sola.method.module import SoLaModule, encode_video
from sola.method.weights import file_sha256
from sola.records import NEEDED, append_record

pytest_plugins = ["dumps"]


def test_features_of_every_video_keep_their_length(trained):
    folder = export_features(trained, "4")
    assert str(folder) == "transformed_features/tiny_4"
    assert_complete(folder, trained.model_file(4))
    assert len(times_of(folder)) == 21
    assert np.load(folder / "validation/v0.npy").shape == (1, FEATURE_DIM)
    x = np.load("HACS_DATA/training/t5.npy")
    assert np.abs(np.load(folder / "training/t5.npy") - x).max() > 0.01
    manifest = manifest_of(folder)
    assert manifest.pop("settings") == trained.to_yaml()
    assert manifest == {
        "checkpoint": "models/tiny/tiny_4.pt",
        "sha256": file_sha256(trained.model_file(4)),
        "dilations": [1, 1],
        "data_root": "HACS_DATA",
        "splits": ["training", "validation"],
        "beside": [],
        "annotations": None,
        "skipped": {},
        "form": {
            "format": "npy", "layout": "split", "prefix": "", "resize": None,
            "resize_mode": "linear", "dtype": "float32",
        },
        "finished": True,
    }  # fmt: skip


def test_epoch_0_is_the_input_untouched(trained):
    shutil.copy("HACS_DATA/training/t5.npy", "HACS_DATA/validation/t6.npy")  # a name of both splits
    folder = export_features(trained, "0")
    assert folder.name == "tiny_0"
    for video, x in features_of(Path("HACS_DATA")).items():
        np.testing.assert_array_equal(np.load(folder / video), x)


def score(config, epoch, accuracy, **more):
    record = {"record": "evaluation"} | dict.fromkeys(NEEDED["evaluation"], accuracy)
    append_record(config.metrics_file, record | {"epoch": epoch} | more)


def test_best_last_and_a_file(trained):
    with pytest.raises(CheckpointError, match=r"best: no linear probe .* use last \(saved .*2, 4"):
        export_features(trained, "best")
    for epoch, accuracy in ((0, 0.5), (1, 0.8), (2, 0.6), (4, 0.6)):  # epoch 1 was not saved
        score(trained, epoch, accuracy)
    assert_complete(export_features(trained, "best"), trained.model_file(2))  # earliest on a tie
    assert_complete(export_features(trained, "last"), trained.model_file(4))
    shutil.copy(trained.model_file(2), "mine.pt")
    folder = export_features(trained, "mine.pt")
    assert folder.name == "mine"
    assert_complete(folder, "mine.pt")


@pytest.mark.parametrize(
    ("untouched", "said"), [(0.5, False), (0.6, True), (0.9, True), (None, False)]
)
def test_best_says_when_the_untouched_features_were_as_good(trained, capsys, untouched, said):
    if untouched is not None:
        score(trained, 0, untouched)
    score(trained, 2, 0.6)
    assert export_features(trained, "best").name == "tiny_2"
    assert ("epoch 2, the best one, is not above" in capsys.readouterr().out) == said


def test_best_is_the_best_of_what_can_be_compared(trained, capsys):
    """The probe was another one at first, and its last words count where it has had any."""
    score(trained, 0, 0.9, protocol="sgd", snippets=100)
    score(trained, 2, 0.8, protocol="sgd", snippets=100)
    score(trained, 4, 0.6, protocol="logistic_regression", snippets=50)
    assert export_features(trained, "best").name == "tiny_4"
    assert "untouched" not in capsys.readouterr().out  # never scored in this way
    sgd = replace(trained, eval_protocol="sgd")
    assert export_features(sgd, "best").name == "tiny_2"
    assert "not above the untouched" in capsys.readouterr().out
    score(trained, 4, 0.7, protocol="sgd", snippets=70)
    assert export_features(sgd, "best").name == "tiny_4"  # the others on other snippets


def test_an_epoch_may_have_zeros_before(trained):
    assert export_features(trained, "04").name == "tiny_4"
    assert export_features(trained, "00").name == "tiny_0"


@pytest.mark.parametrize("load_model", ["3", "x", "", "-1", "absent.pt", "9" * 5000])
def test_checkpoints_that_are_not_there(trained, load_model):
    with pytest.raises(CheckpointError, match=r"saved epochs in .*2, 4$|absent"):
        export_features(trained, load_model)
    shutil.rmtree(trained.run_folder)
    with pytest.raises(CheckpointError, match=r"no checkpoint in models/tiny$|absent"):
        export_features(trained, load_model)


def test_dilations_come_from_the_yaml_beside_the_checkpoint_and_are_never_mixed(trained):
    beside = replace(trained, dilation1=3)
    (trained.run_folder / "config.yaml").write_text(beside.to_yaml())
    assert_complete(export_features(trained, "2"), trained.model_file(2), dilations=(3, 1))
    shutil.copy(trained.model_file(2), "mine.pt")  # no config.yaml beside it
    assert_complete(export_features(trained, "mine.pt"), "mine.pt")
    assert_complete(export_features(beside, "mine.pt"), "mine.pt", dilations=(3, 1))


def test_complete_videos_are_not_computed_again(trained):
    folder = export_features(trained, "2")
    before = times_of(folder)
    gone, cut, other, empty, *rest = before
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[:-4])
    np.save(other, np.zeros((2, FEATURE_DIM), np.float32))
    empty.write_bytes(b"")
    (folder / "training/.t9.npy.12345678.tmp").write_bytes(b"half")
    (folder / ".manifest.json.12345678.tmp").write_bytes(b"half")
    export_features(trained, "2")
    assert_complete(folder, trained.model_file(2))
    assert not list(folder.rglob(".*"))
    assert [path for path in rest if times_of(folder)[path] != before[path]] == []
    kept = [folder / name for name in ("training/notes.txt", "training/.hidden.npy", "x.npy")]
    for path in (*kept, folder / "training/gone.npy"):
        path.write_bytes(b"features of a video that was there")
    export_features(trained, "2", overwrite=True)
    assert_complete(folder, trained.model_file(2))  # gone.npy is
    assert all(times_of(folder)[path] != before[path] for path in rest)
    assert all(path.exists() for path in kept)


@pytest.mark.parametrize("format", ["npy", "h5", "csv"])
def test_damaged_features_are_written_again(five_videos, capsys, format):
    target = Target(form=Form(format=format))
    folder = export_features(five_videos, "2", target)
    good = contents(folder)
    damages = [
        lambda data: b"",
        lambda data: bytes(len(data)),
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1024] + bytes(1024),
    ]
    names = ["training/t3", "training/t5", "training/t6", "validation/v5"]
    for damage, name in zip(damages, names, strict=True):
        path = folder / f"{name}.{format}"
        path.write_bytes(damage(path.read_bytes()))
    export_features(five_videos, "2", target)
    assert "4 of 5 videos to encode" in capsys.readouterr().out
    assert contents(folder) == good


def test_a_csv_is_written_in_blocks(monkeypatch):
    features = np.random.default_rng(0).standard_normal((7, 3)).astype(np.float32)
    whole = b"".join(csv_blocks(features))
    monkeypatch.setattr("sola.export.formats.CSV_ROWS", 3)
    *blocks, last = csv_blocks(features)
    assert b"".join([*blocks, last]) == whole
    assert [block.count(b"\n") for block in (*blocks, last)] == [1, 3, 3, 1]


def test_what_is_not_finite_is_never_written(trained):
    path = Path("HACS_DATA/validation/v5.npy")
    features = np.load(path)
    path.unlink()
    features[2, 2] = np.nan
    np.save(path, features)
    with pytest.raises(DataError, match=r"v5\.npy: holds NaN"):
        export_features(trained, "2")
    folder = Path("transformed_features/tiny_2")
    assert not (folder / "validation/v5.npy").exists()
    assert not manifest_of(folder)["finished"]
    np.save(path, np.nan_to_num(features))
    weights = torch.load(trained.model_file(2))
    torch.save({name: value * 1e15 for name, value in weights.items()}, trained.model_file(2))
    with pytest.raises(DataError, match=r"\.npy: the module's output"):
        export_features(trained, "2")
    assert not times_of(folder)


def test_a_checkpoint_of_another_width_is_refused(trained):
    torch.save(SoLaModule(FEATURE_DIM + 1, 4).state_dict(), trained.model_file(2))
    with pytest.raises(CheckpointError, match="made for 17 channels, not for the 16 of HACS_DATA"):
        export_features(trained, "2")


class Narrowing(torch.nn.Module):
    """A module whose output is narrower than its input."""

    def __init__(self):
        super().__init__()
        self.alpha, self.reach = torch.nn.Parameter(torch.zeros(1)), 0
        self.conv_network = torch.nn.Sequential(torch.nn.Conv1d(FEATURE_DIM, 10, 1))

    def forward(self, x):
        return self.conv_network(x.transpose(1, 2)).transpose(1, 2)


def test_the_output_may_be_of_another_width(trained, monkeypatch, capsys):
    module = Narrowing()
    monkeypatch.setattr(encoder, "load_module", lambda *_, **__: module)
    for pending in (21, 0):
        folder = export_features(trained, "2", Target(head="tridet"))
        output = capsys.readouterr().out
        assert f"{pending} of 21 videos to encode" in output
        assert settings(folder, "tridet")["dataset"]["input_dim"] == 10
    y = np.load(folder / "training/t5.npy")
    np.testing.assert_array_equal(y, encode_video(module, np.load("HACS_DATA/training/t5.npy")))
    one = Target(head="tridet", source="HACS_DATA/training/t5.npy", output="one.npy")
    export_features(trained, "2", one)
    assert np.load("one.npy").shape == y.shape

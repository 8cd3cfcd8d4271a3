"""Features on disk: complete or not there, and never of two checkpoints."""

import contextlib
import gc
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import FEATURE_DIM, REPOSITORY, contents, replace
from loaders import settings

from sola.errors import CheckpointError, DataError, SolaError
from sola.export import dump, encoder
from sola.export.dump import export_features
from sola.export.formats import Form, csv_blocks
from sola.export.source import Target
from sola.method.module import SoLaModule, encode_video
from sola.method.weights import file_sha256, load_module
from sola.records import NEEDED, append_record


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


@pytest.fixture
def five_videos(trained):
    """The same with fewer videos, for what is repeated many times."""
    for path in Path("HACS_DATA").glob("*/*.npy"):
        if path.stem not in ("t3", "t5", "t6", "v0", "v5"):
            path.unlink()
    return trained


def features_of(folder):
    return {path.relative_to(folder): np.load(path) for path in sorted(folder.glob("*/[!.]*.npy"))}


def times_of(folder):
    return {path: path.stat().st_mtime_ns for path in sorted(folder.glob("*/*.npy"))}


def manifest_of(folder):
    return json.loads((folder / "manifest.json").read_text())


def assert_complete(folder, checkpoint, data_root="HACS_DATA", dilations=(1, 1)):
    """What the checkpoint makes of all videos, each by itself, and nothing else."""
    module = load_module(checkpoint, dilations)
    inputs, outputs = features_of(Path(data_root)), features_of(folder)
    assert outputs.keys() == inputs.keys()
    for video, x in inputs.items():
        assert outputs[video].dtype == np.float32
        np.testing.assert_array_equal(outputs[video], encode_video(module, x))
    assert manifest_of(folder)["finished"] is True
    assert manifest_of(folder)["sha256"] == file_sha256(checkpoint)


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


def test_features_of_two_checkpoints_or_inputs_are_never_mixed(trained, capsys):
    folder = export_features(trained, "2")
    (folder / "training/t5.npy").unlink()
    (folder / "training/t5.npy").symlink_to(Path("HACS_DATA/training/t5.npy").absolute())
    shutil.copy(trained.model_file(4), trained.model_file(2))
    export_features(trained, "2")
    assert "tiny_2: features of another sha256 removed" in capsys.readouterr().out
    assert_complete(folder, trained.model_file(4))
    assert Path("HACS_DATA/training/t5.npy").exists()
    for video, x in features_of(Path("HACS_DATA")).items():
        Path("flow", video.parent).mkdir(exist_ok=True, parents=True)
        np.save(Path("flow", video), -x)
    export_features(replace(trained, data_root="flow"), "2")
    assert "tiny_2: features of another data_root removed" in capsys.readouterr().out
    assert_complete(folder, trained.model_file(4), data_root="flow")


def test_an_output_named_by_the_user_is_not_emptied_unasked(trained, capsys):
    mine = Path("mine")
    export_features(trained, "2", Target(output="mine"))
    before = contents(mine)
    with pytest.raises(SolaError, match="mine: holds features of another sha256; --overwrite"):
        export_features(trained, "4", Target(output="mine"))
    assert contents(mine) == before
    export_features(trained, "4", Target(output="mine"), overwrite=True)
    assert "mine: features of another sha256 removed" in capsys.readouterr().out
    assert_complete(mine, trained.model_file(4))
    (mine / ".x.tmp").write_text("of the user")
    Path("one/training").mkdir(parents=True)
    shutil.copy("HACS_DATA/training/t5.npy", "one/training/t5.npy")
    export_features(trained, "4", Target(output="mine", source="one"), overwrite=True)
    assert_complete(mine, trained.model_file(4), data_root="one")  # of both splits nothing else
    assert manifest_of(mine)["splits"] == ["training"]
    assert (mine / ".x.tmp").read_text() == "of the user"


def test_the_same_input_may_be_written_otherwise(workplace, trained, capsys):
    folder = export_features(trained, "2")
    before = times_of(folder)
    Path("link").symlink_to("HACS_DATA")
    for data_root in ("HACS_DATA/", "./HACS_DATA", str(workplace / "HACS_DATA"), "link"):
        export_features(replace(trained, data_root=data_root), "2")
        assert "0 of 21 videos to encode" in capsys.readouterr().out
    assert times_of(folder) == before


def test_features_of_unknown_origin_are_left_alone(trained):
    foreign = Path("transformed_features/tiny_2/training/t0.npy")
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"mine")
    with pytest.raises(SolaError, match=r"training/t0\.npy: features of unknown origin, no mani"):
        export_features(trained, "2", overwrite=True)
    assert list(contents(Path("transformed_features")).values()) == [b"mine"]
    # nor are those of a split that the manifest does not name
    export_features(trained, "2", Target(source="HACS_DATA/training", output="mine"))
    shutil.move(foreign.parent, "mine/validation")
    with pytest.raises(SolaError, match=r"mine/validation/t0\.npy: features of unknown origin"):
        export_features(trained, "2", Target(output="mine"), overwrite=True)
    assert Path("mine/validation/t0.npy").read_bytes() == b"mine"
    assert Path("mine/t5.npy").exists()


@pytest.mark.parametrize(
    "change",
    [
        "", "[]", "{", "[" * 10000, "\0", '{"sha256": 3}', b"\xff",
        {"splits": ["../../precious"]}, {"splits": [".."]}, {"splits": 3}, {"splits": ["a\0"]},
        {"features": {"../precious": {}}, "splits": None}, {"beside": [["precious"]]},
        {"beside": ["\ud800"]}, {"data_root": "\0"}, {"data_root": "\ud800"}, {"data_root": []},
        {"form": 3},
    ],
)  # fmt: skip
def test_a_damaged_manifest_is_refused(five_videos, change):
    folder = export_features(five_videos, "2")
    path = folder / "manifest.json"
    if isinstance(change, dict):
        change = json.dumps(manifest_of(folder) | change)
    path.write_bytes(change if isinstance(change, bytes) else change.encode())
    before = contents(folder)
    for overwrite in (False, True):
        with pytest.raises(SolaError, match=r"^\S+manifest\.json: damaged \(.*\); remove its"):
            export_features(five_videos, "2", overwrite=overwrite)
    assert contents(folder) == before


def test_a_manifest_of_an_earlier_version_is_read(five_videos, capsys):
    folder = export_features(five_videos, "2")
    manifest = manifest_of(folder)
    earlier = {key: manifest[key] for key in ("checkpoint", "sha256", "dilations", "data_root")}
    earlier["features"] = {"training": {"t3": 10}, "validation": {}}
    text = json.dumps(earlier | {"finished": True})
    (folder / "manifest.json").write_text(text)
    export_features(five_videos, "2")
    assert "0 of 5 videos" in capsys.readouterr().out
    assert manifest_of(folder) == manifest
    (folder / "manifest.json").write_text(json.dumps(earlier | {"finished": False}))
    np.save(folder / "training/t5.npy", -np.load(folder / "training/t5.npy"))  # not listed
    export_features(five_videos, "2")
    assert_complete(folder, five_videos.model_file(2))
    (folder / "manifest.json").write_text(text)
    shutil.copy(five_videos.model_file(4), five_videos.model_file(2))
    export_features(five_videos, "2")
    assert_complete(folder, five_videos.model_file(4))


class Killed(BaseException):
    """The process ends here."""


@contextlib.contextmanager
def killed_before(monkeypatch, number):
    """End the process before it makes its n-th change on disk; yields a list of the changes."""
    changes = []

    def counted(real, name):
        def change(*arguments, **options):
            if len(changes) >= number:
                raise Killed
            changes.append(name)
            return real(*arguments, **options)

        return change

    with monkeypatch.context() as patch:
        for owner, name in ((os, "replace"), (os, "fsync"), (Path, "unlink")):
            patch.setattr(owner, name, counted(getattr(owner, name), name))
        with contextlib.suppress(Killed):
            yield changes
            changes.append("end")
    gc.collect()  # what the kill left half-way, whose threads end here and not amid a later start


@pytest.fixture
def frozen_garbage():
    """What there is by now is not searched for garbage again: a collection takes no time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("frozen_garbage")
@pytest.mark.parametrize("case", ["first", "other checkpoint", "overwrite"])
def test_a_dump_killed_before_any_change_ends_as_if_it_had_not_been(five_videos, monkeypatch, case):
    """And at no moment does a file lie beside the manifest of another checkpoint."""
    mine, target = Path("mine"), Target(output="mine")
    of_checkpoint = {}
    for load_model in ("2", "4"):
        export_features(five_videos, load_model, target, overwrite=True)
        of_checkpoint[manifest_of(mine)["sha256"]] = contents(mine)
    shutil.move(mine, "before")
    if case == "overwrite":  # with values that nothing but --overwrite tells from the earlier ones
        for path, x in features_of(Path("HACS_DATA")).items():
            Path("HACS_DATA", path).unlink()
            np.save(Path("HACS_DATA", path), -x)
    load_model = "4" if case == "overwrite" else "2"
    export_features(five_videos, load_model, target)
    whole = contents(mine)
    manifest = ["fsync", "replace", "fsync"]
    earlier = [] if case == "first" else manifest  # it is not finished any more
    changes = []
    while "end" not in changes:
        shutil.rmtree(mine)
        if case != "first":
            shutil.copytree("before", mine)
        with killed_before(monkeypatch, len(changes) + 1) as changes:
            export_features(five_videos, load_model, target, overwrite=case != "first")
        left = contents(mine)
        if case != "overwrite" and "end" not in changes and Path("manifest.json") in left:
            features = {path: left[path] for path in left if path.suffix == ".npy"}
            assert features.items() <= of_checkpoint[manifest_of(mine)["sha256"]].items()
        is_begun = changes.count("replace") > len(earlier) // 3  # nothing old is left then
        export_features(five_videos, load_model, target, overwrite=not is_begun)
        assert contents(mine) == whole
    removals, of_lock = ["unlink"] * 5 if earlier else [], ["unlink", "end"]
    begun = [*earlier, *removals, *manifest]
    written = changes[len(begun) : len(begun) + 10]  # by threads, side by side
    assert changes[: len(begun)] == begun
    assert sorted(written) == ["fsync"] * 5 + ["replace"] * 5
    assert changes[len(begun) + 10 :] == ["fsync", "fsync", *manifest, *of_lock]


def test_ranks_share_the_videos_and_meet_before_the_manifest_says_finished(trained, monkeypatch):
    def meeting(_):
        of_rank = [item for item in contents(folder).items() if item[0].suffix == ".npy"]
        written.extend(of_rank)
        finished.append(manifest_of(folder)["finished"])

    whole = contents(export_features(trained, "2"))
    written, finished = [], []
    monkeypatch.setattr(dump, "rank_count", lambda: 3)
    monkeypatch.setattr(dump, "from_all_ranks", meeting)
    for number in range(3):
        folder = Path(f"rank{number}/tiny_2")
        monkeypatch.setattr(dump, "rank", lambda number=number: number)
        export_features(replace(trained, feature_save_path=f"rank{number}"), "2")
    assert finished == [False] * 3
    assert len(written) == 21
    assert dict(written).items() <= whole.items()


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


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("mine", "mine"),
        ("link", "mine"),
        ("mine/training", "link/training"),
        ("mine/training", "mine"),  # whose features would be removed as an earlier dump's
        ("links", "mine/training"),
        ("links", "links"),
    ],
)
def test_the_input_is_never_the_output(trained, source, output):
    export_features(trained, "2", Target(output="mine"))
    Path("link").symlink_to("mine")
    Path("links").mkdir()
    for path in Path("mine/training").iterdir():
        Path("links", path.name).symlink_to(path.absolute())
    before = contents(Path("mine"))
    target = Target(source=source, output=output)
    with pytest.raises(SolaError, match="holds the input, or leads to it; write to another"):
        export_features(trained, "4", target, overwrite=True)
    assert contents(Path("mine")) == before


@pytest.mark.parametrize(
    ("held", "target"),
    [
        ("mine", {"output": "link"}),
        ("link", {"output": "mine"}),
        ("mine", {"output": "link/../mine/."}),
        ("one.npy", {"source": "HACS_DATA/training/t5.npy", "output": "link.npy"}),
    ],
)
def test_one_process_at_a_time_writes_there_by_whatever_name(trained, held, target):
    Path("mine").mkdir()
    Path("link").symlink_to("mine")
    Path("link.npy").symlink_to("one.npy")
    code = (
        "import sys; from sola.system.files import only_user_of\n"
        f"with only_user_of({held!r}): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(SolaError, match=f": in use by process {holder.pid} on "):
            export_features(trained, "2", Target(**target))
        assert not contents(Path("mine"))
    finally:
        holder.communicate()
    assert export_features(trained, "2", Target(**target)).exists()

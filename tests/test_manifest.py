"""One origin in a folder of features, and what a kill leaves there."""

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
from dumps import assert_complete, features_of, manifest_of, times_of
from helpers import REPOSITORY, contents, replace

from sola.errors import SolaError
from sola.export import dump
from sola.export.dump import export_features
from sola.export.source import Target

pytest_plugins = ["dumps"]


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

"""An interrupted run continues, a finished one stays, another one is refused."""

import contextlib
import shutil

import numpy as np
import pytest
import torch
from helpers import FEATURE_DIM, replace, same, weights_after, without_seconds

from sola.config import Config
from sola.errors import CheckpointError, SolaError
from sola.method.weights import save
from sola.system.files import write_atomically
from sola.training import loop
from sola.training.loop import train
from sola.training.messages import summary
from sola.training.resume import SCALARS_OF_VERSION_1, TrainingState, load_state, save_state


def state_of(epoch):
    return TrainingState(
        epoch=epoch,
        steps=2,
        scalars={"loss": torch.zeros(2, dtype=torch.float64)},
        seconds={"seconds": 0.5},
        identity={"config": {}},
        model={"w": torch.ones(3)},
    )


def test_newest_state_is_loaded_and_the_last_two_are_kept(tmp_path):
    for epoch in (2, 9, 10):
        save_state(tmp_path, state_of(epoch))
    assert {path.name for path in tmp_path.iterdir()} == {"state_9-2.pt", "state_10-2.pt"}
    loaded = load_state(tmp_path)
    assert (loaded.epoch, loaded.steps, loaded.seconds) == (10, 2, {"seconds": 0.5})
    assert load_state(tmp_path / "absent") is None


@pytest.mark.parametrize(
    "content", [b"", b"text", b"PK\x03\x04 cut off", {"epoch": 3}, {"epoch": -1, "version": 2}]
)
def test_a_damaged_state_is_set_aside_for_the_one_before(tmp_path, content, capsys):
    save_state(tmp_path, state_of(2))
    if isinstance(content, bytes):
        (tmp_path / "state_3-2.pt").write_bytes(content)
    else:
        save(tmp_path / "state_3-2.pt", content)
    assert load_state(tmp_path).epoch == 2
    assert "state_3-2.pt is damaged" in capsys.readouterr().out
    assert (tmp_path / "state_3-2.damaged").exists()
    (tmp_path / "state_2-2.pt").write_bytes(b"")
    assert load_state(tmp_path) is None


def test_a_state_that_cannot_be_read_is_not_called_damaged(tmp_path):
    (tmp_path / "state_3-2.pt").mkdir()  # stands for any error of the disk; root may read anything
    with pytest.raises(SolaError, match=r"state_3-2\.pt: not a file"):
        load_state(tmp_path)
    save(tmp_path / "state_4-2.pt", {"version": 99, "epoch": 4})
    with pytest.raises(CheckpointError, match=r"state_4-2\.pt: was written by a later version"):
        load_state(tmp_path)
    assert (tmp_path / "state_3-2.pt").exists()
    assert (tmp_path / "state_4-2.pt").exists()


def interrupt_in_epoch_3(config, monkeypatch):
    """Leave a state after the first of three steps of epoch 3."""
    monkeypatch.setattr(loop, "STATE_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        dies_at_call(patch, loop, "training_step", 8)
        with contextlib.suppress(KeyboardInterrupt):
            train(config)
    assert (config.run_folder / "state_2-1.pt").exists()


def test_a_state_of_the_version_before_is_continued(config, monkeypatch):
    uninterrupted = weights_after(config)
    records = without_seconds(config)
    shutil.rmtree(config.run_folder)
    interrupt_in_epoch_3(config, monkeypatch)
    path = config.run_folder / "state_2-1.pt"
    state = torch.load(path)
    for key in ("version", "steps"):
        del state[key]
    scalars = state.pop("scalars")
    state["seconds"] = state["seconds"]["seconds"]  # as the first ones had it
    for moments in state["optimiser"].values():  # with weights that lay in memory in another order
        for name in ("exp_avg", "exp_avg_sq"):
            other = moments[name].transpose(0, -1).clone(memory_format=torch.contiguous_format)
            moments[name] = other.transpose(0, -1)
    state["figures"] = torch.stack([scalars[n] for n in SCALARS_OF_VERSION_1], dim=1)  # [steps, 3]
    save(path, state)
    assert same(uninterrupted, weights_after(config))
    assert without_seconds(config) == records
    assert not list(config.run_folder.glob("*.damaged"))


def test_a_scalar_added_later_is_absent_from_the_epoch_under_way(config, monkeypatch):
    records = train(config)
    shutil.rmtree(config.run_folder)
    interrupt_in_epoch_3(config, monkeypatch)
    real = loop.training_step
    monkeypatch.setattr(
        loop, "training_step", lambda *a: real(*a) | {"fourth": torch.tensor(4.0).double()}
    )
    continued = train(config)
    fourth = {r["epoch"]: r.get("fourth") for r in continued if r["record"] == "epoch"}
    assert fourth == {1: None, 2: None, 3: None, 4: 4.0}
    assert [r.get("loss") for r in continued] == [r.get("loss") for r in records]
    assert not list(config.run_folder.glob("*.damaged"))


def test_a_key_added_later_counts_as_its_default(config):
    train(replace(config, epoch=2))
    path = config.run_folder / "state_2-0.pt"
    state = torch.load(path)
    for key in ("precision", "oracle_coef"):  # as if these did not exist then
        assert state["identity"]["config"].pop(key) == getattr(Config(exp_name="x"), key)
    save(path, state)
    with pytest.raises(CheckpointError, match="precision was fp32, is bf16"):
        train(replace(config, precision="bf16"))
    assert train(config)[-1]["epoch"] == 4


def test_the_rate_that_an_earlier_version_kept_does_not_matter(config):
    train(replace(config, epoch=2))
    path = config.run_folder / "state_2-0.pt"
    state = torch.load(path)
    settings = state["identity"]["config"]
    assert not settings.keys() & {"annotations", "fps", "clip", "feat_stride", "num_frames"}
    settings["visualizing_fps"] = 2.0
    save(path, state)
    assert train(replace(config, fps=5.0, clip=2.0))[-1]["epoch"] == 4
    (config.run_folder / "state_4-0.pt").unlink()
    frames = {"fps": 0.0, "feat_stride": 16, "num_frames": 32, "annotations": "new.json"}
    assert train(replace(config, **frames))[-1]["epoch"] == 4


@pytest.mark.parametrize("protocol", ["logistic_regression", "sgd"])
def test_an_interrupted_run_continues_as_if_it_had_not_been(config, monkeypatch, protocol):
    monkeypatch.setattr("sola.probe.sgd.GROUP_SIZE", 10)  # the tiny set is small
    config = replace(config, eval_protocol=protocol, epoch=6)
    uninterrupted = weights_after(config)
    records = without_seconds(config)
    shutil.rmtree(config.run_folder)

    monkeypatch.setattr(loop, "STATE_SECONDS", 0.0)  # a state after every step
    for name in (
        "save",
        "save_state",
        "append_record",
        "draw_tsms",
        "draw_curves",
        "evaluate",
        "training_step",
    ):
        for call in (1, 2, 3, 4):
            with monkeypatch.context() as patch:
                dies_at_call(patch, loop, name, call)
                with contextlib.suppress(KeyboardInterrupt):
                    train(config)
    assert same(uninterrupted, weights_after(config))
    assert without_seconds(config) == records


def dies_at_call(patch, module, name, number):
    """Make a function interrupt the program when it is called for the n-th time."""
    real, calls = getattr(module, name), []

    def counting(*arguments, **options):
        calls.append(name)
        if len(calls) == number:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    patch.setattr(module, name, counting)


def test_a_finished_run_is_left_alone(config, capsys):
    records = train(config)
    before = config.model_file(4).stat().st_mtime_ns
    assert train(config) == records
    assert config.model_file(4).stat().st_mtime_ns == before
    assert "4 of 4 epochs are done" in capsys.readouterr().out


def test_a_record_that_a_disk_lost_is_said_once(config, capsys):
    train(replace(config, epoch=2))
    size = config.metrics_file.stat().st_size
    lines = config.metrics_file.read_bytes().splitlines(keepends=True)
    assert b'"evaluation", "epoch": 2' in lines[-1]
    config.metrics_file.write_bytes(b"".join(lines[:-1]).ljust(size, b"\0"))
    train(config)
    assert capsys.readouterr().out.count("metrics.jsonl ends in zeros") == 1


def test_another_run_is_not_continued(workplace, config):
    train(config)
    for changes in (
        {"learning_rate": 0.5},
        {"seed": 3},
        {"batch_size": 4},
        {"precision": "bf16"},
        {"epoch": 3},
    ):
        with pytest.raises(CheckpointError, match=next(iter(changes))):
            train(replace(config, **changes))
    (workplace / "HACS_DATA").rename(workplace / "moved")
    changes = {"num_workers": 1, "storage": "files", "visualizing_step": 3, "eval_lr": 0.5}
    changes |= {"data_root": "moved", "saving_epoch": 5, "feature_save_path": "other"}
    records = train(replace(config, **changes, epoch=5))
    assert [r["epoch"] for r in records if r["record"] == "evaluation"] == [0, 2, 4, 5]
    (workplace / "moved").rename(workplace / "HACS_DATA")
    generator = np.random.default_rng(0)
    np.save(workplace / "HACS_DATA/training/new.npy", generator.random((40, FEATURE_DIM)))
    np.save(workplace / "evaluation/training_label/new.npy", np.zeros(40))
    with pytest.raises(CheckpointError, match=r"13 with .* are 14 with"):
        train(replace(config, epoch=5))


def test_restart_keeps_the_old_run_aside(workplace, config, monkeypatch):
    config = replace(config, epoch=1)
    path = config.picture_folder / "picture.png"
    monkeypatch.setattr(loop, "draw_tsms", lambda *_: write_atomically(path, b""))
    train(config)
    train(config, restart=True)
    names = sorted(path.name for path in (workplace / "models").iterdir())
    assert len(names) == 2
    assert names[1].startswith("tiny_until_")
    assert (workplace / "models" / names[1] / "tiny_1.pt").is_file()
    assert len(list((workplace / "visualizing").glob("tiny*"))) == 2


def test_a_run_that_has_not_trained_yet_begins_as_told(config, monkeypatch):
    uninterrupted = weights_after(replace(config, learning_rate=0.01))
    records = without_seconds(config)
    shutil.rmtree(config.run_folder)
    with monkeypatch.context() as patch:
        dies_at_call(patch, loop, "training_step", 1)
        with contextlib.suppress(KeyboardInterrupt):
            train(config)
    assert (config.run_folder / "state_0-0.pt").exists()
    assert same(uninterrupted, weights_after(replace(config, learning_rate=0.01)))
    assert without_seconds(config) == records


def test_foreign_checkpoints_are_not_overwritten(workplace, config):
    config.run_folder.mkdir(parents=True)
    config.model_file(150).write_text("of another program")
    with pytest.raises(CheckpointError, match="--restart"):
        train(config)
    assert config.model_file(150).read_text() == "of another program"


def test_labels_that_come_later_are_used(workplace, config):
    (workplace / "evaluation").rename(workplace / "elsewhere")
    train(config)
    (workplace / "elsewhere").rename(workplace / "evaluation")
    records = train(config)
    assert [r["epoch"] for r in records if r["record"] == "evaluation"] == [4]
    assert "untouched" not in summary(config, records)  # which were not scored


def test_the_last_epoch_is_saved_and_probed_also_when_told_so_later(config, monkeypatch):
    monkeypatch.setattr(loop, "STATE_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        dies_at_call(patch, loop, "training_step", 10)  # epochs 1, 2, 3 are done, 3 is not saved
        with contextlib.suppress(KeyboardInterrupt):
            train(config)
    assert not config.model_file(3).exists()
    records = train(replace(config, epoch=3))
    assert config.model_file(3).exists()
    assert [r["epoch"] for r in records if r["record"] == "evaluation"] == [0, 2, 3]

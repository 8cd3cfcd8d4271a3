"""An interrupted run continues, a finished one stays, another one is refused."""

import contextlib
import shutil

import numpy as np
import pytest
from conftest import FEATURE_DIM, replace, same, weights_after, without_seconds

from sola.method.weights import CheckpointError
from sola.system.files import write_atomically
from sola.training import loop as training
from sola.training.loop import train
from sola.training.messages import summary


@pytest.mark.parametrize("protocol", ["logistic_regression", "sgd"])
def test_an_interrupted_run_continues_as_if_it_had_not_been(config, monkeypatch, protocol):
    monkeypatch.setattr("sola.probe.logistic.GROUP_SIZE", 10)  # the tiny set is small
    config = replace(config, eval_protocol=protocol, epoch=6)
    uninterrupted = weights_after(config)
    records = without_seconds(config)
    shutil.rmtree(config.run_folder)

    monkeypatch.setattr(training, "STATE_SECONDS", 0.0)  # a state after every step
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
                dies_at_call(patch, training, name, call)
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


def test_another_run_is_not_continued(workplace, config):
    train(config)
    for changes in (
        {"learning_rate": 0.5},
        {"seed": 3},
        {"batch_size": 4},
        {"precision": "bf16"},
        {"epoch": 3},
        {"saving_epoch": 1},
        {"label_base": "other"},
    ):
        with pytest.raises(CheckpointError, match=next(iter(changes))):
            train(replace(config, **changes))
    changes = {"num_workers": 1, "storage": "files", "visualizing_step": 3, "eval_lr": 0.5}
    train(replace(config, **changes, epoch=5))
    generator = np.random.default_rng(0)
    np.save(workplace / "HACS_DATA/training/new.npy", generator.random((40, FEATURE_DIM)))
    np.save(workplace / "evaluation/training_label/new.npy", np.zeros(40))
    with pytest.raises(CheckpointError, match=r"13 with .* are 14 with"):
        train(replace(config, epoch=5))


def test_restart_keeps_the_old_run_aside(workplace, config, monkeypatch):
    config = replace(config, epoch=1)
    path = config.picture_folder / "picture.png"
    monkeypatch.setattr(training, "draw_tsms", lambda *_: write_atomically(path, b""))
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
        dies_at_call(patch, training, "training_step", 1)
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
    assert "(+0.0000 against" in summary(config, records)

"""Processes that are killed, a full disk, and states that are not this run's: nothing is lost."""

import json
import re
import resource
import subprocess
import sys

import pytest
import torch
from helpers import (
    ENVIRONMENT,
    REPOSITORY,
    contents,
    interrupts_at_step,
    replace,
    same,
    weights_after,
    without_seconds,
)

from sola.errors import SolaError
from sola.training import loop
from sola.training.loop import train
from sola.training.resume import load_state


def run_killed(workplace, kills, *rooms):
    """tests/killed_runs.py, which ends well: a whole run, killed ones, a last one of each room."""
    command = [sys.executable, str(REPOSITORY / "tests/killed_runs.py"), "3", str(kills)]
    output = subprocess.run(
        [*command, *map(json.dumps, rooms)],
        cwd=workplace, env=ENVIRONMENT, capture_output=True, text=True,
    ).stdout  # fmt: skip
    ends = [line.split() for line in output.splitlines()]
    killed = [int(status) for about, status in ends if about == "killed"]
    assert len(killed) == kills
    assert set(killed) <= {-9, 130, 143, 0}
    assert killed[:3].count(0) <= 1  # the moments lie within the runs
    assert {status for about, status in ends if about != "killed"} == {"0"}
    assert "Traceback" not in (workplace / "output.txt").read_text()


def test_training_killed_at_any_moment_ends_as_if_it_had_not_been(workplace, config, kills):
    settings = ["--yaml_path=tiny.yaml", "exp_name=NAME", "epoch=10", "saving_epoch=10"]
    run_killed(workplace, kills, ["main_simsiam", *settings])
    whole, killed = (replace(config, exp_name=name, epoch=10) for name in ("whole", "killed"))
    assert without_seconds(whole) == without_seconds(killed)
    assert whole.model_file(10).read_bytes() == killed.model_file(10).read_bytes()
    states = [load_state(run.run_folder) for run in (whole, killed)]
    assert same(states[0].model, states[1].model)
    moments = [state.optimiser for state in states]
    assert all(same(moments[0][number], moments[1][number]) for number in moments[0])
    assert whole.picture_folder.joinpath("whole_epoch10.png").exists()
    names = [
        {re.sub(r"whole|killed|(?<=state_)\d+-\d+", "", path.name) for path in folder.iterdir()}
        for run in (whole, killed)
        for folder in (run.run_folder, run.picture_folder)
    ]
    assert names[:2] == names[2:]  # nothing missing, nothing half-written


def test_pictures_of_a_killed_run_are_those_of_a_whole_one(workplace, drawing_config, monkeypatch):
    config = replace(drawing_config, epoch=2)
    train(config)
    whole = {path.name: path.read_bytes() for path in config.picture_folder.iterdir()}
    monkeypatch.setattr(loop, "STATE_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        interrupts_at_step(patch, 5, lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(config, restart=True)
    train(config)
    assert {path.name: path.read_bytes() for path in config.picture_folder.iterdir()} == whole


def test_what_kills_interrupt_is_written_whole_in_the_end(workplace, config, annotations, kills):
    train(replace(config, epoch=2))
    (workplace / "a.json").write_text(json.dumps({"database": annotations}))
    for name in ("whole", "killed"):
        (workplace / name).mkdir()
        (workplace / f"link_{name}").symlink_to(name)
    write = ["process_feature", "--yaml_path=tiny.yaml", "--load_model=2", "--overwrite"]
    source, output = "--input=HACS_DATA/training/t5.npy", "--output=ALIAS/file/x.npy"
    features = ["--features=HACS_DATA", "--annotations=a.json", "--copy"]
    own = ["label_base=NAME/own/labels", "visualizing_dir=NAME/own/drawn"]
    rooms = {
        "dump": [*write[:-1], "feature_save_path=ALIAS/dump"],
        "head": [*write[:-1], "--for=bmn", "--annotations=a.json", "--output=NAME/head"],
        "file": [*write, source, output],
        "data": ["sola.prepare.__main__", "--yaml_path=NAME/data/new.yaml", *features],
        "own": ["sola.prepare.__main__", "--yaml_path=tiny.yaml", *features[1:2], *own],
    }
    run_killed(workplace, kills, *rooms.values())
    whole, killed = (contents(workplace / name) for name in ("whole", "killed"))
    assert {path.parts[0] for path in whole} <= rooms.keys()
    assert whole.keys() == killed.keys() != set()
    for path, data in killed.items():
        assert data.replace(b"killed", b"whole") == whole[path]


@pytest.mark.parametrize("limit", [4_500, 20_000])  # bytes: a checkpoint, or a state
def test_a_full_disk_is_one_error_and_the_run_goes_on_later(config, limit):
    uninterrupted = weights_after(replace(config, epoch=8))
    records = without_seconds(config)
    train(config, restart=True)
    before = {path: path.read_bytes() for path in config.run_folder.glob("*.pt")}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
    try:
        with pytest.raises(SolaError, match=r"cannot write its \d+ bytes: File too large"):
            train(replace(config, epoch=8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path: path.read_bytes() for path in before} == before
    assert not list(config.run_folder.glob(".*.tmp"))
    assert same(uninterrupted, weights_after(replace(config, epoch=8)))
    assert without_seconds(config) == records


@pytest.mark.parametrize(
    "change", ["model", "moments", "steps", "one moment missing", "odd moments", "too many steps"]
)
def test_a_state_of_another_run_is_refused(config, change):
    train(replace(config, epoch=1, saving_epoch=1))
    path = config.run_folder / "state_1-0.pt"
    state = torch.load(path)
    if change == "model":
        state["model"]["module.alpha"] = torch.zeros(2)
    elif change == "moments":
        state["optimiser"][0]["exp_avg"] = torch.zeros(2)
    elif change == "steps":
        state["optimiser"][0]["step"] = torch.zeros(3)
    elif change == "one moment missing":
        del state["optimiser"][2]
    elif change == "odd moments":
        state["optimiser"] = {torch.zeros(2): {}}
    else:
        state["steps"] = 3
        state["scalars"] = {"loss": torch.zeros(3, dtype=torch.float64)}
    torch.save(state, config.run_folder / "state_1-1.pt")
    with pytest.raises(SolaError, match=r"another (network|run).*--restart sets it aside"):
        train(config)


@pytest.mark.parametrize(
    "change", ["nan", "-inf", "scalars", "dtype", "no loss", "size", "identity", "epoch"]
)
def test_a_state_with_odd_values_is_damaged(config, change):
    train(replace(config, epoch=1, saving_epoch=1))
    state = torch.load(config.run_folder / "state_1-0.pt")
    if change in ("nan", "-inf"):
        state["seconds"]["seconds"] = float(change)
    elif change == "scalars":
        state["scalars"] = {"loss": torch.zeros(3, dtype=torch.float64)}  # of no steps
    elif change == "dtype":
        state["scalars"] = {"loss": torch.zeros(0)}
    elif change == "no loss":
        state["steps"], state["scalars"] = 1, {"other": torch.zeros(1, dtype=torch.float64)}
    elif change == "size":
        state["scalars"] = {"loss": torch.zeros(1, dtype=torch.float64).expand(10**14)}
        state["steps"] = 10**14
    elif change == "identity":
        state["identity"] = {"config": [[], []]}
    else:
        state["epoch"] = -1
    torch.save(state, config.run_folder / "state_7-1.pt")
    assert load_state(config.run_folder).epoch == 1
    assert (config.run_folder / "state_7-1.damaged").exists()

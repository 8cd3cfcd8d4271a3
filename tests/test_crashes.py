"""Real processes that are killed, stopped, or meet one another and a full disk: nothing is lost."""

import contextlib
import fcntl
import json
import os
import re
import resource
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from helpers import REPOSITORY, contents, replace, same, weights_after, without_seconds

from sola.config import load_config
from sola.errors import SolaError
from sola.records import read_records
from sola.system.files import only_user_of
from sola.system.signals import DeferredSignals, Interrupted
from sola.training import loop
from sola.training.loop import train
from sola.training.resume import load_state

ENVIRONMENT = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
SCRIPT = [sys.executable, "-u", "-W", "error", str(REPOSITORY / "main_simsiam.py")]


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
    rooms = {
        "dump": [*write[:-1], "feature_save_path=ALIAS/dump"],
        "head": [*write[:-1], "--for=bmn", "--annotations=a.json", "--output=NAME/head"],
        "file": [*write, source, output],
        "data": ["sola.prepare.__main__", "--yaml_path=NAME/data/new.yaml", *features],
    }
    run_killed(workplace, kills, *rooms.values())
    whole, killed = (contents(workplace / name) for name in ("whole", "killed"))
    assert {path.parts[0] for path in whole} <= rooms.keys()
    assert whole.keys() == killed.keys() != set()
    for path, data in killed.items():
        assert data.replace(b"killed", b"whole") == whole[path]


def interrupts_at_step(patch, number, interrupt):
    """Do something right after the n-th training step of this process."""
    real, calls = loop.training_step, []

    def counting(*arguments):
        figures = real(*arguments)
        calls.append(1)
        if len(calls) == number:
            interrupt()
        return figures

    patch.setattr(loop, "training_step", counting)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [1, 5, 6, 12])  # 3 steps an epoch: within, at the end, at all ends
def test_a_stop_loses_no_step(config, monkeypatch, number, step):
    uninterrupted = weights_after(config)
    records = without_seconds(config)
    with monkeypatch.context() as patch:
        interrupts_at_step(patch, step, lambda: os.kill(os.getpid(), number))
        with pytest.raises(Interrupted, match=r"stopped .*; it is saved, and the same") as stopped:
            train(config, restart=True)
    assert stopped.value.number == number
    done = divmod(step, 3)
    assert f"state_{done[0]}-{done[1]}.pt" in os.listdir(config.run_folder)
    assert same(uninterrupted, weights_after(config))
    assert without_seconds(config) == records


def test_a_second_signal_does_not_wait(config, monkeypatch):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    interrupts_at_step(monkeypatch, 2, twice)
    with pytest.raises(KeyboardInterrupt) as stopped:
        train(config)
    assert not isinstance(stopped.value, Interrupted)  # nothing was saved
    assert os.listdir(config.run_folder).count("state_0-2.pt") == 0
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_probe_is_not_waited_for(config, monkeypatch):
    uninterrupted = weights_after(config)
    records = without_seconds(config)

    def interrupted(_, epoch, *rest):
        if epoch == 2:
            os.kill(os.getpid(), signal.SIGINT)
            raise AssertionError("the probe goes on")
        return real(_, epoch, *rest)

    real = loop.evaluate
    with monkeypatch.context() as patch:
        patch.setattr(loop, "evaluate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(config, restart=True)
    assert same(uninterrupted, weights_after(config))
    assert without_seconds(config) == records


LEAVING = {  # what a script is at when the signal comes
    "the callback of a weak reference, where Python forgets what is raised": (
        "thing = set()\n"
        "reference = weakref.ref(thing, lambda _: signal.raise_signal(NUMBER))\n"
        "del thing\n"
        "signal.pause()\n"
    ),
    "a thread pool that waits for a reader which is blocked": (
        "os.mkfifo('pipe')\n"
        "threading.Timer(0.2, os.kill, (os.getpid(), NUMBER)).start()\n"
        "for _ in in_background(lambda path: open(path).read(), ['pipe'], threads=1, ahead=1):\n"
        "    pass\n"
    ),
    "an interruption of its own, with such a reader": (
        "os.mkfifo('pipe')\n"
        "with DeferredSignals() as signals:\n"
        "    signal.raise_signal(NUMBER)\n"
        "    reads = in_background(lambda p: open(p).read(), ['pipe'] * 2, threads=1, ahead=0)\n"
        "    threading.Timer(0.2, os.kill, (os.getpid(), NUMBER)).start()\n"
        "    next(reads)\n"
    ),
    "the end of what defers it": (
        "with DeferredSignals() as signals:\n"
        "    signal.raise_signal(NUMBER)\n"
        "    assert signals.noted == NUMBER\n"
        "signal.pause()\n"
    ),
    "a part that has nothing to save": (
        "with DeferredSignals() as signals:\n"
        "    with signals.at_once():\n"
        "        signal.raise_signal(NUMBER)\n"
        "        signal.pause()\n"
    ),
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("body", LEAVING.values(), ids=LEAVING)
def test_a_script_leaves_at_once_whatever_it_is_at(workplace, body, number):
    lines = body.replace("NUMBER", str(int(number))).splitlines()
    (workplace / "script.py").write_text(
        "import os, signal, threading, weakref\n"
        "from sola.system.cli import run_script\n"
        "from sola.system.prefetch import in_background\n"
        "from sola.system.signals import DeferredSignals\n"
        "def main():\n" + "".join(f"    {line}\n" for line in lines) + "run_script(main)\n"
    )
    result = subprocess.run(
        [sys.executable, "script.py"], cwd=workplace, env=ENVIRONMENT, capture_output=True,
        text=True, timeout=30,
    )  # fmt: skip
    assert result.returncode == 128 + number
    assert result.stderr == "interrupted; the same command goes on from what is saved\n"


def test_a_closed_standard_error_changes_nothing(workplace):
    (workplace / "script.py").write_text(
        "import os, signal\n"
        "from sola.system.cli import run_script\n"
        "run_script(lambda: (os.close(2), signal.raise_signal(signal.SIGTERM)))\n"
    )
    ended = subprocess.run([sys.executable, "script.py"], cwd=workplace, env=ENVIRONMENT)
    assert ended.returncode == 143


def test_signals_that_the_caller_ignores_stay_ignored(workplace):
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from sola.system.signals import DeferredSignals, leave_on_signals\n"
        "leave_on_signals()\n"
        "with DeferredSignals() as signals: signal.raise_signal(signal.SIGINT)\n"
        "assert signals.noted is None\n"
    )
    subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, check=True)


def test_the_state_is_saved_when_it_is_time_and_not_before(config, monkeypatch):
    saved = []
    monkeypatch.setattr(loop, "save_state", lambda _, s: saved.append((s.epoch, s.steps)))
    train(replace(config, epoch=3))
    assert saved == [(0, 0), (2, 0), (3, 0)]
    saved.clear()
    monkeypatch.setattr(loop, "STATE_SECONDS", 0.0)
    train(replace(config, epoch=3), restart=True)
    assert saved == [*((epoch, step) for epoch in range(3) for step in range(3)), (3, 0)]


def test_five_minutes_are_time():
    signals, now = DeferredSignals(), loop.time.monotonic()
    assert not loop.is_saving_due(SimpleNamespace(saved_at=now), signals)
    assert loop.is_saving_due(SimpleNamespace(saved_at=now - 300), signals)
    signals.noted = signal.SIGTERM
    assert loop.is_saving_due(SimpleNamespace(saved_at=now), signals)


def test_a_second_process_is_refused_and_a_stop_of_the_first_is_told(workplace):
    settings = ["epoch=100000", "saving_epoch=100000", "label_base=visualizing"]
    command = [*SCRIPT, "--yaml_path=tiny.yaml", *settings]
    options = {"cwd": workplace, "env": ENVIRONMENT, "text": True}
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    read_until(first, "epoch 2/")
    config = load_config("tiny.yaml", settings)
    with pytest.raises(SolaError, match=rf"models/tiny: in use by process {first.pid} on "):
        train(config, restart=True)
    first.terminate()
    _, errors = first.communicate()
    assert first.returncode == 143
    assert re.fullmatch(r"stopped .*; it is saved, and the same command goes on .*\n", errors)
    assert not (workplace / "models/.tiny.lock").exists()


def test_a_reader_that_has_gone_loses_nothing(workplace, config):
    """As tee, which a terminal's Ctrl-C ends first."""
    settings = ["epoch=100000", "saving_epoch=100000", "label_base=visualizing"]
    process = subprocess.Popen(
        [*SCRIPT, "--yaml_path=tiny.yaml", *settings], cwd=workplace, env=ENVIRONMENT, text=True,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    read_until(process, "epoch 2/")
    process.stdout.close()
    while len(read_records(config.metrics_file)) < 6:
        assert process.poll() is None
    process.terminate()
    assert process.wait(timeout=60) == 143
    assert load_state(config.run_folder).epoch >= 6


def test_another_name_of_a_folder_is_no_way_in(workplace, config):
    (workplace / "models").mkdir()
    (workplace / "other").symlink_to("models")
    with other_process_holds(workplace / "models/tiny") as holder:
        refused = pytest.raises(SolaError, match=f"tiny: in use by process {holder.pid}")
        with refused:
            train(replace(config, model_save_path="other"))
    train(replace(config, model_save_path="other", epoch=1))


def test_a_lock_does_not_follow_a_link(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / ".run.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(SolaError, match=r"run: cannot write there"), only_user_of(tmp_path / "run"):
        pass
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_signal_at_the_last_moment_of_an_epoch_is_not_called_saved(config, monkeypatch):
    uninterrupted = weights_after(config)
    real, calls = loop.is_saving_due, []

    def then_a_signal(run, signals):
        is_due = real(run, signals)
        calls.append(1)
        if len(calls) == 4:  # after three steps, at the end of the epoch
            os.kill(os.getpid(), signal.SIGTERM)
        return is_due

    with monkeypatch.context() as patch:
        patch.setattr(loop, "is_saving_due", then_a_signal)
        with pytest.raises(Interrupted, match=r"in epoch 2 after step 1 of 3"):
            train(config, restart=True)
    assert (config.run_folder / "state_1-1.pt").exists()
    assert same(uninterrupted, weights_after(config))


def test_a_stop_that_another_rank_was_asked_for_is_followed(config, monkeypatch):
    monkeypatch.setattr(loop, "any_rank", lambda says_so, device: True)
    with pytest.raises(Interrupted, match="in epoch 1 after step 1 of 3") as stopped:
        train(config)
    assert stopped.value.number == signal.SIGTERM
    assert (config.run_folder / "state_0-1.pt").exists()


def read_until(process, start):
    for line in process.stdout:
        if line.startswith(start):
            return
    raise AssertionError(f"no line with {start}")


@contextlib.contextmanager
def other_process_holds(folder):
    """A process that holds a folder's lock, and has a child that outlives it."""
    code = (
        "import os, sys; from sola.system.files import only_user_of\n"
        f"with only_user_of({str(folder)!r}):\n"
        "    if os.fork() == 0: sys.stdin.read(); os._exit(0)\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code], env=ENVIRONMENT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert holder.stdout.readline() == "held\n"
        yield holder
    finally:
        holder.communicate()


def test_the_lock_does_not_live_on_in_children(tmp_path):
    with other_process_holds(tmp_path / "run") as holder:
        refused = pytest.raises(SolaError, match=f"in use by process {holder.pid} on ")
        with refused, only_user_of(tmp_path / "run"):
            pass
        holder.kill()
        holder.wait()
        with only_user_of(tmp_path / "run"):  # though the child still lives
            assert (tmp_path / ".run.lock").exists()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_its_holder_removed_meanwhile_is_not_taken(tmp_path, monkeypatch):
    real, calls = fcntl.lockf, []

    def locked_after_its_holder_left(file, kind):
        calls.append(file)
        if len(calls) == 1:
            (tmp_path / ".run.lock").unlink()
        return real(file, kind)

    monkeypatch.setattr(fcntl, "lockf", locked_after_its_holder_left)
    with only_user_of(tmp_path / "run"):
        assert len(calls) == 2
        assert (tmp_path / ".run.lock").exists()


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


@pytest.mark.parametrize("change", ["seconds", "scalars", "no loss", "size", "identity", "epoch"])
def test_a_state_with_odd_values_is_damaged(config, change):
    train(replace(config, epoch=1, saving_epoch=1))
    state = torch.load(config.run_folder / "state_1-0.pt")
    if change == "seconds":
        state["seconds"]["seconds"] = float("nan")
    elif change == "scalars":
        state["scalars"] = {"loss": torch.zeros(3)}
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

"""Ctrl-C and SIGTERM: nothing is lost, wherever they come."""

import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
from helpers import (
    ENVIRONMENT,
    interrupts_at_step,
    replace,
    same,
    weights_after,
    without_seconds,
)

from sola.system.signals import DeferredSignals, Interrupted
from sola.training import loop
from sola.training.loop import train

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
    assert (
        result.stderr == "interrupted; what was saved stays, give the same command again to go on\n"
    )


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

"""A run and a folder have one process at a time, by whatever name they are called."""

import contextlib
import fcntl
import re
import subprocess
import sys

import pytest
from helpers import (
    ENVIRONMENT,
    SCRIPT,
    read_until,
    replace,
)

from sola.config import load_config
from sola.errors import SolaError
from sola.records import read_records
from sola.system.files import only_user_of
from sola.training.loop import train
from sola.training.resume import load_state


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


def test_a_run_refuses_a_second_process_and_outlives_its_reader(workplace):
    """And tells how it was stopped, though its reader, as tee upon Ctrl-C, has gone."""
    settings = ["epoch=100000", "saving_epoch=100000", "label_base=visualizing"]
    first = subprocess.Popen(
        [*SCRIPT, "--yaml_path=tiny.yaml", *settings], cwd=workplace, env=ENVIRONMENT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    read_until(first, "epoch 2/")
    config = load_config("tiny.yaml", settings)
    with pytest.raises(SolaError, match=rf"models/tiny: in use by process {first.pid} on "):
        train(config, restart=True)
    first.stdout.close()
    seen = len(read_records(config.metrics_file))
    while len(read_records(config.metrics_file)) < seen + 4:
        assert first.poll() is None
    first.terminate()
    errors = first.stderr.read()
    first.stderr.close()
    assert first.wait(timeout=60) == 143
    assert re.fullmatch(r"stopped .*; it is saved, and the same command goes on .*\n", errors)
    assert load_state(config.run_folder).epoch >= seen + 3
    assert not (workplace / "models/.tiny.lock").exists()


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

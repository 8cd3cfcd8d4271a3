"""Several processes under torchrun: the same run as one process, and no hang when one dies."""

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import REPOSITORY, as_rank, contents, replace, without_seconds

from sola.errors import SolaError
from sola.export.dump import export_features
from sola.records import read_records
from sola.system import cli
from sola.system.device import resolve_device
from sola.system.ranks import from_first_rank, is_first_rank, rank_count
from sola.training.loop import train
from sola.training.resume import state_files


@contextlib.contextmanager
def torchrun(count: int, *command: str, cwd):
    """The command under torchrun, killed with its processes if the test ends before it."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    script = [str(REPOSITORY / command[0]), *command[1:]]
    process = subprocess.Popen(
        [sys.executable, *launcher, *script], cwd=cwd, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()  # torchrun passes it on
            process.communicate()


def children(process: int) -> list[int]:
    """The ranks that a torchrun has started."""
    return [int(n) for n in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def test_ranks_train_as_one_process_does(workplace, config):
    count, storage = 2, "files"
    # 11 windows in batches of 5, the last of one: a rank is left without any. 51 steps.
    train(replace(config, exp_name="alone", epoch=17, saving_epoch=20))
    settings = ["epoch=17", "saving_epoch=20", "exp_name=together", f"storage={storage}"]
    command = ["main_simsiam.py", "--yaml_path=tiny.yaml", *settings]
    with torchrun(count, *command, cwd=workplace) as together:
        output, errors = together.communicate(timeout=100)
    assert together.returncode == 0, errors
    assert "UserWarning" not in errors
    assert f"in {count} processes" in output
    assert output.count("eval_result in epoch17") == 1
    records = [without_seconds(replace(config, exp_name=name)) for name in ("alone", "together")]
    assert len(records[0]) == 19
    for one, other in zip(*records, strict=True):
        assert one.keys() == other.keys()
        for key, value in one.items():
            if isinstance(value, str):
                assert other[key] == value
            elif key == "update_ratio":  # of the first rank's windows
                assert 0.5 < other[key] / value < 2
            else:
                assert other[key] == pytest.approx(value, abs=1e-5)


def test_ranks_write_the_features_that_one_process_writes(workplace, config, kills):
    """Also when a rank, or all there is, was killed while they did."""
    train(replace(config, epoch=2))
    folder = export_features(config, "last")
    alone = contents(folder)
    command = ["process_feature.py", "--yaml_path=tiny.yaml", "--load_model=last"]
    moments = random.Random(3)
    for _ in range(max(1, kills // 10)):
        shutil.rmtree(folder, ignore_errors=True)
        written = moments.randrange(20)  # files of 21
        with torchrun(2, *command, cwd=workplace) as process:
            while process.poll() is None and len([*folder.glob("*/*.npy")]) <= written:
                time.sleep(0.0005)
            victims = children(process.pid)
            if moments.random() < 0.5:
                victims = [*victims, process.pid]
            else:
                victims = [moments.choice(victims)] if victims else []
            for victim in victims:
                with contextlib.suppress(ProcessLookupError):  # it was quicker
                    os.kill(victim, signal.SIGKILL)
            process.communicate(timeout=60)
    with torchrun(2, *command, cwd=workplace) as process:
        output, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    assert output.count("21 videos complete") == 1
    assert contents(folder) == alone


def test_a_stop_of_all_ranks_loses_no_epoch(workplace, config):
    settings = ["--yaml_path=tiny.yaml", "epoch=100000", "saving_epoch=100000"]
    settings.append("label_base=visualizing")  # no labels there: no probe
    with torchrun(2, "main_simsiam.py", *settings, cwd=workplace) as process:
        for line in process.stdout:
            if line.startswith("epoch 9/"):
                break
        process.terminate()
        _, errors = process.communicate(timeout=60)
    stops = [line for line in errors.splitlines() if line.startswith("stopped ")]
    assert len(stops) == 1
    epochs, steps = map(int, re.findall(r"\d+", stops[0])[:2])
    if "after epoch" in stops[0]:
        steps = 0
    else:
        epochs -= 1
    newest = state_files(config.run_folder)[-1].name
    assert newest == f"state_{epochs}-{steps}.pt"
    assert epochs >= 8
    assert 'main_simsiam.py", line' not in errors  # no traceback of ours


def test_a_rank_that_dies_ends_the_run(workplace, config):
    settings = ["--yaml_path=tiny.yaml", "epoch=100000", "saving_epoch=100000"]
    settings.append("label_base=visualizing")  # no labels there: no probe
    with torchrun(2, "main_simsiam.py", *settings, cwd=workplace) as process:
        for line in process.stdout:
            if line.startswith("epoch 3/"):
                break
        os.kill(children(process.pid)[-1], signal.SIGKILL)
        process.communicate(timeout=60)
    assert process.returncode != 0
    assert read_records(config.metrics_file)[-1]["epoch"] >= 3  # whole lines


def test_a_lost_process_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(cli, "leave_on_signals", lambda: None)

    def main():
        raise RuntimeError("[gloo/transport/tcp/pair.cc:537] Connection reset by peer\nadvice")

    with pytest.raises(RuntimeError):
        cli.run_script(main)
    as_rank(monkeypatch, 0, 2)
    with pytest.raises(SystemExit) as left:
        cli.run_script(main)
    assert left.value.code == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error in rank 0: lost another process of this run, whose own error")
    assert "Connection reset by peer advice" in errors


def test_an_error_of_a_rank_is_one_line(monkeypatch, capsys):
    def main():
        raise SolaError("nowhere: no such folder")

    monkeypatch.setattr(cli, "leave_on_signals", lambda: None)
    as_rank(monkeypatch, 0, 2)
    with pytest.raises(SystemExit) as left:
        cli.run_script(main)
    assert left.value.code == 2
    assert capsys.readouterr().err == "error in rank 0: nowhere: no such folder\n"


def test_a_foreign_launchers_variables_are_not_torchruns(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert rank_count() == 1
    assert is_first_rank()
    for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "WORLD_SIZE"):
        monkeypatch.setenv(name, "")  # as some launchers leave them
    assert rank_count() == 1


def test_several_processes_do_not_share_a_gpu(monkeypatch):
    as_rank(monkeypatch, 1, 2)
    with pytest.raises(SolaError, match="give cuda"):
        resolve_device("cuda:0")


def test_an_error_of_the_first_rank_ends_the_others(monkeypatch):
    def broadcast(outcome, src):
        told[:] = outcome[:] = outcome if is_first_rank() else told

    told = []
    monkeypatch.setattr(torch.distributed, "broadcast_object_list", broadcast)
    as_rank(monkeypatch, 0, 2)
    with pytest.raises(SolaError, match="nowhere"):
        from_first_rank(lambda: (_ for _ in ()).throw(SolaError("nowhere")))
    as_rank(monkeypatch, 1, 2)
    with pytest.raises(SystemExit) as left:
        from_first_rank(lambda: pytest.fail("is the first one's to do"))
    assert left.value.code == 2

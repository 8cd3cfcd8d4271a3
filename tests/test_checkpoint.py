"""Files are replaced whole, and damaged ones are named."""

import json
import resource

import pytest
import torch

from sola.method.weights import CheckpointError, load, save
from sola.records import append_record, read_records
from sola.system.cli import SolaError
from sola.system.files import write_atomically
from sola.training.resume import load_state, save_state


def state_of(epoch):
    return {
        "epoch": epoch,
        "figures": torch.zeros(2, 3, dtype=torch.float64),
        "seconds": {"seconds": 0.5, "seconds_reading": 0.1, "seconds_drawing": 0.0},
        "identity": {"config": {}},
        "model": {"w": torch.ones(3)},
        "optimiser": {},
    }


def test_newest_state_is_loaded_and_the_last_two_are_kept(tmp_path):
    for epoch in (2, 9, 10):
        save_state(tmp_path, state_of(epoch))
    assert {path.name for path in tmp_path.iterdir()} == {"state_9-2.pt", "state_10-2.pt"}
    assert load_state(tmp_path)["epoch"] == 10
    assert load_state(tmp_path / "absent") is None


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 cut off", {"epoch": 3}])
def test_a_damaged_state_is_set_aside_for_the_one_before(tmp_path, content, capsys):
    save_state(tmp_path, state_of(2))
    if isinstance(content, bytes):
        (tmp_path / "state_3-2.pt").write_bytes(content)
    else:
        save(tmp_path / "state_3-2.pt", content)
    assert load_state(tmp_path)["epoch"] == 2
    assert "state_3-2.pt is damaged" in capsys.readouterr().out
    assert (tmp_path / "state_3-2.damaged").exists()
    (tmp_path / "state_2-2.pt").write_bytes(b"")
    assert load_state(tmp_path) is None


def test_a_state_that_cannot_be_read_is_not_called_damaged(tmp_path):
    (tmp_path / "state_3-2.pt").mkdir()  # stands for any error of the disk; root may read anything
    with pytest.raises(SolaError, match=r"state_3-2\.pt: not a file"):
        load_state(tmp_path)
    assert (tmp_path / "state_3-2.pt").exists()


class Executed:
    def __reduce__(self):
        return print, ("executed",)


def test_code_in_a_checkpoint_is_not_run(tmp_path, capsys):
    torch.save({"w": Executed()}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match=r"evil\.pt"):
        load(tmp_path / "evil.pt")
    assert capsys.readouterr().out == ""


def test_a_full_disk_leaves_the_earlier_file_and_nothing_else(tmp_path):
    write_atomically(tmp_path / "file", b"earlier")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(SolaError, match=r"file: cannot write its 5000 bytes: File too large"):
            write_atomically(tmp_path / "file", b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "file").read_bytes() == b"earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_record_that_was_cut_short_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert read_records(path) == []
    record = {"record": "epoch", "epoch": 1, "loss": 0.5, "tanh_alpha": 0.1, "seconds": 2}
    append_record(path, record)
    with open(path, "a") as file:
        file.write('{"record": "epo')
    assert read_records(path) == [record]
    good = json.dumps(record)
    for bad in (
        "not json",
        "[" * 9999,
        "[]",
        good.replace("0.5", "NaN"),
        good.replace("1,", '"1",'),
    ):
        path.write_text(f"{good}\n{bad}\n{good}\n")
        with pytest.raises(SolaError, match=r"metrics\.jsonl: line 2 is damaged"):
            read_records(path)

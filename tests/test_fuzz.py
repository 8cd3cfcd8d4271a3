"""Files damaged at random, and files made to do harm, end in a clean result or in one line."""

import json
import os
import shutil
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from helpers import FEATURE_DIM, REPOSITORY, replace, write_index_files

from sola.errors import CheckpointError, SolaError
from sola.export.dump import export_features
from sola.export.formats import Form
from sola.export.source import Target
from sola.method.module import SoLaModule
from sola.method.weights import load, load_module, load_weights
from sola.prepare import __main__ as prepare
from sola.training.loop import train


def test_damaged_files_of_every_kind(request, workplace, config):
    write_index_files(workplace)
    train(replace(config, epoch=2))
    export_features(config, "2")
    for name in ("csv", "h5"):
        export_features(config, "2", Target(form=Form(format=name), suffix=f"_{name}"))
    shutil.rmtree(workplace / "evaluation")  # which prepare then makes
    database = {
        path.stem: {
            "subset": path.parent.name,
            "duration": str(len(np.load(path)) / 2),
            "annotations": [{"label": "x", "segment": [1, 3.5]}],
        }
        for path in sorted((workplace / "HACS_DATA").glob("*/*.npy"))
    }
    (workplace / "annotations.json").write_text(json.dumps({"database": database}))
    prepare.main(["--yaml_path=tiny.yaml", "--annotations=annotations.json", "--fps=2"])
    command = [sys.executable, str(REPOSITORY / "tests/fuzz.py"), str(workplace), "5"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    output = subprocess.run(
        [*command, str(request.config.getoption("--fuzz"))],
        env=environment, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    *wrong, growth = output.splitlines()
    assert wrong == []
    assert float(growth) < 400  # MB; a run that begins anew is among them


@pytest.fixture
def checkpoint(tmp_path):
    """A good checkpoint, to be spoilt."""
    path = tmp_path / "good.pt"
    torch.save(SoLaModule(FEATURE_DIM, 8).state_dict(), path)
    load_module(path)
    return path


def repack(path, change, compression=zipfile.ZIP_STORED):
    """Write a checkpoint anew with its pickle changed, its checksums right."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries.items():
            changed = change(data) if name.endswith("data.pkl") else data
            archive.writestr(name, changed)
    assert changed is not None


def refused(path, why):
    with pytest.raises(CheckpointError, match=rf"{path.name}: .*{why}"):
        load_module(path)


def test_a_flipped_bit_in_the_weights_is_seen(checkpoint):
    data = bytearray(checkpoint.read_bytes())
    data[len(data) // 2] ^= 1
    assert torch.load(checkpoint)  # the file before was good
    checkpoint.write_bytes(data)
    refused(checkpoint, "bad checksum of good/data/")


def test_an_archive_that_expands_is_refused(checkpoint):
    repack(checkpoint, lambda data: data, zipfile.ZIP_DEFLATED)
    refused(checkpoint, "compressed")


def test_an_archive_with_two_directories_is_read_by_the_one_that_was_checked(checkpoint):
    """PyTorch's reader takes the directory that the end record names, Python's the last one."""
    parts = []
    for numel, compression in ((1, zipfile.ZIP_STORED), (10**6, zipfile.ZIP_DEFLATED)):
        torch.save({"alpha": torch.zeros(numel)}, checkpoint)
        repack(checkpoint, lambda data: data, compression)
        data = checkpoint.read_bytes()
        end = data.rfind(b"PK\x05\x06")
        size, offset = struct.unpack("<LL", data[end + 12 : end + 20])
        parts.append((data[:offset], bytearray(data[offset : offset + size]), data[end:]))
    (entries, directory, _), (hidden_entries, hidden_directory, end) = parts
    assert len(directory) == len(hidden_directory)
    place = 0
    while place < len(directory):  # where the entries of the last directory are found
        offset = struct.unpack("<L", directory[place + 42 : place + 46])[0]
        moved = offset + len(hidden_entries) - len(entries) - len(directory)
        moved += len(hidden_directory)  # which Python adds again
        directory[place + 42 : place + 46] = struct.pack("<L", moved % 2**32)
        place += 46 + sum(struct.unpack("<HHH", directory[place + 28 : place + 34]))
    both = hidden_entries + hidden_directory + entries + directory
    checkpoint.write_bytes(both + end[:16] + struct.pack("<L", len(hidden_entries)) + end[20:])
    assert torch.load(checkpoint)["alpha"].numel() == 10**6
    try:
        loaded = load(checkpoint)["alpha"].numel()
    except CheckpointError:
        loaded = 1
    assert loaded == 1


def test_claims_beyond_the_file_are_refused(checkpoint):
    repack(checkpoint, lambda data: data.replace(b"K\x01t", b"J\xff\xff\xff\x7ft"))
    refused(checkpoint, "")


def test_tensors_larger_than_their_memory_are_refused(checkpoint):
    weights = torch.load(checkpoint)
    weights["alpha"] = torch.zeros(1).expand(10**15)
    torch.save(weights, checkpoint)
    refused(checkpoint, "a tensor larger than its memory")


@pytest.mark.parametrize(
    "spoil", ["foreign key", "missing key", "shape", "nan", "integers", "list"]
)
def test_checkpoints_of_something_else_are_refused(checkpoint, spoil):
    weights = torch.load(checkpoint)
    if spoil == "foreign key":
        weights["extra.weight"] = torch.zeros(3)
    elif spoil == "missing key":
        del weights["conv_network.2.bias"]
    elif spoil == "shape":
        weights["conv_network.4.weight"] = torch.zeros(FEATURE_DIM, 7, 1)
    elif spoil == "nan":
        weights["alpha"][0] = float("nan")
    elif spoil == "integers":
        weights["alpha"] = torch.zeros(1, dtype=torch.int64)
    torch.save([weights] if spoil == "list" else weights, checkpoint)
    refused(checkpoint, "")


@pytest.mark.parametrize("kernel_sizes", [(1001, 1), (1, 1001)])
def test_a_kernel_that_would_take_minutes_is_refused(checkpoint, kernel_sizes):
    torch.save(SoLaModule(FEATURE_DIM, 8, kernel_sizes).state_dict(), checkpoint)
    refused(checkpoint, "a kernel of 1001 snippets")


class Executed:
    def __reduce__(self):
        return print, ("executed",)


def test_other_classes_in_a_checkpoint_are_refused_and_run_nothing(checkpoint, capsys):
    odd = OrderedDict(torch.load(checkpoint))
    odd.values = odd._metadata = 3  # PyTorch takes an OrderedDict with attributes
    for content in ({"w": Executed()}, {"w": torch.zeros(2).to_sparse()}, {"w": b"x"}, odd):
        torch.save(content, checkpoint)
        refused(checkpoint, "")
    assert capsys.readouterr().out == ""


def test_pytorchs_old_format_which_claims_sizes_is_refused(checkpoint):
    torch.save(torch.load(checkpoint), checkpoint, _use_new_zipfile_serialization=False)
    refused(checkpoint, "not a checkpoint of PyTorch 1.6 or later")


def test_the_originals_kind_of_checkpoint_is_taken(checkpoint):
    """PyTorch 1.x on a GPU: parameters, another archive name, no alignment record."""
    weights = {name: torch.nn.Parameter(w) for name, w in torch.load(checkpoint).items()}
    torch.save(weights, checkpoint)
    repack(
        checkpoint, lambda data: data.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
    )
    assert set(load_weights(checkpoint)) == set(weights)
    assert all(torch.equal(load(checkpoint)[name], weights[name]) for name in weights)


def test_a_pipe_is_not_waited_for(checkpoint, workplace, config):
    os.mkfifo(workplace / "pipe.pt")
    with pytest.raises(SolaError, match=r"pipe\.pt: not a file"):
        load_module(workplace / "pipe.pt")
    shutil.rmtree(workplace / "visualizing")
    (workplace / "visualizing").mkdir()
    os.mkfifo(workplace / "visualizing/pipe.npy")  # no regular file: not looked at
    train(replace(config, epoch=1))


def test_headers_of_python_2_are_read_without_a_word(workplace, config, recwarn):
    path = workplace / "HACS_DATA/training/t5.npy"
    features = np.load(path)
    path.unlink()
    np.save(path, features)
    data = path.read_bytes()
    shape = str(features.shape).encode()
    old = shape.replace(b",", b"L,").replace(b")", b"L)")
    path.write_bytes(data.replace(shape + b", }  ", old + b", }"))
    train(replace(config, epoch=1))
    assert not recwarn.list

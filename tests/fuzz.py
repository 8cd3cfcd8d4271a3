"""Damage each kind of input file at random, and run a script on it: a clean end, or one line.

    python tests/fuzz.py FOLDER SEED ROUNDS

FOLDER holds a finished run of tiny.yaml, with its dump, and is copied for each round. Prints what
went wrong, a line each, and the growth of the peak memory in MB last.
"""

import contextlib
import io
import json
import os
import pickle
import random
import re
import resource
import shutil
import sys
import tempfile
import traceback
from pathlib import Path

import torch

import main_simsiam
import process_feature
import sola.probe.temporal_head
import sola.training.loop
from sola.prepare import __main__ as prepare
from sola.probe import __main__ as probe
from sola.system.cli import run_script

TRAIN = (main_simsiam.main, ["--yaml_path=tiny.yaml", "epoch=2", "num_workers=1"])
TRAIN_ON = (main_simsiam.main, ["--yaml_path=tiny.yaml", "epoch=3", "num_workers=1"])
PROCESS = (process_feature.main, ["--yaml_path=tiny.yaml", "--load_model=2", "--overwrite"])
RESUME_PROCESS = (process_feature.main, ["--yaml_path=tiny.yaml", "--load_model=2"])
PREPARE = (prepare.main, ["--yaml_path=tiny.yaml", "--annotations=annotations.json"])
ACTIONFORMER = (PROCESS[0], [*PROCESS[1], "--for=actionformer", PREPARE[1][1]])
BEST = (process_feature.main, ["--yaml_path=tiny.yaml", "--load_model=best"])
SKIP = (TRAIN[0], [*TRAIN[1], "on_bad_file=skip"])
NEW = ["--yaml_path=new.yaml", "--features=HACS_DATA", PREPARE[1][1], "--fps=2", "--copy"]
PREPARE_NEW = (prepare.main, NEW)
ONE_FILE = (PROCESS[0], [*PROCESS[1], "--input=HACS_DATA/training/t5.npy", "--output=x.npy"])
CSV, H5 = ((PROCESS[0], [*RESUME_PROCESS[1], f"--format={name}"]) for name in ("csv", "h5"))
COMPARE = ["--features=HACS_DATA", "--features=transformed_features/tiny_2", "eval_head_seeds=1"]
PROBE = (probe.main, ["--yaml_path=tiny.yaml", *COMPARE])
PROBE_ANNOTATED = (probe.main, [*PROBE[1], PREPARE[1][1], "--fps=2"])
KINDS = {
    "HACS_DATA/training/t5.npy": [TRAIN, TRAIN_ON, PROCESS, SKIP, PREPARE_NEW, ONE_FILE, PROBE],
    "HACS_DATA/validation/v5.npy": [TRAIN, TRAIN_ON, PROCESS, SKIP, PREPARE_NEW, PROBE],
    "evaluation/training_label/t5.npy": [TRAIN, SKIP, PROBE],
    "visualizing/v6.npy": [TRAIN, SKIP],
    "HACS_DATA/training_duration.pkl": [TRAIN, PROCESS],
    "HACS_DATA/validation_subset_list.pkl": [TRAIN, SKIP, PROBE],
    "tiny.yaml": [TRAIN, PROCESS, PROBE],
    "annotations.json": [PREPARE, ACTIONFORMER, PREPARE_NEW, PROBE_ANNOTATED],
    "models/tiny/config.yaml": [TRAIN, RESUME_PROCESS],
    "models/tiny/tiny_2.pt": [TRAIN, PROCESS, ONE_FILE],
    "models/tiny/state_2-0.pt": [TRAIN, TRAIN_ON],
    "models/tiny/metrics.jsonl": [TRAIN, BEST],
    "transformed_features/tiny_2/manifest.json": [RESUME_PROCESS],
    "transformed_features/tiny_2/training/t5.npy": [RESUME_PROCESS, PROBE],
    "transformed_features/tiny_2_csv/training/t5.csv": [CSV],
    "transformed_features/tiny_2_h5/training/t5.h5": [H5],
}
HOSTILE = [
    b"",
    b"text\n",
    b"]r\xff\xff\xff\x7f.",  # a pickle whose memo would take 16 GB
    b"X\xff\xff\xff\x7fa.",  # one that claims 2 GB of text
    b"\x8d" + b"\xff" * 7 + b"\x7f.",
    b"[" * 5000,
    b"{" * 5000,
    b'{"a":' * 5000,
    b"(" * 100_000 + b".",
    b"]\x94" * 50_000 + b".",
    b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n",
    b"exp_name: !!python/object/apply:os.system ['exit 1']\n",
    b"exp_name: " + b"1:" * 40_000 + b"1.5\n",
    b"exp_name: " + b"9" * 50_000 + b"\n",
    pickle.dumps(print),
    b"\x93NUMPY\x01\x00v\x00" + b"{'descr':" * 12 + b" " * 10 + b"\n",
    b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65_535,
    b"\x93NUMPY\x02\x00\xff\xff\xff\x7f{",
]


NESTED = []
for _ in range(40):
    NESTED = [NESTED, NESTED]  # 80 lists, 10^12 brackets in print
ODD = [None, -1, 0, 2**63, "", "../x", [], {}, [[1]], {"a": 1}, float("nan"), float("inf"), True]


def damage(data: bytes, moments: random.Random, others: list[bytes]) -> bytes:
    """The data as a crash, a bad disk or an enemy may leave it."""
    start = moments.randrange(len(data) + 1)
    end = min(len(data), start + moments.choice([1, 1, 4, 64, 1000]))
    kind = moments.randrange(9)
    if kind == 0:
        return data[:start]
    if kind == 1:
        return data[:start] + moments.randbytes(end - start) + data[end:]
    if kind == 2:
        return data[:start] + data[end:]
    if kind == 3:
        return data[:start] + data[start:end] * moments.choice([2, 50]) + data[end:]
    if kind == 4:
        return data[:start] + moments.randbytes(moments.choice([1, 8, 500])) + data[start:]
    if kind == 5:
        return moments.choice(HOSTILE)
    if kind == 6:
        return data[:start] + moments.choice(HOSTILE)
    if kind == 7:
        return moments.choice(others)
    numbers = list(re.finditer(rb"\d+", data))  # another number, as a claim of a size
    if not numbers:
        return data[::-1]
    place = moments.choice(numbers)
    number = moments.choice([b"0", b"-1", b"1" * len(place[0]), b"1000000000000000", b"1e400"])
    return data[: place.start()] + number + data[place.end() :]


def restructure(data: bytes, name: str, moments: random.Random) -> bytes | None:
    """The content with one value in it replaced, in the file's own form; None for other files."""
    if name.endswith(".pt"):
        content = torch.load(io.BytesIO(data))
        replace_one(
            content, moments, [*ODD, NESTED, torch.zeros(1).expand(10**12), torch.zeros(2, 3)]
        )
        buffer = io.BytesIO()
        torch.save(content, buffer)
        return buffer.getvalue()
    if name.endswith((".json", ".jsonl")):
        lines = data.splitlines() if name.endswith(".jsonl") else [data]
        number = moments.randrange(len(lines))
        content = json.loads(lines[number])
        replace_one(content, moments, [*ODD, 10**400])
        lines[number] = json.dumps(content).encode()
        return b"\n".join(lines) + b"\n"
    if name.endswith(".pkl"):
        content = pickle.loads(data)
        replace_one(content, moments, [*ODD, NESTED])
        return pickle.dumps(content)
    return None


def replace_one(content, moments: random.Random, values: list) -> None:
    """Replace a value somewhere in nested dicts and lists, or add or remove one."""
    keys = list(content) if isinstance(content, dict) else list(range(len(content)))
    key = moments.choice(keys)
    if isinstance(content[key], dict | list) and content[key] and moments.random() < 0.8:
        replace_one(content[key], moments, values)
    elif moments.random() < 0.1:
        del content[key]
    else:
        content[key] = moments.choice(values)


def run(main, arguments: list[str]) -> str:
    """Run a script; empty when it ended as it should, else what it did instead."""
    errors = Stream()
    try:
        with contextlib.redirect_stdout(Stream()), contextlib.redirect_stderr(errors):
            run_script(lambda: main(arguments))
    except SystemExit as left:
        text = errors.getvalue()
        if left.code == 0 and not text:
            return ""
        if left.code == 2 and text.startswith("error: ") and text.count("\n") == 1:
            return ""
        return f"exit status {left.code}: {text}"
    except BaseException:
        return traceback.format_exc()
    return "no exit"


class Stream(io.StringIO):
    """run_script sets how streams treat odd characters."""

    def reconfigure(self, **_: object) -> None:
        pass


def main(folder: Path, seed: int, rounds: int) -> None:
    torch.set_num_threads(1)
    sola.training.loop.draw_tsms = lambda *_: None  # which takes long
    sola.training.loop.draw_curves = lambda *_: None
    sola.probe.temporal_head.STEPS = 2
    place = Path(tempfile.mkdtemp(dir=folder.parent)) / "copy"
    moments = random.Random(seed)
    contents = [(folder / name).read_bytes() for name in KINDS]
    for number in range(-2, rounds):
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(folder, place, symlinks=True)
        os.chdir(place)
        if number < 0:  # the first two rounds damage nothing, and show what memory is needed
            scripts = (TRAIN_ON, PROCESS, SKIP, PREPARE, PREPARE_NEW, ONE_FILE, PROBE_ANNOTATED)
            wrong = "".join(run(*script) for script in scripts)
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            name = "nothing"
        else:
            name = moments.choice(list(KINDS))
            data = (folder / name).read_bytes()
            changed = restructure(data, name, moments) if moments.random() < 0.4 else None
            data = damage(data, moments, contents) if changed is None else changed
            if name.endswith(".yaml") and (b"/" in data or b".." in data):
                continue  # a path that leaves the folder would be obeyed
            (place / name).unlink()
            (place / name).write_bytes(data)
            wrong = run(*moments.choice(KINDS[name]))
        if wrong:
            print(f"round {number}, {name}: {wrong!r}")
    print(max(0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1e3)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), int(sys.argv[2]), int(sys.argv[3]))

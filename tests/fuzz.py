"""Damage each kind of input file at random, and run a script on it: a clean end, or one line.

    python tests/fuzz.py FOLDER SEED ROUNDS

FOLDER holds a finished run of tiny.yaml, with its dump, and is copied for each round. Prints what
went wrong, a line each, and the growth of the peak memory in MB last.
"""

import contextlib
import io
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
from sola.runtime import run_script

TRAIN = (main_simsiam.main, ["--yaml_path=tiny.yaml", "epoch=2", "num_workers=1"])
PROCESS = (process_feature.main, ["--yaml_path=tiny.yaml", "--load_model=2", "--overwrite"])
RESUME_PROCESS = (process_feature.main, ["--yaml_path=tiny.yaml", "--load_model=2"])
SKIP = (TRAIN[0], [*TRAIN[1], "on_bad_file=skip"])
KINDS = {
    "HACS_DATA/training/t5.npy": [TRAIN, PROCESS, SKIP],
    "HACS_DATA/validation/v5.npy": [TRAIN, PROCESS, SKIP],
    "evaluation/training_label/t5.npy": [TRAIN, SKIP],
    "visualizing/v6.npy": [TRAIN, SKIP],
    "HACS_DATA/training_duration.pkl": [TRAIN, PROCESS],
    "HACS_DATA/validation_subset_list.pkl": [TRAIN, SKIP],
    "tiny.yaml": [TRAIN, PROCESS],
    "models/tiny/config.yaml": [TRAIN, RESUME_PROCESS],
    "models/tiny/tiny_2.pt": [TRAIN, PROCESS],
    "models/tiny/state_2-0.pt": [TRAIN],
    "models/tiny/metrics.jsonl": [TRAIN, PROCESS],
    "transformed_features/tiny_2/manifest.json": [RESUME_PROCESS],
    "transformed_features/tiny_2/training/t5.npy": [RESUME_PROCESS],
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
    place = Path(tempfile.mkdtemp(dir=folder.parent)) / "copy"
    moments = random.Random(seed)
    contents = [(folder / name).read_bytes() for name in KINDS]
    for number in range(-2, rounds):
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(folder, place, symlinks=True)
        os.chdir(place)
        if number < 0:  # the first two rounds damage nothing, and show what memory is needed
            wrong = "".join(run(*script) for script in (TRAIN, PROCESS, SKIP))
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            name = "nothing"
        else:
            name = list(KINDS)[number % len(KINDS)]
            data = damage((folder / name).read_bytes(), moments, contents)
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

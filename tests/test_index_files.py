"""The original's pickles: durations and subset lists, good, bad and hostile."""

import os
import pickle

import numpy as np
import pytest
from helpers import write_pickle

from sola.data.index_files import read_pickle
from sola.data.videos import (
    BadFiles,
    open_split,
    subset_of,
)
from sola.errors import DataError

STRICT = BadFiles("error")


class Executed:
    def __reduce__(self):
        return os.system, ("exit 3",)


@pytest.mark.parametrize(
    "content",
    [[1], {"a.npy": "3"}, {"a.npy": 0}, {"a.npy": True}, {"a": 3}, {3: 3}, {"a.npy": 3.0}, "text"],
)
def test_bad_duration_pickles_are_refused(workplace, content):
    write_pickle(workplace / "HACS_DATA/training_duration.pkl", content)
    with pytest.raises(DataError, match=r"training_duration\.pkl"):
        open_split("HACS_DATA", "training", 16, STRICT)


@pytest.mark.parametrize("content", [{"t0": 1}, [3], [], ["t0", "absent"], ["../t0"]])
def test_bad_subset_lists_are_refused(workplace, content):
    write_pickle(workplace / "HACS_DATA/training_subset_list.pkl", content)
    with pytest.raises(DataError, match=r"training_subset_list\.pkl"):
        subset_of(
            "HACS_DATA", open_split("HACS_DATA", "training", 16, STRICT), seed=0, bad_files=STRICT
        )


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_every_protocol(tmp_path, protocol):
    content = {"dict": [f"video{i}.npy" for i in range(300)], "n": [0, 300, 70000, -5, 10**12]}
    write_pickle(tmp_path / "p.pkl", content, protocol)
    assert read_pickle(tmp_path / "p.pkl") == content


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(Executed()),
        pickle.dumps({"a.npy": np.int64(3)}),
        pickle.dumps(["a"])[:-3],
        b"",
        b"garbage",
        b"]r\xff\xff\xff\x7f.",  # LONG_BINPUT: would make the unpickler take 16 GB
        b"\x80\x04" + b"]\x94" * 10 + b"h\xff.",
    ],
)
def test_hostile_and_damaged_pickles_are_refused(tmp_path, data):
    (tmp_path / "p.pkl").write_bytes(data)
    with pytest.raises(DataError, match=r"p\.pkl"):
        read_pickle(tmp_path / "p.pkl")


def test_a_memo_number_is_refused_before_memory_is_taken_for_it(tmp_path):
    (tmp_path / "p.pkl").write_bytes(b"]r\xff\xff\xff\x00.")  # 16 million places
    with pytest.raises(DataError, match="memo number"):
        read_pickle(tmp_path / "p.pkl")

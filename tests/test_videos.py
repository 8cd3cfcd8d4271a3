"""The videos of a split and their feature files, good and bad."""

import pickle

import numpy as np
import pytest
from helpers import write_pickle

from sola.data.features import is_finite, open_array, open_features, open_joined, read_features
from sola.data.videos import (
    BadFiles,
    Split,
    feature_paths,
    open_split,
    subset_of,
    videos_to_draw,
)
from sola.errors import DataError

STRICT = BadFiles("error")
VALUES = np.arange(60).reshape(12, 5) / 7


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", "i2", "u1"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("rows", [None, [0], [11], [2, 3, 4], [0, 2, 3, 9, 11], []])
def test_rows_of_any_real_dtype_and_order(tmp_path, dtype, order, rows):
    stored = np.asarray(VALUES, dtype=dtype, order=order)
    np.save(tmp_path / "v.npy", stored)
    array = open_joined([tmp_path / "v.npy"], 5)
    assert array.files[0].fortran_order == (order == "F")
    features = read_features(array, rows)
    assert features.dtype == np.float32
    assert features.flags.c_contiguous
    expected = stored.astype(np.float32) if rows is None else stored.astype(np.float32)[rows]
    np.testing.assert_array_equal(features, expected)


def test_a_header_that_pythons_parser_gives_up_on_is_a_bad_file(tmp_path):
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"-" * 9000 + b"1, 16), }\n"
    path = tmp_path / "v.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(DataError, match=r"v\.npy: not a readable npy file"):
        open_array(path)


@pytest.mark.parametrize("new", [np.ones((9, 4)), np.ones((5, 6)), np.ones((7, 4), np.float32)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_file_that_is_replaced_under_a_run_is_named(tmp_path, new, order):
    np.save(tmp_path / "a.npy", np.asarray(np.zeros((7, 4)), order=order))
    file = open_features(tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", new)
    with pytest.raises(DataError, match=r"a\.npy: of another size than when the run started"):
        read_features(file, [0, 1])


def test_a_video_of_one_snippet_keeps_its_rank(tmp_path):
    np.save(tmp_path / "v.npy", VALUES[:1])
    assert read_features(open_joined([tmp_path / "v.npy"], 5)).shape == (1, 5)


def write_bad(path, kind):
    np.save(path, VALUES)
    data = path.read_bytes()
    arrays = {  # kind -> what is stored
        "rank 1": VALUES[0],
        "rank 3": VALUES[None],
        "width": VALUES[:, :4],
        "strings": np.array([["a"] * 5]),
        "complex": VALUES.astype(complex),
        "bool": VALUES > 1,
        "no snippets": VALUES[:0],
        "objects": np.array([[None] * 5], dtype=object),
        "nan": np.where(np.arange(12)[:, None] == 4, np.nan, VALUES),
        "inf": np.where(np.arange(12)[:, None] == 4, -np.inf, VALUES),
        "beyond float32": VALUES * 1e300,
    }
    bad_bytes = {
        "truncated": data[:-1],
        "header only": data[:128],
        "cut header": data[:50],
        "empty": b"",
        "text": b"not an array",
        "pickle": pickle.dumps(VALUES),
        "huge claim": data.replace(b"(12, 5)", b"(12, 5555555555555555)")[: len(data)],
        "negative": data.replace(b"(12, 5)", b"(-2, 5)"),
        "version 9": b"\x93NUMPY\x09" + data[7:],
    }
    if kind in arrays:
        np.save(path, arrays[kind], allow_pickle=kind == "objects")
    else:
        path.write_bytes(bad_bytes[kind])


BAD = ["rank 1", "rank 3", "width", "strings", "complex", "bool", "no snippets", "objects", "nan"]
BAD += ["inf", "beyond float32", "truncated", "header only", "cut header", "empty", "text"]
BAD += ["pickle", "huge claim", "negative", "version 9"]


@pytest.mark.parametrize("kind", BAD)
def test_bad_feature_files_are_refused_by_name(tmp_path, kind):
    write_bad(tmp_path / "bad.npy", kind)
    with pytest.raises(DataError, match=r"bad\.npy"):
        read_features(open_joined([tmp_path / "bad.npy"], 5))


def test_channels_first_is_told_from_another_width(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((16, 30)))
    with pytest.raises(DataError, match=r"shape \[16, 30\], channels first; .* transpose it"):
        open_joined([tmp_path / "x.npy"], 16)
    with pytest.raises(DataError, match="has 30 channels, not 20"):
        open_joined([tmp_path / "x.npy"], 20)


def test_finite_sums_that_overflow_are_no_error():
    assert is_finite(np.full((4, 4), 3e38, np.float32))


def test_only_npy_files_directly_in_the_folder_count(tmp_path):
    for name in ("b.npy", "-a.npy", "_c.npy", ".hidden.npy", "d.npy.tmp", "e.txt"):
        np.save(tmp_path / "x", VALUES)
        (tmp_path / "x.npy").rename(tmp_path / name)
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "link.npy").symlink_to(tmp_path / "b.npy")
    assert list(feature_paths(tmp_path)) == ["-a", "_c", "b", "link"]
    (tmp_path / "dead.npy").symlink_to(tmp_path / "nowhere")
    assert "dead" in feature_paths(tmp_path)
    with pytest.raises(DataError, match=r"dead\.npy: is a link to .*nowhere, which is not"):
        open_array(feature_paths(tmp_path)["dead"])


def test_split_with_and_without_duration_pickle(workplace):
    plain = open_split("HACS_DATA", "training", 16, STRICT)
    assert plain.lengths["t0"] == 24
    assert plain.missing == 0
    lengths = {f"{video}.npy": length for video, length in plain.lengths.items()}
    del lengths["t1.npy"]  # its T then comes from the header
    write_pickle(workplace / "HACS_DATA/training_duration.pkl", lengths | {"gone.npy": 7})
    split = open_split("HACS_DATA", "training", 16, STRICT)
    assert split.lengths == plain.lengths
    assert split.missing == 1
    write_pickle(workplace / "HACS_DATA/training_duration.pkl", lengths | {"t0.npy": 25})
    with pytest.raises(DataError, match=r"t0\.npy: has 24 .* 25"):
        open_split("HACS_DATA", "training", 16, STRICT)


def test_a_large_split_gives_a_tenth(tmp_path, monkeypatch):
    monkeypatch.setattr("sola.data.videos.SMALL_SPLIT", 20)
    split = Split("training", dict.fromkeys(f"v{i}" for i in range(305)), missing=0)
    assert len(subset_of(tmp_path, split, seed=0, bad_files=STRICT)) == 30


def test_subset_is_the_list_or_all_or_a_seeded_tenth(workplace, monkeypatch):
    split = open_split("HACS_DATA", "training", 16, STRICT)
    assert subset_of("HACS_DATA", split, seed=0, bad_files=STRICT) == list(split.videos)
    monkeypatch.setattr("sola.data.videos.SMALL_SPLIT", 5)
    chosen = subset_of("HACS_DATA", split, seed=0, bad_files=STRICT)
    assert len(chosen) == len(set(chosen)) == 5
    assert chosen == subset_of("HACS_DATA", split, seed=0, bad_files=STRICT)
    assert chosen != subset_of("HACS_DATA", split, seed=1, bad_files=STRICT)
    write_pickle(workplace / "HACS_DATA/training_subset_list.pkl", ["t5", "t2"])
    assert subset_of("HACS_DATA", split, seed=0, bad_files=STRICT) == ["t5", "t2"]


def test_videos_to_draw_default_to_six_of_the_validation_split(workplace, capsys):
    validation = open_split("HACS_DATA", "validation", 16, STRICT)
    first_six = list(validation.videos)[:6]
    assert list(videos_to_draw("absent", validation, 16, STRICT)) == first_six
    (workplace / "mine" / "another_run").mkdir(parents=True)
    (workplace / "mine" / "note.txt").write_text("ignored")
    assert list(videos_to_draw("mine", validation, 16, STRICT)) == first_six
    for name in "cab":
        np.save(workplace / "mine" / f"{name}.npy", np.zeros((3, 16)))
    assert list(videos_to_draw("mine", validation, 16, STRICT)) == ["a", "b", "c"]
    for number in range(12):
        (workplace / f"mine/d{number:02}.npy").symlink_to(workplace / "mine/a.npy")
    capsys.readouterr()
    assert len(videos_to_draw("mine", validation, 16, STRICT)) == 12
    assert capsys.readouterr().out == "mine: of its 15 videos the first 12 are drawn\n"

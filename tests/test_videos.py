"""Reading features, labels and index files, good and bad."""

import os
import pickle

import numpy as np
import pytest

from sola.data.features import is_finite, open_array, open_features, open_joined, read_features
from sola.data.index_files import read_pickle
from sola.data.labels import has_labels, read_labels
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


def write_pickle(path, content, protocol=4):
    path.write_bytes(pickle.dumps(content, protocol))


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


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_every_protocol(tmp_path, protocol):
    content = {"dict": [f"video{i}.npy" for i in range(300)], "n": [0, 300, 70000, -5, 10**12]}
    write_pickle(tmp_path / "p.pkl", content, protocol)
    assert read_pickle(tmp_path / "p.pkl") == content


class Executed:
    def __reduce__(self):
        return os.system, ("exit 3",)


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


@pytest.mark.parametrize("dtype", [bool, np.int64, np.float32, np.uint8])
def test_action_is_label_one(tmp_path, dtype):
    np.save(tmp_path / "v.npy", VALUES[:4])
    np.save(tmp_path / "labels.npy", np.array([0, 1, 1, 0], dtype))
    (tmp_path / "label").mkdir()
    (tmp_path / "labels.npy").rename(tmp_path / "label" / "v.npy")
    labels = read_labels(tmp_path / "label", {"v": open_features(tmp_path / "v.npy")}, STRICT)
    assert labels["v"].tolist() == [False, True, True, False]


@pytest.mark.parametrize(
    ("files", "said"),  # labels of a, b and c
    [
        ([[0, 1, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0]], None),
        ([np.array([0, 1, 0, 1.0]), np.array([True, False, True, False])], None),
        ([[0, 1, 0, 1], [2, 1, 0, 2], [0, 255, 0, 0]], "0, 1, 2, 255 (in 2 files, first {}/b"),
        ([[3, 3, 3, 3]], "3 (in 1 files, first {}/a"),
        (
            [[1.0, 0.5, np.nan, np.nan], [-1, 0, 1, 1]],
            "-1, 0, 0.5, 1, nan (in 2 files, first {}/a",
        ),
        (
            [[0, 1, 0.25, 0.5], [3, 4, 5, 6]],
            "0, 0.25, 0.5, 1, 3, others (in 2 files, first {}/a",
        ),
    ],
)
def test_other_label_values_are_said_and_are_not_action(tmp_path, capsys, files, said):
    folder = tmp_path / "label"
    folder.mkdir()
    videos = {}
    for video, values in zip("abc", files, strict=False):
        np.save(tmp_path / f"{video}.npy", VALUES[:4])
        np.save(folder / f"{video}.npy", values)
        videos[video] = open_features(tmp_path / f"{video}.npy")
    labels = read_labels(folder, videos, STRICT)
    for video, values in zip("abc", files, strict=False):
        assert labels[video].tolist() == [value == 1 for value in values]
    line = f"warning: labels hold {said}.npy); 1 alone counts as action\n" if said else ""
    assert capsys.readouterr().out == line.format(folder)


@pytest.mark.parametrize(
    "labels", [np.zeros(3), np.zeros(5), np.zeros((4, 1)), np.array(["a"] * 4)]
)
def test_labels_that_do_not_fit_are_refused(tmp_path, labels):
    np.save(tmp_path / "v.npy", VALUES[:4])
    (tmp_path / "label").mkdir()
    np.save(tmp_path / "label" / "v.npy", labels)
    with pytest.raises(DataError, match=r"label/v\.npy"):
        read_labels(tmp_path / "label", {"v": open_features(tmp_path / "v.npy")}, STRICT)


def test_a_label_folder_that_is_given_must_be_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not has_labels("evaluation")  # the usual one, which need not be there
    with pytest.raises(DataError, match="label_base: labels: no such folder"):
        has_labels("labels")
    (tmp_path / "labels").mkdir()
    assert not has_labels("labels")


def test_label_folders_come_in_pairs(tmp_path):
    assert not has_labels(tmp_path)
    (tmp_path / "training_label").mkdir()
    with pytest.raises(DataError, match="validation_label"):
        has_labels(tmp_path)
    (tmp_path / "validation_label").mkdir()
    assert has_labels(tmp_path)


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

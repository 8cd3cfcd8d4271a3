"""Annotation files of three data sets, and labels by the centre rule."""

import json

import numpy as np
import pytest

from sola.data.annotations import (
    Action,
    action_labels,
    find_annotation,
    numeric_annotations,
    read_annotations,
    splits_of,
)
from sola.data.features import DataError

HACS = {
    "abc": {
        "subset": "training",
        "duration": "92.166667",
        "url": "",
        "annotations": [{"label": "Surfing", "segment": [1.5, 3.0]}],
    },
    "-_x": {"subset": "validation", "duration": 10, "annotations": []},
    "t": {"subset": "testing", "duration": "7", "annotations": []},
}


def write(path, database):
    path.write_text(json.dumps({"version": "1", "database": database}))
    return path


def test_hacs(tmp_path):
    annotations = read_annotations(write(tmp_path / "a.json", HACS))
    assert annotations["abc"].duration == 92.166667
    assert annotations["abc"].actions == (Action("Surfing", 1.5, 3.0),)
    assert splits_of(annotations) == {"abc": "training", "-_x": "validation"}


def test_activitynet_files_may_begin_with_v(tmp_path):
    annotations = read_annotations(write(tmp_path / "a.json", HACS))
    assert find_annotation(annotations, "v_abc") is annotations["abc"]
    assert find_annotation(annotations, "abc") is annotations["abc"]
    assert find_annotation(annotations, "xabc") is None


def test_thumos_is_trained_on_its_validation_subset(tmp_path):
    database = {
        "video_validation_1": {"subset": "Validation", "duration": 3.0, "annotations": []},
        "video_test_1": {"subset": "Test", "duration": 3.0, "annotations": []},
    }
    annotations = read_annotations(write(tmp_path / "a.json", database))
    assert splits_of(annotations) == {
        "video_validation_1": "training",
        "video_test_1": "validation",
    }


@pytest.mark.parametrize("fps", [1, 2, 25 / 16])
def test_labels_follow_the_centre_rule(fps):
    actions = [Action("a", 1.25, 3.25), Action("b", 3.0, 3.75), Action("c", 9.0, 1e9)]
    labels = action_labels(actions, 20, fps)
    for i in range(20):
        centre = (i + 0.5) / fps
        assert labels[i] == any(a.start <= centre < a.end for a in actions)
    assert action_labels([Action("a", 0.25, 0.75)], 3, 2).tolist() == [True, False, False]


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", '{"database": []}', '{"database": {}}', "[" * 9999,
        '{"database": {"a": 3}}',
        '{"database": {"a": {"duration": 3}}}',
        '{"database": {"a": {"subset": "training", "duration": "long"}}}',
        '{"database": {"a": {"subset": "training", "duration": 1e999}}}',
        '{"database": {"a": {"subset": "training", "annotations": [{"segment": [1]}]}}}',
        '{"database": {"a": {"subset": "training", "annotations": [{"segment": [1, null]}]}}}',
        '{"database": {"a": {"subset": "training", "annotations": 3}}}',
    ],
)  # fmt: skip
def test_bad_files_are_one_error(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=r"a\.json: "):
        read_annotations(tmp_path / "a.json")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.json: cannot be read: No such file"):
        read_annotations(tmp_path / "gone.json")


def test_numeric_annotations_are_what_actionformer_reads(tmp_path):
    """Its loader's rules, stated anew: numbers, a label_id from 0 for each label, all segments."""
    database = HACS | {
        "d": {
            "subset": "validation",
            "duration": "5",
            "annotations": [
                {"label": "Zumba", "segment": ["1", "2"]},
                {"label": "Archery", "segment": [2, 3]},
            ],
        }
    }
    annotations = read_annotations(write(tmp_path / "a.json", database))
    content = json.loads(json.dumps(numeric_annotations(annotations, ["abc", "d", "other"], 2.0)))
    entries = content["database"]
    assert entries.keys() == {"abc", "d"}
    label_ids = {}
    for entry in entries.values():
        assert type(entry["duration"]) is float
        assert entry["fps"] == 2.0
        assert entry["subset"] in ("training", "validation")
        for action in entry["annotations"]:
            assert all(type(t) is float for t in action["segment"])
            assert label_ids.setdefault(action["label"], action["label_id"]) == action["label_id"]
    assert sorted(label_ids.values()) == [0, 1, 2]
    np.testing.assert_array_equal(entries["d"]["annotations"][0]["segment"], [1, 2])

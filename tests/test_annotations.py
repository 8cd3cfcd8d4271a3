"""Annotation files of three data sets, and labels by the centre rule."""

import json

import pytest

from sola.data.annotations import (
    Action,
    action_labels,
    match,
    read_annotations,
    split_of_names,
    split_of_subset,
)
from sola.data.times import TimeAxis
from sola.errors import DataError, SolaError

HACS = {
    "abc": {
        "subset": "training",
        "duration": "92.166667",
        "url": "",
        "annotations": [{"label": "Surfing", "segment": [1.5, 3.0]}],
    },
    "-_x": {"subset": "validation", "duration": 10, "annotations": []},
    "t": {"subset": "Testing", "annotations": []},
}


def write(path, database):
    path.write_text(json.dumps({"version": "1", "database": database}))
    return path


def test_hacs(tmp_path):
    annotations = read_annotations(write(tmp_path / "a.json", HACS))
    assert annotations["abc"].duration == 92.166667
    assert annotations["abc"].actions == (Action("Surfing", 1.5, 3.0),)
    assert (annotations["t"].duration, annotations["t"].subset) == (None, "testing")
    assert split_of_subset(annotations) == {"training": "training", "validation": "validation"}


def test_activitynet_files_may_begin_with_v(tmp_path):
    annotations = read_annotations(write(tmp_path / "a.json", HACS | {"v_y": HACS["t"]}))
    for names in ({"abc": "abc", "v_y": "v_y"}, {"v_abc": "abc", "y": "v_y"}):
        assert match(annotations, [*names, "xabc"]) == names
    both = ["v_abc", "abc", "y", "v_y"]  # the file of the very name has the annotation alone
    assert match(annotations, both) == {"abc": "abc", "v_y": "v_y"}


def test_names_in_another_case_or_unicode_form(tmp_path):
    database = dict.fromkeys(["Kick", "caf\u00e9", "A", "a", "v_Two", "same"], HACS["t"])
    annotations = read_annotations(write(tmp_path / "a.json", database))
    found = {"kick": "Kick", "cafe\u0301": "caf\u00e9", "TWO": "v_Two", "a": "a", "same": "same"}
    assert match(annotations, [*found, "SAME"]) == found  # the one that is the same comes first
    assert match(annotations, ["kick", "KICK", "A"]) == {"A": "A"}  # one file of two: neither
    with pytest.raises(DataError, match="none of the 6 annotated videos, as 'Kick', has the name"):
        match(annotations, ["kick.mp4"])


@pytest.mark.parametrize(
    ("names", "split_of"),
    [
        ({"train", "val"}, {"train": "training", "val": "validation"}),
        ({"training", "valid", "x"}, {"training": "training", "valid": "validation"}),
        ({"train", "test"}, {"train": "training", "test": "validation"}),
        ({"validation", "test"}, {"validation": "training", "test": "validation"}),
        ({"train", "val", "testing"}, {"train": "training", "val": "validation"}),
        ({"training"}, {"training": "training"}),
    ],
)
def test_which_subset_is_trained_on_and_which_validates(names, split_of):
    assert split_of_names(names) == split_of


@pytest.mark.parametrize("fps", [1, 2, 25 / 16])
def test_labels_follow_the_centre_rule(fps):
    actions = [Action("a", 1.25, 3.25), Action("b", 3.0, 3.75), Action("c", 9.0, 1e9)]
    labels = action_labels(actions, TimeAxis(fps, 1 / fps).centres(20))
    for i in range(20):
        centre = (i + 0.5) / fps
        assert labels[i] == any(a.start <= centre < a.end for a in actions)
    centres = TimeAxis(2, 0.5).centres(3)
    assert action_labels([Action("a", 0.25, 0.75)], centres).tolist() == [True, False, False]


def test_multithumos_and_charades_hold_segments_as_actions(tmp_path):
    database = {"a": {"subset": "training", "duration": 9, "actions": [[3, 1.5, "2"], ["x", 4, 5]]}}
    for content in (database, {"database": database}):
        (tmp_path / "a.json").write_text(json.dumps(content))
        (entry,) = read_annotations(tmp_path / "a.json").values()
        assert entry.actions == (Action("3", 1.5, 2.0), Action("x", 4.0, 5.0))


def test_ambiguous_segments_are_left_out_and_absent_ones_are_no_empty_list(tmp_path):
    segments = [{"label": name, "segment": [1, 2]} for name in ("Ambiguous", "Dive", "ambiguous")]
    bare = {"subset": "training", "duration": 3, "fps": 29.97}
    file = write(tmp_path / "a.json", {"a": entry(annotations=segments), "b": bare})
    annotations = read_annotations(file)
    assert annotations["a"].actions == (Action("Dive", 1.0, 2.0),)
    assert (annotations["a"].ambiguous, annotations["b"].actions) == (2, None)
    assert (annotations["a"].fps, annotations["b"].fps) == (None, 29.97)


def entry(**changes):
    return {"subset": "training", "duration": 3, "annotations": []} | changes


def action(**changes):
    return entry(annotations=[{"label": "x", "segment": [1, 2]} | changes])


@pytest.mark.parametrize(
    ("database", "words"),
    [
        ([], "its database is empty"),
        ({}, "its database is empty"),
        ({"a": 3}, "bad entry of 'a'"),
        ({"a": [1]}, "bad entry of 'a'"),
        ({"a": {"duration": 3}}, r"bad entry of 'a' \(lacks 'subset'\); mend or remove it"),
        ({"a": entry(subset=["training"])}, "its subset is"),
        ({"a": entry(duration="long")}, "could not convert"),
        ({"a": entry(duration=float("inf"))}, "inf is no number"),
        ({"a": entry(duration=True)}, "True is no number"),
        ({"a": entry(duration=10**400)}, "too large"),
        ({"a": entry(duration=0)}, "its duration is 0"),
        ({"a": entry(fps=0)}, "its fps is 0"),
        ({"a": {"subset": "training", "actions": [[1, 2]]}}, "bad entry"),
        ({"a": entry(annotations=3)}, "bad entry"),
        ({"a": entry(annotations={"x": 1})}, "bad entry"),
        ({"a": action(segment=[1])}, "bad entry"),
        ({"a": action(segment=[1, None])}, "None is no number"),
        ({"a": action(label_id=-1)}, "its label_id is -1"),
        ({"a": action(label_id="3")}, "its label_id is 3"),
        ({"a": action(label_id=10**4000)}, "its label_id is 1000"),
        ({"a/b": entry()}, "'a/b' is no plain video name"),
        ({"a\0": entry()}, r"'a\?' is no plain video name"),
        ({"\ud800": entry()}, r"'\?' is no plain video name"),
    ],
)
def test_a_bad_database_is_one_error(tmp_path, database, words):
    with pytest.raises(SolaError, match=rf"a\.json: .*{words}"):
        read_annotations(write(tmp_path / "a.json", database))


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "\x80", "[" * 9999, '{"database": {"a": %s}}' % ("9" * 9999)]
)
def test_what_is_no_such_json_is_one_error(tmp_path, text):
    (tmp_path / "a.json").write_text(text, encoding="latin-1")
    with pytest.raises(SolaError, match=r"a\.json: not a JSON file with a database of videos \("):
        read_annotations(tmp_path / "a.json")

"""The annotation files that heads are given."""

import numpy as np
import pytest
from handing import dump_of, folder_of, hand_over
from helpers import FEATURE_DIM, numeric
from loaders import LOADERS, settings

from sola.export.heads import HEADS

pytest_plugins = ["handing"]


def test_labels_are_numbered_from_0_in_the_order_of_their_numbers(database):
    extra = {"label": "fly", "label_id": 0, "segment": [1e6, 2e6]}  # cut away: no class is left
    database["t5"]["annotations"].append(extra)
    said = hand_over("opentad", database)
    assert "labels are numbered anew, without gaps: dive 3 -> 0, swim 7 -> 1" in said
    numbers = {a["label"]: a["label_id"] for e in numeric(dump_of("opentad")).values()
               for a in e["annotations"]}  # fmt: skip
    assert numbers == {"dive": 0, "swim": 1}
    assert (dump_of("opentad") / "classes.txt").read_text() == "dive\nswim\n"
    hand_over("tridet", database)
    assert settings(dump_of("tridet"), "tridet")["dataset"]["num_classes"] == 2


@pytest.mark.parametrize(
    ("ids", "numbers", "said"),
    [
        ((0, 1), (0, 1), None),  # swim before dive, as the file has them
        ((5, None), (1, 0), "swim 5 -> 1"),  # not all have one: in alphabetical order
        ((4, 4), (1, 0), "dive 4 -> 0, swim 4 -> 1"),
        ((None, None), (1, 0), None),
    ],
)
def test_label_ids_of_the_file_stay_where_they_are_good(database, ids, numbers, said):
    for entry in database.values():
        for action, number in zip(entry["annotations"], ids, strict=True):
            action["label_id"] = number
    text = hand_over("tridet", database)
    for entry in numeric(dump_of("tridet")).values():
        assert tuple(action["label_id"] for action in entry["annotations"]) == numbers
    assert ("numbered anew" in text) == (said is not None)
    assert said is None or f"{said}\n" in text


@pytest.mark.parametrize("head", HEADS)
def test_segments_are_cut_to_the_features_in_training_alone(database, head):
    for video in ("t5", "t6", "v5"):
        seconds = float(database[video]["duration"])
        segments = [[-1, 2], [seconds - 1, seconds + 5], [seconds + 1, seconds + 2]]
        actions = [{"label": "swim", "segment": segment} for segment in segments]
        database[video]["annotations"] = actions[2:] if video == "t6" else actions
    said = hand_over(head, database)
    training, validation = (LOADERS[head](folder_of(head), s) for s in ("training", "validation"))
    seconds = float(database["t5"]["duration"])
    assert np.array(training["t5"].segments) == pytest.approx(
        np.array([[0, 2], [seconds - 1, seconds]])
    )
    assert "t6" not in training
    assert "not in it: 1 of training without a segment within their features" in said
    assert "(t6)\n" in said
    assert validation["v5"].segments == segments  # of v5, the last one, as annotated
    assert len(training) + len(validation) == 20


def test_a_video_without_segments_is_scored_and_not_trained_on(database):
    for video in ("t5", "v5"):
        database[video]["annotations"] = []
    hand_over("tridet", database)
    assert {"t5", "v5"} & numeric(dump_of("tridet")).keys() == {"v5"}


def test_bmn_takes_the_time_of_the_features_where_a_duration_is_another(database):
    database["t5"]["duration"] = float(database["t5"]["duration"]) + 0.37
    hand_over("bmn", database)
    length = len(np.load("HACS_DATA/training/t5.npy"))
    times = LOADERS["bmn"](folder_of("bmn"), "training")["t5"].times
    np.testing.assert_allclose(times, (np.arange(100) + 0.5) * length / 200, rtol=1e-4)


def test_segments_are_cut_where_snippets_with_long_clips_lie(database):
    """Snippet i fills a stride around i / 2 + 1: features of 20 snippets from 0.75 to 10.75 s."""
    np.save("HACS_DATA/training/new.npy", np.ones((20, FEATURE_DIM), np.float32))
    action = {"label": "swim", "segment": [0, 99]}
    database = {"new": {"subset": "training", "duration": 11.5, "annotations": [action]}}
    hand_over("tridet", database, "clip=2")
    assert numeric(dump_of("tridet"))["new"]["annotations"][0]["segment"] == [0.75, 10.75]


def test_videos_without_features_or_duration_are_counted_and_named(database):
    entry = database["t5"]
    database["t7"] = entry | {"duration": None}
    database["v7"] = database["v7"] | {"duration": None}
    database |= {"lost": entry, "gone": entry | {"subset": "Validation"}, "a\nb": entry}
    database["held"] = entry | {"subset": "testing"}
    said = hand_over("opentad", database)
    assert "annotations.json: 19 videos, 2 classes" in said
    assert "not in it: 3 without features (lost, a?b, held)\n" in said
    assert "not in it: 1 without a duration (t7)\n" in said
    scored = "that would be scored, without features or duration: a score leaves them out"
    assert f"not in it: 2 {scored} (v7, gone)\n" in said
    named = (dump_of("opentad") / "missing_files.txt").read_text().splitlines()
    assert sorted(named) == ["a b", "gone", "held", "lost", "t7", "v7"]
    assert not {"t7", "v7", "lost", "gone", "held"} & numeric(dump_of("opentad")).keys()

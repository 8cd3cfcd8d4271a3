"""metrics.jsonl, and which of its evaluations can be compared."""

import json

import pytest

from sola.errors import SolaError
from sola.records import append_record, best_evaluation, comparable, gain, read_records


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
        *(good.replace("0.5", odd) for odd in ("NaN", "null", '"0.5"', "[0.5]", "true", "1e999")),
        *(good.replace(": 1,", f": {odd},") for odd in ('"1"', "-1", "1.0", "1e10", "true")),
        good.replace('"loss": 0.5, ', ""),
        good.replace('"epoch",', '"run",'),
        good.replace("}", ', "cosine_std": "x"}'),
    ):
        path.write_text(f"{good}\n{bad}\n{good}\n")
        with pytest.raises(SolaError, match=r"metrics\.jsonl: line 2 is damaged"):
            read_records(path)


def test_zeros_at_the_end_are_said(tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    for record in (evaluation(1, 0.5), evaluation(2, 0.6)):
        append_record(path, record)
    line = path.read_bytes().splitlines(keepends=True)[0]
    assert len(read_records(path)) == 2
    assert capsys.readouterr().out == ""
    path.write_bytes(line.ljust(path.stat().st_size, b"\0"))
    assert [record["epoch"] for record in read_records(path)] == [1]
    assert f"warning: {path} ends in zeros" in capsys.readouterr().out


def evaluation(epoch, accuracy, protocol="sgd", **others):
    figures = ("balanced_accuracy", "roc_auc", "average_precision", "majority_share")
    scores = dict.fromkeys(figures, 0.5)
    head = {"record": "evaluation", "epoch": epoch, "protocol": protocol, "accuracy": accuracy}
    return head | scores | others


def test_only_scores_of_one_protocol_and_the_same_snippets_are_compared():
    records = [
        evaluation(0, 0.5, "logistic_regression", snippets=10),
        evaluation(2, 0.9, "logistic_regression", snippets=10),
        {"record": "epoch", "epoch": 3},
        evaluation(4, 0.6, "sgd", snippets=10),
        evaluation(6, 0.7, "sgd", snippets=10),
        evaluation(8, 0.8, "sgd", snippets=20),
        evaluation(10, 0.7, "sgd", snippets=20),
    ]
    logistic = comparable(records, "logistic_regression")
    assert [record["epoch"] for record in logistic] == [0, 2]
    assert best_evaluation(logistic)["epoch"] == 2
    assert gain(logistic, logistic[1]) == pytest.approx(0.4)
    sgd = comparable(records, "sgd")
    assert [record["epoch"] for record in sgd] == [8, 10]
    assert best_evaluation(sgd)["epoch"] == 8
    assert gain(sgd, sgd[0]) is None
    assert comparable(records, "neither") == sgd  # those like the last one
    assert best_evaluation(comparable([], "sgd")) is None
    older = [record for record in records if record["epoch"] in (4, 6)]
    for record in older:
        del record["snippets"]  # which an earlier version did not write
    assert (
        best_evaluation(comparable([*older, evaluation(8, 0.7, "sgd", snippets=3)], "sgd"))["epoch"]
        == 6
    )  # the earliest on a tie

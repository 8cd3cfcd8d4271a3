"""The temporal head in a run, its records and what is said; and the command for folders."""

import json

import numpy as np
import pytest
from helpers import replace

from sola.errors import SolaError
from sola.export.encoder import find_checkpoint
from sola.probe import __main__ as command
from sola.probe import temporal_head
from sola.records import best_head, head_evaluations, head_spread, read_records
from sola.training.loop import train
from sola.training.messages import describe_head, summary


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(temporal_head, "STEPS", 3)


def test_a_run_scores_the_head_at_each_evaluation(config, workplace, capsys):
    config = replace(config, eval_head=True, eval_head_seeds=2)
    records = train(config)
    heads = head_evaluations(records)
    assert [record["epoch"] for record in heads] == [0, 2, 4]
    assert records == read_records(config.metrics_file)
    output = capsys.readouterr().out
    assert output.count("temporal head in epoch") == 3
    assert output.count("eval_result") == 3
    best = best_head(heads)
    assert find_checkpoint(config, "best_head")[1] == config.model_file(best["epoch"])
    said = summary(config, records)
    assert f"best epoch by the temporal head: {best['epoch']}" in said
    assert "head AUC" in said
    options = ["--features=HACS_DATA", "--labels=evaluation", "eval_head_seeds=2", "--device=cpu"]
    command.main(options)
    row = capsys.readouterr().out.splitlines()[-1]
    assert f"{heads[0]['roc_auc']:.4f} ± {heads[0]['roc_auc_std']:.4f}" in row
    assert f"{heads[0]['roc_auc_unscaled']:.4f}" in row


def test_a_single_seed_tells_no_deviation(config):
    scores = {f"{name}_std": 0.0 for name in ("accuracy", "roc_auc", "roc_auc_unscaled")}
    scores |= {"accuracy": 0.8, "roc_auc": 0.9, "roc_auc_unscaled": 0.7, "seeds": 1, "seconds": 1.0}
    records = [{"record": "head_evaluation", "epoch": 0, **scores}]
    assert describe_head(records).endswith(
        ": ROC-AUC 0.9000, accuracy 0.8000, unscaled ROC-AUC 0.7000"
    )
    scores["roc_auc_std"] = 0.01
    assert "ROC-AUC 0.9000 ± 0.0100, accuracy" in describe_head([records[0] | scores])


def test_a_run_that_asks_for_the_head_later_has_untouched_features_too(config):
    train(replace(config, epoch=2))
    with pytest.raises(SolaError, match="no temporal head scored a saved epoch"):
        find_checkpoint(config, "best_head")
    records = train(replace(config, eval_head=True, eval_head_seeds=1))
    assert [record["epoch"] for record in head_evaluations(records)] == [0, 2, 4]
    records = train(replace(config, eval_head=True, eval_head_seeds=2, epoch=6))  # not comparable
    assert [record["epoch"] for record in head_evaluations(records)] == [0, 4, 6]


def head(epoch, roc_auc, spread=0.01):
    scores = {"accuracy": 0.8, "roc_auc": roc_auc, "roc_auc_std": spread, "seeds": 3}
    return {"record": "head_evaluation", "epoch": epoch, "seconds": 1.0, **scores}


def test_best_head_is_the_earliest_within_a_spread_of_the_highest(config):
    heads = [head(0, 0.95), head(1, 0.80), head(2, 0.895), head(3, 0.9), head(4, 0.85)]
    assert head_spread(heads) == pytest.approx(0.01)
    assert best_head(heads)["epoch"] == 2
    assert "does not gain" in summary(config, heads)
    heads[0] = head(0, 0.86)
    assert "+3.5 times its spread" in summary(config, heads)
    assert "does not gain" not in summary(config, heads)
    heads[0] = head(0, 0.88)
    assert "does not gain" in summary(config, heads)
    assert best_head(heads[:1]) is None
    other = {**head(9, 0.99), "seeds": 5}
    assert [record["epoch"] for record in head_evaluations([*heads, other])] == [9]


def test_the_command_compares_folders_on_the_same_videos(workplace, annotations, capsys):
    for path in workplace.glob("HACS_DATA/*/*.npy"):
        x = np.load(path)
        other = workplace / "other" / path.parent.name / path.name
        other.parent.mkdir(parents=True, exist_ok=True)
        if path.stem != "t0":
            np.save(other, x[:, :4])
    folders = ["--features=HACS_DATA", "--features=other", "eval_head_seeds=2"]
    command.main([*folders, "--labels=evaluation"])
    head, *rows = capsys.readouterr().out.splitlines()[-3:]
    assert [row.split()[0] for row in rows] == ["HACS_DATA", "other"]
    assert "spreads" in rows[1]
    assert "classes" not in head
    for entry in annotations.values():
        end = float(entry["duration"])
        entry["annotations"].append({"label": "y", "segment": [0.8 * end, end]})
    (workplace / "a.json").write_text(json.dumps({"database": annotations}))
    command.main([*folders, "--annotations=a.json"])
    head, *rows = capsys.readouterr().out.splitlines()[-3:]
    assert head.split().count("classes") == 1
    assert len(rows) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--features=HACS_DATA", "--labels=none"], "none/training_label/"),
        (["--features=none", "--labels=evaluation"], "none/training: no such folder"),
        (["--features=HACS_DATA", "--labels=evaluation", "--annotations=a.json"], "one of them"),
    ],
)
def test_the_command_says_what_is_wrong(workplace, arguments, words):
    (workplace / "a.json").write_text("{}")
    with pytest.raises(SolaError, match=words):
        command.main(arguments)


def test_the_command_takes_paths_with_home_in_them(workplace, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(workplace))
    command.main(["--features=~/HACS_DATA", "--labels=~/evaluation", "eval_head_seeds=1"])
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{workplace}/HACS_DATA ")

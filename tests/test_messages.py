"""What records say in words: the health of a training, and its summary."""

import argparse

import pytest
from helpers import TINY, replace

from main_simsiam import next_commands
from sola.config import Config
from sola.method.matching import landmarks
from sola.training.health import news, state_of
from sola.training.messages import describe, expected_end, summary

CONFIG = Config(**TINY)
LONG = Config(**TINY | {"epoch": 1000})  # of which all these are the beginning
FLOOR, PLATEAU = landmarks(CONFIG)


def epochs(losses=(0.3,), **fields):
    """Records of epochs; a field has one value for all, or one for each."""
    usual = {"tanh_alpha": 0.1, "cosine_mean": 0.6, "cosine_std": 0.2, "seconds": 1.0}
    records = []
    for number, loss in enumerate(losses):
        more = {n: v[number] if isinstance(v, list) else v for n, v in (usual | fields).items()}
        record = {"record": "epoch", "epoch": number + 1, "loss": loss, "windows": 11, "steps": 3}
        records.append(record | more)
    return records


def probes(*accuracies, first=0, **fields):
    """Records of evaluations, at every tenth epoch."""
    return [
        {"record": "evaluation", "epoch": first + 10 * number, "accuracy": accuracy} | fields
        for number, accuracy in enumerate(accuracies)
    ]


def scored(*accuracies, protocol="logistic_regression", **fields):
    """Complete ones."""
    scores = {"balanced_accuracy": 0.7, "roc_auc": 0.8, "average_precision": 0.9}
    scores |= {"majority_share": 0.55, "seconds": 100.0, "protocol": protocol}
    return probes(*accuracies, **scores | fields)


def when(records):
    """Numbers of the records at which something is said."""
    return [n for n in range(1, len(records) + 1) if news(records[:n], LONG)]


def kind(records, **settings):
    has_ended = settings.pop("has_ended", False)
    return state_of(records, replace(LONG, **settings), has_ended=has_ended).kind


def test_a_long_stay_at_the_plateau_is_said_once():
    losses = [0.6, *[PLATEAU] * 25]
    assert when(epochs(losses)) == [11]
    assert kind(epochs(losses[:10])) == "learning"
    state = state_of(epochs(losses[:11]), LONG)
    assert state.kind == "at its plateau"
    assert "after 33 steps: no temporal structure is learned yet" in state.words
    assert state.remedy == ("epoch=2000",)  # twice as many; else those that make 1,000 steps
    few = replace(LONG, epoch=12)
    assert state_of(epochs([0.6] * 12), few, has_ended=True).remedy == ("epoch=334",)
    assert kind(epochs([PLATEAU - 0.01] * 20)) == "learning"
    assert kind(epochs([PLATEAU + 0.01] * 20)) == "learning"  # on its way down
    assert kind(epochs([*[PLATEAU] * 9, 0.3])) == "learning"
    back = state_of(epochs([*[0.3] * 5, *[PLATEAU] * 10]), CONFIG)
    assert (back.kind, back.remedy) == (
        "back at its plateau",
        ("learning_rate=0.0002", "--restart"),
    )


def test_a_probe_that_has_gained_is_not_said_to_learn_nothing():
    stayed = epochs([PLATEAU] * 12)
    assert kind([*probes(0.5, 0.504, snippets=10_000), *stayed]) == "at its plateau"
    assert kind([*probes(0.5, 0.512, snippets=10_000), *stayed]) == "learning"
    assert kind(epochs([PLATEAU] * 3), has_ended=True) == "at its plateau"
    assert kind(epochs([0.6] * 3), has_ended=True) == "above its plateau"
    assert kind(epochs([0.6] * 3)) == "learning"


def test_a_collapse_is_said():
    spreads = [0.2, 0.1, 0.005, 0.004]
    collapsing = epochs([0.4] * 4, cosine_std=spreads)
    assert [kind(collapsing[:n]) for n in (2, 3, 4)] == ["learning", "collapsed", "collapsed"]
    state = state_of(collapsing[:3], CONFIG)
    assert "nearly equal, standard deviation 0.0050" in state.words
    assert state.remedy == ("learning_rate=0.0002", "--restart")
    # all alike from the start, as features with a large common mean: not a collapse
    assert kind(epochs([0.4] * 4, cosine_std=0.005, cosine_mean=0.999)) == "learning"
    # the best constant is what the plateau is, until something better is found
    assert kind(epochs([PLATEAU] * 4, cosine_std=spreads)) == "learning"
    assert kind(epochs([0.3, 0.3, PLATEAU, PLATEAU], cosine_std=spreads)) == "collapsed"
    state = state_of(epochs([0.69], cosine_std=1e-9), CONFIG)
    assert state.kind == "collapsed"
    assert "from the first epoch on" in state.words
    assert state.remedy == ("--check",)
    flat = epochs([PLATEAU] * 12, cosine_std=1e-9)  # which a learned bias takes there
    assert kind([*probes(0.5, 0.6), *flat]) == "collapsed"


def test_a_saturated_tanh_is_said():
    for sign in (1, -1):
        alphas = [sign * a for a in (0.5, 0.989, 0.991, 0.999)]
        assert when(epochs([0.3] * 4, tanh_alpha=alphas)) == [3]
    state = state_of(epochs(tanh_alpha=-0.999), CONFIG)
    assert "tanh(alpha) is -0.9990" in state.words
    assert "--restart" in state.remedy


@pytest.mark.parametrize(
    ("accuracies", "said"),
    [
        ((0.9, 0.8, 0.7), []),
        ((0.9, 0.8, 0.7, 0.6), [4]),
        ((0.9, 0.8, 0.7, 0.6, 0.5), [4]),
        ((0.7, 0.9, 0.8, 0.9, 0.7, 0.6), []),
        ((0.7, 0.9, 0.8, 0.85, 0.7, 0.6), [5]),
        ((0.7, 0.9, 0.8, 0.7, 0.6, 0.9, 0.6, 0.5, 0.4), [5, 9]),
    ],
)
def test_a_probe_that_stays_below_its_best_is_said(accuracies, said):
    records = probes(*accuracies)
    assert when(records) == said
    if said == [5, 9]:
        (line,) = news(records[:5], CONFIG)
        assert "past its best: the last 3 evaluations are below epoch 10 with accuracy 0.9" in line
        assert news(records[:5] + epochs(), CONFIG) == []  # epochs do not repeat it
    if said == [4]:
        assert "below the untouched features, epoch 0," in news(records[:4], CONFIG)[0]


def test_a_probe_that_falls_by_less_than_its_error_is_not_falling():
    records = probes(0.85, 0.849, 0.8488, 0.8485, snippets=20_000)
    assert kind(records) == "learning"  # the error is 0.0025
    assert kind([*records[:1], *(record | {"accuracy": 0.847} for record in records[1:])]) == (
        "past its best"
    )


def test_a_fall_is_one_of_comparable_scores():
    others = probes(0.9, 0.8, protocol="sgd")
    own = probes(0.7, 0.6, first=20, protocol="logistic_regression")
    assert when(others + own) == []
    before = probes(0.5, first=15, protocol="logistic_regression")  # a low one between
    falling = probes(0.9, 0.8, 0.7, protocol="sgd") + before + probes(0.6, first=30, protocol="sgd")
    assert kind(falling, eval_protocol="sgd") == "past its best"


def test_the_worst_state_is_the_one():
    falling = probes(0.9, 0.8, 0.7, 0.6)
    assert kind([*falling, *epochs([0.3] * 3, tanh_alpha=0.995)]) == "saturated"
    collapsing = epochs([0.4] * 3, cosine_std=[0.2, 0.1, 0.005], tanh_alpha=0.995)
    assert kind([*falling, *collapsing]) == "collapsed"


def test_records_of_an_older_version_lack_things():
    old = [{"record": "epoch", "epoch": n, "loss": PLATEAU} for n in range(1, 13)]
    assert kind(old) == "at its plateau"
    collapsing = epochs([0.4] * 3, cosine_std=[0.2, 0.1, 0.005])
    assert news([*collapsing, old[3] | {"loss": 0.4}], CONFIG) == []  # said at the one before
    text = summary(CONFIG, [*probes(0.5, 0.6), *old]).splitlines()
    values = ["10", "0", f"{PLATEAU:.4f}", "0.6000", "-", "-", "-", "-", "<-", "best"]
    assert text[2].split() == values
    assert text[3] == "best epoch by accuracy: 10, 0.6000 (+0.1000 against the untouched features)"
    assert news([], CONFIG) == []


def test_epoch_lines_say_how_far_the_loss_is_down():
    record = {"record": "epoch", "epoch": 3, "loss": FLOOR, "tanh_alpha": 0.1, "seconds": 1.0}
    assert describe([record], CONFIG) == (
        "epoch 3/4  loss 0.2777 (100% of the way from plateau to floor)  tanh(alpha) +0.1000  1.0 s"
    )
    halfway = describe([record | {"loss": (FLOOR + PLATEAU) / 2}], CONFIG)
    assert "(50% of the way" in halfway
    assert "(not below the plateau)" in describe([record | {"loss": 0.5}], CONFIG)
    line = describe([record | {"tanh_alpha": 0.995}], CONFIG)
    assert line.endswith("  [saturated]")


def test_the_end_is_foretold_where_it_is_not_soon():
    (line,) = expected_end(10, 4.2, 18_400)
    assert line == (
        "10 steps took 4.20 s: about 2 h 08 min for the 18,400 that are left, evaluations apart"
    )
    assert "about 1 min 00 s for the 120 that" in expected_end(10, 5.0, 120)[0]
    assert expected_end(10, 5.0, 119) == expected_end(10, 400.0, 0) == []


def test_the_summary_compares_what_can_be_compared():
    records = [
        *scored(0.9, protocol="sgd", roc_auc=0.99),
        *epochs([0.35, 0.3], epoch=[10, 20]),
        *scored(0.8, first=10, snippets=50),
        *scored(0.6, 0.65, 0.6, first=20, snippets=99, average_precision=0.8),
    ]
    other = "  other protocol or snippets, not compared"
    assert summary(CONFIG, records).splitlines() == [
        "     epoch     steps      loss  accuracy  balanced   ROC-AUC        AP  majority",
        "         0         0         -    0.9000    0.7000    0.9900    0.9000    0.5500" + other,
        "        10         3    0.3500    0.8000    0.7000    0.8000    0.9000    0.5500" + other,
        "        20         6    0.3000    0.6000    0.7000    0.8000    0.8000    0.5500",
        "        30         6         -    0.6500    0.7000    0.8000    0.8000    0.5500  <- best",
        "        40         6         -    0.6000    0.7000    0.8000    0.8000    0.5500",
        "best epoch by accuracy: 30, 0.6500",
        "highest ROC-AUC: epoch 20, highest average precision: epoch 20",
        "time: 8 min 22 s (computing 2.0 s, waiting for files 0.0 s, probing 8 min 20 s, "
        "drawing 0.0 s)",
    ]


def test_the_summary_warns_of_what_was_not_learned():
    assert summary(CONFIG, epochs()).startswith("no linear probe was run\ntime: ")
    text = summary(CONFIG, scored(0.7, 0.7, 0.65) + epochs([PLATEAU - 0.001], epoch=4))
    assert "best epoch by accuracy: 10, 0.7000 (+0.0000 against" in text
    assert "warning: by accuracy no epoch is above the untouched features, epoch 0\n" in text
    assert "warning: at its plateau: the loss, 0.3844, is hardly below the 0.3854 that a" in text
    for loss, accuracy in ((PLATEAU - 0.02, 0.71), (PLATEAU + 0.1, 0.71)):
        text = summary(CONFIG, scored(0.7, accuracy) + epochs([loss], epoch=4))
        assert "warning" not in text
    within = summary(CONFIG, scored(0.7, 0.701, snippets=900) + epochs(epoch=4))
    assert "(+0.0010 against the untouched features, within its standard error, 0.0153)" in within
    assert "  probe not converged" in summary(CONFIG, scored(0.7, 0.8, converged=False))
    untouched = summary(CONFIG, scored(0.7))
    assert len(untouched.splitlines()) == 3  # the table and the time: no epoch is best


def test_the_summary_says_where_the_time_went():
    records = epochs([0.3, 0.3], seconds=[3540.0, 61.5], seconds_reading=5.0, seconds_drawing=1.25)
    assert summary(CONFIG, records + scored(0.5)).splitlines()[-1] == (
        "time: 1 h 01 min (computing 59 min 49 s, waiting for files 10.0 s, probing 1 min 40 s, "
        "drawing 2.5 s)"
    )


@pytest.mark.parametrize(("steps", "goes_on"), [(10, True), (300, False)])
def test_a_run_without_a_gain_goes_on_where_it_was_short(steps, goes_on):
    options = argparse.Namespace(settings=["epoch=4", "seed=1"], yaml_path="my.yaml")
    records = [*scored(0.7, 0.701, 0.7005, snippets=900), *epochs([0.3] * 4, steps=steps)]
    lines = next_commands(options, replace(CONFIG, epoch=4), records)
    command = "main_simsiam.py --yaml_path=my.yaml seed=1 epoch=100"
    assert (lines[0].startswith("next: ") and lines[0].endswith(command)) == goes_on
    assert any("to write features anyway: " in line for line in lines)

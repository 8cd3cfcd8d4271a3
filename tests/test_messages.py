"""What records say in words: the health of a training, and its summary."""

import pytest
from helpers import TINY

from sola.config import Config
from sola.method.matching import landmarks
from sola.training.messages import describe, expected_end, health, summary

CONFIG = Config(**TINY)
FLOOR, PLATEAU = landmarks(CONFIG)


def epochs(losses=(0.3,), **fields):
    """Records of epochs; a field has one value for all, or one for each."""
    usual = {"tanh_alpha": 0.1, "cosine_mean": 0.6, "cosine_std": 0.2, "seconds": 1.0}
    records = []
    for number, loss in enumerate(losses):
        more = {n: v[number] if isinstance(v, list) else v for n, v in (usual | fields).items()}
        record = {"record": "epoch", "epoch": number + 1, "loss": loss, "windows": 11}
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
    return [n for n in range(1, len(records) + 1) if health(records[:n], CONFIG)]


def test_a_long_stay_at_the_plateau_is_said_once():
    losses = [0.6, *[PLATEAU] * 25]
    assert when(epochs(losses)) == [11]
    (line,) = health(epochs(losses[:11]), CONFIG)
    assert line.startswith("warning: the loss has been at its plateau for 10 epochs (33 steps")
    assert "larger learning_rate or a smaller batch_size" in line
    assert when(epochs([PLATEAU - 0.01] * 20)) == []
    assert when(epochs([PLATEAU + 0.01] * 20)) == []  # on its way down
    assert when(epochs([*[PLATEAU] * 9, 0.3] * 3)) == []
    mixed = epochs([PLATEAU] * 12)
    assert when(mixed) == [10]
    assert when([*probes(0.5), *mixed[:4], *probes(0.6), *mixed[4:]]) == [12]
    (line,) = health(epochs([*[0.3] * 5, *[PLATEAU] * 10]), CONFIG)
    assert "has gone back to its plateau" in line


def test_a_collapse_is_said():
    spreads = [0.2, 0.1, 0.005, 0.004]
    assert when(epochs([0.4] * 4, cosine_std=spreads)) == [3]
    # all alike from the start, as features with a large common mean: not a collapse
    assert when(epochs([0.4] * 4, cosine_std=0.005, cosine_mean=0.999)) == []
    (line,) = health(epochs([0.4] * 3, cosine_std=spreads[:3]), CONFIG)
    assert "standard deviation 0.0050: the training has collapsed" in line
    assert line.endswith("--restart with a lower learning_rate than 0.001")


def test_a_saturated_tanh_is_said():
    for sign in (1, -1):
        alphas = [sign * a for a in (0.5, 0.989, 0.991, 0.999)]
        assert when(epochs([0.3] * 4, tanh_alpha=alphas)) == [3]
    assert "saturated at -0.9990" in health(epochs(tanh_alpha=-0.999), CONFIG)[0]


@pytest.mark.parametrize(
    ("accuracies", "said"),
    [
        ((0.9, 0.8, 0.7), []),
        ((0.9, 0.8, 0.7, 0.6), [4]),
        ((0.9, 0.8, 0.7, 0.6, 0.5), [4]),
        ((0.7, 0.9, 0.8, 0.8, 0.7, 0.6), []),
        ((0.7, 0.9, 0.8, 0.7, 0.6, 0.7, 0.6, 0.5, 0.4), [5, 9]),
    ],
)
def test_a_probe_that_falls_three_times_is_said(accuracies, said):
    records = probes(*accuracies)
    assert when(records) == said
    if said == [5, 9]:
        (line,) = health(records[:5], CONFIG)
        assert "the best epoch so far is 10, accuracy 0.9000" in line
        assert health(records[:5] + epochs(), CONFIG) == []  # epochs do not repeat it


def test_a_probe_that_falls_by_less_than_its_error_is_not_falling():
    records = probes(0.85, 0.849, 0.8488, 0.8485, snippets=20_000)
    assert health(records, CONFIG) == []  # the error is 0.0025
    assert health([*records[:3], records[3] | {"accuracy": 0.847}], CONFIG)


def test_a_fall_is_one_of_comparable_scores():
    others = probes(0.9, 0.8, protocol="sgd")
    own = probes(0.7, 0.6, first=20, protocol="logistic_regression")
    assert when(others + own) == []
    before = probes(0.5, first=15, protocol="logistic_regression")  # a low one between
    falling = probes(0.9, 0.8, 0.7, protocol="sgd") + before + probes(0.6, first=30, protocol="sgd")
    assert health(falling, Config(**TINY | {"eval_protocol": "sgd"}))


def test_records_of_an_older_version_lack_things():
    old = [{"record": "epoch", "epoch": n, "loss": PLATEAU} for n in range(1, 13)]
    assert when(old) == [10]
    collapsing = epochs([0.4] * 3, cosine_std=[0.2, 0.1, 0.005])
    assert health([*collapsing, old[3]], CONFIG) == []  # said at the one before
    text = summary(CONFIG, [*probes(0.5, 0.6), *old]).splitlines()
    assert text[2].split() == ["10", f"{PLATEAU:.4f}", "0.6000", "-", "-", "-", "-", "<-", "best"]
    assert text[3] == "best epoch by accuracy: 10, 0.6000 (+0.1000 against the untouched features)"
    assert health([], CONFIG) == []


def test_epoch_lines_say_how_far_the_loss_is_down():
    record = {"epoch": 3, "loss": FLOOR, "tanh_alpha": 0.1, "seconds": 1.0}
    assert describe(record, CONFIG) == (
        "epoch 3/4  loss 0.2777 (100% of the way from plateau to floor)  tanh(alpha) +0.1000  1.0 s"
    )
    halfway = describe(record | {"loss": (FLOOR + PLATEAU) / 2}, CONFIG)
    assert "(50% of the way" in halfway
    assert "(not below the plateau)" in describe(record | {"loss": 0.5}, CONFIG)


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
        "     epoch      loss  accuracy  balanced   ROC-AUC        AP  majority",
        "         0         -    0.9000    0.7000    0.9900    0.9000    0.5500" + other,
        "        10    0.3500    0.8000    0.7000    0.8000    0.9000    0.5500" + other,
        "        20    0.3000    0.6000    0.7000    0.8000    0.8000    0.5500",
        "        30         -    0.6500    0.7000    0.8000    0.8000    0.5500  <- best",
        "        40         -    0.6000    0.7000    0.8000    0.8000    0.5500",
        "best epoch by accuracy: 30, 0.6500",
        "highest ROC-AUC: epoch 20, highest average precision: epoch 20",
        "time: 8 min 22 s (computing 2.0 s, waiting for files 0.0 s, probing 8 min 20 s, "
        "drawing 0.0 s)",
    ]


def test_the_summary_warns_of_what_was_not_learned():
    assert summary(CONFIG, epochs()).startswith("no linear probe was run\ntime: ")
    text = summary(CONFIG, scored(0.7, 0.7, 0.65) + epochs([PLATEAU - 0.001]))
    assert "best epoch by accuracy: 10, 0.7000 (+0.0000 against" in text
    assert "warning: by accuracy no epoch is above the untouched features, epoch 0\n" in text
    assert "warning: the loss, 0.3844, is hardly below the plateau, 0.3854, that a constant" in text
    for loss, accuracy in ((PLATEAU - 0.02, 0.71), (PLATEAU + 0.1, 0.71)):
        assert "warning" not in summary(CONFIG, scored(0.7, accuracy) + epochs([loss]))
    untouched = summary(CONFIG, scored(0.7))
    assert len(untouched.splitlines()) == 3  # the table and the time: no epoch is best


def test_the_summary_says_where_the_time_went():
    records = epochs([0.3, 0.3], seconds=[3540.0, 61.5], seconds_reading=5.0, seconds_drawing=1.25)
    assert summary(CONFIG, records + scored(0.5)).splitlines()[-1] == (
        "time: 1 h 01 min (computing 59 min 49 s, waiting for files 10.0 s, probing 1 min 40 s, "
        "drawing 2.5 s)"
    )

"""What records say in words: the health of a training, and its summary."""

import pytest
from conftest import replace

from sola.method.tsm import loss_landmarks
from sola.training.messages import describe, health, summary

FLOOR, PLATEAU = loss_landmarks(8, 16.0, use_predictor=True)


def epochs(losses=(0.3,), **fields):
    """Records of epochs; a field has one value for all, or one for each."""
    usual = {"tanh_alpha": 0.1, "cosine_mean": 0.6, "cosine_std": 0.2, "seconds": 1.0}
    records = []
    for number, loss in enumerate(losses):
        more = {n: v[number] if isinstance(v, list) else v for n, v in (usual | fields).items()}
        record = {"record": "epoch", "epoch": number + 1, "loss": loss, "windows": 11}
        records.append(record | more)
    return records


def probes(*accuracies):
    return [
        {"record": "evaluation", "epoch": 10 * number, "accuracy": accuracy}
        for number, accuracy in enumerate(accuracies)
    ]


def when(records, config):
    """Numbers of the records at which something is said."""
    return [n for n in range(1, len(records) + 1) if health(records[:n], config)]


def test_a_long_stay_at_the_plateau_is_said_once(config):
    losses = [0.6, *[PLATEAU] * 25]
    assert when(epochs(losses), config) == [11]
    (line,) = health(epochs(losses[:11]), config)
    assert line.startswith("warning: the loss has been at its plateau for 10 epochs (33 steps")
    assert "larger learning_rate or a smaller batch_size" in line
    assert when(epochs([PLATEAU - 0.01] * 20), config) == []
    assert when(epochs([PLATEAU + 0.01] * 20), config) == []  # on its way down
    assert when(epochs([*[PLATEAU] * 9, 0.3] * 3), config) == []
    mixed = epochs([PLATEAU] * 12)
    assert when(mixed, config) == [10]
    assert when([*probes(0.5), *mixed[:4], *probes(0.6), *mixed[4:]], config) == [12]


def test_a_collapse_is_said(config):
    spreads = [0.2, 0.1, 0.005, 0.004]
    assert when(epochs([0.4] * 4, cosine_std=spreads), config) == [3]
    # all alike from the start, as features with a large common mean: not a collapse
    assert when(epochs([0.4] * 4, cosine_std=0.005, cosine_mean=0.999), config) == []
    assert when([{"record": "epoch", "epoch": 1, "loss": 0.4, "tanh_alpha": 0.0}], config) == []
    (line,) = health(epochs([0.4] * 3, cosine_std=spreads[:3]), config)
    assert "collapsed; --restart with a lower learning_rate than 0.001" in line


def test_alpha_that_is_out_of_reach_is_said(config):
    for sign in (1, -1):
        alphas = [sign * a for a in (0.5, 0.989, 0.991, 0.999)]
        assert when(epochs([0.3] * 4, tanh_alpha=alphas), config) == [3]


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
def test_a_probe_that_falls_three_times_is_said(config, accuracies, said):
    records = probes(*accuracies)
    assert when(records, config) == said
    if said == [5, 9]:
        (line,) = health(records[:5], config)
        assert "the best epoch so far is 10, accuracy 0.9000" in line


def test_a_probe_that_falls_by_less_than_its_error_is_not_falling(config):
    records = [record | {"snippets": 20_000} for record in probes(0.85, 0.849, 0.8488, 0.8485)]
    assert health(records, config) == []  # the error is 0.0025
    assert health([*records[:3], records[3] | {"accuracy": 0.847}], config)


def test_a_return_to_the_plateau_is_no_start(config):
    (line,) = health(epochs([*[0.3] * 5, *[PLATEAU] * 10]), config)
    assert "has gone back to its plateau" in line


def test_epochs_do_not_repeat_what_the_probe_said(config):
    falling = probes(0.9, 0.8, 0.7, 0.6)
    assert health(falling, config)
    assert health(falling + epochs(), config) == []
    assert health([], config) == []


def test_epoch_lines_say_how_far_the_loss_is_down(config):
    record = {"epoch": 3, "loss": FLOOR, "tanh_alpha": 0.1, "seconds": 1.0}
    line = describe(record, config)
    assert line == (
        "epoch 3/4  loss 0.2777 (100% of the way from plateau to floor)  tanh(alpha) +0.1000  1.0 s"
    )
    halfway = describe(record | {"loss": (FLOOR + PLATEAU) / 2}, config)
    assert "(50% of the way" in halfway
    assert "(not below the plateau)" in describe(record | {"loss": 0.5}, config)


def test_the_summary_says_where_the_time_went(config):
    records = epochs([0.3, 0.3], seconds=[3540.0, 61.5], seconds_reading=5.0, seconds_drawing=1.25)
    records += [{"record": "evaluation", "epoch": 0, "seconds": 100.0}]
    line = summary(replace(config), records).splitlines()[-1]
    assert line == (
        "time: 1 h 01 min (computing 59 min 49 s, waiting for files 10.0 s, probing 1 min 40 s, "
        "drawing 2.5 s)"
    )

"""The loop: it learns, repeats itself, continues, and says what stops it."""

import dataclasses
import json
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
import yaml
from helpers import (
    FEATURE_DIM,
    REPOSITORY,
    TINY,
    as_rank,
    replace,
    same,
    weights_after,
    without_seconds,
)

from sola.config import Config, load_config, reach_note
from sola.data.windows import epoch_windows
from sola.errors import DataError, SolaError, TrainingError
from sola.method import matching
from sola.method.matching import epoch_scalars, landmarks, make_learner, update_ratio
from sola.method.weights import load_weights
from sola.records import read_records
from sola.training import draw_run, loop
from sola.training.draw_run import is_drawn
from sola.training.loop import train, waited_for
from sola.training.messages import summary
from sola.training.resume import Clock


def test_loss_falls_below_the_plateau_and_files_lie_where_they_should(
    workplace, drawing_config, capsys
):
    config = replace(drawing_config, epoch=60, saving_epoch=40, learning_rate=1e-2)
    records = train(config)
    losses = [r["loss"] for r in records if r["record"] == "epoch"]
    floor, plateau = landmarks(config)
    assert floor < losses[-1] < plateau - 0.02 < losses[0]
    evaluated = [r["epoch"] for r in records if r["record"] == "evaluation"]
    assert evaluated == [0, 40, 60]  # the last epoch always
    folder = workplace / "models" / "tiny"
    assert {path.name for path in folder.iterdir()} == {
        *(f"tiny_{epoch}.pt" for epoch in (40, 60)),
        *("state_40-0.pt", "state_60-0.pt", "config.yaml", "metrics.jsonl"),
    }
    pictures = {path.name for path in (workplace / "visualizing" / "tiny").iterdir()}
    sheets = {f"tiny_epoch{epoch}.png" for epoch in (0, 40, 60)}
    assert pictures == sheets | {"tiny_batch.png", "curves.png"}
    assert load_config(folder / "config.yaml") == config
    output = capsys.readouterr().out
    for record in records:
        if record["record"] == "evaluation":
            line = f"eval_result in epoch{record['epoch']}: {record['accuracy']:.4f}\n"
            assert output.count(line) == 1
    assert output.count("eval_result") == 3
    drawing = {r["epoch"]: r["seconds_drawing"] for r in records if r["record"] == "epoch"}
    drawn_in = {epoch for epoch, seconds in drawing.items() if seconds}
    assert drawn_in == {1, 40, 41, 60}  # with epoch 0 and the curves after an evaluation
    assert all(r["seconds"] >= drawing[r["epoch"]] for r in records if r["record"] == "epoch")
    assert "2 training videos are too short" in output
    weights = load_weights(config.model_file(60))
    assert set(weights) == {
        "alpha",
        *(f"conv_network.{i}.{kind}" for i in (0, 2, 4) for kind in ("weight", "bias")),
    }


def test_records_are_means_over_the_windows(config, monkeypatch):
    config = replace(config, epoch=2, learning_rate=1e-12)  # nothing moves: any batching agrees
    losses = []
    for batch_size in (4, 11):  # 11 windows: batches of 4, 4, 3 or one batch
        train(replace(config, batch_size=batch_size), restart=bool(losses))
        losses.append([r for r in read_records(config.metrics_file) if r["record"] == "epoch"])
    for name in ("loss", "cosine_mean"):
        assert losses[0][0][name] == pytest.approx(losses[1][0][name], rel=1e-5)
        assert losses[0][0][name] != pytest.approx(losses[0][1][name], rel=1e-4)  # new windows
    assert losses[0][0]["windows"] == 11


def test_same_seed_same_weights_whatever_the_workers_and_the_storage(config):
    first = weights_after(config)
    records = without_seconds(config)
    assert same(first, weights_after(replace(config, num_workers=0), restart=True))
    for storage in ("files", "device"):
        assert same(first, weights_after(replace(config, storage=storage), restart=True))
    assert without_seconds(config) == records
    assert not same(first, weights_after(replace(config, seed=1), restart=True))


def test_probe_leaves_the_training_alone(workplace, config):
    with_probe = weights_after(config)
    (workplace / "evaluation").rename(workplace / "elsewhere")
    assert same(with_probe, weights_after(config, restart=True))
    assert all(r["record"] == "epoch" for r in read_records(config.metrics_file))


def test_a_last_batch_of_one_window_works(config):
    records = train(replace(config, batch_size=10, epoch=1))  # 11 windows
    assert records[-1]["epoch"] == 1


def test_a_loss_that_is_not_finite_stops_the_run_before_the_checkpoint(config, monkeypatch):
    train(config)
    saved = {path: path.read_bytes() for path in config.run_folder.glob("*.pt")}
    real_loss, real_plan, steps, orders = matching.similarity_matching_loss, loop.plan_epoch, [], []

    def loss_with_a_nan(cosines, target):
        steps.append(1)
        return real_loss(cosines, target) * (float("nan") if len(steps) == 5 else 1.0)

    def remembered_plan(*arguments):
        orders.append(real_plan(*arguments).windows[0])
        return real_plan(*arguments)

    monkeypatch.setattr(matching, "similarity_matching_loss", loss_with_a_nan)
    monkeypatch.setattr(loop, "plan_epoch", remembered_plan)
    with pytest.raises(TrainingError, match="epoch 6, step 2: the loss is nan") as caught:
        train(replace(config, epoch=8))  # three steps an epoch, continued after epoch 4
    trainable = sorted(f"t{i}" for i in range(13) if i not in (2, 3))
    for video in orders[1][5:10]:
        assert trainable[video] in str(caught.value)
    assert {path: path.read_bytes() for path in config.run_folder.glob("*.pt")} == saved


@pytest.mark.parametrize("where", ["update", "predictor"])
def test_weights_that_diverge_after_the_last_step_are_not_saved(config, monkeypatch, where):
    def diverging(learning, windows):
        if where == "update":
            return float("inf")
        torch.nn.init.constant_(learning.model.predictor[0].bias, float("nan"))
        return 0.1

    monkeypatch.setattr(loop, "update_ratio", diverging)
    with pytest.raises(TrainingError, match="epoch 1: the weights have diverged"):
        train(config)
    assert not list(config.run_folder.glob("tiny_*.pt"))
    assert [r["epoch"] for r in read_records(config.metrics_file)] == [0]


def test_an_epochs_scalars_are_means_over_its_windows():
    steps = {
        "loss": torch.tensor([1.0, 4.0]),
        "cosine_mean": torch.tensor([0.5, 0.0]),
        "cosine_square": torch.tensor([0.5, 0.25]),
        "another": torch.tensor([3.0, 3.0]),
    }
    scalars = epoch_scalars(steps, torch.tensor([2, 1]))
    assert scalars.pop("cosine_std") == pytest.approx((0.5 + 0.5 + 0.5) / 3)
    assert scalars == pytest.approx({"loss": 2.0, "cosine_mean": 1 / 3, "another": 3.0})


def test_recorded_cosines_are_those_of_the_epochs_windows(workplace, config):
    config = replace(config, batch_size=40, epoch=1)  # one step, before which nothing has moved
    record = next(r for r in train(config) if r["record"] == "epoch")
    paths = [f"HACS_DATA/training/{name}.npy" for name in sorted(f"t{i}" for i in range(13))]
    videos = [features for features in map(np.load, paths) if len(features) > 23]
    order, starts = epoch_windows([len(v) for v in videos], 23, seed=0, epoch=1)
    windows = [videos[v][start : start + 23] for v, start in zip(order, starts, strict=True)]
    with torch.no_grad():
        model = make_learner(config, torch.device("cpu")).model
        cosines = model(torch.from_numpy(np.stack(windows))).numpy()
    others = cosines[:, ~np.eye(8, dtype=bool)]
    assert record["cosine_mean"] == pytest.approx(others.mean(), abs=1e-5)
    assert record["cosine_std"] == pytest.approx(others.std(), abs=1e-5)


def test_update_ratio_is_relative(config):
    trainee = make_learner(config, torch.device("cpu"))
    module = trainee.model.module
    torch.nn.init.constant_(module.alpha, 0.4)
    windows = torch.randn(3, 23, FEATURE_DIM)
    with torch.no_grad():
        change = (module(windows) - windows)[:, config.gathered_positions]
        expected = change.norm() / windows[:, config.gathered_positions].norm()
    assert update_ratio(trainee, windows) == pytest.approx(expected.item(), rel=1e-5)
    assert update_ratio(trainee, 0 * windows) < float("inf")


def test_bf16_follows_fp32(config):
    curves = {}
    for precision in ("fp32", "tf32", "bf16"):
        run = replace(config, exp_name=precision, precision=precision, epoch=30, saving_epoch=30)
        records = train(run)
        curves[precision] = [r["loss"] for r in records if r["record"] == "epoch"]
        assert {w.dtype for w in load_weights(run.model_file(30)).values()} == {torch.float32}
    assert curves["tf32"] == curves["fp32"]  # on a CPU
    assert 0 < np.abs(np.subtract(curves["bf16"], curves["fp32"])).max() < 5e-3
    assert curves["fp32"][0] - curves["fp32"][-1] > 0.1


def test_the_probe_cannot_fail_after_the_run_has_begun(workplace, config):
    with pytest.raises(DataError, match="sgd needs more than 100"):
        train(replace(config, eval_protocol="sgd"))
    for split in ("training", "validation"):
        for path in (workplace / f"evaluation/{split}_label").iterdir():
            labels = np.zeros(len(np.load(path)))
            path.unlink()
            np.save(path, labels)
    np.save(
        workplace / "evaluation/training_label/t5.npy", labels_with_one_action("training", "t5")
    )
    np.save(
        workplace / "evaluation/validation_label/v5.npy", labels_with_one_action("validation", "v5")
    )
    for key, split in (("eval_snippets", "training"), ("eval_snippets_validation", "validation")):
        with pytest.raises(DataError, match=f"{split}: only one class among 3 snippets"):
            train(replace(config, **{key: 3}))
    assert not (workplace / "models").exists()


def labels_with_one_action(split, video):
    return np.arange(len(np.load(f"HACS_DATA/{split}/{video}.npy"))) == 3


def test_labels_of_drawn_videos_outside_the_subset_do_not_matter(workplace, config):
    label = workplace / "evaluation/validation_label/v6.npy"  # v6 is drawn
    label.unlink()
    np.save(label, np.zeros(3))
    write_subset(workplace, [f"v{i}" for i in range(8) if i != 6])
    train(replace(config, epoch=1))


def write_subset(workplace, videos):
    (workplace / "HACS_DATA/validation_subset_list.pkl").write_bytes(pickle.dumps(videos))


def test_bad_data_is_met_before_anything_is_written(workplace, config):
    label = workplace / "evaluation/validation_label/v5.npy"
    label.unlink()
    with pytest.raises(DataError, match=r"v5\.npy: no such label"):
        train(config)
    np.save(label, np.zeros(3))
    with pytest.raises(DataError, match=r"v5\.npy"):
        train(config)
    assert not (workplace / "models").exists()
    assert [path.name for path in (workplace / "visualizing").iterdir()] == ["v6.npy"]


def test_features_that_are_replaced_under_a_run_end_it(workplace, config, monkeypatch):
    real, path = loop.training_step, workplace / "HACS_DATA/training/t5.npy"

    def step(*arguments):
        path.unlink()
        np.save(path, np.full((40, 16), np.inf, np.float64))
        return real(*arguments)

    monkeypatch.setattr(loop, "training_step", step)
    with pytest.raises(DataError, match=r"t5\.npy: of another size"):
        train(config)


def test_no_video_longer_than_a_window(config):
    with pytest.raises(SolaError, match="no video is longer than sampling_duration"):
        train(replace(config, sampling_duration=500))


def test_which_epochs_are_drawn(config):
    chosen = replace(config, saving_epoch=10, epoch=95)
    assert [n for n in range(96) if is_drawn(chosen, n)] == [0, 10, 20, 40, 80, 95]


def test_the_best_epoch_is_drawn_at_the_end(drawing_config, workplace, monkeypatch):
    monkeypatch.setattr(draw_run, "best_evaluation", lambda _: {"epoch": 3})
    train(replace(drawing_config, saving_epoch=1, epoch=5))
    sheets = {path.name for path in (workplace / "visualizing/tiny").glob("*epoch*")}
    assert sheets == {f"tiny_epoch{epoch}.png" for epoch in (0, 1, 2, 3, 4, 5)}
    at_four = (workplace / "visualizing/tiny/tiny_epoch4.png").read_bytes()
    assert (workplace / "visualizing/tiny/tiny_epoch3.png").read_bytes() != at_four


def test_a_run_that_learned_nothing_says_so(config):
    config = replace(config, epoch=1, learning_rate=1e-8)
    report = summary(config, train(config))
    assert "is not below the 0.3854 that a constant" in report
    assert "no epoch is above the untouched features" in report  # nothing moved
    records = read_records(config.metrics_file)
    learned = [r | {"loss": 0.36} if r["record"] == "epoch" else r for r in records]
    learned[-1] |= {"accuracy": learned[0]["accuracy"] + 0.01}
    assert "warning" not in summary(config, learned)


def test_metrics_file_holds_one_record_an_epoch_and_one_an_evaluation(config):
    train(config)
    lines = config.metrics_file.read_text().splitlines()
    kinds = [(r["record"], r["epoch"]) for r in map(json.loads, lines)]
    assert kinds == [
        ("evaluation", 0), ("epoch", 1), ("epoch", 2), ("evaluation", 2), ("epoch", 3),
        ("epoch", 4), ("evaluation", 4),
    ]  # fmt: skip


KEYS_OF_THE_ORIGINAL = """
exp_name data_root visualizing_dir visualizing_save_path model_save_path feature_save_path
label_base visualizing_step saving_epoch projection mlp_layer_num batch_size num_workers
sampling_duration tsm_size step step_start oracle_coef in_feature_dim out_feature_dim
network_hidden_unit kernel_size1 dilation1 kernel_size2 dilation2 mlphead_hidden_unit
dissim_proj_hidden_unit dissim_proj_out use_dissim_head epoch learning_rate eval_batch_size
eval_eval_iter eval_lr eval_momentum eval_epoch
"""


def test_the_yaml_of_the_original_runs_unchanged(workplace, drawing_config):
    canonical = dataclasses.asdict(Config(exp_name="x")) | {"eval_eval_iter": 1}
    changes = TINY | {"visualizing_save_path": "tsm_vis", "epoch": 1}
    settings = {key: (canonical | changes)[key] for key in KEYS_OF_THE_ORIGINAL.split()}
    (workplace / "original.yaml").write_text(yaml.safe_dump(settings))
    train(load_config(workplace / "original.yaml"))
    assert (workplace / "tsm_vis" / "tiny" / "tiny_epoch1.png").is_file()


def test_time_goes_to_where_it_is_spent(monkeypatch):
    moments = iter([0.0, 1.0, 3.0, 4.0, 4.5, 5.0, 5.5, 6.0, 9.0, 12.0, 12.5, 12.5])
    monkeypatch.setattr("sola.training.resume.time.perf_counter", lambda: next(moments))
    clock = Clock({"seconds": 100.0, "seconds_reading": 7.0})  # spent before an interruption
    with clock.timed("drawing"):
        pass
    assert len([*waited_for([torch.zeros(1)], clock)]) == 1
    with clock.stopped():
        pass
    assert clock.lap() == {"seconds": 109.0, "seconds_reading": 8.0, "seconds_drawing": 2.0}
    assert clock.seconds == {"seconds": 0.0, "seconds_reading": 0.0, "seconds_drawing": 0.0}


def test_the_end_is_foretold_once_without_the_first_step_and_evaluations(
    config, monkeypatch, capsys
):
    now, real = [0.0], loop.training_step

    def taking(seconds, result=None):
        now[0] += seconds
        return result

    steps = iter([1000.0, *[10.0] * 1000])  # the first one warms up
    monkeypatch.setattr("sola.training.resume.time.perf_counter", lambda: now[0])
    monkeypatch.setattr(loop, "training_step", lambda *a: taking(next(steps), real(*a)))
    monkeypatch.setattr(loop, "evaluate", lambda *_: taking(5000.0))
    config = replace(config, epoch=20)  # of three steps, the first and the last one looked at
    train(config)
    told = "steps took {}: about {} for the {} that are left, evaluations apart"
    line = "11 " + told.format("110.00 s", "8 min 00 s", 48)
    assert [x for x in capsys.readouterr().out.splitlines() if "steps took" in x] == [line]
    steps = iter([1000.0, *[10.0] * 1000])
    train(replace(config, epoch=30))  # by a process of its own
    line = "11 " + told.format("110.00 s", "3 min 00 s", 18)
    assert [x for x in capsys.readouterr().out.splitlines() if "steps took" in x] == [line]
    as_rank(monkeypatch, 1, 2)
    run = loop.Run(config, None, None, [], Clock({}))
    loop.foretell_end(run, 1000)
    loop.foretell_end(run, taking(10.0, 900))
    assert "steps took" not in capsys.readouterr().out


def test_a_reach_beyond_the_window_is_noted(config, capsys):
    train(replace(config, epoch=1))
    assert "note:" not in capsys.readouterr().out
    wide = replace(config, kernel_size1=9, dilation1=2)  # reach 8; 4 snippets before and after
    (line,) = reach_note(wide)
    assert line.startswith("note: the module's reach of 8 snippets exceeds the 4 around the")
    assert "zero padding" in line
    enough = {"step_start": 8, "sampling_duration": 31}
    assert " take step_start=8 sampling_duration=31 or more" in line
    assert reach_note(replace(wide, **enough)) == []
    for key in enough:
        assert reach_note(replace(wide, **enough | {key: enough[key] - 1}))
    for size, dilation, is_fine in ((3, 2, True), (3, 3, False)):  # with 2 of the first: 4, 5
        config = replace(config, kernel_size2=size, dilation2=dilation)
        assert (reach_note(config) == []) == is_fine
    train(replace(wide, epoch=1), restart=True)
    assert capsys.readouterr().out.splitlines().count(line) == 1


def test_the_note_on_the_reach_needs_no_torch():
    code = "import sys, sola.config; print('torch' in sys.modules)"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=100)
    assert result.stdout == "False\n"


def test_no_thread_outlives_a_run(config):
    train(config)
    assert not [t for t in threading.enumerate() if t.name.startswith("ThreadPoolExecutor")]

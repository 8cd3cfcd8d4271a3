"""Curves, drawn from a metrics file that is written by hand."""

import json

import matplotlib
import numpy as np
import pytest
from conftest import REPOSITORY, TINY, run_script
from matplotlib.image import imread

from sola.config import Config
from sola.plots import __main__ as plots
from sola.plots.__main__ import PANELS, curves, read_runs
from sola.plots.figure import new_figure, save_figure
from sola.records import OPTIONAL_NUMBERS
from sola.system.cli import SolaError

LOSSES = [0.5, 0.4, 0.3]


def records(shift=0.0):
    """Three epochs, and evaluations of epochs 0 and 3."""
    lines = [
        {
            "record": "epoch", "epoch": epoch, "loss": loss + shift, "loss_floor": 0.28,
            "loss_plateau": 0.385, "tanh_alpha": 0.1 * epoch, "update_ratio": 0.2 * epoch,
            "cosine_mean": 0.5, "cosine_std": 0.125 * epoch, "windows": 9, "seconds": 1.0,
        }
        for epoch, loss in enumerate(LOSSES, start=1)
    ]  # fmt: skip
    for place, epoch in ((0, 0), (4, 3)):
        scores = {"accuracy": 0.6, "balanced_accuracy": 0.7, "roc_auc": 0.8}
        scores = {name: value + 0.01 * epoch + shift for name, value in scores.items()}
        more = {"average_precision": 0.9, "majority_share": 0.59}
        record = {"record": "evaluation", "epoch": epoch, **scores, **more, "seconds": 1.0}
        lines.insert(place, record)
    return lines


def write_run(folder, lines):
    folder.mkdir(parents=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text)
    return str(folder)


@pytest.fixture
def drawn(tmp_path):
    """Field -> axes of one run's curves."""
    figure = curves(read_runs([write_run(tmp_path / "one", records())]))
    save_figure(tmp_path / "curves.png", figure)
    return {panel.field: axes for panel, axes in zip(PANELS, figure.axes, strict=True)}


def level(line):
    return line.get_ydata()[0]


def test_curves_are_the_records(drawn):
    for field, wanted in {
        "loss": LOSSES,
        "tanh_alpha": [0.1, 0.2, 0.3],
        "update_ratio": [0.2, 0.4, 0.6],
        "cosine_mean": [0.5, 0.5, 0.5],
        "accuracy": [0.6, 0.63],
        "balanced_accuracy": [0.7, 0.73],
        "roc_auc": [0.8, 0.83],
        "average_precision": [0.9, 0.9],
    }.items():
        line = drawn[field].lines[0]
        assert line.get_xdata().tolist() == ([1, 2, 3] if len(wanted) == 3 else [0, 3])
        np.testing.assert_allclose(line.get_ydata(), wanted)


def test_levels_are_lines_with_names(drawn):
    assert sorted(map(level, drawn["loss"].lines[1:])) == [0.28, 0.385]
    names = {text.get_text(): text.get_position()[1] for text in drawn["loss"].texts}
    assert names == {"floor, the target's entropy": 0.28, "plateau, best constant": 0.385}
    assert sorted(map(level, drawn["accuracy"].lines[1:])) == [0.59, 0.6]
    assert [text.get_text() for text in drawn["accuracy"].texts] == ["larger class"]
    dashed = [line for line in drawn["roc_auc"].lines if line.get_linestyle() == "--"]
    assert [level(line) for line in dashed] == [0.8]  # of the untouched features
    assert len(drawn["tanh_alpha"].lines) == 1


def test_the_spread_is_a_band(drawn):
    (band,) = drawn["cosine_mean"].collections
    edges = band.get_paths()[0].vertices
    assert (edges[:, 1].min(), edges[:, 1].max()) == (0.125, 0.875)


def test_a_far_level_does_not_flatten_the_curve(tmp_path):
    lines = records()
    for line in lines:
        line["majority_share"] = 0.3
    figure = curves({"one": lines})
    (axes,) = (a for a in figure.axes if a.get_title() == "probe: accuracy")
    assert axes.get_ylim()[0] > 0.59
    assert [text.get_text() for text in axes.texts] == ["larger class: 0.300 ↓"]


def test_several_runs_have_a_colour_each(tmp_path):
    paths = [write_run(tmp_path / name, records(s)) for name, s in (("one", 0.0), ("two", 0.01))]
    figure = curves(read_runs(paths))
    first, second = (line for line in figure.axes[0].lines if len(line.get_xdata()) == 3)
    assert (first.get_color(), second.get_color()) == ("C0", "C1")
    np.testing.assert_allclose(second.get_ydata(), [0.51, 0.41, 0.31])
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["one", "two", "untouched features (epoch 0)"]
    assert [line.get_color() for line in legend.get_lines()][:2] == ["C0", "C1"]


def test_what_is_not_on_record_is_said(tmp_path):
    lines = [line for line in records() if line["record"] == "epoch"]
    for line in lines:
        for field in ("loss_floor", "loss_plateau", "cosine_std", "update_ratio"):
            del line[field]
    figure = curves({"one": lines})
    texts = {axes.get_title(): [t.get_text() for t in axes.texts] for axes in figure.axes}
    assert texts["probe: accuracy"] == ["no linear probe was run"]
    assert texts["|update| / |input|"] == ["not on record yet"]
    assert texts["loss"] == []
    save_figure(tmp_path / "curves.png", figure)
    save_figure(tmp_path / "curves.png", curves({"one": records()[:1]}))  # epoch 0 alone


def test_the_command_draws_where_the_run_does(workplace, monkeypatch):
    run = write_run(workplace / "models/tiny", records())
    plots.main([run, "--output=mine.png"])
    pixels = (imread("mine.png")[..., :3] * 255).round().astype(int).reshape(-1, 3)
    colour = (np.array(matplotlib.colors.to_rgb("C0")) * 255).round().astype(int)
    assert (abs(pixels - colour).max(axis=1) <= 1).sum() > 500
    monkeypatch.setattr(plots, "curves", lambda _: new_figure(9, 9))  # quicker
    (workplace / "models/tiny/config.yaml").write_text(Config(**TINY).to_yaml())
    plots.main(["models/tiny"])
    assert (workplace / "visualizing/tiny/curves.png").read_bytes()
    plots.main(["models/tiny/metrics.jsonl", write_run(workplace / "b/tiny", records())])
    assert (workplace / "curves_models-tiny_b-tiny.png").is_file()
    for path in ("b/tiny", "b/tiny/metrics.jsonl"):  # without its config.yaml
        plots.main([path, path])
    assert (workplace / "curves_tiny.png").is_file()


@pytest.mark.parametrize("field", [*OPTIONAL_NUMBERS, "epoch"])
@pytest.mark.parametrize("value", [None, "0.1", [1], 10**400, True])
def test_odd_fields_are_damage(workplace, field, value):
    lines = records()
    lines[2][field] = value
    with pytest.raises(SolaError, match="line 3 is damaged"):
        read_runs([write_run(workplace / "odd", lines)])


def test_files_beside_one_another_are_told_apart(workplace):
    lines = "".join(json.dumps(line) + "\n" for line in records())
    for name in ("a", "b"):
        (workplace / f"{name}.jsonl").write_text(lines)
    assert list(read_runs(["a.jsonl", "b.jsonl"])) == ["a.jsonl", "b.jsonl"]
    save_figure("many.png", curves({str(number): records() for number in range(10)}))


def test_bad_runs_are_refused(workplace):
    write_run(workplace / "empty", [])
    (workplace / "bad").mkdir()
    (workplace / "bad/metrics.jsonl").write_text("no\n")
    write_run(workplace / "good", records())
    many = [workplace / f"many/{number}.jsonl" for number in range(11)]
    for runs, words in (
        (["good", "--output=good"], r"--output=good: must be a file that ends in \.png"),
        (["absent"], "absent: no such file; name the folder of a run"),
        (["empty"], "holds no records yet"),
        (["bad"], "line 1 is damaged"),
        ([str(path) for path in many], "11 runs: at most 10"),
    ):
        with pytest.raises(SolaError, match=words):
            plots.main(runs)


def test_it_runs_as_a_script_without_torch(workplace):
    """Curves need the records alone."""
    write_run(workplace / "models/tiny", records())
    (workplace / "torch.py").write_text("raise SystemExit('torch was imported')")
    path = f"{workplace}:{REPOSITORY}"
    result = run_script("sola/plots/__main__.py", "models/tiny", cwd=workplace, path=path)
    assert result.returncode == 0, result.stderr
    assert "curves_tiny.png: curves of tiny" in result.stdout

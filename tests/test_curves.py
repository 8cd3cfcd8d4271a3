"""Curves, drawn from a metrics file that is written by hand, and the command that draws them."""

import itertools
import json
import os
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from helpers import REPOSITORY, TINY
from matplotlib.image import imread

from sola.config import Config
from sola.errors import SolaError
from sola.plots import __main__ as command
from sola.plots import curves as module
from sola.plots.__main__ import read_runs
from sola.plots.curves import PANELS, Panel, curves
from sola.plots.figure import DPI, new_figure

LOSSES = [0.5, 0.4, 0.3]


def records(shift=0.0):
    """Three epochs, and evaluations of epochs 0 and 3."""
    lines = [
        {
            "record": "epoch", "epoch": epoch, "loss": loss + shift, "loss_floor": 0.28,
            "loss_plateau": 0.385, "tanh_alpha": 0.1 * epoch, "update_ratio": 0.2 * epoch,
            "cosine_mean": 0.5, "cosine_std": 0.125 * epoch, "steps": 40, "seconds": 1.0,
        }
        for epoch, loss in enumerate(LOSSES, start=1)
    ]  # fmt: skip
    for place, epoch in ((0, 0), (4, 3)):
        scores = {"accuracy": 0.6, "balanced_accuracy": 0.7, "roc_auc": 0.8}
        scores = {name: value + 0.01 * epoch + shift for name, value in scores.items()}
        more = {"average_precision": 0.9, "majority_share": 0.59, "seconds": 1.0}
        lines.insert(place, {"record": "evaluation", "epoch": epoch, **scores, **more})
    return lines


def write_run(folder, lines):
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(folder)


def panels(runs):
    """Field -> its axes, in the curves of the runs."""
    figure = curves(runs)
    shown = [panel for panel in module.PANELS if panel.kind != module.HEAD]
    return {panel.field: axes for panel, axes in zip(shown, figure.axes, strict=True)}


def level(line):
    return line.get_ydata()[0]


def said(axes):
    return [text.get_text() for text in axes.texts]


def test_curves_are_the_records():
    drawn = panels({"one": records()})
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
        line = drawn.pop(field).lines[0]
        assert line.get_xdata().tolist() == ([1, 2, 3] if len(wanted) == 3 else [0, 3])
        np.testing.assert_allclose(line.get_ydata(), wanted)
    assert not drawn


def test_levels_are_lines_with_names_and_the_spread_is_a_band():
    drawn = panels({"one": records()})
    assert sorted(map(level, drawn["loss"].lines[1:])) == [0.28, 0.385]
    assert said(drawn["loss"]) == [
        "dotted: plateau, the best constant, 0.385\ndash-dotted: floor, the target's entropy, 0.280"
    ]
    assert [line.get_linestyle() for line in drawn["loss"].lines[1:]] == [":", "-."]
    assert sorted(map(level, drawn["accuracy"].lines[1:])) == [0.59, 0.6]
    assert said(drawn["accuracy"]) == ["dotted: larger class 0.590"]
    dashed = [line for line in drawn["roc_auc"].lines if line.get_linestyle() == "--"]
    assert [level(line) for line in dashed] == [0.8]  # of the untouched features
    assert len(drawn["tanh_alpha"].lines) == 1
    (band,) = drawn["cosine_mean"].collections
    edges = band.get_paths()[0].vertices
    assert (edges[:, 1].min(), edges[:, 1].max()) == (0.125, 0.875)


def test_a_far_level_does_not_flatten_the_curve():
    axes = panels({"one": [line | {"majority_share": 0.3} for line in records()]})["accuracy"]
    assert axes.get_ylim()[0] > 0.59
    assert said(axes) == ["below: larger class 0.300"]


def test_several_runs_have_a_colour_each():
    figure = curves({"one": records(), "two": records(0.01)})
    first, second = (line for line in figure.axes[0].lines if len(line.get_xdata()) == 3)
    assert (first.get_color(), second.get_color()) == ("C0", "C1")
    np.testing.assert_allclose(second.get_ydata(), [0.51, 0.41, 0.31])
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["one", "two", "untouched features (epoch 0)"]
    assert [line.get_color() for line in legend.get_lines()] == ["C0", "C1", "black"]
    (legend,) = curves({"one": records()}).legends
    assert [text.get_text() for text in legend.get_texts()] == ["untouched features (epoch 0)"]
    other = [line | {"majority_share": 0.55} for line in records()]
    axes = curves({"one": records(), "two": other}).axes[1]
    assert said(axes) == ["dotted: larger class 0.550, 0.590"]


@pytest.mark.parametrize(("count", "runs"), [(1, 1), (8, 10), (9, 1)])
def test_any_number_of_panels_has_a_place_each(monkeypatch, count, runs):
    usual = [panel for panel in PANELS if panel.kind != module.HEAD]
    table = (*usual, Panel("a new number", "novelty", spread="doubt"))[-count:]
    monkeypatch.setattr(module, "PANELS", table)
    lines = [line | {"novelty": 7.0} for line in records()]
    figure = curves({f"run {number}": lines for number in range(runs)})
    assert [axes.get_title() for axes in figure.axes] == [panel.title for panel in table]
    assert figure.axes[-1].lines[0].get_ydata().tolist() == [7.0, 7.0, 7.0]
    lowest = [axes for axes in figure.axes if axes.get_xlabel() == "epoch\nsteps"]
    assert lowest == figure.axes[-((count + 1) // 2) :]  # of each column
    figure.draw_without_rendering()
    drawn = [*figure.axes, *figure.legends, figure.texts[0]]
    boxes = [artist.get_tightbbox() for artist in drawn]
    for box in boxes:
        assert 0 <= box.x0 < box.x1 <= figure.get_figwidth() * DPI
        assert 0 <= box.y0 < box.y1 <= figure.get_figheight() * DPI
    assert not any(first.overlaps(second) for first, second in itertools.combinations(boxes, 2))


def test_epochs_are_told_in_steps_where_all_have_as_many():
    axes = curves({"one": records()}).axes[-1]
    assert axes.xaxis.get_major_formatter()(3, 0) == "3\n120"
    other = [line | ({"steps": 41} if line["epoch"] == 2 else {}) for line in records()]
    assert curves({"one": other}).axes[-1].get_xlabel() == "epoch"


def test_the_temporal_head_has_panels_where_it_was_run():
    scores = {"accuracy": 0.8, "roc_auc": 0.9, "roc_auc_std": 0.01}
    scores |= {"roc_auc_unscaled": 0.8, "roc_auc_unscaled_std": 0.02}
    heads = [{"record": "head_evaluation", "epoch": epoch, **scores} for epoch in (0, 3)]
    figure = curves({"one": [*records(), *heads]})
    assert len(figure.axes) == len(PANELS)
    for axes, value, spread in zip(figure.axes[-2:], (0.9, 0.8), (0.01, 0.02), strict=True):
        assert axes.lines[0].get_ydata().tolist() == [value, value]
        (band,) = axes.collections
        assert band.get_paths()[0].vertices[:, 1].max() == pytest.approx(value + spread)
        dashed = [line for line in axes.lines if line.get_linestyle() == "--"]
        assert [level(line) for line in dashed] == [value]


def test_what_is_not_on_record_is_said(monkeypatch):
    new = Panel("probe: novelty", "novelty", "evaluation")
    monkeypatch.setattr(module, "PANELS", (*PANELS, new))
    absent = ("loss_floor", "loss_plateau", "cosine_std", "update_ratio")
    old = [{name: line[name] for name in line if name not in absent} for line in records()]
    drawn = panels({"old": old, "new": [line | {"update_ratio": 0.7} for line in old]})
    assert drawn["update_ratio"].lines[0].get_color() == "C1"
    drawn = panels({"old": old})
    assert said(drawn["update_ratio"]) == said(drawn["novelty"]) == ["not on record yet"]
    assert said(drawn["loss"]) == [""]
    assert len(drawn["loss"].lines) == 1
    assert not panels({"one": [*old[:3], records()[3]]})["cosine_mean"].collections
    assert said(panels({"one": old[1:4]})["novelty"]) == ["no linear probe was run"]
    figure = curves({"one": old[1:]})  # without an evaluation of epoch 0
    assert len(figure.axes[1].lines) == 2
    assert not figure.legends[0].get_texts()
    drawn = panels({"one": old[:1]})  # epoch 0 alone
    assert said(drawn["loss"]) == ["not on record yet"]
    assert drawn["accuracy"].lines[0].get_ydata().tolist() == [0.6]


def test_the_command_draws_where_the_run_does(workplace, monkeypatch, capsys):
    run = write_run(workplace / "models/tiny", records())
    (workplace / "models/tiny/config.yaml").write_text(Config(**TINY).to_yaml())
    command.main([run, "--output=new/mine.png"])
    assert capsys.readouterr().out == "new/mine.png: curves of tiny\n"
    pixels = (imread("new/mine.png")[..., :3] * 255).round().astype(int).reshape(-1, 3)
    colour = (np.array(matplotlib.colors.to_rgb("C0")) * 255).round().astype(int)
    assert (abs(pixels - colour).max(axis=1) <= 1).sum() > 500
    assert os.listdir("new") == ["mine.png"]
    monkeypatch.setattr(command, "curves", lambda _: new_figure(9, 9))  # quicker
    write_run(workplace / "b/tiny", records())  # without its config.yaml
    for runs, output in (
        (["models/tiny"], "visualizing/tiny/curves.png"),
        (["models/tiny/metrics.jsonl"], "visualizing/tiny/curves.png"),
        (["models/tiny/metrics.jsonl", "b/tiny"], "curves_models-tiny_b-tiny.png"),
        (["b/tiny", "b/../b/tiny/metrics.jsonl"], "curves_tiny.png"),
    ):
        command.main(runs)
        (workplace / output).unlink()


def test_runs_are_told_apart_by_the_ends_of_their_paths(workplace):
    for name in ("a/x/c", "a/y/c", "b/y/c"):
        write_run(workplace / name, records())
    lines = (workplace / "a/x/c/metrics.jsonl").read_text()
    (workplace / "one.jsonl").write_text(lines)
    assert list(read_runs(["a/x/c", "a/y/c", "b/y/c"])) == ["a/x/c", "a/y/c", "b/y/c"]
    assert list(read_runs(["a/x/c", "b/y/c/metrics.jsonl"])) == ["x/c", "y/c"]
    assert read_runs(["one.jsonl", "a/x/c"]) == {"one.jsonl": records(), "c": records()}


def test_bad_runs_are_refused(workplace):
    write_run(workplace / "empty", [])
    (workplace / "bad").mkdir()
    (workplace / "folder.png").mkdir()
    (workplace / "bad/metrics.jsonl").write_text("no\n")
    write_run(workplace / "good", records())
    for runs, words in (
        (["good", "--output=good"], r"--output=good: must be a file that ends in \.png"),
        (["good", "--output=folder.png"], r"--output=folder\.png: must be a file"),
        (["absent"], "absent: no such file; name the folder of a run"),
        (["empty"], "holds no records yet"),
        (["bad"], "line 1 is damaged"),
        ([f"{number}.jsonl" for number in range(11)], "11 runs: at most 10"),
    ):
        with pytest.raises(SolaError, match=words):
            command.main(runs)


def python_m(*arguments, cwd, **stubs):
    """Run python -m sola.plots there, with other code for some modules."""
    for name, code in stubs.items():
        (cwd / f"{name}.py").write_text(code)
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "sola.plots", *arguments], cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True,
        timeout=100,
    )  # fmt: skip


def test_it_imports_no_more_than_it_needs(workplace):
    write_run(workplace / "models/tiny", records())
    stubs = dict.fromkeys(("torch", "sklearn"), "raise SystemExit(f'{__name__} was imported')")
    result = python_m("models/tiny", cwd=workplace, **stubs)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "curves_tiny.png: curves of tiny\n"
    result = python_m("--help", cwd=workplace, matplotlib=stubs["torch"])
    assert (result.returncode, result.stderr) == (0, "")


def test_ctrl_c_while_it_is_still_importing_leaves_with_one_line(workplace):
    press = "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(9)"
    result = python_m("models/tiny", cwd=workplace, yaml=press)
    assert result.returncode == 130
    assert result.stderr.startswith("interrupted")
    assert result.stderr.count("\n") == 1

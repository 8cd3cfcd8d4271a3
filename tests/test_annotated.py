"""prepare: time, labels, sizes and steps from annotations, and annotations that do not fit."""

import json
from pathlib import Path

import numpy as np
import pytest

from sola.config import load_config
from sola.errors import DataError, SolaError
from sola.prepare import __main__ as prepare

NAMES = [f"v{i:02d}" for i in range(20)]


def features(lengths, folder="f", channels=4):
    path = Path(folder)
    path.mkdir(exist_ok=True)
    generator = np.random.default_rng(0)
    for name, length in lengths.items():
        np.save(path / f"{name}.npy", generator.normal(size=(length, channels)))


def entries(durations, segment=(0.2, 0.6), **changes):
    """Video -> entry, one in four to validate on; segment: as shares of the duration."""
    return {
        name: {
            "subset": "validation" if i % 4 == 3 else "training",
            "duration": duration,
            "annotations": [{"label": "x", "segment": [share * duration for share in segment]}],
        }
        | changes
        for i, (name, duration) in enumerate(durations.items())
    }


def run(database, *arguments):
    with open("a.json", "w") as file:
        json.dump({"database": database}, file)
    prepare.main(["--yaml_path=m.yaml", "--features=f", "--annotations=a.json", *arguments])
    return load_config("m.yaml") if "--check" not in arguments else None


def labels(name, split=None):
    split = split or ("validation" if NAMES.index(name) % 4 == 3 else "training")
    return np.load(f"m_data/labels/{split}_label/{name}.npy")


def seeded(low, high):
    values = np.random.default_rng(1).uniform(low, high, len(NAMES))
    return dict(zip(NAMES, values.tolist(), strict=True))


def test_a_few_misfits_are_named_and_skip_leaves_many_out(place, capsys):
    durations = seeded(20, 40)
    features({n: int(2 * d) for n, d in durations.items()})
    durations["v01"] += 9
    run(entries(durations), "--fps=2")  # one of twenty
    assert "in 1 of 20 videos, most in v01 (-18." in capsys.readouterr().out
    durations["v02"] += 9
    with pytest.raises(DataError, match="does not fit 2 of 20 videos, as v01, T = "):
        run(entries(durations), "--fps=2", "--overwrite")
    capsys.readouterr()
    run(entries(durations), "--fps=2", "on_bad_file=skip", "--overwrite")
    assert "left out: 2 (v01, v02)" in capsys.readouterr().out
    linked = {path.stem for path in (place / "m_data/features/training").iterdir()}
    assert linked.isdisjoint({"v01", "v02"})


def test_annotations_that_mean_nothing_are_refused(place):
    durations = seeded(20, 40)
    features({n: int(2 * d) for n, d in durations.items()})
    frames = entries(durations, segment=(6.0, 18.0))
    fractions = entries(dict.fromkeys(NAMES, 1.0)) | {}
    for name, entry in fractions.items():
        entry["duration"] = durations[name]
    bare = entries(durations)
    del bare["v03"]["annotations"]
    for database, words in (
        (frames, r"20 of 20 segments end after their video, as .* are they in frames\?"),
        (fractions, r"all 20 segments lie below 1, .* are they fractions"),
        (bare, r"validation: 1 \(v03\) annotated without a list of annotations"),
    ):
        for check in ([], ["--check"]):
            with pytest.raises(DataError, match=words):
                run(database, "--fps=2", *check)
    assert sorted(path.name for path in place.iterdir()) == ["a.json", "f"]


def test_odd_annotations_are_counted_and_named(place, capsys):
    durations = seeded(20, 40)
    features({n: int(2 * d) for n, d in durations.items()} | {"more": 50})
    database = entries(durations) | {"V05": None, "gone": entries({"gone": 9})["gone"]}
    database["V05"] = database.pop("v05")
    duration = durations["v01"]
    for video, segment in (("v01", [1, duration * 1.2]), ("v02", [99, 100]), ("v04", [0, 99])):
        database[video]["annotations"] = [{"label": "x", "segment": segment}]
    database["v06"]["annotations"].append({"label": "Ambiguous", "segment": [0, 5]})
    run(database, "--fps=2")
    report = capsys.readouterr().out
    for line in (
        "annotated, without features: 1 (gone)",
        "differs in v_, case or Unicode form: 1 (v05)",
        "note: 1 Ambiguous segments are left out",
        "warning: segments that end over 5 % after their video: 2 (v01, v04)",
        "warning: segments that start after their video's end: 1 (v02)",
        "training without annotation, so without labels: 1 (more)",
        "training without an action snippet: 1 (v02)",
        "training all action: 1 (v04)",
        "actions: 20, median ",
    ):
        assert line in report, line
    assert not labels("v06")[: int(0.2 * len(labels("v06"))) - 1].any()


@pytest.mark.parametrize(("segment", "kind"), [((0, 1.01), ""), ((1.01, 1.02), "no ")])
def test_without_both_classes_training_runs_without_a_probe(place, capsys, segment, kind):
    durations = seeded(20, 40)
    features({n: int(2 * d) for n, d in durations.items()})
    run(entries(durations, segment=segment), "--fps=2")
    report = capsys.readouterr().out
    assert f"warning: all training snippets are {kind}action, so no labels are written" in report
    assert "next: python main_simsiam.py" in report
    assert not [*(place / "m_data/labels").iterdir()]


def test_what_the_probe_would_refuse_is_refused_at_once(place):
    durations = seeded(20, 40)
    features({n: int(2 * d) for n, d in durations.items()})
    with pytest.raises(SolaError, match="draw more"):
        run(entries(durations), "--fps=2", "eval_snippets=1")
    assert not (place / "m.yaml").exists()


def test_train_and_test_alone_and_names_before_subsets(place, capsys):
    durations = seeded(20, 40)
    features({n: int(2 * d) for n, d in durations.items()})
    database = entries(durations)
    for entry in database.values():
        entry["subset"] = {"training": "Train", "validation": "test"}[entry["subset"]]
    run(database)
    assert "note: the test subset validates" in capsys.readouterr().out
    assert len(labels("v03")) == int(2 * durations["v03"])
    with pytest.raises(DataError, match=r"as 'v00.mp4', has the name of a feature file, as 'v00'"):
        run({f"{name}.mp4": entry for name, entry in database.items()}, "--overwrite")


@pytest.mark.parametrize(
    ("count", "batch_size", "epoch", "saving_epoch", "rate"),
    [(20, 8, 334, 22, 1e-3), (200, 32, 167, 11, 1e-3)],
)
def test_about_a_thousand_steps(place, capsys, count, batch_size, epoch, saving_epoch, rate):
    features({f"{i}": 30 for i in range(count)} | {"x": 40})
    prepare.main(["--yaml_path=m.yaml", "--features=f"])
    config = load_config("m.yaml")
    assert (config.batch_size, config.learning_rate) == (batch_size, rate)
    assert (config.epoch, config.saving_epoch) == (epoch, saving_epoch)
    windows = count + 1 - (count + 1) // 10
    steps = -(-windows // batch_size)
    said = f"plan: {windows} windows an epoch in batches of {batch_size}, {steps} steps; {epoch} "
    assert f"{said}epochs, {epoch * steps} steps in all" in capsys.readouterr().out


def test_another_span(place, capsys):
    durations = seeded(20, 40)
    features({n: int(10 * d) for n, d in durations.items()})
    config = run(entries(durations, segment=(0.2, 0.21)), "--span=2.1", "kernel_size1=15")
    assert (config.step, config.step_start, config.sampling_duration) == (3, 6, 34)
    report = capsys.readouterr().out
    assert "snippets; the gathered positions span 2.1 s\nnote: actions are short" in report
    assert "note: the module's reach of 7 snippets exceeds the 6" in report
    with pytest.raises(SolaError, match="--span=0: must be seconds"):
        run({}, "--span=0")


def test_stale_labels_of_a_data_root_are_refused_or_set_aside(place, capsys):
    """Else a training would be probed by the labels of other annotations."""
    durations = seeded(20, 40)
    features({n: int(2 * d) for n, d in durations.items()})
    run(entries(durations), "--fps=2")
    arguments = ["--yaml_path=m.yaml", "--annotations=b.json"]
    (place / "b.json").write_text(json.dumps({"database": entries(durations, (1.01, 1.02))}))
    with pytest.raises(SolaError, match="_label: holds labels, but all training snippets are no"):
        prepare.main(arguments)
    assert (place / "m_data/labels/training_label").is_dir()
    prepare.main([*arguments, "--overwrite"])
    assert not list((place / "m_data/labels").glob("*_label"))
    assert "note: write into m.yaml, for process_feature.py: annotations: b.json" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize("yaml", ["file/m.yaml", f"{'m' * 238}.yaml"])  # no folder; no room
def test_nothing_is_left_where_the_yaml_cannot_be_written(place, yaml):
    durations = seeded(20, 40)
    features({n: int(2 * d) for n, d in durations.items()})
    (place / "a.json").write_text(json.dumps({"database": entries(durations)}))
    (place / "file").write_text("")
    before = sorted(place.rglob("*"))
    with pytest.raises(SolaError):
        prepare.main([f"--yaml_path={yaml}", "--features=f", "--annotations=a.json"])
    assert sorted(path for path in place.rglob("*") if path.name[0] != ".") == before


def test_segments_in_frames_are_refused_without_durations_too(place):
    durations = seeded(20, 40)
    features({n: int(2 * d) for n, d in durations.items()})
    database = entries(durations, segment=(6.0, 18.0))
    for entry in database.values():
        del entry["duration"]
    with pytest.raises(DataError, match=r"segments end after their video, .* in frames"):
        run(database, "--fps=2")

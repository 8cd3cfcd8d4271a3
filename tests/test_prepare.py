"""Everything a training needs, made from features and annotations, or reported on."""

import dataclasses
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from conftest import FEATURE_DIM, contents, flat_folder, replace, two_folders, without_seconds
from test_annotations import write

import main_simsiam
from sola.config import Config, load_config
from sola.data.features import DataError
from sola.export.dump import export_features
from sola.prepare import __main__ as prepare
from sola.prepare.__main__ import window_of
from sola.system.cli import SolaError
from sola.training.loop import train


def run(*arguments, yaml="new.yaml"):
    prepare.main([f"--yaml_path={yaml}", *arguments])


def test_a_yaml_that_trains_is_made_from_a_flat_folder(workplace, annotations, capsys):
    file = write(workplace / "a.json", annotations | {"gone": annotations["t5"]})
    run(flat_folder(workplace), f"--annotations={file}", "--fps=2", "eval_snippets=99")
    config = load_config("new.yaml")
    assert (config.in_feature_dim, config.dissim_proj_out) == (FEATURE_DIM, FEATURE_DIM)
    assert (config.batch_size, config.learning_rate, config.eval_snippets) == (8, 1e-3, 99)
    assert (config.sampling_duration, config.step, config.step_start) == (23, 2, 4)
    data = workplace / "new_data"
    assert (data / "features/missing_files.txt").read_text() == "gone\n"
    for split, count in (("training", 13), ("validation", 8)):
        durations = pickle.loads((data / f"features/{split}_duration.pkl").read_bytes())
        subset = pickle.loads((data / f"features/{split}_subset_list.pkl").read_bytes())
        assert len(durations) == len(subset) == count
        for name, length in durations.items():
            assert type(length) is int
            assert length == len(np.load(data / f"features/{split}/{name}"))
            labels = np.load(data / f"labels/{split}_label/{name}")
            start, end = length / 6, length / 3
            wanted = [start <= (i + 0.5) / 2 < end for i in range(length)]
            assert labels.tolist() == wanted
    drawn = sorted(len(np.load(path)) for path in (data / "visualizing").iterdir())
    lengths = sorted(durations.values())
    assert len(drawn) == 6
    assert (drawn[0], drawn[-1]) == (lengths[0], lengths[-1])
    report = capsys.readouterr().out
    assert "training: 13 videos" in report
    assert "annotated, without features: 1 (gone)" in report
    (workplace / "new.yaml").write_text(config.to_yaml().replace("epoch: 150", "epoch: 1"))
    main_simsiam.main(["--yaml_path=new.yaml", "network_hidden_unit=8"])
    assert "eval_result in epoch1: " in capsys.readouterr().out


def test_split_folders_and_a_guessed_rate(workplace, annotations, capsys):
    file = write(workplace / "a.json", annotations)
    run("--features=HACS_DATA", f"--annotations={file}")
    assert "fps: 2, from T / duration" in capsys.readouterr().out
    made = contents(workplace / "new_data")
    run("--features=HACS_DATA", f"--annotations={file}", "--fps=2", "--overwrite")
    assert contents(workplace / "new_data") == made


def test_the_data_root_of_a_yaml_is_completed(workplace, config, annotations):
    (workplace / "evaluation").rename(workplace / "given")
    file = write(workplace / "a.json", annotations)
    run(f"--annotations={file}", "--fps=2", yaml="tiny.yaml")
    assert len(list((workplace / "evaluation/training_label").iterdir())) == 13
    assert (workplace / "HACS_DATA/training_duration.pkl").is_file()
    records = train(replace(config, epoch=1))
    assert records[0]["record"] == "evaluation"
    run(f"--annotations={file}", "--fps=2", yaml="tiny.yaml")  # all is there already
    label = workplace / "evaluation/training_label/t5.npy"
    np.save(label, np.zeros(3))
    (workplace / "evaluation/training_label/t6.npy").unlink()
    with pytest.raises(SolaError, match=r"training_label/t5\.npy: is there with another content"):
        run(f"--annotations={file}", "--fps=2", yaml="tiny.yaml")
    assert not (workplace / "evaluation/training_label/t6.npy").exists()  # nothing is half done


def test_a_run_with_made_index_files_is_that_without(workplace, config, annotations):
    """Pickles change nothing while they list all videos."""
    train(config)
    run(yaml="tiny.yaml")
    assert pickle.loads((workplace / "HACS_DATA/training_subset_list.pkl").read_bytes())
    train(replace(config, exp_name="with_pickles"))
    assert without_seconds(config) == without_seconds(replace(config, exp_name="with_pickles"))


def test_features_alone_are_enough(workplace, capsys):
    run(flat_folder(workplace))
    assert len(list((workplace / "new_data/features/validation").iterdir())) == 2  # a tenth
    assert len(list((workplace / "new_data/features/training").iterdir())) == 19
    assert not (workplace / "new_data/labels").exists()


def test_a_check_changes_nothing_and_tells_what_is_wrong(workplace, annotations, capsys):
    annotations["t5"]["duration"] = 99
    del annotations["t6"], annotations["v7"]
    file = write(workplace / "a.json", annotations | {"gone": annotations["t7"]})
    (workplace / "HACS_DATA/training/bad.npy").write_bytes(b"no")
    np.save(workplace / "HACS_DATA/training/wide.npy", np.ones((30, 17)))
    np.save(workplace / "HACS_DATA/training/nan.npy", np.full((30, FEATURE_DIM), np.nan))
    np.save(workplace / "HACS_DATA/training/half.npy", np.ones((30, FEATURE_DIM), np.float16))
    before = contents(workplace)
    run(f"--annotations={file}", "--fps=2", "--check", yaml="tiny.yaml")
    run("--features=HACS_DATA", f"--annotations={file}", "--check")
    assert contents(workplace) == before
    report = capsys.readouterr().out
    for line in (
        "training: 15 videos",
        "C 16, float16, float32, float64",
        "too short to train on (T <= 23): 2 (t2, t3)",
        "bad file: HACS_DATA/training/bad.npy: not a readable npy file",
        "bad file: HACS_DATA/training/wide.npy: has 17 channels, most have 16",
        "annotated, without features: 1 (gone)",
        "training without annotation, so without labels: 3 (half, nan, t6)",
        "validation without annotation, so without labels: 1 (v7)",
        "more than a snippet from duration * fps in 1 of 19 videos, most in t5",
        "not finite (23 of 23 files): 1 (HACS_DATA/training/nan.npy)",
        "action share 0.",
    ):
        assert line in report, line
    with pytest.raises(DataError, match=r"bad\.npy: .*\(3 such files\).*on_bad_file=skip"):
        run(f"--annotations={file}", "--fps=2", yaml="tiny.yaml")
    run("--features=HACS_DATA", f"--annotations={file}", "on_bad_file=skip")
    linked = {path.stem for path in (workplace / "new_data/features/training").iterdir()}
    assert "half" in linked
    assert linked.isdisjoint({"bad", "wide", "nan"})


def test_a_split_of_another_width_is_one_error(workplace):
    for path in (workplace / "HACS_DATA/validation").iterdir():
        path.unlink()
        np.save(path, np.ones((30, 17), np.float32))
    with pytest.raises(DataError, match="validation: all features have another width than most"):
        run("--features=HACS_DATA", "--check")


@pytest.mark.parametrize(("off", "count"), [(0.9, 0), (-0.9, 0), (1.1, 1), (-1.1, 1)])
def test_a_length_may_be_a_snippet_from_its_duration(workplace, annotations, capsys, off, count):
    length = len(np.load(workplace / "HACS_DATA/training/t5.npy"))
    annotations["t5"]["duration"] = (length - off) / 2
    file = write(workplace / "a.json", annotations)
    run(f"--annotations={file}", "--fps=2", "--check", yaml="tiny.yaml")
    wanted = (
        "in 1 of 21 videos, most in t5" if count else "within a snippet of duration * fps in all"
    )
    assert wanted in capsys.readouterr().out


def test_only_a_sample_of_many_values_is_looked_at(workplace, monkeypatch, capsys):
    monkeypatch.setattr("sola.prepare.report.SAMPLE", 4 * FEATURE_DIM * 100)
    run("--check", yaml="tiny.yaml")
    looked_at = int(capsys.readouterr().out.partition("values (")[2].split()[0])
    assert 1 <= looked_at < 20
    run("--check", "--all_values", yaml="tiny.yaml")
    assert "values (21 of 21 files)" in capsys.readouterr().out


def test_figures_of_values(workplace, capsys):
    for path in (workplace / "HACS_DATA").glob("*/*.npy"):
        length = len(np.load(path))
        path.unlink()
        values = np.zeros((length, 4), np.float32)
        values[:, 0], values[:, 1] = 3.0, 4.0
        np.save(path, values)
    run("--features=HACS_DATA", "--check")
    report = capsys.readouterr().out
    assert "mean 1.75, mean norm of a snippet 5, zeros 50.0%, common mean 1.00 of the" in report
    assert "warning: a large common mean" in report


def test_two_folders_are_joined(workplace):
    two_folders(workplace)
    run("--features=rgb,flow", "epoch=1", "network_hidden_unit=8", "device=cpu")
    config = load_config("new.yaml")
    assert config.in_feature_dim == FEATURE_DIM
    records = train(config)
    assert records[-1]["epoch"] == 1
    x = np.load(workplace / "HACS_DATA/training/t5.npy")
    folder = export_features(config, "0")
    np.testing.assert_array_equal(np.load(folder / "training/t5.npy"), x)


def test_files_that_are_cut_are_counted(workplace, capsys):
    two_folders(workplace)
    path = workplace / "flow/training/t5.npy"
    np.save(path, np.load(path)[:-1])
    run("--features=rgb,flow", "--check")
    report = capsys.readouterr().out
    assert "rgb/training: 1 videos cut to the shorter" in report
    assert "rgb/validation" not in report


def test_videos_that_the_annotations_do_not_list_are_trained_on(workplace, annotations):
    del annotations["v7"]
    annotations["t8"]["subset"] = "testing"
    run(flat_folder(workplace), f"--annotations={write(workplace / 'a.json', annotations)}")
    features = workplace / "new_data/features"
    found = {s: {p.stem for p in (features / s).iterdir()} for s in ("training", "validation")}
    assert found["training"] == {f"v_t{i}" for i in range(13) if i != 8} | {"v_v7"}
    assert found["validation"] == {f"v_v{i}" for i in range(7)}
    subset = pickle.loads((features / "training_subset_list.pkl").read_bytes())
    assert set(subset) == found["training"] - {"v_v7"}  # the probe needs labels


def test_annotations_of_one_split_give_no_labels_and_it_is_said(workplace, annotations, capsys):
    only = {video: entry for video, entry in annotations.items() if video.startswith("t")}
    run("--features=HACS_DATA", f"--annotations={write(workplace / 'a.json', only)}")
    report = capsys.readouterr().out
    assert "warning: no validation video is annotated, so no labels are written" in report
    assert not (workplace / "new_data/labels").exists()


def test_names_are_printed_so_that_they_do_no_harm(workplace, annotations, capsys):
    (workplace / "HACS_DATA/training/\x1b[2J.npy").symlink_to(
        (workplace / "HACS_DATA/training/t5.npy").resolve()
    )
    file = write(workplace / "a.json", annotations | {"\x1b]0;": annotations["t5"]})
    run("--features=HACS_DATA", f"--annotations={file}", "--check")
    assert "\x1b" not in capsys.readouterr().out


def test_what_is_odd_in_the_splits_is_said(workplace, annotations, capsys):
    (workplace / "HACS_DATA/validation/t5.npy").symlink_to(
        (workplace / "HACS_DATA/training/t5.npy").resolve()
    )
    annotations["t6"]["annotations"] = [{"label": "x", "segment": [5, 3]}]
    run("--features=HACS_DATA", f"--annotations={write(workplace / 'a.json', annotations)}")
    report = capsys.readouterr().out
    assert "warning: in training and in validation: 1 (t5)" in report
    assert "warning: in validation, of another subset by annotation: 1 (t5)" in report
    assert "warning: training with segments that do not end after their start: 1 (t6)" in report


def test_the_next_command_trains_on_what_was_prepared(workplace, capsys):
    (workplace / "HACS_DATA").rename(workplace / "my data")
    run("data_root=my data", yaml="tiny.yaml")
    next_line = capsys.readouterr().out.splitlines()[-1]
    assert next_line == "next: python main_simsiam.py --yaml_path=tiny.yaml 'data_root=my data'"
    run("--features=my data", "epoch=3", yaml="my new.yaml")
    next_line = capsys.readouterr().out.splitlines()[-1]
    assert next_line == "next: python main_simsiam.py '--yaml_path=my new.yaml'"


def test_the_window_keeps_its_seconds():
    canonical = dataclasses.asdict(Config(exp_name="x"))
    assert window_of(2.0).items() <= canonical.items()
    for fps in (0.3, 1, 25 / 16, 3, 25 / 8, 4, 7.5):
        window = window_of(fps)
        config = Config(exp_name="x", **window)  # keeps the rules
        after_the_last = config.sampling_duration - 1 - config.gathered_positions[-1]
        assert after_the_last == config.step_start == 2 * config.step
        if fps >= 1:
            assert abs(window["step"] / fps - 1) < 0.34
            assert abs(window["sampling_duration"] / fps - 11.5) < 3.5


@pytest.mark.parametrize(("rate", "said"), [(4.02, "fps: 4, from"), (2.3, "fps: 2.3, from")])
def test_only_a_given_rate_changes_the_window(workplace, annotations, capsys, rate, said):
    for entry in annotations.values():
        entry["duration"] = float(entry["duration"]) * 2 / rate
    file = write(workplace / "a.json", annotations)
    run("--features=HACS_DATA", f"--annotations={file}")
    assert said in capsys.readouterr().out
    assert load_config("new.yaml").sampling_duration == 23
    run("--features=HACS_DATA", f"--annotations={file}", "--check")
    assert ("give --fps=4 for these" in capsys.readouterr().out) == (rate == 4.02)
    run("--features=HACS_DATA", f"--annotations={file}", f"--fps={rate}", "--overwrite")
    assert load_config("new.yaml").sampling_duration == 11 * round(rate) + 1


def test_ids_are_never_paths(workplace, annotations):
    evil = {
        "../../evil": annotations["t5"],
        "/tmp/evil": annotations["t5"],
        "a\nb": annotations["t5"],
    }
    file = write(workplace / "a.json", annotations | evil)
    run(flat_folder(workplace), f"--annotations={file}", "--fps=2")
    above = [Path("/tmp"), *workplace.parents[:2], *workplace.rglob("*/")]
    assert not any(list(folder.glob("evil*")) for folder in above)
    listed = (workplace / "new_data/features/missing_files.txt").read_text()
    assert listed == "../../evil\n/tmp/evil\na b\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--features=nowhere"], "nowhere: no such folder"),
        (["--features=HACS_DATA", "--fps=0"], "--fps"),
        (["--features=half"], "half/validation: no such folder"),
        (["--features=HACS_DATA", "sampling_duration=999"], "no video is longer than"),
        (["--features=HACS_DATA", "--annotations=one.json", "--fps=4"], "T / duration is 2 snip"),
        (["--features=HACS_DATA", "--annotations=zz.json", "--fps=2"], "'zz', has the name of"),
        (["--features=HACS_DATA", "--annotations=keys.json"], "bad entry of 'v6': lacks 'subset'"),
        (["--features=HACS_DATA", "--annotations=gone.json"], r"gone\.json"),
        (["--features=HACS_DATA", "epohc=3"], "did you mean epoch"),
        (["--features=HACS_DATA", "label_base=x"], "label_base is new_data/labels with --features"),
        (["--features=HACS_DATA", "--yaml_path=a,b.yaml"], "a comma stands between"),
        (
            ["--features=HACS_DATA", "in_feature_dim=3", "out_feature_dim=3", "dissim_proj_out=3"],
            "in_feature_dim is 3, not 16",
        ),
        (
            ["--features=visualizing", "--annotations=one.json"],
            "subset; subsets: training",
        ),
        ([], r"new\.yaml: No such file"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(workplace, arguments, words):
    duration = len(np.load(workplace / "HACS_DATA/validation/v6.npy")) / 2
    entry = {"subset": "training", "duration": duration, "annotations": []}
    write(workplace / "one.json", {"v6": entry})
    (workplace / "half/training").mkdir(parents=True)
    write(workplace / "zz.json", {"zz": entry})
    write(workplace / "keys.json", {"v6": {"annotations": []}})
    before = contents(workplace)
    with pytest.raises(SolaError, match=words):
        run(*arguments)
    assert contents(workplace) == before


def test_a_yaml_is_not_overwritten_unasked(workplace):
    with pytest.raises(SolaError, match=r"tiny\.yaml: is there with another content; --overw"):
        run("--features=HACS_DATA", yaml="tiny.yaml")


def test_json_of_numbers_and_texts_give_the_same(workplace, annotations):
    texts = write(workplace / "a.json", annotations)
    numbers = json.loads(texts.read_text())
    for entry in numbers["database"].values():
        entry["duration"] = float(entry["duration"])
    (workplace / "b.json").write_text(json.dumps(numbers))
    run("--features=HACS_DATA", "--annotations=a.json")
    made = contents(workplace / "new_data")
    run("--features=HACS_DATA", "--annotations=b.json", "--overwrite")
    assert contents(workplace / "new_data") == made

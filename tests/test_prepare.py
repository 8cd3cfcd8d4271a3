"""Everything a training needs, made from features and annotations, or reported on."""

import dataclasses
import pickle
import subprocess
import sys

import numpy as np
import pytest
from helpers import (
    FEATURE_DIM,
    REPOSITORY,
    contents,
    flat_folder,
    replace,
    two_folders,
    without_seconds,
)
from test_annotations import write

import main_simsiam
from sola.config import Config, load_config
from sola.errors import DataError, SolaError
from sola.export.dump import export_features
from sola.prepare import __main__ as prepare
from sola.prepare.new_yaml import window_of
from sola.probe import temporal_head
from sola.training.loop import train

pytestmark = pytest.mark.usefixtures("grey_pictures")


def run(*arguments, yaml="new.yaml"):
    prepare.main([f"--yaml_path={yaml}", *arguments])


def test_a_yaml_that_trains_is_made_from_a_flat_folder(
    workplace, annotations, capsys, grey_pictures, monkeypatch
):
    monkeypatch.setattr(temporal_head, "STEPS", 2)
    gone = {"gone": annotations["t5"], "a\nb": annotations["t6"]}
    tested = {"tested": annotations["t7"] | {"subset": "testing"}}  # is not wanted
    file = write(workplace / "a.json", annotations | gone | tested)
    run(flat_folder(workplace), f"--annotations={file}", "--fps=2", "eval_snippets=99")
    config = load_config("new.yaml")
    assert (config.in_feature_dim, config.dissim_proj_out) == (FEATURE_DIM, FEATURE_DIM)
    assert (config.batch_size, config.learning_rate, config.eval_snippets) == (8, 1e-3, 99)
    assert (config.sampling_duration, config.step, config.step_start) == (23, 2, 4)
    data = workplace / "new_data"
    assert (data / "features/missing_files.txt").read_text() == "gone\na b\n"
    for split, count in (("training", 13), ("validation", 8)):
        durations = pickle.loads((data / f"features/{split}_duration.pkl").read_bytes())
        subset = pickle.loads((data / f"features/{split}_subset_list.pkl").read_bytes())
        assert len(durations) == len(subset) == count
        for name, length in durations.items():
            assert type(length) is int
            assert length == len(np.load(data / f"features/{split}/{name}"))
            labels = np.load(data / f"labels/{split}_label/{name}")
            start, end = length / 6, length / 3
            assert labels.dtype == np.int64
            assert labels.tolist() == [start <= (i + 0.5) / 2 < end for i in range(length)]
    drawn = sorted(len(np.load(path)) for path in (data / "visualizing").iterdir())
    assert len(drawn) == 6
    assert (drawn[0], drawn[-1]) == (min(durations.values()), max(durations.values()))
    report = capsys.readouterr().out
    assert "training: 13 videos" in report
    assert "annotated, without features: 2 (gone, a?b)" in report
    (workplace / "new.yaml").write_text(replace(config, epoch=1).to_yaml())
    main_simsiam.main(["--yaml_path=new.yaml", "network_hidden_unit=8"])
    assert "eval_result in epoch1: " in capsys.readouterr().out


def test_split_folders_a_guessed_rate_and_durations_as_text(workplace, annotations, capsys):
    write(workplace / "a.json", annotations)  # text, as in HACS
    run("--features=HACS_DATA", "--annotations=a.json")
    assert "fps: 2, found from T / duration" in capsys.readouterr().out
    for entry in annotations.values():
        entry["duration"] = float(entry["duration"])
    write(workplace / "a.json", annotations)
    run("--features=HACS_DATA", "--annotations=a.json", "--fps=2")
    assert "is there already, with the same content" in capsys.readouterr().out


def test_the_data_root_of_a_yaml_is_completed(workplace, config, annotations, capsys):
    """Index pickles change nothing while they list all videos."""
    train(config)
    (workplace / "evaluation").rename(workplace / "given")
    write(workplace / "a.json", annotations)
    run("--annotations=a.json", "--fps=2", yaml="tiny.yaml")
    assert len(list((workplace / "evaluation/training_label").iterdir())) == 13
    assert pickle.loads((workplace / "HACS_DATA/training_subset_list.pkl").read_bytes())
    run("--annotations=a.json", "--fps=2", yaml="tiny.yaml")
    assert "0 files and links written, 21 were there" in capsys.readouterr().out
    (workplace / "evaluation").rename(workplace / "made")
    (workplace / "given").rename(workplace / "evaluation")
    train(replace(config, exp_name="with_pickles"))
    assert without_seconds(config) == without_seconds(replace(config, exp_name="with_pickles"))


def test_a_check_changes_nothing_and_tells_what_is_wrong(workplace, annotations, capsys):
    annotations["t5"]["duration"] = 99
    annotations["t1"]["duration"] = 20  # 7.5 seconds too many
    del annotations["t6"], annotations["v7"]
    annotations["t8"]["annotations"] = [{"label": "x", "segment": [5, 3]}]
    annotations["t9"]["subset"] = "validation"
    file = write(workplace / "a.json", annotations | {"\x1b]0;": annotations["t7"]})
    training = workplace / "HACS_DATA/training"
    (workplace / "HACS_DATA/validation/t4.npy").symlink_to((training / "t4.npy").resolve())
    (training / "bad.npy").write_bytes(b"no")
    np.save(training / "wide.npy", np.ones((30, 17)))
    np.save(training / "nan.npy", np.full((30, FEATURE_DIM), np.nan))
    np.save(training / "half.npy", np.ones((30, FEATURE_DIM), np.float16))
    before = contents(workplace)
    told = r"bad\.npy: .*\(3 such files\).*on_bad_file=skip"
    with pytest.raises(DataError, match=told):
        run(f"--annotations={file}", "--fps=2", "--check", yaml="tiny.yaml")
    report = capsys.readouterr().out
    with pytest.raises(DataError, match=told):
        run("--features=HACS_DATA", f"--annotations={file}", "--fps=2", "--check")
    of_new = capsys.readouterr().out
    first, *lines = report[: report.index("plan")].splitlines()
    assert first.startswith("note: write into tiny.yaml, for process_feature.py: annotations: ")
    assert of_new[: of_new.index("plan")].splitlines() == lines
    assert contents(workplace) == before
    for line in (
        "training: 15 videos",
        "C 16, float16, float32, float64",
        "too short to train on (T <= 23): 2 (t2, t3)",
        "warning: in training and in validation: 1 (t4)",
        "bad file: HACS_DATA/training/bad.npy: not a readable npy file",
        "bad file: HACS_DATA/training/wide.npy: has 17 channels, most have 16",
        "annotated, without features: 1 (?]0;)",
        "training without annotation, so without labels: 3 (half, nan, t6)",
        "validation without annotation, so without labels: 1 (v7)",
        "warning: in training, of another subset by annotation: 1 (t9)",
        "warning: in validation, of another subset by annotation: 1 (t4)",
        "warning: segments that do not end after their start: 1 (t8)",
        "training: 12 videos with labels, action share 0.",
        "training without an action snippet: 1 (t8)",
        "more than a snippet from duration * fps in 2 of 19 videos, most in t5 (",
        "not finite (24 of 24 files): 1 (HACS_DATA/training/nan.npy)",
    ):
        assert line in report, line
    with pytest.raises(DataError, match=told):
        run(f"--annotations={file}", "--fps=2", yaml="tiny.yaml")
    run("--features=HACS_DATA", f"--annotations={file}", "--fps=2", "on_bad_file=skip")
    linked = {path.stem for path in (workplace / "new_data/features/training").iterdir()}
    assert "half" in linked
    assert linked.isdisjoint({"bad", "wide", "nan"})


@pytest.mark.parametrize(("off", "count"), [(0.9, 0), (-0.9, 0), (1.1, 1), (-1.1, 1)])
def test_a_length_may_be_a_snippet_from_its_duration(workplace, annotations, capsys, off, count):
    length = len(np.load(workplace / "HACS_DATA/training/t5.npy"))
    annotations["t5"]["duration"] = (length - off) / 2
    write(workplace / "a.json", annotations)
    run("--annotations=a.json", "--fps=2", "--check", yaml="tiny.yaml")
    far = f"duration * fps in 1 of 21 videos, most in t5 ({off:+.1f})"
    wanted = far if count else "within a snippet of duration * fps in all 21 videos"
    assert wanted in capsys.readouterr().out


def test_figures_of_values_of_a_sample_or_of_all(workplace, monkeypatch, capsys):
    for path in (workplace / "HACS_DATA").glob("*/*.npy"):
        length = len(np.load(path))
        path.unlink()
        np.save(path, np.tile(np.array([3, 4, 0, 0], np.float32), (length, 1)))
    monkeypatch.setattr("sola.prepare.report.SAMPLE", 4 * 4 * 100)
    run("--features=HACS_DATA", "--check")
    looked_at = int(capsys.readouterr().out.partition("values (")[2].split()[0])
    assert 1 <= looked_at < 20
    run("--features=HACS_DATA", "--check", "--all_values")
    report = capsys.readouterr().out
    figures = "mean 1.75, mean norm of a snippet 5, zeros 50.0%, common mean 1.00 of the norm"
    assert f"values (21 of 21 files): {figures}" in report
    assert "warning: a large common mean" in report


def test_two_folders_are_joined(workplace, capsys):
    two_folders(workplace)
    path = workplace / "flow/training/t6.npy"
    np.save(path, np.load(path)[:-1])
    run("--features=rgb,flow", "epoch=1", "network_hidden_unit=8", "device=cpu")
    report = capsys.readouterr().out
    assert "rgb/training: 1 videos cut to the shorter" in report
    assert "rgb/validation" not in report
    config = load_config("new.yaml")
    assert config.in_feature_dim == FEATURE_DIM
    assert train(config)[-1]["epoch"] == 1
    x = np.load(workplace / "HACS_DATA/training/t5.npy")
    folder = export_features(config, "0")
    np.testing.assert_array_equal(np.load(folder / "training/t5.npy"), x)


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
    assert not [*(workplace / "new_data/labels").iterdir()]


def test_the_next_command_trains_on_what_was_prepared(workplace, capsys):
    (workplace / "HACS_DATA").rename(workplace / "my data")
    run("data_root=my data", yaml="tiny.yaml")
    next_line = capsys.readouterr().out.splitlines()[-1]
    assert next_line == "next: python main_simsiam.py --yaml_path=tiny.yaml 'data_root=my data'"
    run("--features=my data", "epoch=3", yaml=" my new.yaml")
    next_line = capsys.readouterr().out.splitlines()[-1]
    assert next_line == "next: python main_simsiam.py '--yaml_path= my new.yaml'"
    assert load_config(" my new.yaml").data_root == "my new_data/features"
    assert (workplace / "my new_data/features/training/t5.npy").exists()


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


@pytest.mark.parametrize(("rate", "said"), [(4.02, "fps: 4, found"), (2.3, "fps: 2.3, found")])
def test_the_rate_that_is_found_makes_the_window(workplace, annotations, capsys, rate, said):
    for entry in annotations.values():
        entry["duration"] = float(entry["duration"]) * 2 / rate
        entry["annotations"][0]["segment"] = [1, 2]
    file = write(workplace / "a.json", annotations)
    run("--features=HACS_DATA", f"--annotations={file}")
    report = capsys.readouterr().out
    assert said in report
    config = load_config("new.yaml")
    assert config.sampling_duration == 11 * round(rate) + 1
    assert (config.fps, config.annotations) == (pytest.approx(rate, rel=0.01), str(file))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--features=nowhere"], "nowhere: no such folder"),
        (["--features=circle"], "circle: no such folder"),
        (["--features=looped"], r"loop\.npy: cannot be read: Too many levels"),
        (["--features=HACS_DATA", "--fps=0"], "--fps"),
        (["--features=half"], "half/training: holds no .npy files"),
        (["--features=widths"], "validation: all features have another width than most"),
        (["--features=HACS_DATA", "sampling_duration=999"], "no video is longer than"),
        (
            ["--features=HACS_DATA", "--annotations=one.json", "--fps=4"],
            r"4 snippets a second: does not fit 1 of 1 videos, as v6, T = .*--fps=per_video.*skip",
        ),
        (["--features=HACS_DATA", "--annotations=zz.json", "--fps=2"], "'zz', has the name of"),
        (["--features=HACS_DATA", "--annotations=gone.json"], r"gone\.json"),
        (["--features=HACS_DATA", "epohc=3"], "did you mean epoch"),
        (["--features=HACS_DATA", "label_base=x"], "label_base is new_data/labels with --features"),
        (["--features=HACS_DATA", "--yaml_path=a,b.yaml"], "a comma stands between"),
        (["--features=HACS_DATA", "--yaml_path=half"], "--yaml_path=half: is a folder"),
        (
            ["--features=HACS_DATA", "in_feature_dim=3", "out_feature_dim=3", "dissim_proj_out=3"],
            "in_feature_dim is 3, not 16",
        ),
        (
            ["--features=visualizing", "--annotations=one.json"],
            "is for validation; their subsets: training; or give",
        ),
        ([], r"new\.yaml: No such file"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(workplace, arguments, words):
    duration = len(np.load(workplace / "HACS_DATA/validation/v6.npy")) / 2
    entry = {"subset": "training", "duration": duration, "annotations": []}
    write(workplace / "one.json", {"v6": entry})
    write(workplace / "zz.json", {"zz": entry})
    for folder in ("half/training", "widths/training", "widths/validation", "looped"):
        (workplace / folder).mkdir(parents=True)
    for name, width in (("training/a", 9), ("training/b", 9), ("validation/c", 8)):
        np.save(workplace / f"widths/{name}.npy", np.ones((30, width)))
    for loop in (workplace / "circle", workplace / "looped/loop.npy"):
        loop.symlink_to(loop)
    before = contents(workplace)
    with pytest.raises(SolaError, match=words):
        run(*arguments)
    assert contents(workplace) == before


def test_help_and_bad_arguments_need_no_torch():
    code = """if True:
        import atexit, sys
        atexit.register(lambda: print(sys.modules.keys() & {"torch", "sklearn", "matplotlib"}))
        from sola.prepare.__main__ import main
        main(sys.argv[1:])"""
    for argument, status in (("--help", 0), ("--what", 2)):
        command = [sys.executable, "-c", code, argument]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
        assert (done.returncode, done.stdout.splitlines()[-1]) == (status, "set()")


def test_videos_to_draw_are_completed_after_a_kill_and_a_users_own_stay(workplace, config):
    options = ["--yaml_path=tiny.yaml", "--fps=2", "visualizing_dir=drawn"]
    prepare.main(options)
    drawn = workplace / "drawn"
    first, *others = sorted(drawn.iterdir())
    for path in others:
        path.unlink()
    (drawn / ".unfinished").touch()
    prepare.main(options)
    assert sorted(drawn.iterdir()) == [first, *others]
    for path in others:
        path.unlink()
    prepare.main(options)
    assert sorted(drawn.iterdir()) == [first]

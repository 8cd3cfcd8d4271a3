"""What heads are handed with features: held to the rules of their loaders, see loaders.py."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from handing import dump_of, folder_of, hand_over, write
from helpers import FEATURE_DIM, numeric, process
from loaders import LOADERS, interpolated, settings, snippet

from sola.errors import SolaError
from sola.export.heads import HEADS
from sola.method.module import SoLaModule

pytest_plugins = ["handing"]


@pytest.mark.parametrize("head", HEADS)
def test_its_loader_reads_every_video_where_it_stands_in_time(database, head):
    """The middle of snippet i is (i + 0.5) / 2 s, of bin j of 100 (j + 0.5) / 100 of the video."""
    hand_over(head, database)
    for subset in ("training", "validation"):
        loaded = LOADERS[head](folder_of(head), subset)
        assert loaded.keys() == {v for v, e in database.items() if e["subset"] == subset}
        for video, (features, times, segments, labels) in loaded.items():
            x = np.load(f"HACS_DATA/{subset}/{video}.npy")
            if head.startswith("gtad") or head == "bmn":
                np.testing.assert_allclose(times, (np.arange(100) + 0.5) * len(x) / 200, rtol=1e-4)
            else:
                np.testing.assert_allclose(times, (np.arange(len(x)) + 0.5) / 2, rtol=1e-12)
                np.testing.assert_array_equal(features, x)
            if head == "gtad-hacs":
                np.testing.assert_allclose(features, interpolated(x, 100))
            seconds = len(x) / 2
            assert segments[0] == [seconds / 4, seconds / 2]
            assert segments[1] == pytest.approx([0, seconds])
            assert labels == [1, 0]


@pytest.mark.parametrize("head", HEADS)
def test_no_path_in_a_snippet_leads_nowhere(database, head):
    for options in ([], [write(database)]):
        process(f"--for={head}", *options, load_model="0")
        paths = re.findall(r"/[^\s'\"]+", snippet(dump_of(head), head)[2].replace("(JJBOY)", ""))
        assert len(paths) >= 1 + bool(options)
        assert [path for path in paths if not Path(path).exists()] == []
        assert all(path.startswith(str(Path().absolute())) for path in paths)


def test_gtad_is_given_options_of_its_parser(database):
    for head in ("gtad-hacs", "gtad-h5", "bmn"):
        hand_over(head, database)
        for options in settings(dump_of(head), head):
            names = {"video_anno", "feature_path", "feat_dim", "temporal_scale"}
            of_anet = names | {"video_info", "mode"}
            assert names <= options.keys() <= of_anet
    lines = snippet(dump_of("bmn"), "bmn")[2].splitlines()
    of_mmaction = dict(line.removeprefix("#   ").split(" = ") for line in lines if "   " in line)
    assert of_mmaction == {
        "data_root": repr(f"{dump_of('bmn')}/"),
        "ann_file": repr(str(dump_of("bmn") / "anet_anno.json")),
        "temporal_dim": "100",
        "feat_dim": "16",
    }


def test_the_annotations_are_the_same_for_all_heads_of_one_folder(database):
    texts = set()
    for head in ("gtad-hacs", "tridet", "opentad"):
        hand_over(head, database)
        texts.add((dump_of(head) / "annotations.json").read_bytes())
    assert len(texts) == 1


def test_another_json_in_its_place_is_refused(database):
    hand_over("tridet", database)
    folder = dump_of("tridet")
    before = (folder / "annotations.json").read_bytes()
    hand_over("opentad", database)
    database.pop("t5")
    with pytest.raises(SolaError, match=r"tiny_0/annotations\.json: was made from other --ann"):
        hand_over("opentad", database)
    assert (folder / "annotations.json").read_bytes() == before
    hand_over("opentad", database, "--overwrite")
    assert "t5" not in numeric(folder)


def test_each_dump_has_a_link_of_its_own_with_its_name(database):
    option = write(database)
    Path("transformed_features").mkdir()
    Path("transformed_features/I3D_tiny_0").symlink_to("elsewhere")  # of a dump that was there
    for _ in range(2):
        process("--for=gtad-hacs", option, load_model="0,moving_average:3")
    links = sorted(path for path in Path("transformed_features").iterdir() if path.is_symlink())
    assert [path.name for path in links] == ["I3D_tiny_0", "I3D_tiny_moving_average3"]
    for link in links:
        dump = link.with_name(link.name.removeprefix("I3D_"))
        assert link.resolve() == dump.absolute()
        assert not list(dump.glob("I3D*"))  # as ln -s makes them the second time
        (options,) = settings(dump, "gtad-hacs")
        assert options["feature_path"] == f"{link.absolute()}/"


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir])
def test_what_is_in_the_place_of_the_link_is_refused_and_stays(database, make):
    make(Path("I3D_mine"))
    with pytest.raises(SolaError, match="I3D_mine: is in the way of the link that G-TAD needs"):
        hand_over("gtad-hacs", database, "--output=mine")
    assert not Path("mine").exists()
    assert not Path("I3D_mine").is_symlink()


@pytest.mark.parametrize(
    ("head", "output", "words"),
    [
        ("gtad-h5", "I3D_new", "holds I3D, which G-TAD takes for its npy mode"),
        ("gtad-h5", "a,b", "holds a comma, at which G-TAD divides feature_path"),
        ("gtad-hacs", "a,b", "holds a comma, at which G-TAD divides feature_path"),
    ],
)
def test_paths_that_gtad_takes_for_something_else_are_refused(database, head, output, words):
    with pytest.raises(SolaError, match=rf"{output}: {words}; write elsewhere with --output"):
        hand_over(head, database, f"--output={output}")
    assert not Path(output).exists()
    hand_over("actionformer", database, f"--output={output}")  # which does not mind


@pytest.mark.parametrize(
    ("length", "multiple"), [(480, 576), (576, 576), (577, 1152), (1000, 1152)]
)
def test_sequence_lengths_fit_every_level(config, length, multiple):
    Path("new/training").mkdir(parents=True)
    np.save("new/training/x.npy", np.ones((length, FEATURE_DIM), np.float32))
    action = {"label": "swim", "segment": [1, 2]}
    entry = {"subset": "training", "duration": length / 2, "annotations": [action]}
    for head in ("tridet", "opentad", "actionformer"):
        hand_over(head, {"x": entry}, "--input=new", f"--output={head}")
        assert LOADERS[head](head, "training").keys() == {"x"}
    for head in ("tridet", "actionformer"):
        assert settings(head, head)["dataset"]["max_seq_len"] == multiple
    config = settings("opentad", "opentad")
    assert config["pad_len"] == config["model"]["projection"]["max_seq_len"] == multiple


def test_resized_features_have_rates_of_their_own(database):
    for head in ("opentad", "actionformer"):
        hand_over(head, database, "--resize=50", f"--output={head}")
        for subset in ("training", "validation"):
            for video, (features, times, _, _) in LOADERS[head](head, subset).items():
                seconds = float(database[video]["duration"])
                assert len(features) == 50
                np.testing.assert_allclose(times, (np.arange(50) + 0.5) / 50 * seconds)
    assert settings("actionformer", "actionformer")["dataset"]["default_fps"] is None
    config = settings("opentad", "opentad")
    assert "pad_len" not in config
    assert config["resize_length"] == 50


@pytest.mark.parametrize("head", [head for head in HEADS if head != "opentad"])
def test_each_video_may_have_a_rate_of_its_own(database, head):
    for number, entry in enumerate(database.values()):
        entry["duration"] = float(entry["duration"]) * (1 + number / 5)
    hand_over(head, database, "--fps=per_video")
    for video, (features, times, _, _) in LOADERS[head](folder_of(head), "training").items():
        expected = (np.arange(len(features)) + 0.5) / len(features) * database[video]["duration"]
        np.testing.assert_allclose(times, expected, rtol=1e-4)


def test_features_in_folders_that_the_head_does_not_know(database, capsys):
    Path("mine").mkdir()
    for split, name in (("training", "train"), ("validation", "val")):
        Path("mine", name).symlink_to(Path("HACS_DATA", split).absolute())
    hand_over("tridet", database, "--input=mine", "--output=new")
    assert "note: tridet reads training/ and validation/, these are in train, val" in (
        capsys.readouterr().out
    )
    hand_over("opentad", database, "--input=HACS_DATA/training", "--output=one")
    loaded = LOADERS["opentad"]("one", "training")  # in one folder: data_path is that
    assert loaded.keys() == {video for video in database if video.startswith("t")}


def test_index_pickles_beside_an_input_are_not_its_own(database):
    Path("HACS_DATA/training_duration.pkl").write_bytes(b"of another time")
    hand_over("tridet", database, "--input=HACS_DATA", "--output=new")


def test_other_annotations_are_taken_until_files_are_made_from_the_first(database, capsys):
    hand_over("tridet", database, "--output=new")
    shorter = {video: database[video] for video in [*database][1:]}
    with pytest.raises(SolaError, match=r"annotations\.json: was made from other --annotations"):
        hand_over("tridet", shorter, "--output=new")
    Path("new/annotations.json").unlink()  # as after a kill while features were encoded
    capsys.readouterr()
    hand_over("tridet", shorter, "--output=new")
    assert "0 of 21 videos to encode" in capsys.readouterr().out
    assert numeric("new").keys() <= shorter.keys()


def test_every_guide_says_what_to_compare_with(database):
    for head in HEADS:
        said = hand_over(head, database)
        assert (
            "compare with untouched features and with a moving average by this same route" in said
        )
        assert shlex.split("--load_model=0,moving_average:5,best")[0] in said
        for trap in HEADS[head].traps:
            assert f"* trap: {trap}\n" in said


def test_settings_of_another_head_go_when_the_annotations_change_and_else_stay(database, capsys):
    hand_over("tridet", database)
    process("--for=opentad", load_model="0")  # without annotations: nothing of them changes
    process("--for=tridet", load_model="0")
    assert "tridet.md: stays, as there are no --annotations" in capsys.readouterr().out
    Path("HACS_DATA/training/t5.npy").unlink()  # a link
    np.save("HACS_DATA/training/t5.npy", np.ones((2, FEATURE_DIM), np.float32))
    hand_over("opentad", database)  # whose segments are cut otherwise now
    assert "tridet.md: removed, since annotations.json changes" in capsys.readouterr().out
    assert not (dump_of("tridet") / "tridet.md").exists()
    process(load_model="0,moving_average:3")
    torch.save(SoLaModule(FEATURE_DIM, 4).state_dict(), "tiny_0.pt")
    process(load_model="tiny_0.pt")  # of another origin: what was beside has gone, too
    database.pop("t6")
    hand_over("gtad-hacs", database)

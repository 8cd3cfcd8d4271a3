"""Features as each head reads them, held to a plain statement of what its loader does."""

import csv
import json

import h5py
import numpy as np
import pytest
import torch
from conftest import FEATURE_DIM, contents, two_folders
from test_annotations import write

import process_feature
from sola.data.features import DataError
from sola.export.formats import Form, resize_linear, resize_pool
from sola.export.heads import HEADS
from sola.method.module import SoLaModule, load_module
from sola.system.cli import SolaError


@pytest.fixture
def trained(config):
    """The tiny configuration with the checkpoint of one epoch."""
    config.run_folder.mkdir(parents=True)
    torch.manual_seed(2)
    module = SoLaModule(FEATURE_DIM, 16)
    torch.nn.init.constant_(module.alpha, 0.3)
    torch.save(module.state_dict(), config.model_file(2))
    return config


def process(*arguments, load_model="2"):
    process_feature.main(["--yaml_path=tiny.yaml", f"--load_model={load_model}", *arguments])


@pytest.fixture
def expected(workplace, trained):
    """Split -> video -> what the module makes of the features, by itself."""
    module = load_module(trained.model_file(2))
    values = {}
    for path in sorted((workplace / "HACS_DATA").glob("*/*.npy")):
        with torch.no_grad():
            y = module(torch.from_numpy(np.load(path))[None])[0].numpy()
        values.setdefault(path.parent.name, {})[path.stem] = y
    return values


def bmn_pool(data, bins=100, samples=3):
    """The 100 bins of BMN's script, restated one sample at a time; border values go on."""
    rows = []
    for b in range(bins):
        first, last = (min(max(len(data) * (b + e) / bins, 0.5), len(data) - 0.5) for e in (0, 1))
        total = 0
        for s in range(samples):
            time = first + (last - first) * s / (samples - 1) - 0.5
            i = min(int(time), len(data) - 1)
            j = min(i + 1, len(data) - 1)
            total = total + data[i] + (time - i) * (data[j] - data[i])
        rows.append(total / samples)
    return np.array(rows)


@pytest.mark.parametrize("head", ["gtad-hacs", "tridet", "opentad"])
def test_npy_in_split_folders(workplace, expected, head, capsys):
    entry = {"subset": "training", "annotations": []}
    annotations = write(workplace / "a.json", {"zz": entry, "v_t5": entry})
    process(f"--for={head}", f"--annotations={annotations}")
    feature_path = "transformed_features/tiny_2/"
    for split, videos in expected.items():
        for video, y in videos.items():
            array = np.load(f"{feature_path}{split}/{video}.npy")
            assert array.dtype == np.float32
            np.testing.assert_allclose(array, y, atol=1e-5)
    output = capsys.readouterr().out
    assert "transformed_features/tiny_2" in output
    if head == "opentad":
        assert (workplace / feature_path / "missing_files.txt").read_text() == "zz\n"
        assert "in_channels: 16, fps: 2" in output
        assert "pad_len: 64" in output  # the longest video has fewer than 64 snippets, none over 32
    assert "1 of 21 videos are annotated" in output
    assert "Trap: " in output


def test_actionformer_reads_one_flat_folder_and_its_json(workplace, expected, capsys):
    actions = [{"label": label, "segment": ["1.5", 3]} for label in ("swim", "dive", "swim")]
    database = {
        "t5": {"subset": "Train", "duration": "9.5", "annotations": actions},
        "v5": {"subset": "Val", "annotations": actions},
        "gone": {"subset": "Val", "duration": 4, "annotations": actions},
    }
    file = write(workplace / "a.json", database)
    process("--for=actionformer", f"--annotations={file}", "--fps=1.5")
    folder = workplace / "transformed_features/tiny_2_actionformer"
    for videos in expected.values():
        for video, y in videos.items():
            np.testing.assert_allclose(np.load(folder / f"{video}.npy"), y, atol=1e-5)
    entries = json.loads((folder / "annotations.json").read_text())["database"]
    (entry,) = entries.values()  # the loader stops at a video without duration or features
    assert (entry["duration"], entry["fps"], entry["subset"]) == (9.5, 1.5, "train")
    assert [(a["label_id"], *a["segment"]) for a in entry["annotations"]] == [
        (1, 1.5, 3.0),
        (0, 1.5, 3.0),
        (1, 1.5, 3.0),
    ]
    output = capsys.readouterr().out
    assert f"json_file: {folder}/annotations.json" in output
    assert "file_prefix: ''" in output
    assert "default_fps: 1.5" in output
    assert "1 videos; train_split and val_split are of ['train'], num_classes: 2" in output
    assert "note: 2 annotated videos without features or duration" in output
    process("--for=actionformer")
    assert "there is no" not in capsys.readouterr().out  # but one of before
    process("--for=actionformer", "--output=new")
    assert "there is no annotations.json yet; --annotations=JSON" in capsys.readouterr().out


def test_label_ids_of_the_file_stay(workplace, trained, capsys):
    actions = [
        {"label": label, "label_id": number, "segment": [1, 2]}
        for label, number in (("swim", 3), ("dive", 7))
    ]
    database = {"t5": {"subset": "Validation", "duration": 9.5, "annotations": actions}}
    process("--for=actionformer", f"--annotations={write(workplace / 'a.json', database)}")
    path = workplace / "transformed_features/tiny_2_actionformer/annotations.json"
    (entry,) = json.loads(path.read_text())["database"].values()
    assert [action["label_id"] for action in entry["annotations"]] == [3, 7]
    assert "renumbered" not in capsys.readouterr().out
    actions[1]["label_id"] = None  # then none is trusted
    process("--for=actionformer", f"--annotations={write(workplace / 'a.json', database)}")
    assert "note: labels are renumbered" in capsys.readouterr().out
    (entry,) = json.loads(path.read_text())["database"].values()
    assert [action["label_id"] for action in entry["annotations"]] == [1, 0]


def test_a_wrong_rate_is_said(workplace, trained, capsys):
    database = {"t5": {"subset": "training", "duration": "9.5", "annotations": []}}
    process("--for=tridet", f"--annotations={write(workplace / 'a.json', database)}", "--fps=99")
    assert "snippets a second, --fps is 99\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("head", "name"), [("actionformer", "annotations.json"), ("opentad", "missing_files.txt")]
)
def test_a_users_file_beside_the_features_is_not_replaced(workplace, trained, head, name):
    database = {"t5": {"subset": "training", "duration": 9.5, "annotations": []}}
    file = write(workplace / "a.json", database)
    (workplace / "mine").mkdir()
    (workplace / "mine" / name).write_text("precious")
    with pytest.raises(SolaError, match=rf"mine/{name}: is not of this program"):
        process(f"--for={head}", f"--annotations={file}", "--output=mine")
    assert [path.name for path in (workplace / "mine").iterdir()] == [name]
    process("--output=mine")  # it is not in the way of anything
    with pytest.raises(SolaError, match=r"is not of this program|in another form"):
        process(f"--for={head}", f"--annotations={file}", "--output=mine")
    assert (workplace / "mine" / name).read_text() == "precious"
    process(f"--for={head}", f"--annotations={file}", "--output=new")
    process(f"--for={head}", f"--annotations={file}", "--output=new")


def test_names_that_begin_with_v_(workplace, trained, capsys):
    """What heads look for is <prefix><id>; an id of YouTube may begin with v_ itself."""
    entry = {"subset": "training", "duration": 9.5, "annotations": []}
    file = write(workplace / "a.json", {"a": entry, "b": entry})
    for folder, names in (("all", ("v_a", "v_b")), ("some", ("v_a", "a"))):
        (workplace / folder).mkdir()
        for name in names:
            np.save(workplace / folder / name, np.zeros((len(name) + 8, FEATURE_DIM), np.float32))
    process("--for=bmn", "--input=all", "--output=bmn_all", "--format=npy")
    process("--for=bmn", "--input=some", "--output=bmn_some", "--format=npy")
    written = {path.relative_to(workplace) for path in workplace.glob("bmn*/*/*.npy")}
    assert {str(path) for path in written} == {
        "bmn_all/csv_mean_100/v_a.npy",
        "bmn_all/csv_mean_100/v_b.npy",
        "bmn_some/csv_mean_100/v_v_a.npy",
        "bmn_some/csv_mean_100/v_a.npy",
    }
    capsys.readouterr()
    process("--for=opentad", "--input=all", "--output=opentad", f"--annotations={file}")
    assert "prefix: 'v_'" in capsys.readouterr().out
    process("--for=actionformer", "--input=all", "--output=actionformer", f"--annotations={file}")
    assert "file_prefix: 'v_'" in capsys.readouterr().out
    content = json.loads((workplace / "actionformer/annotations.json").read_text())
    assert content["database"].keys() == {"a", "b"}
    file = write(workplace / "a.json", {"v_a": entry, "v_b": entry})
    process("--for=opentad", "--input=all", "--output=opentad", f"--annotations={file}")
    assert "prefix: ''" in capsys.readouterr().out


def test_a_flat_folder_for_a_head_that_reads_splits_is_said(workplace, trained, capsys):
    process("--for=tridet", "--input=HACS_DATA/training", "--output=flat")
    assert "note: tridet reads training/ and validation/, these are" in capsys.readouterr().out


def test_resized_snippets_have_a_rate_of_their_own_in_each_video(workplace, trained):
    database = {"t5": {"subset": "training", "duration": 10, "annotations": []}}
    file = write(workplace / "a.json", database)
    process("--for=actionformer", f"--annotations={file}", "--resize=25", "--output=new")
    (entry,) = json.loads((workplace / "new/annotations.json").read_text())["database"].values()
    assert entry["fps"] == 2.5


def test_bmn_reads_csv_of_100_bins(workplace, expected):
    process("--for=bmn")
    folder = workplace / "transformed_features/tiny_2_bmn/csv_mean_100"
    for videos in expected.values():
        for video, y in videos.items():
            with open(folder / f"v_{video}.csv", newline="") as file:
                header, *rows = csv.reader(file)
            assert header == [f"f{i}" for i in range(FEATURE_DIM)]
            assert len(rows) == 100
            np.testing.assert_allclose(np.array(rows, float), bmn_pool(y), atol=1e-5)


def test_gtad_reads_h5_of_100_bins(workplace, expected):
    process("--for=gtad-h5")
    for videos in expected.values():
        for video, y in videos.items():
            path = workplace / f"transformed_features/tiny_2_gtad-h5/v_{video}.h5"
            with h5py.File(path) as file:
                array = file[f"v_{video}"][:]
            assert array.dtype == np.float32
            np.testing.assert_allclose(array, bmn_pool(y), atol=1e-5)


def test_raw_features_go_the_same_route(workplace):
    process("--for=bmn", load_model="0")
    x = np.load(workplace / "HACS_DATA/training/t5.npy")
    table = np.loadtxt(
        workplace / "transformed_features/tiny_0_bmn/csv_mean_100/v_t5.csv",
        delimiter=",",
        skiprows=1,
    )
    np.testing.assert_allclose(table, bmn_pool(x), atol=1e-5)


@pytest.mark.parametrize("length", [1, 2, 3, 40, 100, 250])
def test_resizing(length):
    x = np.random.default_rng(length).standard_normal((length, 5)).astype(np.float32)
    np.testing.assert_allclose(resize_pool(x, 100), bmn_pool(x), atol=1e-5)
    assert resize_pool(x, 100).dtype == np.float32
    linear = resize_linear(x, 100)
    for i in range(100):  # no aligned corners: output i stands at (i + 0.5) / 100 of the video
        place = np.clip((i + 0.5) * length / 100 - 0.5, 0, length - 1)
        before = int(place)
        after = min(before + 1, length - 1)
        between = x[before] + (place - before) * (x[after] - x[before])
        np.testing.assert_allclose(linear[i], between, atol=1e-5)


def test_options_win_over_the_head_and_name_the_folder(workplace, expected, capsys):
    process("--for=bmn", "--format=npy", "--resize=20", "--dtype=float16", "--layout=flat")
    name = "tiny_2_bmn_npy_flat_20_float16"
    array = np.load(workplace / f"transformed_features/{name}/csv_mean_100/v_t5.npy")
    assert array.shape == (20, FEATURE_DIM)
    assert array.dtype == np.float16
    pooled = bmn_pool(expected["training"]["t5"], bins=20)
    np.testing.assert_allclose(array, pooled, atol=2e-2)
    output = capsys.readouterr().out
    assert "note: format is npy, bmn expects csv: adapt its loader" in output
    assert "[20, 16]" in output
    assert "temporal_scale: 20" in output
    process("--for=opentad", "--layout=flat", "--prefix=v_")
    output = capsys.readouterr().out
    assert "transformed_features/tiny_2_flat_v_, prefix: 'v_'" in output
    process("--resize=20")
    linear = np.load(workplace / "transformed_features/tiny_2_20/training/t5.npy")
    assert abs(linear - resize_linear(expected["training"]["t5"], 20)).max() < 1e-5
    assert abs(linear - pooled).max() > 1e-2


def test_nothing_but_a_checkpoint_is_needed(workplace, expected, trained):
    checkpoint = trained.model_file(2).rename(workplace / "mine.pt")
    (workplace / "tiny.yaml").unlink()
    options = [f"--load_model={checkpoint}", "--device=cpu"]
    process_feature.main([*options, "--input=HACS_DATA/validation", "--output=flat"])
    process_feature.main([*options, "--input=HACS_DATA", "--output=split", "--prefix=v_"])
    process_feature.main([*options, "--input=HACS_DATA/training/t5.npy", "--output=new/one.npy"])
    y = expected["validation"]["v5"]
    np.testing.assert_allclose(np.load(workplace / "flat/v5.npy"), y, atol=1e-5)
    np.testing.assert_allclose(np.load(workplace / "split/validation/v_v5.npy"), y, atol=1e-5)
    y = expected["training"]["t5"]
    np.testing.assert_allclose(np.load(workplace / "new/one.npy"), y, atol=1e-5)


def test_two_folders_are_joined_on_channels(workplace, trained, capsys):
    two_folders(workplace)
    longer = workplace / "flow/training/t5.npy"
    np.save(longer, np.concatenate([np.load(longer), np.zeros((1, 6), np.float32)]))
    process("data_root=rgb, flow", "feature_save_path=joined")
    assert "rgb/training: 1 videos cut to the shorter" in capsys.readouterr().out
    process("feature_save_path=plain")
    for path in (workplace / "plain").glob("*/*/*.npy"):
        other = workplace / "joined" / path.relative_to(workplace / "plain")
        assert path.read_bytes() == other.read_bytes()
    np.save(longer, np.zeros((99, 6), np.float32))
    with pytest.raises(DataError, match=r"flow/training/t5\.npy: has 99 snippets where another"):
        process("data_root=rgb,flow", "feature_save_path=again")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--input=HACS_DATA"], "needs --output"),
        (["--input=nowhere", "--output=x"], "nowhere: no such file or folder"),
        (["--input=HACS_DATA,absent", "--output=x"], "--input: absent: no such file or folder"),
        (["--input=HACS_DATA,tiny.yaml", "--output=x"], r"tiny\.yaml: is a file, among folders"),
        (["--input=mixed", "--output=x"], "holds .npy files beside the folder part"),
        (
            [
                "--input=mixed/a.npy",
                "--output=y.npy",
                "--for=bmn",
                "--format=npy",
                "--annotations=other.json",
            ],
            "are for a folder of features",
        ),
        (["--input=mixed/a.npy", "--output=mixed/a.npy"], "is the input; name another"),
        (["--input=mixed/nan.npy", "--output=y.npy"], "holds NaN"),
        (
            ["--input=mixed/a.npy", "--output=y.npy", "--load_model=huge.pt"],
            "the module's output is NaN",
        ),
        (["--input=HACS_DATA/training", "--output=HACS_DATA/training"], "holds the input"),
        (["--input=HACS_DATA/training/t5.npy", "--output=x"], r"must end in \.npy"),
        (["--input=evaluation", "--output=x"], r"not features \[T, C\]"),
        (["--input=models", "--output=x"], "holds no .npy files"),
        (["--prefix=../"], "beginning of a file's name"),
        (["--resize=0"], r"1\.\.100000"),
        (["--fps=nan"], "--fps"),
        (["--input=widths", "--output=x", "--load_model=0"], "has 7 channels, others have 16"),
        (["--resize_mode=pool"], "needs --resize"),
        (["--annotations=tiny.yaml"], "give --for"),
        (["--for=opentad", "--annotations=other.json"], "'zz', has the name of .* 't0'"),
        (["--input=HACS_DATA/training", "--output=x.npy"], "must be a folder"),
        (["--input=HACS_DATA", "--output=x", "--load_model=wide.pt"], r"is made for \[T, 17\]"),
        (["--input=HACS_DATA", "--output=x", "--yaml_path=no.yaml"], r"no\.yaml: No such file"),
        (["--for=actionformer", "--annotations=tiny.yaml"], r"tiny\.yaml: not a JSON"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(workplace, trained, arguments, words):
    write(workplace / "other.json", {"zz": {"subset": "training", "annotations": []}})
    torch.save(SoLaModule(FEATURE_DIM + 1, 4).state_dict(), workplace / "wide.pt")
    huge = {n: 1e15 * w for n, w in torch.load(trained.model_file(2)).items()}
    torch.save(huge, workplace / "huge.pt")
    (workplace / "mixed/part").mkdir(parents=True)
    for path, value in (("a", 1.0), ("part/b", 1.0), ("nan", np.nan)):
        np.save(workplace / f"mixed/{path}.npy", np.full((9, FEATURE_DIM), value, np.float32))
    (workplace / "widths").mkdir()
    for channels in (7, 16):
        np.save(workplace / f"widths/{99 - channels}.npy", np.ones((9, channels), np.float32))
    before = contents(workplace)
    with pytest.raises(SolaError, match=words):
        process(*arguments)
    assert contents(workplace) == before
    assert not (workplace / "transformed_features").exists()


def test_an_epoch_needs_its_yaml(workplace):
    with pytest.raises(SolaError, match=r"0 or FILE\.pt without"):
        process_feature.main(["--input=HACS_DATA", "--output=x", "--load_model=2"])


def test_the_input_is_never_removed_through_links(workplace, trained):
    process("--output=first")
    (workplace / "linked").mkdir()
    for path in sorted((workplace / "first/training").iterdir()):
        (workplace / "linked" / path.name).symlink_to(path)
    before = {path: path.read_bytes() for path in (workplace / "first").rglob("*.npy")}
    with pytest.raises(SolaError, match="holds the input, by way of links"):
        process("--input=linked", "--output=first/training")
    for path, content in before.items():
        assert path.read_bytes() == content


def test_a_file_is_not_overwritten_unasked(workplace, trained):
    (workplace / "one.npy").write_bytes(b"precious")
    arguments = ["--input=HACS_DATA/training/t5.npy", "--output=one.npy"]
    with pytest.raises(SolaError, match=r"one\.npy: is there already; --overwrite"):
        process(*arguments)
    assert (workplace / "one.npy").read_bytes() == b"precious"
    process(*arguments, "--overwrite")
    assert np.load(workplace / "one.npy").ndim == 2


def test_two_forms_are_not_mixed_in_one_folder(trained):
    process("--output=here")
    with pytest.raises(SolaError, match="in another form"):
        process("--output=here", "--dtype=float16")


def test_one_name_in_two_splits_is_not_overwritten(workplace, trained):
    for split in ("training", "validation"):
        np.save(workplace / f"HACS_DATA/{split}/same.npy", np.zeros((3, FEATURE_DIM)))
    with pytest.raises(DataError, match="same: in training and in validation"):
        process("--layout=flat")


def test_float16_says_what_it_cannot_hold(tmp_path):
    with pytest.raises(DataError, match="beyond the range of float16"):
        Form(dtype="float16").write(tmp_path / "x.npy", np.full((2, 2), 1e6, np.float32))


def test_an_h5_cannot_have_any_name(tmp_path):
    path = tmp_path / "a\udcff.h5"
    with pytest.raises(DataError, match="its name is no UTF-8"):
        Form(format="h5").write(path, np.ones((2, 2), np.float32))
    assert not list(tmp_path.iterdir())


def test_a_single_file_for_a_head(workplace, expected, capsys):
    process("--input=HACS_DATA/training/t5.npy", "--output=new/v_t5.csv", "--for=bmn")
    assert f"feature_path: {workplace}/new, files v_<id>.csv" in capsys.readouterr().out
    table = np.loadtxt(workplace / "new/v_t5.csv", delimiter=",", skiprows=1)
    np.testing.assert_allclose(table, bmn_pool(expected["training"]["t5"]), atol=1e-5)


def test_h5_without_h5py_says_so(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SolaError, match="pip install h5py"):
        Form(format="h5")


def test_every_head_has_settings_that_are_a_form():
    for head in HEADS.values():
        Form(**head.form)
        assert "{folder}" in head.advice
        assert "Trap: " in head.advice


def test_an_interrupted_dump_in_another_form_goes_on(workplace, trained):
    process("--for=bmn")
    folder = workplace / "transformed_features/tiny_2_bmn/csv_mean_100"
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "v_t5.csv").unlink()
    process("--for=bmn")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole


def test_masks_of_padded_batches_keep_videos_apart(trained):
    """What README shows for a module inside a head."""
    module = load_module(trained.model_file(2))
    videos = [torch.randn(length, FEATURE_DIM) for length in (9, 4, 7)]
    batch = torch.nn.utils.rnn.pad_sequence(videos, batch_first=True)
    mask = torch.arange(9) < torch.tensor([9, 4, 7])[:, None]
    with torch.no_grad():
        refined = module(batch) * mask[..., None]
        for video, row in zip(videos, refined, strict=True):
            alone = module(video[None])[0]
            torch.testing.assert_close(row[: len(video)], alone, atol=1e-5, rtol=1e-5)
            assert not row[len(video) :].any()

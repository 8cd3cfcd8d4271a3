"""Features as each head reads them, held to a plain statement of what its loader does."""

import csv
import json

import h5py
import numpy as np
import pytest
import torch
from conftest import FEATURE_DIM, replace
from test_annotations import write

import process_feature
from sola.arrays import DataError
from sola.formats import Form, resize_linear, resize_pool
from sola.heads import HEADS
from sola.model import SoLaModule, load_module
from sola.runtime import SolaError


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
    database = {"t5": {"subset": "training", "duration": "9.5", "annotations": []}}
    process("--for=actionformer", f"--annotations={write(workplace / 'a.json', database)}")
    folder = workplace / "transformed_features/tiny_2_actionformer"
    for videos in expected.values():
        for video, y in videos.items():
            np.testing.assert_allclose(np.load(folder / f"{video}.npy"), y, atol=1e-5)
    entries = json.loads((folder / "annotations.json").read_text())["database"]
    assert entries["t5"]["duration"] == 9.5
    assert f"json_file: {folder.relative_to(workplace)}/annotations.json" in capsys.readouterr().out
    process("--for=actionformer")
    assert "a file that is not there yet; --annotations=JSON" in capsys.readouterr().out


def test_a_wrong_rate_is_said(workplace, trained, capsys):
    database = {"t5": {"subset": "training", "duration": "9.5", "annotations": []}}
    process("--for=tridet", f"--annotations={write(workplace / 'a.json', database)}", "--fps=99")
    assert "snippets a second, --fps is 99\n" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["annotations.json", "missing_files.txt"])
def test_a_users_file_beside_the_features_is_not_replaced(workplace, trained, name):
    (workplace / "mine").mkdir()
    (workplace / "mine" / name).write_text("precious")
    with pytest.raises(SolaError, match=rf"mine/{name}: is not of this program"):
        process("--for=actionformer", "--output=mine")
    assert [path.name for path in (workplace / "mine").iterdir()] == [name]


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


def test_options_win_over_the_head_and_name_the_folder(workplace, expected):
    process("--for=bmn", "--format=npy", "--resize=20", "--dtype=float16", "--layout=flat")
    name = "tiny_2_bmn_npy_flat_20_float16"
    array = np.load(workplace / f"transformed_features/{name}/csv_mean_100/v_t5.npy")
    assert array.shape == (20, FEATURE_DIM)
    assert array.dtype == np.float16
    pooled = bmn_pool(expected["training"]["t5"], bins=20)
    np.testing.assert_allclose(array, pooled, atol=2e-2)


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


def test_two_folders_are_joined_on_channels(workplace, trained):
    for folder, channels in (("rgb", slice(10)), ("flow", slice(10, None))):
        for path in (workplace / "HACS_DATA").glob("*/*.npy"):
            (workplace / folder / path.parent.name).mkdir(parents=True, exist_ok=True)
            x = np.load(path)[:, channels]
            x = np.concatenate([x, x[-1:]]) if folder == "flow" and path.stem == "t5" else x
            np.save(workplace / folder / path.parent.name / path.name, x)
    process("data_root=rgb, flow", "feature_save_path=joined")
    process("feature_save_path=plain")
    for path in (workplace / "plain").glob("*/*/*.npy"):
        other = workplace / "joined" / path.relative_to(workplace / "plain")
        assert path.read_bytes() == other.read_bytes()
    longer = workplace / "flow/training/t5.npy"
    np.save(longer, np.zeros((99, 6), np.float32))
    with pytest.raises(DataError, match=r"flow/training/t5\.npy: has 99 snippets where another"):
        process("data_root=rgb,flow", "feature_save_path=again")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--input=HACS_DATA"], "needs --output"),
        (["--input=nowhere", "--output=x"], "nowhere: no such file or folder"),
        (["--input=HACS_DATA/training", "--output=HACS_DATA/training"], "holds the input"),
        (["--input=HACS_DATA/training/t5.npy", "--output=x"], r"must end in \.npy"),
        (["--input=evaluation", "--output=x"], r"not features \[T, C\]"),
        (["--input=models", "--output=x"], "holds no .npy files"),
        (["--prefix=../"], "beginning of a file's name"),
        (["--resize=0"], r"1\.\.100000"),
        (["--fps=nan"], "--fps"),
        (["--resize_mode=pool"], "needs --resize"),
        (["--annotations=tiny.yaml"], "give --for"),
        (["--for=opentad", "--annotations=other.json"], "'zz', has the name of .* 't0'"),
        (["--input=HACS_DATA/training", "--output=x.npy"], "must be a folder"),
        (["--input=HACS_DATA", "--output=x", "--load_model=wide.pt"], r"is made for \[T, 17\]"),
        (["--input=HACS_DATA", "--output=x", "--yaml_path=no.yaml"], "0 or FILE.pt without"),
        (["--for=actionformer", "--annotations=tiny.yaml"], r"tiny\.yaml: not a JSON"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(workplace, trained, arguments, words):
    write(workplace / "other.json", {"zz": {"subset": "training", "annotations": []}})
    torch.save(SoLaModule(FEATURE_DIM + 1, 4).state_dict(), workplace / "wide.pt")
    with pytest.raises(SolaError, match=words):
        process(*arguments)
    assert not (workplace / "x").exists()
    assert not list(workplace.glob("transformed_features/*"))


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
    assert replace(trained).kernel_size2 == 1  # of a wider one the padding would be seen

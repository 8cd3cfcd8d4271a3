"""Features as each head reads them, held to a plain statement of what its loader does."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from helpers import FEATURE_DIM, contents, flat_folder, numeric, process, two_folders
from loaders import LOADERS, read_csv, settings

import process_feature
from sola.errors import DataError, SolaError
from sola.export.formats import resize_linear
from sola.export.heads import HEADS
from sola.method.module import SoLaModule
from sola.method.weights import load_module


@pytest.fixture
def trained(config):
    """The tiny configuration with the checkpoint of one epoch."""
    config.run_folder.mkdir(parents=True)
    torch.manual_seed(2)
    module = SoLaModule(FEATURE_DIM, 16)
    torch.nn.init.constant_(module.alpha, 0.3)
    torch.save(module.state_dict(), config.model_file(2))
    return config


@pytest.fixture
def expected(trained):
    """Split -> video -> what the module makes of the features, by itself."""
    module = load_module(trained.model_file(2))
    values = {"training": {}, "validation": {}}
    for path in sorted(Path("HACS_DATA").glob("*/*.npy")):
        with torch.no_grad():
            y = module(torch.from_numpy(np.load(path))[None])[0].numpy()
        values[path.parent.name][path.stem] = y
    return values


def annotation_option(**database):
    """--annotations of a file in which what is given wins over a plain entry."""
    segment = {"label": "x", "segment": [1, 2]}
    plain = {"subset": "training", "duration": 9.5, "annotations": [segment]}
    entries = {video: plain | entry for video, entry in database.items()}
    Path("a.json").write_text(json.dumps({"database": entries}))
    return "--annotations=a.json"


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
def test_npy_in_split_folders(expected, head, capsys):
    process(f"--for={head}", annotation_option(zz={}, v_t5={"duration": None}))
    folder = Path("transformed_features/tiny_2")
    for split, videos in expected.items():
        for video, y in videos.items():
            array = np.load(folder / split / f"{video}.npy")
            assert array.dtype == np.float32
            np.testing.assert_allclose(array, y, atol=1e-5)
    output = capsys.readouterr().out
    assert "1 of 21 videos are annotated in a.json" in output
    assert "* trap: " in output
    assert "* note: " not in output
    kept = (folder / f"{head}.md").read_text()
    assert kept in output
    assert str(folder.absolute().parent) in kept
    assert f"kept in {folder.absolute()}/{head}.md\n" in output


def test_actionformer_reads_one_flat_folder_and_its_json(expected, capsys):
    segments = ([1.5, 3], [4, 5], [6, 7])
    actions = [
        {"label": label, "segment": [str(start), end]}
        for label, (start, end) in zip(("swim", "dive", "swim"), segments, strict=True)
    ]
    of_training = {"subset": "Train", "duration": "9.5", "annotations": actions}
    others = {"v5": {"subset": "Val", "duration": None}, "gone": {"subset": "Val"}}
    process("--for=actionformer", annotation_option(t5=of_training, **others), "--fps=1.5")
    folder = Path("transformed_features/tiny_2_actionformer").absolute()
    for videos in expected.values():
        for video, y in videos.items():
            np.testing.assert_allclose(np.load(folder / f"{video}.npy"), y, atol=1e-5)
    (entry,) = numeric(folder).values()  # the loader stops at one without duration or features
    assert (entry["duration"], entry["fps"], entry["subset"]) == (9.5, 1.5, "training")
    written = [(a["label"], a["label_id"], *a["segment"]) for a in entry["annotations"]]
    assert written == [("swim", 1, 1.5, 3.0), ("dive", 0, 4.0, 5.0), ("swim", 1, 6.0, 7.0)]
    config = settings(folder, "actionformer")
    assert (config["train_split"], config["val_split"]) == (["training"], ["validation"])
    assert config["dataset"]["json_file"] == f"{folder}/annotations.json"
    assert config["dataset"]["num_classes"] == 2
    capsys.readouterr()
    process("--for=actionformer", "--output=new")
    assert "note: --annotations=JSON writes what it reads" in capsys.readouterr().out
    assert "json_file" not in settings("new", "actionformer")["dataset"]


def test_the_rate_of_the_snippets(trained, capsys):
    process("--for=tridet", annotation_option(t5={}), "--fps=99")
    said = "does not fit 1 of 1 videos (t5: 5.68 snippets a second, told 99); give the right --fps"
    assert said in capsys.readouterr().out
    process("--for=actionformer", annotation_option(t5={"duration": 27}), "--resize=25")
    (entry,) = numeric("transformed_features/tiny_2_actionformer_25").values()
    assert entry["fps"] == pytest.approx(25 / 27)  # resized, each video has its own


def test_each_video_its_own_rate(trained, capsys):
    entries = annotation_option(t5={"duration": 10}, t6={"duration": 4})
    process("--for=actionformer", entries, "--fps=per_video")
    folder = Path("transformed_features/tiny_2_actionformer")
    lengths = {video: len(np.load(folder / f"{video}.npy")) for video in ("t5", "t6")}
    rates = {video: entry["fps"] for video, entry in numeric(folder).items()}
    assert rates == {"t5": lengths["t5"] / 10, "t6": lengths["t6"] / 4}
    assert "warning" not in capsys.readouterr().out
    loaded = LOADERS["actionformer"](folder, "training")
    for video, seconds in (("t5", 10), ("t6", 4)):
        expected = (np.arange(lengths[video]) + 0.5) * seconds / lengths[video]
        np.testing.assert_allclose(loaded[video].times, expected)
    process("--for=opentad", entries, "--fps=per_video")
    span = f"5.4 to {rates['t6']:.3g}" if rates["t6"] > 5.4 else f"{rates['t6']:.3g} to 5.4"
    said = f"warning: the videos have {span} snippets a second, opentad knows one rate"
    assert said in capsys.readouterr().out


def test_the_yaml_says_what_heads_are_told(trained):
    """As prepare leaves it: frames, their number in a clip, and the annotation file."""
    annotation_option(t5={"duration": 28.5})
    with Path("tiny.yaml").open("a") as file:
        file.write("feat_stride: 8\nnum_frames: 32\nvideo_fps: 16\nfps: 2\nannotations: a.json\n")
    folders = "transformed_features/tiny_2", "transformed_features/tiny_2_actionformer"
    for options, rate, clip in (([], 2, 2), (["--fps=3"], 3, 1 / 3)):  # which wins over all of them
        for head, folder in zip(("opentad", "actionformer"), folders, strict=True):
            if options:
                with pytest.raises(SolaError, match="for another --fps; --overwrite replaces it"):
                    process(f"--for={head}", *options)
            process(f"--for={head}", *options, *(["--overwrite"] if options else []))
            (loaded,) = LOADERS[head](folder, "training").values()
            centres = np.arange(len(loaded.features)) / rate + clip / 2
            np.testing.assert_allclose(loaded.times, centres)
        (entry,) = numeric(folder).values()
        assert (entry["fps"], entry["clip"]) == (rate, clip)


@pytest.mark.parametrize(
    ("head", "name"), [("actionformer", "annotations.json"), ("opentad", "missing_files.txt")]
)
def test_a_users_file_beside_the_features_is_not_replaced(trained, head, name):
    annotations = annotation_option(t5={})
    layout = f"--layout={HEADS[head].form.get('layout', 'split')}"
    Path("mine").mkdir()
    Path("mine", name).write_text("precious")
    refused = pytest.raises(SolaError, match=rf"^mine/{name}: was not written by this program")
    with refused:
        process(f"--for={head}", annotations, "--output=mine")
    assert [path.name for path in Path("mine").iterdir()] == [name]
    process("--output=mine", layout)  # it is not in the way of anything
    with refused:
        process(f"--for={head}", annotations, "--output=mine", "--overwrite")
    assert Path("mine", name).read_text() == "precious"
    for options in ([], [], ["--overwrite"]):
        process(f"--for={head}", annotations, "--output=new", *options)
    content = Path("new", name).read_bytes()
    process("--output=new", layout)  # does not forget whose the file is
    process(f"--for={head}", annotations, "--output=new")
    Path("new", name).replace("a.json")
    Path("new", name).symlink_to(Path("a.json").absolute())
    with pytest.raises(SolaError, match=rf"^new/{name}: holds the input|not a JSON file"):
        process(f"--for={head}", annotations, "--output=new", "--overwrite")
    assert Path("a.json").read_bytes() == content


def test_names_that_begin_with_v_(trained, capsys):
    """What heads look for is <prefix><id>; an id of YouTube may begin with v_ itself."""
    for folder, names in (("all", ("v_a", "v_b")), ("some", ("v_a", "a"))):
        Path(folder).mkdir()
        for name in names:
            np.save(Path(folder, name), np.zeros((len(name) + 8, FEATURE_DIM), np.float32))
        process("--for=bmn", f"--input={folder}", f"--output=bmn_{folder}", "--format=npy")
    assert {str(path) for path in Path().glob("bmn*/*/*.npy")} == {
        "bmn_all/csv_mean_100/v_a.npy",
        "bmn_all/csv_mean_100/v_b.npy",
        "bmn_some/csv_mean_100/v_v_a.npy",
        "bmn_some/csv_mean_100/v_a.npy",
    }
    annotations = annotation_option(a={}, b={})
    for head, ids in (("opentad", {"v_a", "v_b"}), ("actionformer", {"a", "b"})):
        process(f"--for={head}", "--input=all", f"--output={head}", annotations)
        assert numeric(head).keys() == ids  # in split folders they are the names of files
        assert LOADERS[head](head, "training").keys() == ids
    assert settings("actionformer", "actionformer")["dataset"]["file_prefix"] == "v_"
    process("--for=actionformer", "--input=all", "--output=new", annotation_option(v_a={}, v_b={}))
    assert settings("new", "actionformer")["dataset"]["file_prefix"] == ""
    assert LOADERS["actionformer"]("new", "training").keys() == {"v_a", "v_b"}


def read_h5(path):
    with h5py.File(path) as file:
        assert file[path.stem].dtype == np.float32
        return file[path.stem][:]


@pytest.mark.parametrize(
    ("head", "folder", "read", "suffix"),
    [("bmn", "_bmn/csv_mean_100", read_csv, "csv"), ("gtad-h5", "_gtad-h5", read_h5, "h5")],
)
def test_csv_and_h5_of_100_bins(expected, head, folder, read, suffix, capsys):
    for load_model in ("2", "0"):  # raw features go the same route
        process(f"--for={head}", load_model=load_model)
        for split, videos in expected.items():
            for video, y in videos.items():
                x = y if load_model == "2" else np.load(f"HACS_DATA/{split}/{video}.npy")
                path = Path(f"transformed_features/tiny_{load_model}{folder}/v_{video}.{suffix}")
                np.testing.assert_allclose(read(path), bmn_pool(x), atol=1e-5)
    whole = contents(path.parent)
    path.write_bytes(b"")
    path.with_name(f"v_t5.{suffix}").unlink()
    foreign = path.with_name(f"info.{suffix}")  # without the prefix: none of this dump's
    foreign.write_bytes(b"of the user")
    capsys.readouterr()
    process(f"--for={head}", load_model="0")
    assert "2 of 21 videos to encode" in capsys.readouterr().out
    process(f"--for={head}", "--overwrite", load_model="0")
    assert foreign.read_bytes() == b"of the user"
    foreign.unlink()
    assert contents(path.parent).keys() == whole.keys()
    np.testing.assert_allclose(read(path), bmn_pool(x), atol=1e-5)


def test_options_win_over_the_head_and_name_the_folder(expected, capsys):
    process("--for=bmn", "--format=npy", "--resize=20", "--dtype=float16", "--layout=flat")
    name = "tiny_2_bmn_npy_flat_20_float16"
    array = np.load(f"transformed_features/{name}/csv_mean_100/v_t5.npy")
    assert array.shape == (20, FEATURE_DIM)
    assert array.dtype == np.float16
    pooled = bmn_pool(expected["training"]["t5"], bins=20)
    np.testing.assert_allclose(array, pooled, atol=2e-2)
    output = capsys.readouterr().out
    assert "note: format is npy, bmn expects csv: adapt its loader" in output
    (options,) = settings(f"transformed_features/{name}/csv_mean_100", "bmn")
    assert (options["temporal_scale"], options["feat_dim"]) == ("20", "16")
    process("--for=opentad", "--layout=flat", "--prefix=v_")
    flat = Path("transformed_features/tiny_2_flat_v_").absolute()
    for part in settings(flat, "opentad")["dataset"].values():
        assert (part["data_path"], part["prefix"]) == (str(flat), "v_")
    for pending in (21, 0):
        process("--resize=20")
        assert f"{pending} of 21 videos to encode" in capsys.readouterr().out
    linear = np.load("transformed_features/tiny_2_20/training/t5.npy")
    assert abs(linear - resize_linear(expected["training"]["t5"], 20)).max() < 1e-5
    assert abs(linear - pooled).max() > 1e-2
    with pytest.raises(SolaError, match="tiny_2_20: holds features in another form"):
        process("--output=transformed_features/tiny_2_20", "--dtype=float16", "--overwrite")


def test_nothing_but_a_checkpoint_is_needed(expected, trained, capsys):
    options = [f"--load_model={trained.model_file(2).rename('mine.pt')}", "--device=cpu"]
    Path("tiny.yaml").unlink()
    process_feature.main([*options, "--input=HACS_DATA/validation", "--output=flat"])
    process_feature.main([*options, "--input=HACS_DATA", "--output=split", "--prefix=v_"])
    process_feature.main([*options, "--input=HACS_DATA/training/t5.npy", "--output=new/one.npy"])
    for path, y in (
        ("flat/v5.npy", expected["validation"]["v5"]),
        ("split/validation/v_v5.npy", expected["validation"]["v5"]),
        ("new/one.npy", expected["training"]["t5"]),
    ):
        np.testing.assert_allclose(np.load(path), y, atol=1e-5)
    capsys.readouterr()
    process_feature.main([*options, "--input=HACS_DATA/training", "--output=flat2", "--for=tridet"])
    assert "note: tridet reads training/ and validation/, these are" in capsys.readouterr().out


def test_a_single_file_for_a_head(expected, capsys):
    process("--input=HACS_DATA/training/t5.npy", "--output=new/v_t5.csv", "--for=bmn")
    output = capsys.readouterr().out
    assert "note: --for=bmn is told of folders, not of a single file" in output
    table = read_csv("new/v_t5.csv")
    np.testing.assert_allclose(table, bmn_pool(expected["training"]["t5"]), atol=1e-5)


def test_two_folders_are_joined_on_channels(workplace, trained, capsys):
    two_folders(workplace)
    longer = workplace / "flow/training/t5.npy"
    np.save(longer, np.concatenate([np.load(longer), np.zeros((1, 6), np.float32)]))
    process("data_root=rgb, flow", "feature_save_path=joined")
    assert "rgb/training: 1 videos cut to the shorter" in capsys.readouterr().out
    process("feature_save_path=plain")
    for path in Path("plain").glob("*/*/*.npy"):
        assert path.read_bytes() == Path("joined", *path.parts[1:]).read_bytes()
    np.save(longer, np.zeros((99, 6), np.float32))
    with pytest.raises(DataError, match=r"flow/training/t5\.npy: has 99 snippets where another"):
        process("data_root=rgb,flow", "feature_save_path=again")


REFUSED = {
    "--input=HACS_DATA": "needs --output",
    "--input=nowhere --output=x": "nowhere: no such file or folder",
    "--input=HACS_DATA,absent --output=x": "--input: absent: no such file or folder",
    "--input=HACS_DATA,tiny.yaml --output=x": r"tiny\.yaml: give files only, or folders only",
    "--input=mixed --output=x": "holds .npy files beside the folder part",
    "--input=mixed/a.npy --output=y.npy --for=tridet --annotations=other.json": "a folder of feat",
    "--input=mixed/a.npy --output=mixed/a.npy": "is the input; name another",
    "--input=mixed/a.npy --output=mixed/nan.npy": r"mixed/nan\.npy: is there already; --overwrite",
    "--input=mixed/nan.npy --output=y.npy": "holds NaN",
    "--input=mixed/a.npy --output=y.npy --load_model=huge.pt": "the module's output is NaN",
    "--input=mixed/a.npy --output=y.npy --load_model=wide.pt": r"17 channels.*16 of mixed/a\.npy",
    "--input=HACS_DATA/training --output=HACS_DATA/training": "holds the input",
    "--input=HACS_DATA/training/t5.npy --output=x": r"must end in \.npy",
    "--input=evaluation --output=x": r"not features \[T, C\]",
    "--input=models --output=x": "holds no .npy files",
    "--prefix=../": "beginning of a file's name",
    "--resize=0": r"1\.\.100000",
    "--fps=nan": "fps is nan",
    "--input=widths --output=x --load_model=0": "has 7 channels, others have 16",
    "--resize_mode=pool": "needs --resize",
    "--annotations=tiny.yaml": "give --for",
    "--for=opentad --annotations=other.json": "'zz', has the name of .* 'same'",
    "--input=HACS_DATA/training --output=x.npy": "must be a folder",
    "--input=HACS_DATA --output=x --load_model=wide.pt": "for 17 channels.* the 16 of HACS_DATA$",
    "--input=HACS_DATA --output=x --yaml_path=no.yaml": r"no\.yaml: No such file",
    "--for=actionformer --annotations=tiny.yaml": r"tiny\.yaml: not a JSON",
    "--layout=flat": "same: in training and in validation, which --layout=flat",
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_what_cannot_be_is_refused_and_nothing_is_written(workplace, trained, arguments):
    Path("other.json").write_text('{"database": {"zz": {"subset": "training"}}}')
    torch.save(SoLaModule(FEATURE_DIM + 1, 4).state_dict(), "wide.pt")
    huge = {n: 1e15 * w for n, w in torch.load(trained.model_file(2)).items()}
    torch.save(huge, "huge.pt")
    Path("mixed/part").mkdir(parents=True)
    for path, value in (("a", 1.0), ("part/b", 1.0), ("nan", np.nan)):
        np.save(f"mixed/{path}.npy", np.full((9, FEATURE_DIM), value, np.float32))
    Path("widths").mkdir()
    for channels in (7, 16):
        np.save(f"widths/{99 - channels}.npy", np.ones((9, channels), np.float32))
    for split in ("training", "validation"):
        np.save(f"HACS_DATA/{split}/same.npy", np.zeros((3, FEATURE_DIM)))
    before = contents(workplace)
    with pytest.raises(SolaError, match=REFUSED[arguments]):
        process(*arguments.split())
    assert contents(workplace) == before
    assert not {"transformed_features", "x", "y.npy"} & {path.name for path in workplace.iterdir()}


def test_an_epoch_needs_its_yaml(workplace):
    with pytest.raises(SolaError, match=r"--load_model=2: must be 0, mov.* or FILE\.pt without"):
        process_feature.main(["--input=HACS_DATA", "--output=x", "--load_model=0,2"])


def test_overwrite_replaces_a_single_file(expected):
    Path("one.npy").write_bytes(b"of before")
    process("--input=HACS_DATA/training/t5.npy", "--output=one.npy", "--overwrite")
    np.testing.assert_allclose(np.load("one.npy"), expected["training"]["t5"], atol=1e-5)


def test_names_that_have_the_prefix_already_are_no_difference(workplace, capsys):
    flat_folder(workplace)
    options = ["--load_model=0", "--input=flat", "--output=new", "--for=bmn"]
    process_feature.main(options)
    assert (workplace / "new/csv_mean_100/v_t5.csv").is_file()
    assert "expects" not in capsys.readouterr().out

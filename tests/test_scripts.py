"""Both scripts as users run them: through the command line, in a folder of their own.

Some run in a process of their own; most in this one, which has all modules loaded.
"""

import re
import shlex

import numpy as np
import pytest
from helpers import REPOSITORY, run_script

pytest_plugins = ["scripts"]


def assert_refused(result, *words):
    """One line on standard error, exit status 2."""
    assert result.returncode == 2, result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: ")
    for word in words:
        assert word in result.stderr


def test_train_continue_and_process(workplace, run_here):
    result = run_script("main_simsiam.py", "--yaml_path=tiny.yaml", "epoch=2", cwd=workplace)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""  # no progress bars where there is no terminal
    assert "epoch 1/2  loss 0." in result.stdout
    command = re.search(r": cd .* && python \S*(process_feature\.py .*)", result.stdout)[1]
    result = run_here(*shlex.split(command))
    assert result.returncode == 0, result.stderr
    assert np.load(workplace / "transformed_features/tiny_2/validation/v0.npy").shape == (1, 16)
    assert len(list((workplace / "transformed_features/tiny_2").glob("*/*.npy"))) == 21
    result = run_here("main_simsiam.py", "epoch=4", "--yaml_path=tiny.yaml")
    assert result.returncode == 0, result.stderr
    assert "2 of 4 epochs are done" in result.stdout
    assert "eval_result in epoch4" in result.stdout
    assert "eval_result in epoch2" not in result.stdout


@pytest.mark.parametrize("script", ["main_simsiam.py", "process_feature.py"])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["required"]),
        (["--yaml_path=absent.yaml", "--load_model=1"], ["absent.yaml"]),
        (["--yaml=tiny.yaml"], ["unknown option --yaml; did you mean --yaml_path?"]),
        (["--yaml_path=", "--load_model=1"], ["--yaml_path: is empty"]),
        (["--yaml_path=tiny.yaml", "--load_model=1", "--two\nlines"], ["two lines"]),
        (["--yaml_path=tiny.yaml", "--load_model=1", "epohc=3"], ["did you mean epoch"]),
        (["--yaml_path=tiny.yaml", "--load_model=1", "--device=gpu"], ["device"]),
    ],
)
def test_bad_arguments_are_met_before_torch_is_imported(workplace, script, arguments, words):
    if script == "main_simsiam.py":
        arguments = [a for a in arguments if not a.startswith("--load_model")]
    (workplace / "torch.py").write_text("raise SystemExit('torch was imported')")
    path = f"{workplace}:{REPOSITORY}"
    assert_refused(run_script(script, *arguments, cwd=workplace, path=path), *words)
    assert run_script(script, "--help", cwd=workplace, path=path).returncode == 0


@pytest.mark.parametrize(
    ("mischief", "words"),
    [
        ("no features", ["HACS_DATA/training"]),
        ("truncated", ["t5.npy", "truncated"]),
        ("width", ["t5.npy", "in_feature_dim"]),
        ("no such gpu", ["device cuda:99"]),
        ("read-only", ["models"]),
        ("no memory", ["out of memory"]),
    ],
)
def test_bad_input_is_one_line(workplace, run_here, mischief, words):
    overrides = []
    path = workplace / "HACS_DATA/training/t5.npy"
    if mischief == "no features":
        (workplace / "HACS_DATA/training").rename(workplace / "elsewhere")
    elif mischief == "truncated":
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content[:-8])
    elif mischief == "width":
        path.unlink()
        np.save(path, np.zeros((30, 17)))
    elif mischief == "no such gpu":
        overrides = ["device=cuda:99"]
    elif mischief == "no memory":
        overrides = ["network_hidden_unit=99999999"]
    elif mischief == "read-only":  # a file where the folder should be also refuses root
        (workplace / "models").write_text("")
    result = run_here("main_simsiam.py", "--yaml_path=tiny.yaml", *overrides)
    assert_refused(result, *words)

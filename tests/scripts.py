"""The commands of the program, run in this process, which has all modules loaded.

Test files that use the fixture name this file as their plugin.
"""

from types import SimpleNamespace

import pytest

import main_simsiam
import process_feature
from sola.plots import __main__ as plots
from sola.plots.figure import new_figure
from sola.prepare import __main__ as prepare
from sola.probe import __main__ as probe
from sola.probe import temporal_head
from sola.system import cli
from sola.training import draw_run

MAINS = {
    "main_simsiam.py": main_simsiam.main,
    "process_feature.py": process_feature.main,
    "-m sola.prepare": prepare.main,
    "-m sola.plots": plots.main,
    "-m sola.probe": probe.main,
}


@pytest.fixture
def run_here(capfd, monkeypatch):
    """Run a command, pictures blank; what it left, as helpers.run_script gives it."""
    monkeypatch.setattr(plots, "curves", lambda *_: new_figure(9, 9))  # quicker
    for name in ("tsm_sheet", "window_sheet", "curves"):
        monkeypatch.setattr(draw_run, name, lambda *_: new_figure(9, 9))
    monkeypatch.setattr(temporal_head, "STEPS", 2)
    monkeypatch.setattr(cli, "leave_on_signals", lambda: None)

    def run(script, *arguments):
        with pytest.raises(SystemExit) as left:
            cli.run_script(lambda: MAINS[script](list(arguments)))
        output, errors = capfd.readouterr()
        return SimpleNamespace(returncode=left.value.code, stdout=output, stderr=errors)

    return run

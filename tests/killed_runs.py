"""Run scripts in processes that are ended at seeded moments, then to their end.

    python tests/killed_runs.py SEED KILLS ROOM...

A room is a script and its arguments, as JSON. The seeded numbers say which rooms the kills hit.
"NAME" in the arguments stands for whole in one run that nothing disturbs, whose time bounds the
moments, and for killed in the runs that follow; "ALIAS" for NAME or link_NAME. What is in a folder
killed is removed when a run has ended by itself, so that later kills meet work. Processes are forks
of this one, which has all modules loaded, so that a run takes tenths of a second. Prints how each
of them ended: first, killed or last, and its status.
"""

import contextlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

import sklearn.linear_model
import sklearn.metrics  # noqa: F401  (loaded once, for all processes)
import torch

import sola.probe.snippets
import sola.training.draw_run
import sola.training.loop
from sola.plots.figure import new_figure
from sola.system.cli import run_script
from sola.system.signals import leave_on_signals

KINDS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def start(script: str, arguments: list[str], state_seconds: float) -> int:
    """Start the script in a process of its own; its number."""
    process = os.fork()
    if process:
        return process
    sola.training.loop.STATE_SECONDS = state_seconds
    for name in ("tsm_sheet", "window_sheet", "curves"):  # written as ever, but quickly drawn
        setattr(sola.training.draw_run, name, lambda *_: new_figure(9, 9))
    main = importlib.import_module(script).main
    status = 99
    with open("output.txt", "a", buffering=1) as file, contextlib.redirect_stdout(file):
        try:
            with contextlib.redirect_stderr(file):
                run_script(lambda: main(arguments))
        except SystemExit as left:
            status = left.code
        except BaseException:
            traceback.print_exc(file=file)
    os._exit(status)


def end_of(process: int, seconds: float | None = None, kind: int = 0) -> int:
    """The exit status of a process, negative for a signal; after so many seconds it gets one."""
    if seconds is not None and signal.sigtimedwait([signal.SIGCHLD], seconds) is None:
        os.kill(process, kind)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    signal.sigtimedwait([signal.SIGCHLD], 0)  # it has served
    return status


def main(seed: int, kills: int, rooms: list[list[str]]) -> None:
    torch.set_num_threads(1)
    leave_on_signals()  # as the scripts do from their first line on; forks inherit it
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    moments = random.Random(seed)
    durations = {}  # room -> seconds of its whole run

    def start_room(room: int, name: str, state_seconds: float = 300.0) -> int:
        script, *arguments = rooms[room]
        alias = moments.choice(["NAME", "link_NAME"])
        arguments = [a.replace("ALIAS", alias).replace("NAME", name) for a in arguments]
        return start(script, arguments, state_seconds)

    for _ in range(kills):
        room = moments.randrange(len(rooms))
        if room not in durations:
            importlib.import_module(rooms[room][0])
            started = time.perf_counter()
            print("first", end_of(start_room(room, "whole")))
            durations[room] = time.perf_counter() - started
        process = start_room(room, "killed", moments.choice([0.0, 300.0]))
        status = end_of(process, moments.uniform(0, durations[room] / 2), moments.choice(KINDS))
        print("killed", status)
        if status == 0:
            for folder in Path("killed").glob("*"):
                shutil.rmtree(folder)
    for room in durations:
        print("last", end_of(start_room(room, "killed")))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), list(map(json.loads, sys.argv[3:])))

"""Run a script in processes that are ended at seeded moments, then to its end.

    python tests/killed_runs.py SCRIPT SEED KILLS ARGUMENT...

"NAME" in the arguments stands for whole in one run that nothing disturbs, whose time bounds the
moments, and for killed in the runs that follow. Processes are forks of this one, which has all
modules loaded, so that a run takes tenths of a second. Prints how each of them ended.
"""

import contextlib
import importlib
import os
import random
import signal
import sys
import time
import traceback

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


def main(script: str, seed: int, kills: int, arguments: list[str]) -> None:
    torch.set_num_threads(1)
    leave_on_signals()  # as the scripts do from their first line on; forks inherit it
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    moments = random.Random(seed)
    started = time.perf_counter()
    print(end_of(start(script, [a.replace("NAME", "whole") for a in arguments], 300.0)))
    duration = time.perf_counter() - started
    arguments = [a.replace("NAME", "killed") for a in arguments]
    for _ in range(kills):
        process = start(script, arguments, moments.choice([0.0, 300.0]))
        print(end_of(process, moments.uniform(0, duration / 2), moments.choice(KINDS)))
    print(end_of(start(script, arguments, 300.0)))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])

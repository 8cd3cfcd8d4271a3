"""Ctrl-C and SIGTERM, the notice of a scheduler. A handler never raises.

What is on disk is whole at any moment, so a script leaves at once. Only a training notes the signal
instead, finishes its step, saves it, and then leaves.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any, NoReturn

from sola.system.ranks import is_first_rank, rank_count

STOPPING_SIGNALS = (signal.SIGINT, signal.SIGTERM)
FAREWELL = "interrupted; what was saved stays, give the same command again to go on"


class Interrupted(KeyboardInterrupt):
    """A training was asked to end, and has saved what it learned. The message says where."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


def leave_on_signals() -> None:
    """Let a script leave on these signals with one line, 128 + the signal's number, no traceback.

    Signals that the caller of the program ignores stay ignored.
    """
    for number in STOPPING_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _: leave(number))


def leave(number: int, message: str = FAREWELL) -> NoReturn:
    """Say a last line, and leave without waiting for threads: one may be blocked by a file."""
    if is_first_rank():
        with contextlib.suppress(OSError):  # standard error may be closed
            os.write(2, f"{message}\n".encode(errors="backslashreplace"))
    os._exit(128 + number)


class DeferredSignals:
    """Within it the signals are noted, for a step to be finished and saved.

    A second one does what it would have done outside. In another than the main thread, which
    signals do not reach, it does nothing.
    """

    def __init__(self) -> None:
        self.noted: int | None = None
        self.handlers: dict[int, Any] = {}

    def __enter__(self) -> DeferredSignals:
        if threading.current_thread() is threading.main_thread():
            for number in STOPPING_SIGNALS:
                handler = signal.getsignal(number)
                if handler not in (signal.SIG_IGN, None):
                    self.handlers[number] = handler
                    signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type | None, error: Any, _: TracebackType | None) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        if self.noted is not None and kind is None:  # nobody has looked at it
            os.kill(os.getpid(), self.noted)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """For a part that has nothing to save: within it they do what they do outside after all."""
        self.__exit__(None, None, None)
        try:
            yield
        finally:
            self.__enter__()

    def _note(self, number: int, _: FrameType | None) -> None:
        is_again = self.noted is not None and rank_count() == 1
        self.noted = number
        if is_again:  # torchrun passes on what a terminal sends all processes anyway
            signal.signal(number, self.handlers[number])
            os.kill(os.getpid(), number)

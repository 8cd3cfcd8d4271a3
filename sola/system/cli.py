"""Conventions of the scripts: one line for an error, devices, ranks, seeds, progress bars."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from sola.system.ranks import is_first_rank, leave_ranks, rank, rank_count

if TYPE_CHECKING:
    from types import FrameType

    import numpy as np
    import torch
    from tqdm import tqdm

EXIT_USER_ERROR = 2
STOPPING_SIGNALS = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C, and the notice of a scheduler


class SolaError(Exception):
    """Something the user can mend. The message is one line: what is wrong, where, what to do."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM. The message says what is saved."""

    def __init__(self, number: int, message: str = "") -> None:
        super().__init__(message)
        self.number = number


class DeferredSignals:
    """Within it Ctrl-C and SIGTERM are noted, for a step to be finished and saved before it ends.

    A second one interrupts at once, and one that nobody has looked at does so at the end.
    """

    def __init__(self) -> None:
        self.noted: int | None = None
        self.defers = True
        self.handlers: dict[int, Any] = {}

    def __enter__(self) -> DeferredSignals:
        self.handlers = _handle_signals(self._note)
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        if self.noted is not None and kind is None:
            raise Interrupted(self.noted)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """For a part that has nothing to save: within it they interrupt at once after all."""
        self.defers = False
        try:
            if self.noted is not None:
                raise Interrupted(self.noted)
            yield
        finally:
            self.defers = True

    def _note(self, number: int, frame: FrameType | None) -> None:
        is_second = self.noted is not None and rank_count() == 1  # torchrun repeats a terminal's
        if is_second or not self.defers:
            _interrupt(number, frame)
        self.noted = number


def _interrupt(number: int, _: FrameType | None) -> None:
    raise Interrupted(number)


def _interrupt_once(number: int, frame: FrameType | None) -> None:
    """Interrupt; what comes while the program leaves ends it at once, without a word."""
    _handle_signals(signal.SIG_DFL)
    _interrupt(number, frame)


def _interrupt_again(ignored: Any) -> None:
    """Where Python cannot raise, as in the callback of a weak reference: interrupt a bit later."""
    if not isinstance(ignored.exc_value, Interrupted):
        sys.__unraisablehook__(ignored)
        return
    number = ignored.exc_value.number
    if signal.getsignal(number) is signal.SIG_DFL:
        _handle_signals(_interrupt_once)
    threading.Timer(0.01, os.kill, (os.getpid(), number)).start()


def _handle_signals(handler: Callable | signal.Handlers) -> dict[int, Any]:
    """Handle those that the caller of the program does not ignore; the handlers before."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    before = {number: signal.getsignal(number) for number in STOPPING_SIGNALS}
    before = {n: h for n, h in before.items() if h not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, handler)
    return before


class ScriptParser(argparse.ArgumentParser):
    """argparse with this program's error line."""

    def error(self, message: str) -> NoReturn:
        hint = "; settings of the YAML are KEY=VALUE" if "unrecognized" in message else ""
        line = " ".join(message.splitlines())
        self.exit(EXIT_USER_ERROR, f"error: {line}{hint} (see --help)\n")


class ArgumentParser(ScriptParser):
    """The arguments that the scripts which read a YAML take."""

    def __init__(self, description: str, **yaml_options: Any) -> None:
        super().__init__(description=description, allow_abbrev=False)
        self.add_argument("--yaml_path", **yaml_options)
        self.add_argument("--device", help="auto, cpu, cuda or cuda:N; wins over the YAML's")
        self.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="win over the YAML")

    def parse(self, arguments: list[str] | None) -> argparse.Namespace:
        """Parse; options and KEY=VALUE in any order, --device among the latter in `settings`."""
        options = self.parse_intermixed_args(arguments)
        for name, value in vars(options).items():
            if value == "" and name != "prefix":
                self.error(f"--{name}: is empty")
        device = [] if options.device is None else [f"device={options.device}"]
        options.settings = options.overrides + device
        return options


def check_fps(fps: float) -> None:
    """Raise SolaError for an --fps that is no number of snippets a second."""
    if not 0 < fps < 1e6:
        raise SolaError(f"--fps={fps}: must be a number of snippets a second")


def run_script(main: Callable[[], None]) -> NoReturn:
    """Run a script's main function and leave with its exit status, errors as one line."""
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None when closed by the caller
        stream.reconfigure(errors="backslashreplace")  # a file name may hold any byte
    if not is_first_rank():
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what the first one says is enough
    status = EXIT_USER_ERROR
    ignored_before = sys.unraisablehook
    try:
        sys.unraisablehook = _interrupt_again
        _handle_signals(_interrupt_once)
        main()
        leave_ranks()
        status, message = 0, ""
    except SolaError as error:
        message = str(error)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error.__cause__, Interrupted):  # so does Python while it makes a class
            status, message = _say_interrupted(error.__cause__), ""
        else:
            message = _what_to_do(error)
        if message is None:
            raise
    except BrokenPipeError:  # the reader of a pipe has gone; there is nobody to tell
        sys.stderr.close()
        message = ""
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        message = f"{place}{error.strerror or error}"
    except KeyboardInterrupt as interruption:
        status, message = _say_interrupted(interruption), ""
    _handle_signals(signal.SIG_DFL)  # all is done: nothing to say any more
    sys.unraisablehook = ignored_before
    if message:
        where = f" in rank {rank()}" if rank_count() > 1 else ""
        line = f"error{where}: {' '.join(message.splitlines())}\n"
        print(line, end="", file=sys.stderr)  # in one piece, though several ranks may write
    if status == 0 and rank_count() > 1:  # threads of PyTorch's can abort a rank that tidies up
        sys.stdout.flush()
        os._exit(0)
    sys.exit(status)


def _say_interrupted(interruption: BaseException) -> int:
    """Say what is saved; the exit status."""
    if is_first_rank():
        default = "interrupted; the same command goes on from what is saved"
        print(str(interruption) or default, file=sys.stderr)
    return 128 + getattr(interruption, "number", signal.SIGINT)


def _what_to_do(error: MemoryError | RuntimeError) -> str | None:
    """One line for an error that is not of the program's making; None for another."""
    if is_out_of_memory(error):
        less = "storage: files, or a smaller batch_size, network or eval_snippets, needs less"
        return f"out of memory; {less}: {error}"
    if rank_count() > 1 and any(text in str(error) for text in ("gloo", "NCCL", "Connection")):
        return f"lost another process of this run, whose own error says more: {error}"
    return None


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out, Python's or PyTorch's."""
    signs = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in signs)


def resolve_device(name: str) -> torch.device:
    """The device behind auto, cpu, cuda or cuda:N; auto takes the GPU where there is one.

    Under torchrun auto and cuda mean one GPU a process, by its number on this machine.
    """
    import torch

    available = torch.cuda.is_available()
    if name == "auto":
        name = "cuda" if available else "cpu"
    if name == "cuda":
        name = f"cuda:{os.environ['LOCAL_RANK'] if rank_count() > 1 else 0}"
    elif name != "cpu" and rank_count() > 1:
        raise SolaError(f"device {name}: several processes need one GPU each; give cuda")
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if not available or device.index >= count:
            raise SolaError(f"device {name}: this machine has {count} usable CUDA devices")
        torch.cuda.set_device(device)
    return device


def free_memory(device: torch.device) -> int:
    """Bytes that this process may still take of the device's memory; 0 where that is not known.

    On a CPU: what the machine and its control group have free or hold as caches, shared between the
    ranks of this machine.
    """
    import torch

    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = 0
    with contextlib.suppress(OSError, ValueError, KeyError):
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(fields["MemAvailable"].split()[0]) * 1024
    with contextlib.suppress(OSError, ValueError, KeyError):  # a container; "max": without limit
        group = Path("/sys/fs/cgroup")
        limit, used = (int((group / f"memory.{n}").read_text()) for n in ("max", "current"))
        uses = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        free = min(free, limit - used + int(uses["inactive_file"]) + int(uses["active_file"]))
    return max(0, free) // (int(os.environ["LOCAL_WORLD_SIZE"]) if rank_count() > 1 else 1)


def seed_everything(seed: int) -> None:
    """Make the initial weights, and the CUDA kernels that are chosen, the same at every run."""
    import torch

    torch.manual_seed(seed)
    if torch.cuda.is_available():
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # costs time, changes nothing


def random_generator(purpose: str, *keys: int) -> np.random.Generator:
    """A generator that depends on its purpose and keys (seed, epoch) alone, not on history."""
    import numpy as np

    return np.random.default_rng([*purpose.encode(), *keys])


def progress(items: Iterable[Any] | None = None, **options: Any) -> tqdm:
    """A progress bar on standard error; none when that is not a terminal."""
    from tqdm import tqdm

    options = {"delay": 0.5, "leave": False, "dynamic_ncols": True} | options
    options["disable"] = None if is_first_rank() else True  # None: where there is no terminal
    return tqdm(items, **options)

"""Conventions of the scripts: one line for an error, devices, ranks, seeds, progress bars."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor
    from tqdm import tqdm

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
TORCHRUN_SETS = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR"}


class SolaError(Exception):
    """Something the user can mend. The message is one line: what is wrong, where, what to do."""


class ArgumentParser(argparse.ArgumentParser):
    """argparse with this program's error line, and the arguments that both scripts take."""

    def __init__(self, description: str, **yaml_options: Any) -> None:
        super().__init__(description=description, allow_abbrev=False)
        self.add_argument("--yaml_path", **yaml_options)
        self.add_argument("--device", help="auto, cpu, cuda or cuda:N; wins over the YAML's")
        self.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="win over the YAML")

    def parse(self, arguments: list[str] | None) -> argparse.Namespace:
        """Parse; options and KEY=VALUE in any order, --device among the latter in `settings`."""
        options = self.parse_intermixed_args(arguments)
        device = [] if options.device is None else [f"device={options.device}"]
        options.settings = options.overrides + device
        return options

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USER_ERROR, f"error: {' '.join(message.splitlines())} (see --help)\n")


def run_script(main: Callable[[], None]) -> NoReturn:
    """Run a script's main function and leave with its exit status, errors as one line."""
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None when closed by the caller
        stream.reconfigure(errors="backslashreplace")  # a file name may hold any byte
    if not is_first_rank():
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what the first one says is enough
    try:
        main()
        leave_ranks()
        sys.exit(0)
    except SolaError as error:
        message = str(error)
    except (MemoryError, RuntimeError) as error:
        message = _what_to_do(error)
        if message is None:
            raise
    except BrokenPipeError:  # the reader of a pipe has gone; there is nobody to tell
        sys.stderr.close()
        sys.exit(EXIT_USER_ERROR)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        message = f"{place}{error.strerror or error}"
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from what is saved", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    where = f" in rank {rank()}" if rank_count() > 1 else ""
    line = f"error{where}: {' '.join(message.splitlines())}\n"
    print(line, end="", file=sys.stderr)  # in one piece, though several ranks may write
    sys.exit(EXIT_USER_ERROR)


def _what_to_do(error: MemoryError | RuntimeError) -> str | None:
    """One line for an error that is not of the program's making; None for another."""
    out_of_memory = ("out of memory", "can't allocate memory", "not enough memory")
    if isinstance(error, MemoryError) or any(text in str(error) for text in out_of_memory):
        less = "storage: files, or a smaller batch_size, network or eval_snippets, needs less"
        return f"out of memory; {less}: {error}"
    if rank_count() > 1 and any(text in str(error) for text in ("gloo", "NCCL", "Connection")):
        return f"lost another process of this run, whose own error says more: {error}"
    return None


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


def rank_count() -> int:
    """How many processes torchrun has started; 1 without it."""
    return int(os.environ["WORLD_SIZE"]) if os.environ.keys() >= TORCHRUN_SETS else 1


def rank() -> int:
    """The number of this process among them, from 0."""
    return int(os.environ["RANK"]) if rank_count() > 1 else 0


def is_first_rank() -> bool:
    """Whether this process is the one that prints, draws and writes the run's files."""
    return rank() == 0


def join_ranks(device: torch.device) -> None:
    """Meet the other processes that torchrun has started, if any."""
    import torch

    if rank_count() > 1 and not torch.distributed.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        torch.distributed.init_process_group(backend, timeout=timedelta(hours=1))


def leave_ranks() -> None:
    """Part from the other processes, when all is done."""
    if rank_count() > 1 and "torch" in sys.modules:
        import torch

        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def from_first_rank(function: Callable[[], Any]) -> Any:
    """The function's result on the first rank, on all of them: what touches files runs once.

    Its errors are raised on the first rank and end the others.
    """
    import torch

    if rank_count() == 1:
        return function()
    outcome = [None, None]  # result, error
    if is_first_rank():
        try:
            outcome[0] = function()
        except (SolaError, OSError) as error:
            outcome[1] = error
    torch.distributed.broadcast_object_list(outcome, src=0)
    result, error = outcome
    if error is None:
        return result
    if is_first_rank():
        raise error
    sys.exit(EXIT_USER_ERROR)  # the first one says why


def from_all_ranks(items: list[Any]) -> list[Any]:
    """Every rank's items, on all of them."""
    import torch

    if rank_count() == 1:
        return items
    parts = [None] * rank_count()
    torch.distributed.all_gather_object(parts, items)
    return [item for part in parts for item in part]


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum of every rank's values."""
    import torch

    if rank_count() > 1:
        values = values.clone()
        torch.distributed.all_reduce(values)
    return values


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

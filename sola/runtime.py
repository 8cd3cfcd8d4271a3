"""Conventions of the scripts: one line for an error, devices, seeds, progress bars."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import numpy as np
    import torch
    from tqdm import tqdm

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


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
    try:
        main()
        sys.exit(0)
    except SolaError as error:
        message = str(error)
    except (MemoryError, RuntimeError) as error:
        torch_says = ("out of memory", "can't allocate memory", "not enough memory")
        if isinstance(error, RuntimeError) and not any(text in str(error) for text in torch_says):
            raise
        message = (
            f"out of memory; a smaller batch_size, network or eval_snippets needs less: {error}"
        )
    except BrokenPipeError:  # the reader of a pipe has gone; there is nobody to tell
        sys.stderr.close()
        sys.exit(EXIT_USER_ERROR)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        message = f"{place}{error.strerror or error}"
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from what is saved", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    print("error: " + " ".join(message.splitlines()), file=sys.stderr)
    sys.exit(EXIT_USER_ERROR)


def resolve_device(name: str) -> torch.device:
    """The device behind auto, cpu, cuda or cuda:N; auto takes the GPU where there is one."""
    import torch

    available = torch.cuda.is_available()
    if name == "auto":
        name = "cuda" if available else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if not available or (device.index or 0) >= count:
            raise SolaError(f"device {name}: this machine has {count} usable CUDA devices")
    return device


def seed_everything(seed: int) -> None:
    """Make the initial weights, and the CUDA kernels that are chosen, the same at every run."""
    import torch

    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False  # PyTorch's default would round convolutions
    if torch.cuda.is_available():
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)


def random_generator(purpose: str, *keys: int) -> np.random.Generator:
    """A generator that depends on its purpose and keys (seed, epoch) alone, not on history."""
    import numpy as np

    return np.random.default_rng([*purpose.encode(), *keys])


def progress(items: Iterable[Any] | None = None, **options: Any) -> tqdm:
    """A progress bar on standard error; none when that is not a terminal."""
    from tqdm import tqdm

    options = {"delay": 0.5, "leave": False, "dynamic_ncols": True, "disable": None} | options
    return tqdm(items, **options)

"""The device that computes: which, how much memory it has free, and randomness."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from sola.errors import SolaError
from sola.system.ranks import rank_count

if TYPE_CHECKING:
    import numpy as np
    import torch


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
        torch.backends.cudnn.allow_tf32 = False  # of convolutions; on unless told otherwise
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

"""The processes that torchrun has started, if any, and what they tell one another."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TORCHRUN_SETS = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR"}
EXIT_OTHER_RANK_FAILED = 2


def rank_count() -> int:
    """How many processes torchrun has started; 1 without it."""
    return int(os.environ["WORLD_SIZE"]) if all(map(os.environ.get, TORCHRUN_SETS)) else 1


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
    outcome = [[]]  # the result in a list, which stays empty when there is none
    try:
        if is_first_rank():
            outcome[0].append(function())
    finally:
        torch.distributed.broadcast_object_list(outcome, src=0)
    if not outcome[0]:
        sys.exit(EXIT_OTHER_RANK_FAILED)  # the first one says why
    return outcome[0][0]


def from_all_ranks(items: list[Any]) -> list[Any]:
    """Every rank's items, on all of them."""
    import torch

    if rank_count() == 1:
        return items
    parts = [None] * rank_count()
    torch.distributed.all_gather_object(parts, items)
    return [item for part in parts for item in part]


def any_rank(says_so: bool, device: torch.device) -> bool:
    """Whether any rank says so, on all of them."""
    import torch

    if rank_count() == 1:
        return says_so
    return sum_over_ranks(torch.tensor(float(says_so), device=device)).item() > 0


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum of every rank's values."""
    import torch

    if rank_count() > 1:
        values = values.clone()
        torch.distributed.all_reduce(values)
    return values

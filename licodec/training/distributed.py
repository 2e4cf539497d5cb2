"""torchrun's processes, or one process without it."""

from __future__ import annotations

import os
import sys

import torch
import torch.distributed as dist

from licodec.errors import UsageError


def start(device: torch.device) -> tuple[int, int]:
    """(rank, processes). Joins the group that torchrun announces in the environment."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return int(os.environ.get("RANK", "0")), processes


def place() -> tuple[int, int]:
    """(rank, processes) of the group that was joined."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def pick_device(name: str) -> torch.device:
    """auto, cpu or cuda; under torchrun each process takes the GPU of its local rank.

    Raises:
        UsageError: there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        if not torch.cuda.is_available():
            raise UsageError("train.device cuda: no CUDA device is available")
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device(name)


def agree(flag: bool, device: torch.device) -> bool:
    """The first process's answer, so that all of them stop at the same step."""
    if not dist.is_initialized():
        return flag
    answer = torch.tensor([float(flag)], device=device)
    dist.broadcast(answer, 0)
    return bool(answer.item())


def share(tensors: list[torch.Tensor]) -> None:
    """Give every process the first one's values."""
    if dist.is_initialized():
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def add_up(tensor: torch.Tensor) -> None:
    """Give every process the sum of all processes' values."""
    if dist.is_initialized():
        dist.all_reduce(tensor)


def leave() -> None:
    """The end of a program of several processes: all have done what they had to, and this one exits with
    status 0. With one process nothing happens.

    gloo's threads are not torn down: processes were seen to wait forever in that.
    """
    if dist.is_initialized():
        dist.barrier()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)

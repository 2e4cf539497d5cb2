"""Networks as the codec runs them: on the CPU in float32, whatever the program's own defaults are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


def built(make: Callable[[], Network], state: Mapping[str, Tensor]) -> Network:
    """What `make` makes, with its weights, for evaluation."""
    with torch.device("cpu"):
        net = make()
    net.float().load_state_dict(state)
    return net.eval()

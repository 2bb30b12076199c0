"""Numbers that half precision would round away."""

import torch
from torch import Tensor


def wide(dtype: torch.dtype) -> torch.dtype:
    """A type in which small differences count: float32 in place of a half type, every other type as it is."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def widened(tensor: Tensor) -> Tensor:
    """The same numbers in such a type."""
    return tensor.to(wide(tensor.dtype))

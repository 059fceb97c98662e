"""Small array helpers that run unchanged on JAX, NumPy and PyTorch."""

from typing import Any

from array_api_compat import array_namespace


def zeros(size: int, like: Any) -> Any:
    """`size` zeros of the dtype and on the device of `like`."""
    return array_namespace(like).zeros((size,), dtype=like.dtype, device=_device(like))


def _device(x: Any) -> Any:
    """The device of a concrete PyTorch tensor; None elsewhere, where new arrays follow their operands."""
    return x.device if type(x).__module__.startswith("torch") else None

"""One batch axis for functions of tensors that know of none: torch.vmap, in a form that torch.export can take for any batch size."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dynsys.errors import InvalidValue, require

if TYPE_CHECKING:
    import torch
    from torch.overrides import TorchFunctionMode
else:
    torch = require("torch", extra="torch", who="dynsys.interop.torch")
    TorchFunctionMode = torch.overrides.TorchFunctionMode


def batched(function: Callable[..., Any], *pairs: tuple[Any, int]) -> Any:
    """function(*tensors) over the leading axis of every tensor with one axis more than its rank; the others are shared.

    pairs: (tensor or None, its rank without a batch). Raises InvalidValue for batches of different lengths.
    """
    axes = tuple(0 if isinstance(value, torch.Tensor) and value.ndim > rank else None for value, rank in pairs)
    values = [value for value, _ in pairs]
    if all(axis is None for axis in axes):
        return function(*values)
    exporting = torch.compiler.is_exporting()
    if not exporting:
        lengths = {value.shape[0] for value, axis in zip(values, axes, strict=True) if axis == 0}
        if len(lengths) > 1:
            raise InvalidValue(f"all batch axes must have one length B, got {sorted(lengths)}.")
    else:
        function = _exportable(function)
    return torch.vmap(function, in_dims=axes)(*values)


def _exportable(function: Callable[..., Any]) -> Callable[..., Any]:
    def padded(*values: Any) -> Any:
        with _AnyBatch():
            return function(*values)

    return padded


class _AnyBatch(TorchFunctionMode):
    """torch.cat as a sum of padded tensors, and index_select as indexing.

    Under vmap these two fix the batch size of an exported program to that of the example; what replaces them does not. For an
    ordinary call they are left alone, as they are faster.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.cat, torch.concat, torch.concatenate):
            return _padded_sum(*args, **kwargs)
        if func is torch.index_select and args[1] == 0:
            return args[0][args[2]]
        return func(*args, **kwargs)


def _padded_sum(tensors: Any, dim: int = 0) -> Any:
    """torch.cat of tensors of one type; each is padded with zeros to the whole length."""
    tensors = list(tensors)
    after = tensors[0].ndim - 1 - dim % tensors[0].ndim  # axes behind the one that grows; pad counts from the last
    total, start, parts = sum(tensor.shape[dim] for tensor in tensors), 0, []
    for tensor in tensors:
        size = tensor.shape[dim]
        parts.append(torch.nn.functional.pad(tensor, [0, 0] * after + [start, total - start - size]))
        start += size
    return sum(parts[1:], parts[0])

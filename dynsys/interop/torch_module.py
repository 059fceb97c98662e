"""The nn.Module behind `to_torch`: the arrays of a dynsys module as parameters and buffers, put back into it at every call.

This module is imported by the functions of `dynsys.interop.torch` only, which is why it may need PyTorch: a class that is made
inside a function could be neither copied to another process nor pickled.
"""

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from dynsys.errors import InvalidValue, require
from dynsys.interop.torch_batch import batched
from dynsys.precision import x64

if TYPE_CHECKING:
    import torch
else:
    torch = require("torch", extra="torch", who="dynsys.interop.torch")


@dataclasses.dataclass(frozen=True)
class Slot:
    """The place of one array in a model: its dotted name in the module, and whether the model had it as a NumPy array."""

    name: str
    numpy: bool


class TorchModule(torch.nn.Module):
    """A dynsys module with tensors for arrays; what it can do is in the classes that follow (maps, flows, cells)."""

    def __init__(self, model: Any):
        super().__init__()
        leaves, structure = jax.tree_util.tree_flatten_with_path(model)
        kept = [self._register(path, leaf) if isinstance(leaf, jax.Array | np.ndarray) else leaf for path, leaf in leaves]
        self._skeleton = jax.tree.unflatten(structure, kept)
        self._who = type(model).__name__

    def _register(self, path: Any, array: Any) -> Slot:
        """Hold a copy of an array under its name, in a module for every level of nesting."""
        node, names = self, []
        for key in path[:-1]:
            name = _free(node, _text(key))
            if name not in node._modules:
                node.add_module(name, torch.nn.Module())
            node, names = node.get_submodule(name), [*names, name]
        name = _free(node, _text(path[-1]))
        tensor = torch.tensor(np.asarray(array))
        if tensor.is_floating_point() or tensor.is_complex():
            node.register_parameter(name, torch.nn.Parameter(tensor))
        else:
            node.register_buffer(name, tensor)
        return Slot(".".join([*names, name]), isinstance(array, np.ndarray))

    def _at(self, name: str) -> "torch.Tensor":
        return functools.reduce(getattr, name.split("."), self)  # pyright: ignore[reportReturnType, reportArgumentType]

    def equations(self) -> Any:
        """The dynsys module with this module's tensors in the place of its arrays; it computes on tensors without a batch."""
        return jax.tree.map(lambda leaf: self._at(leaf.name) if isinstance(leaf, Slot) else leaf, self._skeleton)

    def to_model(self) -> Any:
        """The dynsys module with copies of the present tensors as arrays, as `from_torch` returns it."""
        with x64():  # or float64 parameters would come back as float32
            return jax.tree.map(lambda leaf: self._array(leaf) if isinstance(leaf, Slot) else leaf, self._skeleton)

    def _array(self, slot: Slot) -> Any:
        array = self._at(slot.name).detach().cpu().numpy().copy()
        return array if slot.numpy else jnp.asarray(array)

    def extra_repr(self) -> str:
        """The class of the model and its sizes, for print(module)."""
        sizes = {name: getattr(self, name) for name in ("dim", "n_obs", "n_inputs", "n_in", "n_state", "n_out") if hasattr(self, name)}
        return ", ".join([self._who, *(f"{name}={size}" for name, size in sizes.items())])

    def _tensor(self, who: str, name: str, value: Any, sizes: tuple[int | None, ...], optional: bool = False) -> Any:
        """A tensor of shape `sizes` (None: any) after at most one batch axis; arrays and lists take the parameters' type and place.

        Raises InvalidValue for other shapes and for tensors of another precision.
        """
        if value is None and optional:
            return None
        own = next(self.parameters(), None)
        if not isinstance(value, torch.Tensor):
            found: dict[str, Any] = {} if own is None else {"dtype": own.dtype, "device": own.device}
            value = torch.tensor(np.asarray(value), **found)
        elif own is not None and value.dtype != own.dtype:
            raise InvalidValue(
                f"{self._who}.{who}: {name} is {value.dtype}, the parameters are {own.dtype}. "
                f"Convert one of them: {name}.to({own.dtype}), or module.to({value.dtype})."
            )
        fits = value.ndim in (len(sizes), len(sizes) + 1)
        inner = value.shape[value.ndim - len(sizes) :]
        if not fits or any(want is not None and want != got for want, got in zip(sizes, inner, strict=True)):
            wanted = ", ".join("any" if size is None else str(size) for size in sizes)
            raise InvalidValue(
                f"{self._who}.{who}: {name} must have shape ({wanted}), or a batch axis before it, got {tuple(value.shape)}."
            )
        return value

    def _call(self, function: Any, *pairs: tuple[Any, int]) -> Any:
        """function(equations, *tensors), with a batch if any tensor has one axis more than the rank that stands beside it."""
        model = self.equations()
        return batched(functools.partial(function, model), *pairs)


def _text(key: Any) -> str:
    """The name of one step of a path through a tree: of an attribute, a place in a tuple, or a key."""
    value = getattr(key, "name", getattr(key, "idx", getattr(key, "key", key)))
    return str(value).replace(".", "_")


def _free(node: "torch.nn.Module", name: str) -> str:
    """The name, with an underscore behind it where nn.Module has an attribute of that name ('parameters_')."""
    return name if name in node._modules or not hasattr(node, name) else name + "_"

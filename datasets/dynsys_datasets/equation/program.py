"""The compiled right-hand side of a system, one function of arrays.

    program(t, z, u, parameters) -> (M,)      dz/dt of a flow, z[t+1] of a map, drift, diffusion, ...

The function is array-agnostic: it takes its operations from the namespace of z (NumPy, JAX, PyTorch) and is traced by
JAX like any other code. `resolve.py` makes the closures that it runs.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from array_api_compat import array_namespace, is_numpy_namespace, is_torch_namespace

from dynsys_datasets.equation.tree import Node

Closure: TypeAlias = Callable[["Env"], Any]


@dataclass(frozen=True)
class Block:
    """A name with its shape: () for a scalar, (n,) for x[i], (n, m) for u[i, j]."""

    name: str
    shape: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Names:
    """Everything that an equation may name. `grid` (axis -> length, a number or a parameter's name) is there for fields only."""

    state: tuple[Block, ...]
    parameters: tuple[Block, ...] = ()
    inputs: tuple[Block, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    indices: Mapping[str, int] = field(default_factory=dict)
    grid: Mapping[str, float | str] = field(default_factory=dict)
    time: bool = True


class Program:
    """A compiled system; `trees` holds (target, its indices, syntax tree) in order of evaluation, for LaTeX and bounds."""

    def __init__(
        self,
        names: Names,
        definitions: Sequence[tuple[str, Closure]],
        outputs: Sequence[Closure],
        lags: Sequence[Closure],
        trees: Sequence[tuple[str, tuple[str, ...], Node]],
    ):
        self.names, self.trees = names, tuple(trees)
        self._definitions, self._outputs, self._lags = tuple(definitions), tuple(outputs), tuple(lags)
        self._scalar = all(not block.shape for block in names.state)

    def __call__(self, t: Any, z: Any, u: Any, parameters: Mapping[str, Any], delayed: Any = None) -> Any:
        """The right-hand side at time t, (M,), (K,) -> (M,); `delayed` (L, M) holds the states at t - lags, if there are any."""
        xp = array_namespace(z)
        if not (z.dtype.is_floating_point if is_torch_namespace(xp) else xp.isdtype(z.dtype, "real floating")):
            z = xp.asarray(z, dtype=xp.float64)  # parameters take the type of the state; whole numbers would cut them off
        env = Env(xp, z, t, u, parameters, self.names)
        if self._lags:
            env.delayed = [Env(xp, past, t, None, parameters, self.names) for past in delayed]
        for name, closure in self._definitions:
            env.values[name] = closure(env)
        parts = [env.array(closure(env)) for closure in self._outputs]
        if not self._scalar:
            return xp.concat([xp.reshape(part, (-1,)) for part in parts])
        return np.array(parts) if env.numpy else xp.stack(parts)

    def symbol(self, xp: Any, parameters: Mapping[str, Any]) -> Any:
        """The response of every state's equation to a wave in every state, (C, C, *grid) complex, for C states on one grid.

        Entry [a, b] at wave number k is the factor by which the equation of state a multiplies exp(i k x) in state b: the
        symbol of a linear operator with constant coefficients, exact, in the order of `numpy.fft.fftn`. For any other
        program the numbers mean nothing; the caller must compare. xp: the array namespace to work in.
        """
        shape = self.names.state[0].shape
        count, size = len(self.names.state), math.prod(shape)
        rows = []
        for k in range(count):
            z = np.zeros((count, size), dtype=np.complex128)
            z[k] = 1.0
            env = Env(xp, xp.asarray(z.ravel()), 0.0, None, parameters, self.names)
            env.waves = True
            for name, closure in self._definitions:
                env.values[name] = closure(env)
            rows.append(xp.stack([xp.broadcast_to(env.array(closure(env)), shape) for closure in self._outputs]))
        return xp.stack(rows, axis=1)

    def lags(self, parameters: Mapping[str, Any]) -> tuple[float, ...]:
        """The delays of a delay equation in the order in which `delayed` wants the past states."""
        env = Env(np, np.zeros(sum(block.size for block in self.names.state)), 0.0, None, parameters, self.names)
        return tuple(float(closure(env)) for closure in self._lags)


class Env:
    """The values of one evaluation: states, inputs, parameters and definitions by name, all in the library of the state.

    waves: the values of states are amplitudes of waves, and derivatives multiply them; see `Program.symbol`.
    """

    __slots__ = ("delayed", "like", "numpy", "t", "torch", "values", "waves", "xp")

    def __init__(self, xp: Any, z: Any, t: Any, u: Any, parameters: Mapping[str, Any], names: Names):
        self.xp, self.like, self.t, self.waves = xp, z, t, False
        self.numpy, self.torch = is_numpy_namespace(xp), is_torch_namespace(xp)
        self.delayed: list[Env] = []
        self.values = values = {block.name: self.adopt(parameters[block.name]) for block in names.parameters}
        _unpack(xp, z, names.state, values)
        if names.inputs:
            u = xp.zeros(sum(block.size for block in names.inputs), dtype=z.dtype) if u is None else u
            _unpack(xp, u, names.inputs, values)

    def adopt(self, value: Any) -> Any:
        """A parameter, a number or an array of any library, as an array of the state's library."""
        if self.numpy:
            return value if type(value) is np.float64 else np.asarray(value, dtype=self.like.dtype)[()]
        if self.torch:  # asarray would cut a parameter from the graph of its gradients, before PyTorch 2.13
            return value.to(self.like.dtype) if hasattr(value, "requires_grad") else self.array(np.array(value))
        return self.xp.asarray(value, dtype=self.like.dtype)

    def array(self, value: Any) -> Any:
        """A number as an array like the state; arrays of the state's library as they are."""
        if hasattr(value, "dtype") and (not self.torch or hasattr(value, "requires_grad")):
            return value
        if self.torch:
            return self.xp.asarray(value, dtype=self.like.dtype, device=self.like.device)
        return self.xp.asarray(value, dtype=self.like.dtype)


def _unpack(xp: Any, z: Any, blocks: Sequence[Block], values: dict[str, Any]) -> None:
    start = 0
    for block in blocks:
        values[block.name] = xp.reshape(z[start : start + block.size], block.shape) if block.shape else z[start]
        start += block.size

"""Flows in PyTorch, dz/dt = field(t, z, u), solved by torchdiffeq.

The module is called as torchdiffeq calls a function, module(t, z), so that it can be handed to any solver of that form.
Adjoint gradients: Chen, Rubanova, Bettencourt, Duvenaud, NeurIPS 2018.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from dynsys.dynamics import AbstractFlow
from dynsys.errors import DynsysError, InvalidValue, require
from dynsys.interop.torch_module import TorchModule

if TYPE_CHECKING:
    import torch
else:
    torch = require("torch", extra="torch", who="dynsys.interop.torch")


class TorchFlow(TorchModule):
    """A flow as an nn.Module: `dim` is M, `n_inputs` K."""

    def __init__(self, model: AbstractFlow):
        super().__init__(model)
        self.dim, self.n_inputs = model.dim, model.n_inputs

    def forward(self, t: Any, z: Any, u: Any = None) -> "torch.Tensor":
        """`field`."""
        return self.field(t, z, u)

    def field(self, t: Any, z: Any, u: Any = None) -> "torch.Tensor":
        """The time derivative, (), (M,), (K,) -> (M,) or with a batch B before each; t in the flow's own unit."""
        z = self._tensor("field", "z", z, (self.dim,))
        u = self._tensor("field", "u", u, (self.n_inputs,), optional=True)
        t = torch.as_tensor(t, dtype=z.dtype, device=z.device)
        return self._call(lambda model, t, z, u: model.field(t, z, u), (t, 0), (z, 1), (u, 1))

    def solve(
        self,
        x0: Any,
        times: Any,
        *,
        inputs: Any = None,
        method: str = "dopri5",
        rtol: float = 1e-7,
        atol: float = 1e-9,
        adjoint: bool = False,
        options: dict[str, Any] | None = None,
    ) -> "torch.Tensor":
        """The states at `times` from x0 at times[0], (T, M) or (B, T, M), by torchdiffeq.

        x0: (M,) or (B, M); a batch shares its steps. times: (T,), increasing, in the flow's unit. inputs (T - 1, K) or
        (B, T - 1, K): row k is held from times[k] to times[k + 1], and the solver starts anew there. method, rtol, atol, options:
        as torchdiffeq has them. adjoint: gradients by a second solve backwards in time, with little memory (`odeint_adjoint`).
        Raises InvalidValue for shapes and times that do not fit, MissingExtra (extra 'torch') without torchdiffeq, DynsysError
        where the solver gives up; `dynsys.integrate.solve` says more about such a run.
        """
        torchdiffeq: Any = require("torchdiffeq", extra="torch", who="dynsys.interop.torch.solve")
        z = self._tensor("solve", "x0", x0, (self.dim,))
        times = self._times(times, z)
        u = self._tensor("solve", "inputs", inputs, (len(times) - 1, self.n_inputs), optional=True)
        settings: dict[str, Any] = {"method": method, "rtol": rtol, "atol": atol, "options": options}
        solver = torchdiffeq.odeint_adjoint if adjoint else torchdiffeq.odeint
        try:
            if u is None:
                return torch.movedim(solver(self, z, times, **settings), 0, -2)
            if u.ndim == 3 and z.ndim == 1:
                z = z.expand(u.shape[0], -1)
            states = [z]
            for k in range(len(times) - 1):
                held = _Held(self, u[..., k, :])
                states.append(solver(held, states[-1], times[k : k + 2], **settings)[-1])
            return torch.stack(states, dim=-2)
        except AssertionError as error:  # how torchdiffeq says that a step became too small
            raise DynsysError(
                f"{self._who}.solve: torchdiffeq gave up ({error}): the run leaves all bounds, or is too stiff for {method!r}. "
                "Shorten it, loosen rtol and atol, or ask dynsys.integrate.solve, which has stiff solvers and says how a run ended."
            ) from None

    def _times(self, times: Any, z: "torch.Tensor") -> "torch.Tensor":
        found = times if isinstance(times, torch.Tensor) else torch.tensor(np.asarray(times, dtype=float))
        found = found.to(dtype=z.dtype, device=z.device)
        if found.ndim != 1 or len(found) < 2 or not bool((found[1:] > found[:-1]).all()):
            raise InvalidValue(
                f"{self._who}.solve: times must have shape (T,) with T >= 2 and increase, got shape {tuple(found.shape)}: "
                "first the time of x0, then those asked for."
            )
        return found


class _Held(torch.nn.Module):
    """A flow whose input is held; the input is a parameter of it in the sense of the adjoint method."""

    def __init__(self, flow: TorchFlow, u: "torch.Tensor"):
        super().__init__()
        self.flow, self.u = flow, u

    def parameters(self, recurse: bool = True) -> Any:
        """Those of the flow, and the input if a gradient by it is wanted."""
        yield from self.flow.parameters(recurse)
        if self.u.requires_grad:
            yield self.u

    def forward(self, t: "torch.Tensor", z: "torch.Tensor") -> "torch.Tensor":
        """The field under the held input."""
        return self.flow.field(t, z, self.u)

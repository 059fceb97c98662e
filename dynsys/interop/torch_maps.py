"""Maps in PyTorch: one step, a step over any gap, and free runs, with or without a batch.

z[t+1] = step(z[t], u[t]),    x[t] = observe(z[t])

z (M,) or (B, M)    u (K,) or (B, K)    x (N,) or (B, N)    gap () or (B,)
"""

from typing import TYPE_CHECKING, Any

from dynsys.dynamics import AbstractMap, AbstractTimed
from dynsys.errors import InvalidValue, require
from dynsys.interop.torch_module import TorchModule

if TYPE_CHECKING:
    import torch
else:
    torch = require("torch", extra="torch", who="dynsys.interop.torch")


class TorchMap(TorchModule):
    """A map as an nn.Module: `dim` is M, `n_obs` N, `n_inputs` K; `memory` the points before the present that a start needs."""

    def __init__(self, model: AbstractMap):
        super().__init__(model)
        self.dim, self.n_obs, self.n_inputs, self.memory = model.dim, model.n_obs, model.n_inputs, model.memory
        self._timed = isinstance(model, AbstractTimed)

    def forward(self, z: Any, u: Any = None, gap: Any = None) -> "torch.Tensor":
        """`step`, or `over` if a gap is given: (M,) -> (M,) or (B, M) -> (B, M). This is what torch.export takes."""
        return self.step(z, u) if gap is None else self.over(z, u, gap)

    def step(self, z: Any, u: Any = None) -> "torch.Tensor":
        """The next state, (M,), (K,) -> (M,) or with a batch B before each."""
        z, u = self._state("step", z), self._input("step", u)
        return self._call(lambda model, z, u: model.step(z, u), (z, 1), (u, 1))

    def over(self, z: Any, u: Any, gap: Any) -> "torch.Tensor":
        """The state `gap` sampling intervals later, (M,), (K,), () -> (M,) or with a batch B before each; timed models only."""
        self._check_timed("over")
        z, u = self._state("over", z), self._input("over", u)
        gap = self._tensor("over", "gap", gap, ())
        return self._call(lambda model, z, u, gap: model.over(z, u, gap), (z, 1), (u, 1), (gap, 0))

    def observe(self, z: Any) -> "torch.Tensor":
        """The observation of a state, (M,) -> (N,) or (B, M) -> (B, N)."""
        return self._call(lambda model, z: model.observe(z), (self._state("observe", z), 1))

    def lift(self, x: Any) -> "torch.Tensor":
        """A state that observes to x, (N,) -> (M,) or (B, N) -> (B, M)."""
        return self._call(lambda model, x: model.lift(x), (self._tensor("lift", "x", x, (self.n_obs,)), 1))

    def rollout(self, x0: Any, n: int, inputs: Any = None, gaps: Any = None) -> "torch.Tensor":
        """The observations x[1], ..., x[n] of a free run after the start x[0], (n, N) or (B, n, N).

        x0: (N,) or (B, N). For a model with `memory`, a context: the last L observed points, (L, N) or (B, L, N), which lead the
        state; L = memory + 1 or more is a good start. A context (B, L, N) is taken by every model.
        inputs (n, K) or (B, n, K): u[t] acts from x[t] to x[t+1]. gaps (n,) or (B, n), timed models only: the time from x[t] to
        x[t+1] in sampling intervals. With a context both have L - 1 rows more, first those between its points.
        Raises InvalidValue for shapes that do not fit. It is a Python loop over time and can be differentiated.
        """
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise InvalidValue(f"{self._who}.rollout: n must be a whole number of at least 1, got n={n!r}: the steps of the free run.")
        context, rows = self._context(x0), n
        rows += context.shape[-2] - 1
        inputs = self._tensor("rollout", "inputs", inputs, (rows, self.n_inputs), optional=True)
        gaps = self._tensor("rollout", "gaps", gaps, (rows,), optional=True)
        if gaps is not None:
            self._check_timed("rollout with gaps")
        return self._call(lambda model, *given: _free_run(model, n, *given), (context, 2), (inputs, 2), (gaps, 1))

    def _context(self, x0: Any) -> "torch.Tensor":
        """x0 as (L, N) or (B, L, N)."""
        if self.memory or getattr(x0, "ndim", 0) == 3:
            return self._tensor("rollout", "x0", x0, (None, self.n_obs))
        return self._tensor("rollout", "x0", x0, (self.n_obs,))[..., None, :]

    def _state(self, who: str, z: Any) -> "torch.Tensor":
        return self._tensor(who, "z", z, (self.dim,))

    def _input(self, who: str, u: Any) -> "torch.Tensor | None":
        return self._tensor(who, "u", u, (self.n_inputs,), optional=True)

    def _check_timed(self, what: str) -> None:
        if not self._timed:
            raise InvalidValue(
                f"{self._who}.{what}: this model steps over one sampling interval only. "
                "Resample the data, or take a model of continuous time."
            )


def _free_run(model: Any, n: int, context: "torch.Tensor", inputs: Any, gaps: Any) -> "torch.Tensor":
    """n observations (n, N) after a context (L, N); inputs (L - 1 + n, K), gaps (L - 1 + n,)."""
    model = model.prepared()

    def advance(z: Any, t: int) -> Any:
        u = None if inputs is None else inputs[t]
        return model.step(z, u) if gaps is None else model.over(z, u, gaps[t])

    led = context.shape[0] - 1
    z, made = model.lift(context[0]), []
    for t in range(led):
        z = model.correct(advance(z, t), context[t + 1])
    for t in range(led, led + n):
        z = advance(z, t)
        made.append(model.observe(z))
    return torch.stack(made)

"""HAVOK: a chaotic system as a linear one in eigen-time-delay coordinates, driven by the last of them.

    rows w[t] = (x[t], x[t-1], ..., x[t-D+1]) = U S V^T,    v[t] = (v_1, ..., v_r) the leading coordinates
    (v_1, ..., v_{r-1})[t+1] = A (v_1, ..., v_{r-1})[t] + B v_r[t]

v_r is the intermittent forcing: it bursts where the system is about to switch lobes, and is small otherwise. As a map the model takes v_r
as its one input; without it, it is the linear part alone.
Source: Brunton, Brunton, Proctor, Kaiser, Kutz, Nat. Commun. 8, 19 (2017), eqs. 5 to 8; in discrete time here.
"""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import numpy as np
from array_api_compat import array_namespace
from jaxtyping import Float

from dynsys.dynamics import AnyInput, AnyObservation
from dynsys.errors import InvalidValue
from dynsys.models.base import matvec
from dynsys.models.koopman.data import Data
from dynsys.models.koopman.dmd import Rows
from dynsys.models.koopman.lifted import AbstractLinear, windows
from dynsys.models.regressed import as_numpy, checked_options


class HAVOK(AbstractLinear):
    """y = (v_1, ..., v_{r-1}), in standard deviations; Q maps windows to all r coordinates and P maps y back to the newest point."""

    A: Float[Any, "L L"]
    B: Float[Any, "L 1"]
    Q: Float[Any, "DN R"]
    P: Float[Any, "N L"]
    mean: Float[Any, " N"]
    delays: int = eqx.field(static=True)
    reencode: int = eqx.field(static=True, default=0)

    @classmethod
    def from_series(cls, series: Sequence[Any], *, delays: int = 100, rank: int = 15, centre: bool = True) -> "HAVOK":
        """Fit to trajectories [(T_i, N), ...], usually of one column. delays: D points in a window. rank: r coordinates, the forcing
        included. centre: the mean is taken off first. Raises InvalidValue for data that are too short, or have fewer
        independent directions than r."""
        checked_options("HAVOK", least={"delays": 2, "rank": 2}, delays=delays, rank=rank)
        data = Data.of("HAVOK", series, None, delays, centre=centre, standardise=False)
        rows = Rows.of(data)
        if rank > rows.rank:
            raise InvalidValue(
                f"HAVOK: rank={rank}, but windows of {delays} points have only {rows.rank} independent directions. Lower rank."
            )
        scale = rows.s[:rank] / data.pairs**0.5
        Q = rows.Qt[:rank].T / scale[None, :]
        V, after = rows.X @ Q, rows.Y @ Q
        W = np.linalg.lstsq(V, after[:, :-1], rcond=None)[0].T
        n = len(data.mean)
        P = (rows.Qt[:rank].T * scale[None, :])[:n, :-1]
        return cls(A=W[:, :-1], B=W[:, -1:], Q=Q, P=P, mean=data.mean, delays=delays)  # pyright: ignore[reportCallIssue]

    @property
    def n_obs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """N, the number of observed components."""
        return self.mean.shape[-1]

    @property
    def n_inputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """1: the forcing."""
        return 1

    @property
    def n_latent(self) -> int:
        """L = r - 1."""
        return self.A.shape[-1]

    @property
    def matrix(self) -> Float[Any, "L L"]:
        """A."""
        return self.A

    def coordinates(self, x: Float[Any, "T N"]) -> Float[np.ndarray, "R r"]:
        """All r eigen-time-delay coordinates of a trajectory, the forcing last, (T, N) -> (T - D + 1, r), in standard deviations."""
        model = as_numpy(self)
        return (windows(np.asarray(x, float), self.delays) - np.tile(model.mean, self.delays)[None, :]) @ model.Q

    def intermittent(self, x: Float[Any, "T N"]) -> Float[np.ndarray, "R 1"]:
        """The forcing v_r along a trajectory, (T - D + 1, 1): row t acts between the points t + D - 1 and t + D."""
        return self.coordinates(x)[:, -1:]

    def encode(self, w: Float[Any, " DN"]) -> Float[Any, " L"]:
        """The coordinates of a window but the last, (D N,) -> (r - 1,)."""
        return (w - array_namespace(w).concat([self.mean] * self.delays)) @ self.Q[:, :-1]

    def decode(self, y: Float[Any, " L"]) -> AnyObservation:
        """The newest point."""
        return self.mean + matvec(self.P, y)

    def advance(self, y: Float[Any, " L"], u: AnyInput = None) -> Float[Any, " L"]:
        """A y + B u."""
        after = matvec(self.A, y)
        return after if u is None else after + matvec(self.B, u)

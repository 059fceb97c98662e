"""Generator EDMD: the Koopman operator in continuous time, d psi / dt = L psi, from points and their time derivatives.

    L^T = G^+ mean psi(x) (d psi / dt)(x)^T,    d psi / dt = D psi(x) f(x) + 1/2 sum_k D^2 psi(x)[s_k, s_k]
    y[t+1] = expm(L dt) y[t]

f is the drift and s_k are the columns of the diffusion (of an SDE in the sense of Ito; none for an ODE). From a series alone, f is the
central difference of order four along the trajectory, in units of one sampling interval. Eigenvalues of L are rates: no logarithm, so
no question of the sheet.
Source: Klus, Nueske, Peitz, Niemann, Clementi, Schuette, Physica D 406, 132416 (2020), eqs. 5 to 9.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from dynsys.errors import InvalidValue
from dynsys.models.koopman.candidate import Candidate, choose, explain, learned
from dynsys.models.koopman.data import Data
from dynsys.models.koopman.dictionary import AbstractDictionary
from dynsys.models.koopman.edmd import RIDGES, AbstractEDMD, degrees
from dynsys.models.koopman.lifted import check_period
from dynsys.models.koopman.moments import BLOCK, Moments
from dynsys.models.regressed import checked_options, generator
from dynsys.precision import x64

FEWEST = 6  # points of a trajectory
SHORT = f"needs a trajectory of at least {FEWEST} points, since a derivative is taken from five"


class GeneratorEDMD(AbstractEDMD):
    """The operator in continuous time, from derivatives.

    y = (1, v, dictionary(v)); `generator` L is per sampling interval, and A = expm(L).
    """

    generator: Float[Any, "L L"]

    driven: ClassVar[bool] = False

    @classmethod
    def from_series(
        cls,
        series: Sequence[Any],
        *,
        dictionary: AbstractDictionary | str = "monomials",
        degree: int | None = None,
        features: int | None = None,
        width: float | None = None,
        ridge: float | None = None,
        rank: int | None = None,
        reencode: int = 0,
        bound: float = 10.0,
        key: Any = None,
    ) -> "GeneratorEDMD":
        """Fit to trajectories [(T_i, N), ...] of at least 6 points, whose derivatives are taken by finite differences: the sampling must be
        fine, and noise small. Options as of EDMD; errors too."""
        who = cls.__name__
        checked_options(who, least={"degree": 1, "features": 1, "rank": 1}, degree=degree, features=features, rank=rank)
        checked_options(who, ridge=ridge, width=width)
        check_period(who, reencode)
        if all(len(x) < FEWEST for x in series):
            raise InvalidValue(f"{who}: {SHORT}, got lengths {[len(x) for x in series][:5]}.")
        data, rng = Data.of(who, series, None, FEWEST - 1), generator(key)
        data = Data(data.series, None, 1, data.mean, data.scale, data.low, data.high)
        sample = data.sample()
        made = [
            Differenced(learned(who, dictionary, sample, rng, degree=p, features=features, width=width))
            for p in degrees(dictionary, degree, data.variables, data.pairs)
        ]
        chosen, r, k = choose(who, made, data, RIDGES if ridge is None else (ridge,), (rank,), reencode, bound)
        found = chosen.moments(who, data)
        explain(who, chosen, data, found, r, k)
        return cls._built(chosen.dictionary, found.solve(r, k).T, data, data.box(bound), reencode)

    @classmethod
    def from_derivatives(
        cls,
        x: Float[np.ndarray, "T N"],
        drift: Float[np.ndarray, "T N"],
        diffusion: Float[np.ndarray, "T N S"] | None = None,
        *,
        dictionary: AbstractDictionary | str = "monomials",
        degree: int | None = None,
        features: int | None = None,
        width: float | None = None,
        ridge: float = 0.0,
        rank: int | None = None,
        dt: float = 1.0,
        bound: float = 10.0,
        key: Any = None,
    ) -> "GeneratorEDMD":
        """From T points in any order with the drift there, and for an SDE the diffusion matrix; a step of the model is `dt` of their time.

        Raises InvalidValue for shapes that do not fit, and as EDMD.
        """
        who = cls.__name__
        data = Data.of(who, [np.asarray(x, float)], None, 1)
        f = np.asarray(drift, float)
        s = None if diffusion is None else np.asarray(diffusion, float)
        if f.shape != data.series[0].shape or not np.isfinite(f).all() or (s is not None and not _fits(s, f)):
            raise InvalidValue(
                f"{who}: drift must be finite with the shape of x {np.shape(x)}, and diffusion finite and (T, N, S); got {f.shape}"
                + ("." if s is None else f" and {s.shape}.")
            )
        found = learned(who, dictionary, data.sample(), generator(key), degree=degree, features=features, width=width)
        candidate = Candidate(found)
        v = data.standard(data.series[0])
        noise = None if s is None else s / data.scale[None, :, None] * dt**0.5
        moments = _moments(candidate, ((v, f / data.scale[None, :] * dt, noise),))
        explain(who, candidate, data, moments, ridge, rank)
        return cls._built(found, moments.solve(ridge, rank).T, data, data.box(bound), 0)

    @classmethod
    def _built(cls, dictionary: AbstractDictionary, L: np.ndarray, data: Data, box: Any, reencode: int) -> "GeneratorEDMD":
        from scipy.linalg import expm

        size = len(L)
        return cls(
            A=expm(L),
            B=np.zeros((size, 0)),
            N=np.zeros((0, size, size)),
            generator=L,
            dictionary=dictionary,
            mean=data.mean,
            scale=data.scale,
            low=box[0],
            high=box[1],
            delays=1,
            reencode=reencode,
        )  # pyright: ignore[reportCallIssue]


@dataclass(frozen=True)
class Differenced(Candidate):
    """A candidate whose normal equations are those of the generator; derivatives along the trajectories by central differences."""

    def summed(self, data: Data) -> Moments:
        """mean psi psi^T and mean psi (d psi / dt)^T over all points but the two at each end."""

        def blocks():
            for x in data.series:
                for a in range(0, x.shape[0] - 4, BLOCK):
                    v = data.standard(np.asarray(x[a : min(a + BLOCK + 4, x.shape[0])], float))
                    if len(v) > 4:
                        yield v[2:-2], (v[:-4] - 8 * v[1:-3] + 8 * v[3:-1] - v[4:]) / 12, None

        return _moments(self, blocks())

    def transition(self, W: Float[np.ndarray, "*R E L"]) -> Float[np.ndarray, "*R E L"]:
        """expm of the generator over one sampling interval."""
        from scipy.linalg import expm

        with np.errstate(all="ignore"):
            return np.stack([expm(np.clip(w, -1e3, 1e3)) for w in W.reshape(-1, *W.shape[-2:])]).reshape(W.shape)


def _moments(candidate: Candidate, blocks: Any) -> Moments:
    """mean psi psi^T and mean psi (d psi / dt)^T of blocks (v, dv/dt, noise or None)."""
    G = A = L = None
    count = 0
    for v, f, s in blocks:
        psi, moved = candidate.lift(v), _derivative(candidate.dictionary, v, f, s)
        new = psi.T @ psi, psi.T @ moved, moved.T @ moved
        G, A, L = new if G is None else (G + new[0], A + new[1], L + new[2])
        count += len(v)
    if G is None or A is None or L is None:
        raise InvalidValue(f"GeneratorEDMD: {SHORT}.")
    return Moments(G / count, A / count, L / count, count)


def _fits(diffusion: np.ndarray, drift: np.ndarray) -> bool:
    return diffusion.ndim == 3 and diffusion.shape[:2] == drift.shape and diffusion.shape[2] > 0 and bool(np.isfinite(diffusion).all())


def _derivative(dictionary: AbstractDictionary, v: np.ndarray, f: np.ndarray, s: np.ndarray | None) -> np.ndarray:
    """d psi / dt of (1, v, dictionary(v)) along f, with the second-order term of the diffusion, (R, L)."""
    with x64():
        rest = np.asarray(_along(dictionary, jnp.asarray(v), jnp.asarray(f), None if s is None else jnp.asarray(s)))
    return np.concatenate([np.zeros((len(v), 1)), f, rest], axis=1)


@eqx.filter_jit
def _along(dictionary: AbstractDictionary, v: Any, f: Any, s: Any) -> Any:
    total = jax.jvp(dictionary, (v,), (f,))[1]
    if s is None:
        return total

    def second(column: Any) -> Any:
        return jax.jvp(lambda at: jax.jvp(dictionary, (at,), (column,))[1], (v,), (column,))[1]

    return total + 0.5 * sum(second(s[..., k]) for k in range(s.shape[-1]))

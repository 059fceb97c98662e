"""Extended dynamic mode decomposition (EDMD): least squares for a linear map of functions of the state.

    y = psi(w) = (1, v, dictionary(v)),   v = (w - m) / s,   w = (x[t], ..., x[t-D+1])
    y[t+1] = A y[t] + B u[t] + sum_k u_k[t] N_k y[t]                                    N = 0 unless bilinear

A minimises the mean of |psi(w[t+1]) - A psi(w[t]) - ...|^2 plus a ridge; the normal equations are summed block by block, so a file
may be larger than memory. v is part of y, so decoding is exact: x = m + s v. Degree, ridge and rank that are left open are chosen by
free runs on the end of the series (`dynsys.models.regressed`).
Sources: Williams, Kevrekidis, Rowley, J. Nonlinear Sci. 25, 1307 (2015); inputs: Korda & Mezic, Automatica 93, 149 (2018), eq. 17;
bilinear: Bruder, Fu, Vasudevan, IEEE RA-L 6, 4416 (2021).
"""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import equinox as eqx
from array_api_compat import array_namespace
from jaxtyping import Float

from dynsys.dynamics import AnyInput, AnyObservation
from dynsys.models.base import matvec
from dynsys.models.koopman.candidate import Candidate, choose, explain, learned, within_circle
from dynsys.models.koopman.data import Data
from dynsys.models.koopman.dictionary import AbstractDictionary, n_terms
from dynsys.models.koopman.lifted import AbstractLinear, check_period
from dynsys.models.regressed import Regressed, checked_options, generator

RIDGES = tuple(10.0**p for p in range(-16, -1, 2))
DEGREES = (1, 2, 3, 4, 5)
MOST_FEATURES = 300  # of the degrees that are tried
SHARES = (1.0, 0.5, 0.25)  # of the functions, as ranks that are tried


class AbstractEDMD(Regressed, AbstractLinear):
    """y = (1, v, dictionary(v)), x = mean + scale v; linear in y, so a run with an eigenvalue beyond the unit circle grows for ever."""

    A: Float[Any, "L L"]
    B: Float[Any, "L K"]
    N: Float[Any, "E L L"]
    dictionary: AbstractDictionary
    mean: Float[Any, " N"]
    scale: Float[Any, " N"]
    low: Float[Any, " N"]
    high: Float[Any, " N"]
    delays: int = eqx.field(static=True)
    reencode: int = eqx.field(static=True)

    @property
    def n_obs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """N, the number of observed components."""
        return self.mean.shape[-1]

    @property
    def n_inputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """K, the number of external inputs."""
        return self.B.shape[-1]

    @property
    def n_latent(self) -> int:
        """L = 1 + D N + F."""
        return self.A.shape[-1]

    @property
    def matrix(self) -> Float[Any, "L L"]:
        """A, which moves the functions on by one sampling interval."""
        return self.A

    def encode(self, w: Float[Any, " DN"]) -> Float[Any, " L"]:
        """(1, v, dictionary(v)) of a window, (D N,) -> (L,)."""
        xp = array_namespace(w)
        v = (w - _tiled(self.mean, self.delays)) / _tiled(self.scale, self.delays)
        return xp.concat([xp.ones_like(v[:1]), v, self.dictionary(v)])

    def decode(self, y: Float[Any, " L"]) -> AnyObservation:
        """The newest point, (L,) -> (N,)."""
        return self.mean + self.scale * y[1 : self.n_obs + 1]

    def advance(self, y: Float[Any, " L"], u: AnyInput = None) -> Float[Any, " L"]:
        """A y, and the input's terms."""
        after = matvec(self.A, y)
        if u is None or self.n_inputs == 0:
            return after
        after = after + matvec(self.B, u)
        for i in range(self.N.shape[0]):
            after = after + u[i] * matvec(self.N[i], y)
        return after

    def bounded(self, x: AnyObservation) -> AnyObservation:
        """x inside the box [low, high]."""
        xp = array_namespace(x)
        return xp.minimum(xp.maximum(x, self.low), self.high)


class EDMD(AbstractEDMD):
    """The operator over one sampling interval, fitted to pairs of points."""

    driven: ClassVar[bool] = True

    @classmethod
    def from_series(
        cls,
        series: Sequence[Any],
        *,
        dictionary: AbstractDictionary | str = "monomials",
        degree: int | None = None,
        features: int | None = None,
        width: float | None = None,
        delays: int = 1,
        ridge: float | None = None,
        rank: int | None = None,
        bilinear: bool = False,
        stable: bool = False,
        reencode: int = 0,
        bound: float = 10.0,
        inputs: Sequence[Any] | None = None,
        key: Any = None,
    ) -> "EDMD":
        """Fit to trajectories [(T_i, N), ...], with inputs [(T_i, K), ...] if the system is driven.

        dictionary: an object, or a registered name with its degree, number of features, and width in standard deviations. delays: D.
        ridge: relative to the largest eigenvalue of the scaled normal matrix; 0 is plain least squares. rank: leading directions of the
        normal matrix that are kept. What is None is chosen by free runs on the end of the series, a rank only together with the ridge.
        stable: eigenvalues beyond the unit circle are moved onto it. reencode: steps between two encodings in a run, 0: none; bound: how
        many ranges of the data a point may then leave them by.

        Raises InvalidValue for settings or data that can't be used: too few pairs or dependent functions with ridge=0, a function that
        overflows (it says which).
        """
        who = cls.__name__
        checked_options(who, least={"degree": 1, "delays": 1, "rank": 1}, degree=degree, delays=delays, rank=rank, ridge=ridge, width=width)
        checked_options(who, least={"features": 1}, features=features)
        check_period(who, reencode)
        data, rng = Data.of(who, series, inputs, delays), generator(key)
        sample, options = data.sample(), {"features": features, "width": width}
        made = [
            Candidate(learned(who, dictionary, sample, rng, degree=p, **options), bilinear)
            for p in degrees(dictionary, degree, data.variables, data.pairs)
        ]
        ridges, ranks = (RIDGES if ridge is None else (ridge,)), (SHARES if rank is None and ridge is None else (rank,))
        chosen, r, k = choose(who, made, data, ridges, ranks, reencode, bound)
        found = chosen.moments(who, data)
        explain(who, chosen, data, found, r, k)
        A, B, N = chosen.split(chosen.transition(found.solve(r, k)), data.n_inputs)
        low, high = data.box(bound)
        return cls(
            A=within_circle(A) if stable else A,
            B=B,
            N=N,
            dictionary=chosen.dictionary,
            mean=data.mean,
            scale=data.scale,
            low=low,
            high=high,
            delays=delays,
            reencode=reencode,
        )  # pyright: ignore[reportCallIssue]


def _tiled(a: Any, delays: int) -> Any:
    return a if delays == 1 else array_namespace(a).concat([a] * delays)


def degrees(dictionary: Any, degree: int | None, variables: int, pairs: int) -> Iterable[int | None]:
    """The degrees of monomials that are tried: those whose functions are few enough; else what was asked for."""
    if dictionary != "monomials" or degree is not None:
        return (degree,)
    fitting = [p for p in DEGREES if 1 + variables + n_terms(variables, p) <= min(MOST_FEATURES, pairs)]
    return fitting or (1,)

"""DPNet: a network learns functions that span an invariant subspace of a stochastic system, then the operator is regressed on them.

    y = (1, psi(v)),   v = (w - m) / s,   w = (x[t], ..., x[t-D+1])
    E[y[t+1] | x[t]] = A y[t],    x[t] = m + s C y[t]

psi maximises a score of invariance (`dynsys.models.koopman.dpnet_training`), A and C are least squares in float64 afterwards. y holds no
other functions than these: with v beside them the spectrum of A would no longer be that of the learned subspace; so a decoded point is
the regression of x on the features, not the point that was encoded.
Source: Kostic, Novelli, Grazzi, Lounici, Pontil, ICLR 2024 (arXiv 2307.09912).
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import equinox as eqx
import numpy as np
from array_api_compat import array_namespace
from jaxtyping import Float, Int

from dynsys.dynamics import AnyInput, AnyObservation
from dynsys.errors import InvalidValue
from dynsys.models.base import matvec
from dynsys.models.koopman.data import Data
from dynsys.models.koopman.dictionary import AbstractDictionary
from dynsys.models.koopman.dpnet_training import train
from dynsys.models.koopman.lifted import AbstractLinear, check_period
from dynsys.models.koopman.moments import Moments, lifted_runs
from dynsys.models.koopman.network_dictionary import NetworkDictionary
from dynsys.models.regressed import Regressed, checked_options, checked_series, generator

MOST_ROWS = 1_000_000  # windows that the network is trained on; of more, evenly spread stretches
FEWEST_STEPS, MOST_STEPS, EPOCHS = 300, 3000, 30  # updates by default: so many passes over the pairs, within limits


class DPNet(Regressed, AbstractLinear):  # pyright: ignore[reportIncompatibleVariableOverride]
    """Features learned for a linear map by the operator-norm objective: y = (1, psi(v)), x = mean + scale C y."""

    A: Float[Any, "L L"]
    C: Float[Any, "N L"]
    dictionary: AbstractDictionary
    mean: Float[Any, " N"]
    scale: Float[Any, " N"]
    low: Float[Any, " N"]
    high: Float[Any, " N"]
    delays: int = eqx.field(static=True)
    reencode: int = eqx.field(static=True)

    random: ClassVar[bool] = True
    trains: ClassVar[bool] = True

    @classmethod
    def from_series(
        cls,
        series: Sequence[Any],
        *,
        features: int = 16,
        hidden: int = 64,
        depth: int = 2,
        activation: str = "tanh",
        score: str = "relaxed",
        gamma: float = 1.0,
        steps: int | None = None,
        batch: int = 1024,
        learning_rate: float = 1e-3,
        delays: int = 1,
        ridge: float = 1e-10,
        reencode: int = 0,
        bound: float = 10.0,
        key: Any = None,
    ) -> "DPNet":
        """Train the network on trajectories [(T_i, N), ...], then fit A and C.

        features: F, the functions beside the constant. `depth` hidden layers of `hidden` units. score: 'relaxed' or 'projection'; gamma:
        weight of the metric distortion. steps: updates, each on `batch` random pairs (all, if there are fewer); None: 30 passes over the
        data, at least 300 and at most 3,000. learning_rate: of Adam, at the start. delays: D. ridge: of the regression, relative to the
        largest eigenvalue of the scaled normal matrix. reencode: steps between two encodings in a run, 0: none; bound: how many ranges of
        the data a point may then leave them by. Raises InvalidValue for settings or data that can't be used.
        """
        who = cls.__name__
        whole = {"features": features, "hidden": hidden, "depth": depth, "batch": batch, "delays": delays, "steps": steps}
        checked_options(who, least={**dict.fromkeys(whole, 1), "batch": 2}, **whole)
        checked_options(who, gamma=gamma, learning_rate=learning_rate, ridge=ridge)
        check_period(who, reencode)
        data, rng = Data.of(who, checked_series(who, series), None, delays), generator(key)
        v, before = _pairs(data)
        psi = NetworkDictionary.learn(v, features=features, hidden=hidden, depth=depth, activation=activation, rng=rng)
        updates = min(MOST_STEPS, max(FEWEST_STEPS, EPOCHS * len(before) // batch)) if steps is None else steps
        seed = int(rng.integers(2**31))
        options = {"score": score, "gamma": gamma, "steps": updates, "batch": batch, "learning_rate": learning_rate, "seed": seed}
        psi, _ = train(psi, v, before, **options)
        A, C = _regressed(psi, data, ridge)
        low, high = data.box(bound)
        return cls(A=A, C=C, dictionary=psi, mean=data.mean, scale=data.scale, low=low, high=high, delays=delays, reencode=reencode)  # pyright: ignore[reportCallIssue]

    @property
    def n_obs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """N, the number of observed components."""
        return self.mean.shape[-1]

    @property
    def n_latent(self) -> int:
        """L = 1 + F."""
        return self.A.shape[-1]

    @property
    def matrix(self) -> Float[Any, "L L"]:
        """A."""
        return self.A

    def encode(self, w: Float[Any, " DN"]) -> Float[Any, " L"]:
        """(1, psi(v)) of a window, (D N,) -> (L,)."""
        xp, D = array_namespace(w), self.delays
        mean, scale = (a if D == 1 else xp.concat([a] * D) for a in (self.mean, self.scale))
        psi = self.dictionary((w - mean) / scale)
        return xp.concat([xp.ones_like(psi[:1]), psi])

    def decode(self, y: Float[Any, " L"]) -> AnyObservation:
        """m + s C y, (L,) -> (N,)."""
        return self.mean + self.scale * matvec(self.C, y)

    def advance(self, y: Float[Any, " L"], u: AnyInput = None) -> Float[Any, " L"]:
        """A y."""
        return matvec(self.A, y)

    def bounded(self, x: AnyObservation) -> AnyObservation:
        """x inside the box [low, high]."""
        xp = array_namespace(x)
        return xp.minimum(xp.maximum(x, self.low), self.high)


def _stretches(data: Data) -> Iterable[Float[np.ndarray, "R V"]]:
    return lifted_runs(data.standard, data.series, data.delays)


def _pairs(data: Data) -> tuple[Float[np.ndarray, "R V"], Int[np.ndarray, " P"]]:
    """Standardised windows, and the rows that are followed by the next window of their trajectory."""
    every = -(-data.pairs // MOST_ROWS)
    kept = [v for i, v in enumerate(_stretches(data)) if i % every == 0]
    lengths = np.array([len(v) for v in kept])
    follows = np.ones(lengths.sum(), bool)
    follows[np.cumsum(lengths) - 1] = False
    return np.concatenate(kept), np.flatnonzero(follows)


def _regressed(psi: NetworkDictionary, data: Data, ridge: float) -> tuple[Float[np.ndarray, "L L"], Float[np.ndarray, "N L"]]:
    """A from pairs, and C, which reads the newest point of a window from its features; the constant's row of A is exact."""
    n = len(data.mean)
    seen = np.zeros((len(psi.b[-1]) + 1, n))

    def features() -> Iterator[Float[np.ndarray, "R L"]]:
        nonlocal seen
        for v in _stretches(data):
            y = np.concatenate([np.ones((len(v), 1)), np.asarray(psi(v))], axis=1)
            seen = seen + y[:-1].T @ v[:-1, :n]
            yield y

    found = Moments.of(features())
    if not np.isfinite(found.G).all():
        raise InvalidValue("DPNet: the trained features are not finite. Try a lower learning_rate.")
    A = found.solve(ridge).T
    A[0] = np.eye(len(A))[0]
    return A, found.regress(seen / found.count, ridge).T

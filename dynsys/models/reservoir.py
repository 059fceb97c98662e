"""Echo-state network: a fixed random network driven by the data, of which only the output weights are fitted.

    h[t+1] = (1 - a) h[t] + a tanh(W h[t] + V s[t] + c),    s = (x - m) / sd
    x[t+1] = x[t] + U^T (s[t], h[t+1]) + b

The state is z = (x, h). W is sparse with spectral radius `radius`, V uniform in +-`input_scale`, a the `leak`; U and b are a ridge
regression over the driven run after a washout. radius, a, the input scale and the ridge are chosen by free runs on the end of the
series (`dynsys.models.regressed`). All candidates share one random network, so they run as one batch.
Sources: Jaeger, GMD Report 148 (2001); Lukosevicius, A practical guide to applying echo state networks, LNCS 7700 (2012).
"""

import itertools
from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import numpy as np
from array_api_compat import array_namespace
from jaxtyping import Float

from dynsys.dynamics import AnyObservation, AnyState
from dynsys.errors import InvalidValue
from dynsys.models.regressed import Holdout, Regressed, box, checked_options, checked_series, generator, moments

RADII = (0.4, 0.9, 1.2)
LEAKS = (0.1, 0.3, 1.0)
INPUT_SCALES = (0.1, 0.5, 1.5)
RIDGES = 10.0 ** np.arange(-13, 0, 2)
DEGREE = 10  # connections into a unit
MOST_ROWS = 10_000  # of a longer series the settings are tried on its last rows


class EchoStateNetwork(Regressed):
    """z = (x, h), x (N,) the observation and h (H,) the reservoir; x stays inside the box [low, high]."""

    W: Float[Any, "H H"]
    V: Float[Any, "H N"]
    c: Float[Any, " H"]
    U: Float[Any, "NH N"]
    b: Float[Any, " N"]
    mean: Float[Any, " N"]
    scale: Float[Any, " N"]
    low: Float[Any, " N"]
    high: Float[Any, " N"]
    leak: float = eqx.field(static=True)
    washout: int = eqx.field(static=True)

    random: ClassVar[bool] = True

    @classmethod
    def from_series(
        cls,
        series: Sequence[Any],
        *,
        units: int = 200,
        radius: float | None = None,
        leak: float | None = None,
        input_scale: float | None = None,
        ridge: float | None = None,
        washout: int = 100,
        bound: float = 10.0,
        key: Any = None,
    ) -> "EchoStateNetwork":
        """Fit to trajectories [(T_i, N), ...]. units: H. radius, leak, input_scale: see the module. ridge: penalty relative to the
        largest eigenvalue. washout: driven steps before the fit, and before a forecast (at most a quarter of the longest
        trajectory). bound: how many ranges of the data a run may leave them by. key: of the random network. What is None is chosen."""
        who = cls.__name__
        checked_options(who, least={"units": 1, "washout": 0}, units=units, washout=washout)
        checked_options(who, radius=radius, leak=leak, input_scale=input_scale, ridge=ridge)
        if leak is not None and not 0 < leak <= 1:
            raise InvalidValue(f"{who}: leak must be in (0, 1], got leak={leak}: the share of a unit that is new at every step.")
        long = checked_series(who, series)
        mean, scale = moments(long)
        standard = [(x - mean[None, :]) / scale[None, :] for x in long]
        washout = min(washout, max(len(x) for x in long) // 4)
        W, V, c = _network(units, len(mean), generator(key))
        grid = [(asked,) if asked is not None else open_ for asked, open_ in ((radius, RADII), (leak, LEAKS), (input_scale, INPUT_SCALES))]
        settings = np.array(list(itertools.product(*grid)))
        ridges = RIDGES if ridge is None else np.array([float(ridge)])
        chosen = _chosen(standard, washout, (W, V, c), settings, ridges)
        (radius_, leak_, input_), penalty = settings[chosen[0]].tolist(), ridges[chosen[1] : chosen[1] + 1]
        U, b = _readouts(standard, washout, (W, V, c), settings[chosen[0] : chosen[0] + 1], penalty)
        low, high = box(long, bound)
        return cls(
            W=radius_ * W,
            V=input_ * V,
            c=input_ * c,
            U=U[0, 0] * scale[None, :],
            b=b[0, 0] * scale,
            mean=mean,
            scale=scale,
            low=low,
            high=high,
            leak=leak_,
            washout=washout,
        )  # pyright: ignore[reportCallIssue]

    @property
    def n_obs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """N, the number of observed components."""
        return self.b.shape[-1]

    @property
    def dim(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """M = N + H."""
        return self.b.shape[-1] + self.c.shape[-1]

    @property
    def memory(self) -> int:
        """The washout: the driven steps after which the reservoir has forgotten where it began."""
        return self.washout

    def step(self, z: AnyState, u: Any = None) -> AnyState:
        """The reservoir is driven by the present observation, then tells the next one."""
        xp = array_namespace(z)
        x, h = z[: self.n_obs], z[self.n_obs :]
        s = (x - self.mean) / self.scale
        h = (1.0 - self.leak) * h + self.leak * xp.tanh(self.W @ h + self.V @ s + self.c)
        x = x + xp.concat([s, h]) @ self.U + self.b
        return xp.concat([xp.minimum(xp.maximum(x, self.low), self.high), h])

    def observe(self, z: AnyState) -> AnyObservation:
        """The first N components."""
        return z[: self.n_obs]

    def lift(self, x: AnyObservation) -> AnyState:
        """x with a reservoir at rest: a poor start; see `dynsys.dynamics.warm_up`."""
        xp = array_namespace(x)
        return xp.concat([x, xp.zeros_like(self.c)])

    def correct(self, z: AnyState, x: AnyObservation) -> AnyState:
        """z with its observation replaced; the reservoir stays."""
        return array_namespace(z).concat([x, z[self.n_obs :]])


def _network(units: int, columns: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """W with about DEGREE connections a unit and spectral radius 1, V and c uniform in [-1, 1]."""
    W = rng.normal(size=(units, units)) * (rng.random((units, units)) < min(1.0, DEGREE / units))
    largest = float(np.abs(np.linalg.eigvals(W)).max())
    return W / (largest if largest > 1e-9 else 1.0), rng.uniform(-1, 1, (units, columns)), rng.uniform(-1, 1, units)


def _driven(x: np.ndarray, network: tuple[np.ndarray, np.ndarray, np.ndarray], settings: np.ndarray) -> np.ndarray:
    """Reservoir states h[t+1] after the points x[0..t], for C settings at once, (C, T, H)."""
    W, V, c = network
    radius, leak, scale = (settings[:, i : i + 1] for i in range(3))
    drive = x @ V.T + c[None, :]
    h, path = np.zeros((len(settings), len(c))), np.empty((len(settings), len(x), len(c)))
    for t in range(len(x)):
        h = (1.0 - leak) * h + leak * np.tanh(radius * (h @ W.T) + scale * drive[t][None, :])
        path[:, t] = h
    return path


def _readouts(
    series: Sequence[np.ndarray], washout: int, network: Any, settings: np.ndarray, ridges: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Output weights (C, R, N + H, N) and offsets (C, R, N) of every setting and ridge, by the eigenvectors of the normal matrix."""
    weights, offsets = [], []
    for setting in settings:
        parts, targets = [], []
        for x in series:
            skip = min(washout, len(x) // 4)
            parts.append(np.concatenate([x[:-1], _driven(x[:-1], network, setting[None])[0]], axis=1)[skip:])
            targets.append(np.diff(x, axis=0)[skip:])
        features, target = np.concatenate(parts), np.concatenate(targets)
        f, y = features.mean(axis=0), target.mean(axis=0)
        centred = features - f[None, :]
        values, vectors = np.linalg.eigh(centred.T @ centred)
        projected = vectors.T @ (centred.T @ (target - y[None, :]))
        power = np.maximum(values, 0.0)[None, :] + ridges[:, None] * values[-1] + np.finfo(float).tiny
        U = vectors[None] @ (projected[None] / power[:, :, None])
        weights.append(U)
        offsets.append(y[None, :] - np.einsum("f,rfn->rn", f, U))
    return np.stack(weights), np.stack(offsets)


def _chosen(series: list[np.ndarray], washout: int, network: Any, settings: np.ndarray, ridges: np.ndarray) -> tuple[int, int]:
    """The setting and the ridge whose free runs on the end of the series err least."""
    if len(settings) == len(ridges) == 1:
        return 0, 0
    held = Holdout.of(series)
    U, b = _readouts([x[-MOST_ROWS:] for x in held.fitted], washout, network, settings, ridges)
    best = int(np.argmin(_errors(held, washout, network, settings, U, b)))
    return best // len(ridges), best % len(ridges)


def _errors(held: Holdout, washout: int, network: Any, settings: np.ndarray, U: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The errors (C, R) of free runs of all settings, with their readouts (C, R, N + H, N), in one batch."""
    whole = np.concatenate(held.series)
    low, high = whole.min(axis=0) - np.ptp(whole, axis=0), whole.max(axis=0) + np.ptp(whole, axis=0)
    W, V, c = network
    radius, leak, scale = (settings[:, i][:, None, None] for i in range(3))
    windows = held.windows(washout + 1)
    H, (S, steps, N), (C, R) = len(c), held.true.shape, U.shape[:2]
    h = np.stack([_driven(window[:-1], network, settings)[:, -1] if washout else np.zeros((C, H)) for window in windows], axis=1)
    h = np.broadcast_to(h[:, None], (C, R, S, H)).reshape(C, R * S, H)
    x = np.broadcast_to(windows[:, -1], (C, R, S, N))
    made = np.empty((C, R, S, steps, N))
    with np.errstate(all="ignore"):
        for t in range(steps):
            drive = (x.reshape(C, R * S, N) @ V.T + c) * scale
            h = (1.0 - leak) * h + leak * np.tanh(radius * (h @ W.T) + drive)
            features = np.concatenate([x, h.reshape(C, R, S, H)], axis=-1)
            x = np.minimum(np.maximum(x + features @ U + b[:, :, None], low), high)
            made[:, :, :, t] = x
    return held.error(made)

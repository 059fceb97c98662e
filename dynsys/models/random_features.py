"""Ridge regression on random Fourier features: a nonlinear model with inputs that is fitted in closed form, in milliseconds.

    x[t+1] = x[t] + s (W^T phi(v) + b),    v = ((x - m) / s, (u - m_u) / s_u),    phi(v) = (v, sqrt(2/F) cos(Om v + p))

Om is normal with standard deviation 1 / width and p uniform, so the inner products of phi make a Gaussian kernel of that width plus a
linear one. Two columns that are the cosine and the sine of an angle are moved by the angle's increment, which is a far simpler
function than the next cosine and sine, and stay on the circle. Few data are enough, and a refit with more is as quick: the first
model to try for control. Components with a known bound (`low`, `high`) are kept there, and points that lie on it are left out of the
fit: what a limit cut off says nothing of the dynamics.
Sources: Rahimi & Recht, NIPS 2007.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import numpy as np
from array_api_compat import array_namespace
from jaxtyping import Float

from dynsys.dynamics import AnyInput, AnyObservation, AnyState
from dynsys.errors import InvalidValue
from dynsys.models.base import matvec
from dynsys.models.regressed import Holdout, Regressed, checked_options, generator
from dynsys.models.ridge import BLOCK, Regression

RIDGES = tuple(10.0**p for p in range(-14, 0, 2))
WIDTHS = (1.0, 2.0, 4.0, 8.0)
ON_BOUND = 1e-6  # of the data's range: nearer to a bound than this is on it


class RandomFeatures(Regressed):
    """z = x, all observed. W and b make the increments: first of the columns that are no part of an angle, then one of each angle."""

    W: Float[Any, "F O"]
    b: Float[Any, " O"]
    waves: Float[Any, "R V"]
    phase: Float[Any, " R"]
    centre: Float[Any, " V"]
    size: Float[Any, " V"]
    low: Float[Any, " N"]
    high: Float[Any, " N"]
    angles: str = eqx.field(static=True, default="")

    random: ClassVar[bool] = True
    driven: ClassVar[bool] = True

    @classmethod
    def from_series(
        cls,
        series: Sequence[Any],
        *,
        features: int = 100,
        width: float | None = None,
        ridge: float | None = None,
        low: Any = None,
        high: Any = None,
        angles: str = "",
        bound: float = 10.0,
        inputs: Sequence[Any] | None = None,
        key: Any = None,
    ) -> "RandomFeatures":
        """Fit to trajectories [(T_i, N), ...] of at least 2 points, with inputs [(T_i, K), ...] if the system is driven.

        features: R. width: in standard deviations, of each variable; ridge: see dynsys.models.ridge. What is None is chosen by free
        runs on the end of the series. low, high (N,): known bounds of the components (infinite where there is none), at which runs are
        kept and points are left out of the fit. angles: pairs of columns, counted from 0, that are cosine and sine of an angle, such as
        "0,1" or "0,1;2,3". bound: where none is known, how many ranges of the data a run may leave them by.
        Raises InvalidValue for series or settings that can't be used.
        """
        who = cls.__name__
        checked_options(who, least={"features": 1}, features=features, width=width, ridge=ridge)
        xs = [np.asarray(x, float) for x in series]
        us = [np.zeros((len(x), 0)) for x in xs] if inputs is None else [np.asarray(u, float) for u in inputs]
        _check(who, xs, us)
        limits = _limits(who, xs, low, high, bound)
        places = _places(who, angles, xs[0].shape[1])
        before, after = pairs_of(xs, us)
        moved = _increments(before[:, : xs[0].shape[1]], after, *places)
        spread = moved.std(axis=0)
        spread = np.where(spread > 0, spread, 1.0)
        kept = ~on_bound(after, limits[2], limits[3])
        if kept.sum() < 2:
            raise InvalidValue(f"{who}: {int(kept.sum())} of {len(kept)} points are off the bounds low, high. Collect more, or widen them.")
        centre, size = before.mean(axis=0), before.std(axis=0)
        size = np.where(size > 1e-12 * (1 + np.abs(centre)), size, 1.0)
        rng = generator(key)
        directions, phase = rng.normal(size=(features, len(centre))), rng.uniform(0, 2 * np.pi, features)

        def fitted(wide: float, ridges: np.ndarray, chosen: np.ndarray) -> list[Any]:
            waves = directions / wide

            def blocks() -> Any:
                for a in range(0, len(chosen), BLOCK):
                    rows = chosen[a : a + BLOCK]
                    yield _phi((before[rows] - centre) / size, waves, phase), moved[rows] / spread

            W, b = Regression.of(blocks).solve(features + len(centre), ridges)
            return [
                cls(
                    W=w * spread[None, :],
                    b=c * spread,
                    waves=waves,
                    phase=phase,
                    centre=centre,
                    size=size,
                    low=limits[0],
                    high=limits[1],
                    angles=angles,
                )  # pyright: ignore[reportCallIssue]
                for w, c in zip(W, b, strict=True)
            ]

        widths, ridges = (WIDTHS if width is None else (width,)), np.array(RIDGES if ridge is None else (ridge,))
        if len(widths) * len(ridges) > 1:
            width, ridge = _chosen(xs, us, fitted, kept, widths, ridges, places)
        return fitted(float(width or widths[0]), np.array([ridge if ridge is not None else ridges[0]]), np.flatnonzero(kept))[0]

    @property
    def n_obs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """N, the number of observed components."""
        return self.low.shape[-1]

    @property
    def dim(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """M = N."""
        return self.low.shape[-1]

    @property
    def n_inputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """K, the number of external inputs."""
        return self.centre.shape[-1] - self.n_obs

    def step(self, z: AnyState, u: AnyInput = None) -> AnyState:
        """The next state, (N,), (K,) -> (N,); without u the input is that of rest, 0."""
        xp = array_namespace(z)
        if self.n_inputs:
            u = 0.0 * self.centre[self.n_obs :] if u is None else u
            v = (xp.concat([z, u]) - self.centre) / self.size
        else:
            v = (z - self.centre) / self.size
        waves = (2.0 / self.phase.shape[0]) ** 0.5 * xp.cos(matvec(self.waves, v) + self.phase)
        x = _moved(xp, z, xp.concat([v, waves]) @ self.W + self.b, *_places("RandomFeatures", self.angles, self.n_obs))
        return xp.minimum(xp.maximum(x, self.low), self.high)

    def observe(self, z: AnyState) -> AnyObservation:
        """The state itself."""
        return z

    def lift(self, x: AnyObservation) -> AnyState:
        """The observation itself."""
        return x

    def correct(self, z: AnyState, x: AnyObservation) -> AnyState:
        """The observation itself."""
        return x


def pairs_of(xs: Sequence[np.ndarray], us: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Rows (x[t], u[t]) and x[t+1] of all trajectories."""
    before = np.concatenate([np.concatenate([x[:-1], u[: len(x) - 1]], axis=1) for x, u in zip(xs, us, strict=True)])
    return before, np.concatenate([x[1:] for x in xs])


def on_bound(x: Float[np.ndarray, "R N"], low: Float[np.ndarray, " N"], high: Float[np.ndarray, " N"]) -> np.ndarray:
    """Which rows lie on a known bound, (R,)."""
    near = ON_BOUND * (np.ptp(x, axis=0) + np.finfo(float).tiny)
    return np.any((x <= low + near) | (x >= high - near), axis=1)


def _places(who: str, angles: str, columns: int) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
    """The columns that are no part of an angle, and the pairs (cosine, sine) that are. Raises InvalidValue for what says no pairs."""
    try:
        pairs = tuple(tuple(int(part) for part in pair.split(",")) for pair in angles.split(";") if pair.strip())
    except ValueError:
        pairs = ((-1,),)
    used = [i for pair in pairs for i in pair]
    if any(len(pair) != 2 for pair in pairs) or len(set(used)) != len(used) or any(not 0 <= i < columns for i in used):
        raise InvalidValue(f"{who}: angles must be pairs of columns below {columns}, such as '0,1' or '0,1;2,3', got {angles!r}.")
    return tuple(i for i in range(columns) if i not in used), pairs  # pyright: ignore[reportReturnType]


def _increments(before: np.ndarray, after: np.ndarray, plain: tuple[int, ...], pairs: tuple[tuple[int, int], ...]) -> np.ndarray:
    """What moves one row to the next: differences of plain columns, and the angle turned by each pair."""
    parts = [after[:, list(plain)] - before[:, list(plain)]]
    for c, s in pairs:
        turned = np.arctan2(after[:, s], after[:, c]) - np.arctan2(before[:, s], before[:, c])
        parts.append((np.mod(turned + np.pi, 2 * np.pi) - np.pi)[:, None])
    return np.concatenate(parts, axis=1)


def _moved(xp: Any, x: Any, by: Any, plain: tuple[int, ...], pairs: tuple[tuple[int, int], ...]) -> Any:
    """x (..., N) moved by increments (..., O), as `_increments` has them."""
    if not pairs:
        return x + by
    columns: dict[int, Any] = {i: x[..., i] + by[..., k] for k, i in enumerate(plain)}
    for k, (c, s) in enumerate(pairs):
        turn, size = by[..., len(plain) + k], (x[..., c] ** 2 + x[..., s] ** 2) ** 0.5
        cos, sin = x[..., c] / size, x[..., s] / size
        columns[c], columns[s] = cos * xp.cos(turn) - sin * xp.sin(turn), sin * xp.cos(turn) + cos * xp.sin(turn)
    return xp.stack([columns[i] for i in range(len(columns))], axis=-1)


def _phi(v: np.ndarray, waves: np.ndarray, phase: np.ndarray) -> np.ndarray:
    return np.concatenate([v, (2.0 / len(phase)) ** 0.5 * np.cos(v @ waves.T + phase[None, :])], axis=1)


def _chosen(
    xs: list[np.ndarray], us: list[np.ndarray], fitted: Any, kept: np.ndarray, widths: Sequence[float], ridges: np.ndarray, places: Any
) -> tuple[float, float]:
    """The width and ridge whose free runs on the end of the series err least; one-step errors where trajectories are short."""
    held = Holdout.of(xs)
    ends, offset, inside = held.ends, 0, []
    for x, end in zip(xs, ends, strict=True):
        inside.append(offset + np.arange(max(0, end - 1)))
        offset += len(x) - 1
    rows = np.concatenate(inside)
    rows = rows[kept[rows]]
    if len(rows) < 2:
        return float(widths[0]), float(ridges[-1])
    steps = held.true.shape[1]
    drive = np.stack([us[i][row : row + steps] for i, row in held.starts])
    best = (np.inf, float(widths[0]), float(ridges[-1]))
    for wide in widths:
        for model, ridge in zip(fitted(wide, ridges, rows), ridges, strict=True):
            x, made = held.windows(1)[:, 0], np.empty_like(held.true)
            with np.errstate(all="ignore"):
                for t in range(steps):
                    v = (np.concatenate([x, drive[:, t]], axis=1) - model.centre) / model.size
                    x = _moved(np, x, _phi(v, model.waves, model.phase) @ model.W + model.b, *places)
                    x = np.clip(x, model.low, model.high)
                    made[:, t] = x
            error = float(held.error(made))
            best = min(best, (error, float(wide), float(ridge)))
    return best[1], best[2]


def _check(who: str, xs: list[np.ndarray], us: list[np.ndarray]) -> None:
    columns = {x.shape[1] if x.ndim == 2 else -1 for x in xs}
    if len(columns) != 1 or -1 in columns or 0 in columns or not xs:
        raise InvalidValue(f"{who}: needs trajectories [(T, N), ...] of the same columns, got shapes {[x.shape for x in xs][:5]}.")
    if max(len(x) for x in xs) < 2:
        raise InvalidValue(f"{who}: needs a trajectory of at least 2 points, the longest has {max(len(x) for x in xs)}.")
    if len(us) != len(xs) or any(u.ndim != 2 or len(u) < len(x) - 1 for u, x in zip(us, xs, strict=True)):
        raise InvalidValue(f"{who}: inputs must be one array (T_i, K) a trajectory, got {[u.shape for u in us][:5]}.")
    if not all(np.isfinite(a).all() for a in (*xs, *us)):
        raise InvalidValue(f"{who}: the series or its inputs hold NaN or inf. Fill or drop these points first.")


def _limits(who: str, xs: list[np.ndarray], low: Any, high: Any, bound: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Where runs are kept (low, high), and the bounds that are known."""
    if not 0 < bound < np.inf:
        raise InvalidValue(
            f"{who}: bound must be positive and finite, got bound={bound}: how many ranges of the data a run may leave them by."
        )
    n, whole = xs[0].shape[1], np.concatenate(xs)
    known_low = np.broadcast_to(np.asarray(-np.inf if low is None else low, float), (n,))
    known_high = np.broadcast_to(np.asarray(np.inf if high is None else high, float), (n,))
    margin = bound * np.where(np.ptp(whole, axis=0) > 0, np.ptp(whole, axis=0), 1.0)
    lowest, highest = np.maximum(whole.min(axis=0) - margin, known_low), np.minimum(whole.max(axis=0) + margin, known_high)
    if not np.all(known_low < known_high):
        raise InvalidValue(f"{who}: low must be below high, got {known_low.tolist()} and {known_high.tolist()}.")
    return lowest, highest, known_low, known_high

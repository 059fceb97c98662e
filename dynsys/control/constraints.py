"""Linear constraints of a predicted trajectory: on inputs, on their changes, on what is observed, and on its end.

    D u[t] <= d,   W (u[t] - u[t-1]) <= w      for t = 0, ..., T-1
    G x[t] <= g                                for t = 1, ..., T      (x[0] is there already, so nothing can be asked of it)
    E x[T] <= e

Every finite limit of a box is a row, so all arrays are finite. A row of G with a price may be broken, at that price a unit and step;
a price above the row's multiplier changes nothing where the constraint can be kept (exact penalty; Kerrigan & Maciejowski, UKACC 2000).
"""

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Float

from dynsys.errors import InvalidValue


@dataclass(frozen=True)
class Breach:
    """A constraint that a prediction breaks: its name, the steps from now, and by how much at most."""

    name: str
    steps: tuple[int, ...]
    amount: float

    def __str__(self) -> str:
        first, last = self.steps[0], self.steps[-1]
        when = f"step {first}" if first == last else f"steps {first} to {last}"
        return f"{self.name} is broken by {self.amount:.3g} at {when}"


class Constraints(eqx.Module):
    """Rows and bounds; `price` (R,) of the rows of G: 0 marks a hard one."""

    D: Float[Any, "P K"]
    d: Float[Any, " P"]
    W: Float[Any, "S K"]
    w: Float[Any, " S"]
    G: Float[Any, "R N"]
    g: Float[Any, " R"]
    price: Float[Any, " R"]
    E: Float[Any, "V N"]
    e: Float[Any, " V"]

    @classmethod
    def of(
        cls,
        n_obs: int,
        n_inputs: int,
        *,
        low: Any = None,
        high: Any = None,
        rate: Any = None,
        x_low: Any = None,
        x_high: Any = None,
        G: Any = None,
        g: Any = None,
        soft: Any = None,
        end_low: Any = None,
        end_high: Any = None,
    ) -> "Constraints":
        """low, high: of inputs; rate: the most that an input changes in a step; x_low, x_high, and G x <= g: of observations; end_low,
        end_high: of the last one. Numbers or arrays; an infinite limit is none.

        soft: the price of breaking a limit of observations, one number, or one for each finite limit of x_high, then of x_low, then for
        each row of G; None: hard.
        Raises InvalidValue for shapes that do not fit, NaN, a low above its high, a rate below 0, or a price that is not positive.
        """
        D, d = _box("Constraints", "low", low, "high", high, n_inputs)
        change = None if rate is None else np.asarray(rate, float)
        if change is not None and np.any(change < 0):
            raise InvalidValue(f"Constraints: rate must be at least 0, got {rate}: the most that an input changes in one step.")
        W, w = _box("Constraints", "rate", None if change is None else -change, "rate", change, n_inputs)
        rows, bounds = _box("Constraints", "x_low", x_low, "x_high", x_high, n_obs)
        if (G is None) != (g is None):
            raise InvalidValue("Constraints: G and g come together: G x <= g.")
        if G is not None:
            G, g = np.atleast_2d(np.asarray(G, float)), np.atleast_1d(np.asarray(g, float))
            if G.shape != (len(g), n_obs) or not (np.isfinite(G).all() and np.isfinite(g).all()):
                raise InvalidValue(f"Constraints: G must be finite (R, {n_obs}) and g (R,), got {G.shape} and {g.shape}.")
            rows, bounds = np.concatenate([rows, G]), np.concatenate([bounds, g])
        try:
            price = np.zeros(len(rows)) if soft is None else np.array(np.broadcast_to(np.asarray(soft, float), (len(rows),)))
        except ValueError:
            raise InvalidValue(f"Constraints: soft must be one price or one for each of {len(rows)} rows, got {soft!r}.") from None
        if soft is not None and not (np.all(price > 0) and np.isfinite(price).all()):
            raise InvalidValue(f"Constraints: soft must be positive and finite, got {soft!r}: the price of a unit of breach in one step.")
        return cls(D, d, W, w, rows, bounds, price, *_box("Constraints", "end_low", end_low, "end_high", end_high, n_obs))  # pyright: ignore[reportCallIssue]

    def clipped(self, u: Float[np.ndarray, " K"]) -> Float[np.ndarray, " K"]:
        """u inside the limits of single inputs: a solver keeps them up to its tolerance, a motor may not."""
        u = np.array(u)
        for row, bound in zip(np.asarray(self.D), np.asarray(self.d), strict=True):
            (at,) = np.nonzero(row)
            if len(at) == 1:
                i, limit = at[0], bound / row[at[0]]
                u[i] = min(u[i], limit) if row[i] > 0 else max(u[i], limit)
        return u

    def names(self) -> tuple[tuple[str, ...], ...]:
        """The rows in words, for inputs, changes, observations and the end."""
        groups = ((self.D, self.d, "u", ""), (self.W, self.w, "du", ""), (self.G, self.g, "x", ""), (self.E, self.e, "x", " at the end"))
        return tuple(
            tuple(_words(row, bound, letter) + tail for row, bound in zip(np.asarray(A), np.asarray(b), strict=True))
            for A, b, letter, tail in groups
        )


def _box(who: str, low_name: str, low: Any, high_name: str, high: Any, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The finite limits as rows, upper ones first."""
    try:
        a = np.broadcast_to(np.asarray(-np.inf if low is None else low, float), (size,))
        b = np.broadcast_to(np.asarray(np.inf if high is None else high, float), (size,))
    except ValueError:
        raise InvalidValue(f"{who}: {low_name} and {high_name} must be numbers or ({size},), got {low!r} and {high!r}.") from None
    if not np.all(a <= b):
        raise InvalidValue(f"{who}: {low_name} must not be above {high_name}, and neither NaN; got {a.tolist()} and {b.tolist()}.")
    eye = np.eye(size)
    upper, lower = np.isfinite(b), np.isfinite(a)
    return np.concatenate([eye[upper], -eye[lower]]), np.concatenate([b[upper], -a[lower]])


def _words(row: np.ndarray, bound: float, letter: str) -> str:
    """Such as 'x[0] <= 1' or 'x[0] + 0.5 x[1] <= 2'."""
    (at,) = np.nonzero(row)
    if len(at) == 1 and row[at[0]] < 0:
        return f"{letter}[{at[0]}] >= {bound / row[at[0]]:.4g}"
    text = ""
    for i in at:
        size = "" if abs(row[i]) == 1 else f"{abs(row[i]):.4g} "
        sign = (" - " if text else "-") if row[i] < 0 else (" + " if text else "")
        text += f"{sign}{size}{letter}[{i}]"
    return f"{text or '0'} <= {bound:.4g}"

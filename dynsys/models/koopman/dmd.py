"""Dynamic mode decomposition (DMD), with delays (Hankel DMD) and with control.

    w[t] = (x[t], ..., x[t-D+1]) - m,   y = Q^T w,    y[t+1] = A y[t] + b + B u[t],    x = m + (Q y)[:N]

With `centre` m is the mean and b is fitted: 1 then is the last component of the latent state, with eigenvalue 1. Without, m = b = 0.
Q holds the r leading right singular vectors of the rows w. Four estimators of A from the pairs (y, y'):

    exact              least squares. Projected and exact DMD have these eigenvalues.
    total              total least squares: noise is in y as much as in y', and least squares then damps every mode
    forward-backward   (A_f A_b^-1)^1/2 of the maps forwards and backwards, whose biases cancel
    control            least squares on (y, u), for series with inputs

The rows are reduced to their triangular factor block by block, so files may be larger than memory, and singular values keep all their
digits, which a Gram matrix would halve: Hankel matrices need them.
Sources: Schmid, J. Fluid Mech. 656, 5 (2010); exact: Tu et al., J. Comput. Dyn. 1, 391 (2014); total: Hemati, Rowley, Deem, Cattafesta,
Theor. Comput. Fluid Dyn. 31, 349 (2017); forward-backward: Dawson, Hemati, Williams, Rowley, Exp. Fluids 57, 42 (2016); control: Proctor,
Brunton, Kutz, SIADS 15, 142 (2016); delays: Arbabi & Mezic, SIADS 16, 2096 (2017).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import equinox as eqx
import numpy as np
from array_api_compat import array_namespace
from jaxtyping import Float

from dynsys.dynamics import AnyInput, AnyObservation
from dynsys.errors import InvalidValue
from dynsys.models.base import matvec
from dynsys.models.koopman.candidate import within_circle
from dynsys.models.koopman.data import Data
from dynsys.models.koopman.lifted import AbstractLinear, check_period
from dynsys.models.regressed import Holdout, Regressed, checked_options
from dynsys.models.ridge import BLOCK, svd

METHODS = ("exact", "total", "forward-backward")
RANKS = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 32, 40, 50, 64, 80, 100, 130, 160, 200)
NEGLIGIBLE = 1e-13  # of the largest singular value: rounding


class AbstractDMD(Regressed, AbstractLinear):
    """y = Q^T (w - m), then 1 if there is a constant b, which is the last column of A."""

    A: Float[Any, "L L"]
    B: Float[Any, "L K"]
    Q: Float[Any, "DN R"]
    mean: Float[Any, " N"]
    delays: int = eqx.field(static=True)
    reencode: int = eqx.field(static=True)

    driven: ClassVar[bool] = True

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
        """L = r, the rank, and 1 more for the constant."""
        return self.A.shape[-1]

    @property
    def matrix(self) -> Float[Any, "L L"]:
        """A."""
        return self.A

    def encode(self, w: Float[Any, " DN"]) -> Float[Any, " L"]:
        """Q^T (w - m), and 1."""
        xp = array_namespace(w)
        y = (w - (self.mean if self.delays == 1 else xp.concat([self.mean] * self.delays))) @ self.Q
        return y if self._rank == self.n_latent else xp.concat([y, xp.ones_like(y[:1])])

    @property
    def _rank(self) -> int:
        return self.Q.shape[-1]

    def decode(self, y: Float[Any, " L"]) -> AnyObservation:
        """The newest point of m + Q y."""
        return self.mean + matvec(self.Q[: self.n_obs], y[: self._rank])

    def advance(self, y: Float[Any, " L"], u: AnyInput = None) -> Float[Any, " L"]:
        """A y + B u."""
        after = matvec(self.A, y)
        return after if u is None or self.n_inputs == 0 else after + matvec(self.B, u)

    @classmethod
    def _fit(
        cls,
        series: Sequence[Any],
        inputs: Sequence[Any] | None,
        grid: Sequence[int],
        rank: int | None,
        method: str,
        ridge: float,
        centre: bool,
        stable: bool,
        reencode: int,
    ) -> Any:
        who = cls.__name__
        checked_options(who, least={"rank": 1}, rank=rank, ridge=ridge)
        check_period(who, reencode)
        if method not in METHODS:
            raise InvalidValue(f"{who}: method must be one of {', '.join(METHODS)}, got {method!r}.")
        if method == "total" and ridge:
            raise InvalidValue(f"{who}: method='total' has no ridge, got ridge={ridge}. Leave it out, or set a lower rank.")
        if inputs is not None and method != "exact":
            raise InvalidValue(f"{who}: inputs are fitted with method='exact' only, got {method!r}.")
        lengths = [x.shape[0] if hasattr(x, "shape") else len(x) for x in series]
        fitting = [d for d in grid if len(grid) == 1 or d <= max(lengths) // 4] or [min(grid)]
        scored = [_scored(who, series, inputs, d, rank, method, ridge, centre, reencode, alone=len(fitting) == 1) for d in fitting]
        _, delays, chosen = min(scored, key=lambda found: found[0])
        data = Data.of(who, series, inputs, delays, centre=centre, standardise=False)
        rows = Rows.of(data)
        if rank is not None and rank > rows.rank:
            raise InvalidValue(
                f"{who}: rank={rank}, but the data have only {rows.rank} independent directions in windows of {data.variables} numbers "
                f"({data.pairs} pairs). Leave rank out, or ask for at most {rows.rank}."
            )
        A, B, Q = rows.fit(chosen, method, ridge, constant=centre)
        return cls(A=within_circle(A) if stable else A, B=B, Q=Q, mean=data.mean, delays=delays, reencode=reencode)  # pyright: ignore[reportCallIssue]


class DMD(AbstractDMD):
    """Dynamic mode decomposition of the points themselves."""

    @classmethod
    def from_series(
        cls,
        series: Sequence[Any],
        *,
        rank: int | None = None,
        method: str = "exact",
        ridge: float = 0.0,
        centre: bool = True,
        stable: bool = False,
        reencode: int = 0,
        inputs: Sequence[Any] | None = None,
        key: Any = None,
    ) -> "DMD":
        """Fit to trajectories [(T_i, N), ...], with inputs [(T_i, K), ...] if the system is driven (DMD with control).

        rank: r; None: chosen by free runs on the end of the series. method: 'exact', 'total', 'forward-backward'. ridge: relative to the
        largest squared singular value. centre: m is the mean and there is a constant b, else both are 0. stable: eigenvalues beyond the
        unit circle are moved onto it.
        Raises InvalidValue for data or settings that can't be used.
        """
        return cls._fit(series, inputs, (1,), rank, method, ridge, centre, stable, reencode)


class HankelDMD(AbstractDMD):
    """Dynamic mode decomposition of windows of delays: the linear map sees derivatives, so a few observables of a large system do."""

    @classmethod
    def from_series(
        cls,
        series: Sequence[Any],
        *,
        delays: int | None = None,
        rank: int | None = None,
        method: str = "exact",
        ridge: float = 0.0,
        centre: bool = True,
        stable: bool = False,
        reencode: int = 0,
        inputs: Sequence[Any] | None = None,
        key: Any = None,
    ) -> "HankelDMD":
        """As DMD, of windows of `delays` points; None: of 2, 5, 10, 20, 50 and 100 those whose free runs err least."""
        checked_options(cls.__name__, least={"delays": 1}, delays=delays)
        columns = np.shape(series[0])[1] if len(series) and len(np.shape(series[0])) == 2 else 1
        grid = tuple(d for d in (2, 5, 10, 20, 50, 100) if d * columns <= 400) or (2,)
        return cls._fit(series, inputs, grid if delays is None else (delays,), rank, method, ridge, centre, stable, reencode)


@dataclass(frozen=True)
class Rows:
    """Rows (w, 1, u, w') with the products of those of the data: their triangular factor, and the SVD of the first part."""

    X: Float[np.ndarray, "q V"]
    one: Float[np.ndarray, "q 1"]
    U: Float[np.ndarray, "q K"]
    Y: Float[np.ndarray, "q V"]
    s: Float[np.ndarray, " p"]
    Qt: Float[np.ndarray, "p V"]

    @classmethod
    def of(cls, data: Data) -> "Rows":
        """Factorised block by block; as they are where there are fewer of them than columns."""
        R, v, k = None, data.variables, data.n_inputs
        for stretch in data.runs(max(BLOCK, 4 * v)):
            before, after = stretch.pairs(stretch.v)
            ones = np.ones((len(before), 1))
            new = np.concatenate([before, ones, after] if stretch.u is None else [before, ones, stretch.u, after], axis=1)
            R = new if R is None else np.concatenate([R, new])
            if len(R) > R.shape[1]:
                R = np.asarray(np.linalg.qr(R, mode="r"))
        R = np.zeros((0, 2 * v + k + 1)) if R is None else R
        _, s, Qt = svd(R[:, :v])
        return cls(R[:, :v], R[:, v : v + 1], R[:, v + 1 : v + k + 1], R[:, v + k + 1 :], s, Qt)

    @property
    def rank(self) -> int:
        """The directions that are there beyond rounding; 1 for a constant series."""
        return max(1, int(np.sum(self.s > NEGLIGIBLE * self.s[0]))) if self.s.size else 1

    def fit(self, rank: int, method: str, ridge: float, *, constant: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A (L, L), B (L, K) and Q (V, r); L = r + 1 with a constant, which costs no penalty."""
        Q = self.Qt[:rank].T
        X, Y = self.X @ Q, self.Y @ Q
        if not constant:
            return (*self._linear(X, self.U, Y, rank, method, ridge), Q)
        means = [self.one.T @ rows / (self.one.T @ self.one) for rows in (X, self.U, Y)]
        X, U, Y = (rows - self.one @ mean for rows, mean in zip((X, self.U, Y), means, strict=True))
        A, B = self._linear(X, U, Y, rank, method, ridge)
        x, u, y = (mean[0] for mean in means)
        b = y - A @ x - B @ u
        bottom = np.append(np.zeros(rank), 1.0)
        return np.concatenate([np.column_stack([A, b]), bottom[None]]), np.concatenate([B, np.zeros((1, len(u)))]), Q

    def _linear(self, X: np.ndarray, U: np.ndarray, Y: np.ndarray, rank: int, method: str, ridge: float) -> tuple[np.ndarray, np.ndarray]:
        """A (r, r) and B (r, K)."""
        if method == "total":
            _, s, Vt = svd(np.concatenate([X, Y], axis=1))
            V = Vt[:rank][s[:rank] > NEGLIGIBLE * s[:1]].T
            A = np.linalg.lstsq(V[:rank].T, V[rank:].T, rcond=None)[0].T
        elif method == "forward-backward":
            A = _root(_solve(X, Y, ridge).T, _solve(Y, X, ridge).T)
        else:
            W = _solve(np.concatenate([X, U], axis=1), Y, ridge, U.shape[1])
            return W[:rank].T, W[rank:].T
        return A, np.zeros((rank, U.shape[1]))


def _solve(X: np.ndarray, Y: np.ndarray, ridge: float, inputs: int = 0) -> np.ndarray:
    """(X^T X + P)^-1 X^T Y with P = ridge s_1^2, s_1 of the states; the last columns, `inputs` of them, count by their own sizes.

    The columns are scaled to unit norm for the factorisation, so that small ones keep their digits; the penalty is not scaled with them.
    """
    size = np.sqrt((X**2).sum(axis=0))
    size = np.where(size > 0, size, 1.0)
    if ridge > 0:
        states = X[:, : X.shape[1] - inputs]
        largest = np.append(np.full(states.shape[1], np.linalg.norm(states, 2) if states.size else 0.0), size[states.shape[1] :])
        X, Y = np.concatenate([X, np.diag(ridge**0.5 * largest)]), np.concatenate([Y, np.zeros((len(size), Y.shape[1]))])
    P, s, Vt = svd(X / size[None, :])
    top = s[0] if s.size else 1.0
    gain = np.where(s > NEGLIGIBLE * top, 1.0 / np.where(s > 0, s, 1.0), 0.0)
    return (Vt.T @ (gain[:, None] * (P.T @ Y))) / size[:, None]


def _root(forward: np.ndarray, backward: np.ndarray) -> np.ndarray:
    """The square root of A_f A_b^-1 whose eigenvalues have the signs of those of A_f.

    Where two eigenvalues sum to about 0, as those of a quarter turn do, noise decides between the roots. The mean of A_f and A_b^-1, whose
    biases cancel too, stands in where the root lies farther from it than these two from each other.
    """
    inverse = np.linalg.pinv(backward)
    values, vectors = np.linalg.eig(forward @ inverse)
    roots = np.sqrt(values.astype(complex))
    near = np.diag(np.linalg.pinv(vectors) @ forward @ vectors)
    roots = np.where(np.real(np.conj(near) * roots) < 0, -roots, roots)
    root, mean = np.real((vectors * roots[None, :]) @ np.linalg.pinv(vectors)), (forward + inverse) / 2
    return root if np.linalg.norm(root - mean) <= np.linalg.norm(forward - inverse) + 1e-9 * np.linalg.norm(mean) else mean


def _scored(
    who: str,
    series: Sequence[Any],
    inputs: Any,
    delays: int,
    rank: int | None,
    method: str,
    ridge: float,
    centre: bool,
    reencode: int,
    *,
    alone: bool,
) -> tuple[float, int, int]:
    """(error of free runs on the end of the series, delays, rank), the best rank for these delays."""
    if alone and rank is not None:
        return 0.0, delays, rank
    data = Data.of(who, series, inputs, delays, centre=centre, standardise=False).tail()
    held = Holdout.of([np.asarray(x) for x in data.series])
    fitted = data.cut(held.ends)
    if fitted.pairs < 1:
        raise InvalidValue(
            f"{who}: trajectories of {max(len(x) for x in data.series)} points are too short to choose a rank on their ends; give rank."
        )
    rows = Rows.of(fitted)
    ranks = [r for r in (*RANKS, rows.rank) if r <= rows.rank] if rank is None else [min(rank, rows.rank)]
    ranks = sorted(set(ranks), reverse=True)
    errors = [float(held.error(_run(data, held, *rows.fit(r, method, ridge, constant=centre), reencode))) for r in ranks]
    best = int(np.argmin(np.round(errors, 12)))  # of equal errors the largest rank
    return errors[best], delays, ranks[best]


def _run(data: Data, held: Holdout, A: np.ndarray, B: np.ndarray, Q: np.ndarray, reencode: int) -> Float[np.ndarray, "S H N"]:
    """Free runs from all starts."""
    steps, n = held.true.shape[1], len(data.mean)
    w = held.windows(data.delays)[:, ::-1].reshape(len(held.starts), -1)  # newest point first

    def encoded(w: np.ndarray) -> np.ndarray:
        return np.concatenate([data.standard(w) @ Q, np.ones((len(w), len(A) - Q.shape[1]))], axis=1)

    def decoded(y: np.ndarray) -> np.ndarray:
        return data.mean[None, :] + y[:, : Q.shape[1]] @ Q[:n].T

    y = encoded(w)
    made = np.empty_like(held.true)
    us = None if data.inputs is None else np.stack([np.asarray(data.inputs[i][row : row + steps], float) for i, row in held.starts])
    with np.errstate(all="ignore"):
        for t in range(steps):
            y = y @ A.T if us is None else y @ A.T + us[:, t] @ B.T
            if reencode:
                w = np.concatenate([decoded(y), w[:, :-n]], axis=1)
                y = encoded(w) if (t + 1) % reencode == 0 else y
            made[:, t] = decoded(y)
    return made

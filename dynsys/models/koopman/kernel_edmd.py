"""Kernel EDMD: extended dynamic mode decomposition on all functions that a kernel has, by regression of rank r.

    psi(v)   orthonormal functions that span k(z, .) of the landmarks z (`kernels`),   C = <psi psi^T>,   T = <psi(v) psi(v')^T>
    reduced-rank    W = (C + g)^-1/2 times the r leading left singular vectors of (C + g)^-1/2 T
    principal       W = the r leading eigenvectors of C, each divided by (its eigenvalue + g)^1/2
    c = W^T psi(v) = U^T k(Z, v),    c[t+1] = M c[t],  M = W^T T^T W,    s[t+1] = B c[t],  B = <s' psi^T> W

v is the standardised window, s its newest point, v' and s' those one step later, <> the mean over pairs, g = ridge <k(v, v)>. The latent
state is y = (c, s): s makes decoding exact, x = mean + scale s, and adds N eigenvalues 0 to those of M. After n steps s is B M^(n-1) c,
the prediction of the estimator itself. With K the kernel matrix of n points, g stands for (K + n g I): for kernels with k(v, v) = 1,
that is for all but the polynomial one, the ridge is what others call the Tikhonov or alpha parameter.

Up to FULL windows, all are candidates for landmarks and none is left out unless the others explain it to rounding: the estimator is then
that of the whole kernel matrix. Beyond, landmarks are chosen among some and all moments are summed block by block (Nystrom).
Sources: Kostic, Novelli, Maurer, Ciliberto, Rosasco, Pontil, NeurIPS 2022, secs. 3 and 4; landmarks: Meanti, Chatalic, Kostic, Novelli,
Pontil, Rosasco, NeurIPS 2023; sketch: Halko, Martinsson, Tropp, SIAM Rev. 53, 217 (2011);
Musco & Musco, NeurIPS 2015, algorithm 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import numpy as np
from array_api_compat import array_namespace
from jaxtyping import Float

from dynsys.dynamics import AnyInput, AnyObservation
from dynsys.errors import InvalidValue, did_you_mean
from dynsys.models.arrays import zeros
from dynsys.models.base import matvec
from dynsys.models.koopman.data import Data
from dynsys.models.koopman.kernels import Landmarks, kernel_of
from dynsys.models.koopman.lifted import AbstractLinear, check_period, windows
from dynsys.models.koopman.moments import Moments, lifted_runs
from dynsys.models.regressed import Holdout, Regressed, checked_options, generator
from dynsys.models.ridge import svd

METHODS = ("reduced-rank", "principal")
FULL = 5001  # windows, of 5,000 pairs, up to which all may become landmarks
CENTRES = 1000  # landmarks of longer series
SPARE = 3  # candidates for each landmark of a longer series
SKETCHED = 1500  # landmarks beyond which leading directions are found by a sketch
WIDTHS = (0.25, 0.5, 1.0, 2.0)  # times the median distance of two windows
RIDGES = 10.0 ** np.arange(-11, -3, 2)
RANKS = (5, 20, 60, 200)
TRIED = 300  # landmarks with which settings are tried
TRIED_ROWS = 5000  # at the end of the series
STEADY = 1e-7  # the rounding of a latent component up to which a rank that is chosen may go
RESOLVED = 1e-12  # a mean square below this share of the largest is rounding
OVERSAMPLED, BLOCKS, SWEEPS, SETTLED = 10, 8, 200, 1e-10  # of the sketch: extra directions, and when it begins anew, gives up, and stops


class KernelEDMD(Regressed, AbstractLinear):
    """EDMD with the functions of a kernel, of reduced rank.

    y = (c, s) with c = U^T k(Z, v), and x = mean + scale s; linear in y, so a run with an eigenvalue beyond the unit circle grows.
    """

    Z: Float[Any, "C V"]
    U: Float[Any, "C r"]
    M: Float[Any, "r r"]
    B: Float[Any, "N r"]
    mean: Float[Any, " N"]
    scale: Float[Any, " N"]
    low: Float[Any, " N"]
    high: Float[Any, " N"]
    kernel: str = eqx.field(static=True)
    width: float = eqx.field(static=True)
    degree: int = eqx.field(static=True)
    offset: float = eqx.field(static=True)
    delays: int = eqx.field(static=True)
    reencode: int = eqx.field(static=True)

    def __check_init__(self):
        kernel_of(self.kernel, self.width, self.degree, self.offset)
        if self.Z.shape[-1] != self.delays * self.mean.shape[-1]:
            raise InvalidValue(f"KernelEDMD: landmarks {self.Z.shape} don't fit delays={self.delays} of {self.mean.shape[-1]} columns.")

    @classmethod
    def from_series(
        cls,
        series: Sequence[Any],
        *,
        kernel: str = "gaussian",
        width: float | None = None,
        degree: int = 3,
        offset: float = 1.0,
        rank: int | None = None,
        ridge: float | None = None,
        method: str = "reduced-rank",
        centres: int | None = None,
        sketch: bool | None = None,
        delays: int = 1,
        reencode: int = 0,
        bound: float = 10.0,
        key: Any = None,
    ) -> "KernelEDMD":
        """Fit to trajectories [(T_i, N), ...].

        kernel: a name in `kernels.KERNELS`, with its width in standard deviations (radial kernels) or degree and offset ('polynomial').
        rank: r. ridge: relative to the mean of k(v, v); see the module. What of width, rank and ridge is None is chosen by free runs on
        the end of the series. method: 'reduced-rank' or 'principal'. centres: most landmarks; None: all up to 5,000 pairs, 1,000 beyond.
        sketch: whether leading directions are found by random projection; None: with more than 1,500 landmarks. delays: D. reencode:
        steps between two encodings in a run, 0: none; bound: how many ranges of the data a point may then leave them by. key: of the
        sketch, and of the candidates for landmarks in a long series.

        Raises InvalidValue for settings or data that can't be used: a rank above the number of pairs or of directions that the kernel
        has on these data, a ridge too small for a kernel matrix without full rank.
        """
        who = cls.__name__
        checked_options(
            who, least={"rank": 1, "delays": 1, "centres": 1, "degree": 1}, rank=rank, delays=delays, centres=centres, degree=degree
        )
        checked_options(who, ridge=ridge, width=width, offset=offset)
        check_period(who, reencode)
        if method not in METHODS:
            raise InvalidValue(f"{who}: method must be one of {', '.join(METHODS)}, got {method!r}.{did_you_mean(str(method), METHODS)}")
        if width is not None and kernel == "polynomial":
            raise InvalidValue(f"{who}: the polynomial kernel has no width, got width={width}; set its degree and offset.")
        kernel_of(kernel, 1.0 if width is None else width, degree, offset)
        data, rng = Data.of(who, series, None, delays), generator(key)
        if rank is not None and rank > data.pairs:
            raise InvalidValue(
                f"{who}: rank={rank} needs at least as many pairs of points, got {data.pairs}. Lower the rank or give more points."
            )
        width_, ridge_, rank_ = _chosen(who, data, (kernel, width, degree, offset), rank, ridge, method, reencode, bound, rng)
        every = _n_windows(data)
        most = centres or (every if every <= FULL else CENTRES)
        candidates = _candidates(data, every if every <= max(FULL, most) else max(most, min(FULL, SPARE * most)), rng)
        landmarks = Landmarks.among(kernel_of(kernel, width_, degree, offset), candidates, most)
        statistics, size = Statistics.of(landmarks, data), len(landmarks.Z)
        kept, sketch = rank or min(rank_, size), size > SKETCHED if sketch is None else sketch
        W = statistics.directions(who, ridge_, kept, method, sketch, rng)
        U, M, B = statistics.operator(W)
        if rank is None:
            r = _steady(U, statistics.power)
            U, M, B = U[:, :r], M[:r, :r], B[:, :r]
        low, high = data.box(bound)
        return cls(
            Z=landmarks.Z,
            U=U,
            M=M,
            B=B,
            mean=data.mean,
            scale=data.scale,
            low=low,
            high=high,
            kernel=kernel,
            width=width_,
            degree=degree,
            offset=float(offset),
            delays=delays,
            reencode=int(reencode),
        )  # pyright: ignore[reportCallIssue]

    @property
    def n_obs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """N, the number of observed components."""
        return self.B.shape[-2]

    @property
    def n_inputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """0: it is autonomous."""
        return 0

    @property
    def n_latent(self) -> int:
        """L = r + N."""
        return self.B.shape[-1] + self.B.shape[-2]

    @property
    def matrix(self) -> Float[Any, "L L"]:
        """[[M, 0], [B, 0]]: the eigenvalues of M, and N times 0."""
        xp = array_namespace(self.M)
        left = xp.concat([self.M, self.B], axis=0)
        return xp.concat([left, xp.reshape(zeros(self.n_latent * self.n_obs, like=left), (-1, self.n_obs))], axis=1)

    def encode(self, w: Float[Any, " V"]) -> Float[Any, " L"]:
        """(U^T k(Z, v), s) of a window, (D N,) -> (L,)."""
        xp, D = array_namespace(w), self.delays
        mean, scale = (a if D == 1 else xp.concat([a] * D) for a in (self.mean, self.scale))
        v = (w - mean) / scale
        return xp.concat([kernel_of(self.kernel, self.width, self.degree, self.offset)(v, self.Z) @ self.U, v[: self.n_obs]])

    def decode(self, y: Float[Any, " L"]) -> AnyObservation:
        """The newest point, (L,) -> (N,)."""
        return self.mean + self.scale * y[-self.n_obs :]

    def advance(self, y: Float[Any, " L"], u: AnyInput = None) -> Float[Any, " L"]:
        """(M c, B c)."""
        c = y[: -self.n_obs]
        return array_namespace(y).concat([matvec(self.M, c), matvec(self.B, c)])

    def bounded(self, x: AnyObservation) -> AnyObservation:
        """x inside the box [low, high]."""
        xp = array_namespace(x)
        return xp.minimum(xp.maximum(x, self.low), self.high)


@dataclass(frozen=True)
class Statistics:
    """Moments of the landmarks' functions: C (named G), T, <psi s'^T> (named X), and <k(v, v)>."""

    landmarks: Landmarks
    G: Float[np.ndarray, "C C"]
    T: Float[np.ndarray, "C C"]
    X: Float[np.ndarray, "C N"]
    power: float

    @classmethod
    def of(cls, landmarks: Landmarks, data: Data) -> "Statistics":
        """Of all pairs, block by block."""
        size, n = len(landmarks.Z), len(data.mean)

        def lift(w: np.ndarray) -> np.ndarray:
            v = data.standard(w)
            return np.concatenate([landmarks(v), v[:, :n], np.sqrt(landmarks.kernel.power(v))[:, None]], axis=1)

        found = Moments.of(lifted_runs(lift, data.series, data.delays))
        return cls(landmarks, found.G[:size, :size], found.A[:size, :size], found.A[:size, size : size + n], float(found.G[-1, -1]))

    def directions(
        self, who: str, ridge: float, rank: int, method: str, sketch: bool, rng: np.random.Generator
    ) -> Float[np.ndarray, "C r"]:
        """W. Raises InvalidValue if there are fewer directions than the rank, or some that rounding decides."""
        from scipy.linalg import cholesky, eigh, solve_triangular

        size, g = len(self.G), ridge * self.power
        if rank > size:
            raise InvalidValue(
                f"{who}: rank={rank}, but the kernel matrix of these data has {size} directions (all others are combinations of them to "
                "rounding, or centres is too small). Lower the rank, raise the degree, or narrow the width."
            )
        if ridge < RESOLVED:
            values = np.linalg.eigvalsh(self.G)
            count = int((values > RESOLVED * values[-1]).sum())
            if count < (size if method == "reduced-rank" else rank):
                raise InvalidValue(
                    f"{who}: with ridge={ridge:g}, directions that are mere rounding would be fitted: of the {size} that the kernel matrix "
                    f"has, only {count} are numerically there. Set ridge=1e-10 or larger, or method='principal' with a rank up to {count}."
                )
        if method == "principal":
            values, vectors = eigh(self.G, subset_by_index=[size - rank, size - 1])
            return vectors[:, ::-1] / np.sqrt(np.maximum(values[::-1], 0.0) + g)[None, :]
        L = cholesky(self.G + g * np.eye(size), lower=True)
        return solve_triangular(L.T, leading(solve_triangular(L, self.T, lower=True), rank, sketch, rng))

    def operator(self, W: Float[np.ndarray, "C r"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """U (C, r), M (r, r) and B (N, r); those of fewer leading directions are their leading parts."""
        return self.landmarks.coefficients(W), W.T @ self.T.T @ W, self.X.T @ W


def leading(A: Float[np.ndarray, "m n"], rank: int, sketch: bool, rng: np.random.Generator) -> Float[np.ndarray, "m r"]:
    """The leading left singular vectors, (m, n) -> (m, r); by a sketch A Q of random directions Q, multiplied by A A^T again and again.

    All products span the basis in which the vectors are looked for; it begins anew from the best ones when it has BLOCKS blocks, and ends
    when A A^T p = s^2 p holds to SETTLED.
    """
    from scipy.linalg import eigh

    wide = rank + OVERSAMPLED
    if not sketch or BLOCKS * wide >= len(A):
        return eigh(A @ A.T, subset_by_index=[len(A) - rank, len(A) - 1])[1][:, ::-1]
    basis, found = np.linalg.qr(A @ rng.normal(size=(A.shape[1], wide)))[0], np.zeros((len(A), rank))
    behind = basis.T @ A
    for _ in range(SWEEPS):
        left, s, _ = svd(behind)
        best = basis @ left[:, :wide]
        found, square = best[:, :rank], s[:rank] ** 2
        new = A @ (left[:, :wide].T @ behind).T
        if np.linalg.norm(new[:, :rank] - found * square[None, :], axis=0).max() <= SETTLED * square[0]:
            break
        if basis.shape[1] >= BLOCKS * wide:
            basis, behind = best, left[:, :wide].T @ behind
        for _ in range(2):  # once leaves parts of the size of the rounding
            new = np.linalg.qr(new - basis @ (basis.T @ new))[0]
        basis, behind = np.concatenate([basis, new], axis=1), np.concatenate([behind, new.T @ A])
    return found


def _n_windows(data: Data) -> int:
    return sum(max(0, x.shape[0] - data.delays + 1) for x in data.series)


def _candidates(data: Data, most: int, rng: np.random.Generator) -> Float[np.ndarray, "R V"]:
    """All windows, if they are at most `most`, else so many at random from stretches all over the series."""
    if _n_windows(data) <= most:
        long = [np.asarray(x[:], float) for x in data.series if x.shape[0] >= data.delays]
        return np.concatenate([data.standard(windows(x, data.delays)) for x in long])
    rows = data.sample()
    return rows[np.sort(rng.permutation(len(rows))[:most])]


def _chosen(
    who: str,
    data: Data,
    kernel: tuple[str, float | None, int, float],
    rank: int | None,
    ridge: float | None,
    method: str,
    reencode: int,
    bound: float,
    rng: np.random.Generator,
) -> tuple[float, float, int]:
    """The width, ridge and rank whose free runs on the end of the series err least."""
    name, width, degree, offset = kernel
    width = 1.0 if name == "polynomial" else width
    if width is not None and ridge is not None and rank is not None:
        return float(width), float(ridge), rank
    tail = data.tail(TRIED_ROWS)
    held = Holdout.of([np.asarray(x) for x in tail.series])
    fitted = tail.cut(held.ends)
    if fitted.pairs == 0:
        raise InvalidValue(
            f"{who}: too few points to choose settings with delays={data.delays}. Set width, rank and ridge, or fewer delays."
        )
    rows = _candidates(fitted, 5 * TRIED, rng)
    widths = tuple(_apart(rows) * share for share in WIDTHS) if width is None else (float(width),)
    best: tuple[float, Any] = (np.inf, None)
    for w in widths:
        landmarks = Landmarks.among(kernel_of(name, w, degree, offset), rows, TRIED)
        statistics, size = Statistics.of(landmarks, fitted), len(landmarks.Z)
        most = min(size, fitted.pairs, max(RANKS) if rank is None else rank)
        for g in RIDGES if ridge is None else (float(ridge),):
            try:
                U, M, B = statistics.operator(statistics.directions(who, float(g), most, method, False, rng))
            except InvalidValue:
                if ridge is not None and width is not None:
                    raise
                continue
            steady = _steady(U, statistics.power)
            for r in (most,) if rank is not None else sorted({min(r, most, steady) for r in RANKS}):
                made = _runs(landmarks, (U[:, :r], M[:r, :r], B[:, :r]), tail, held, reencode, data.box(bound))
                error = float(held.error(made))
                if error < best[0] - 1e-12:
                    best = error, (w, float(g), r if rank is None else rank)
    if best[1] is None:
        raise InvalidValue(f"{who}: no setting could be fitted. Set a ridge of at least 1e-10.")
    return best[1]


def _steady(U: Float[np.ndarray, "C r"], power: float) -> int:
    """How many leading components, at least one, are sums whose terms do not cancel below STEADY."""
    rounding = np.finfo(float).eps * power * np.abs(U).sum(axis=0)
    return max(1, int(np.argmax(np.append(rounding, np.inf) > STEADY)))


def _apart(v: Float[np.ndarray, "R V"]) -> float:
    """The median distance of two windows; 1 if it is 0."""
    from scipy.spatial.distance import pdist

    found = float(np.median(pdist(v[:: max(1, len(v) // 500)])))
    return found if found > 0 else 1.0


def _runs(
    landmarks: Landmarks, operator: tuple[np.ndarray, np.ndarray, np.ndarray], data: Data, held: Holdout, reencode: int, box: Any
) -> Float[np.ndarray, "S H N"]:
    """Free runs from all starts at once, in the units of the data."""
    (U, M, B), n, steps = operator, len(data.mean), held.true.shape[1]
    w = held.windows(data.delays)[:, ::-1].reshape(len(held.starts), -1)  # newest point first
    c = landmarks.kernel.gram(data.standard(w), landmarks.Z) @ U
    made = np.empty((len(w), steps, n))
    with np.errstate(all="ignore"):
        for t in range(steps):
            made[:, t] = data.mean[None, :] + data.scale[None, :] * (c @ B.T)
            c = c @ M.T
            if reencode:
                w = np.concatenate([np.minimum(np.maximum(made[:, t], box[0]), box[1]), w[:, :-n]], axis=1)
                if (t + 1) % reencode == 0:
                    c = landmarks.kernel.gram(data.standard(w), landmarks.Z) @ U
    return made

"""D_stsp: how far the invariant measure of a free run is from that of the data, as a Kullback-Leibler divergence in nats.

    D = sum_i p_i ln(p_i / q_i)

p_i, q_i: smoothed shares of the visits of the true and of the made series in bin i (binned form), or the densities of two
Gaussian mixtures (for many dimensions). Time order plays no part. The binned form counts all k^N bins, with p_i =
(h_i + e) / (P + e K), K = k^N; since every bin that neither series visits has the same term, it is a sum over the visited
bins only:

    D = ln((Q + e K) / (P + e K)) + sum over visited i of (p_i' / (P + e K)) ln(p_i' / q_i'),   p_i' = h_i + e, q_i' = g_i + e

Sources: Koppe et al., PLoS Comput. Biol. 15 (2019) e1007263 (both forms); Brenner et al., ICML 2022; Hess et al., ICML 2023
(30 bins, pseudo-count 1e-5).
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, Real

from dynsys.analysis.arrays import check_series, check_true, namespace
from dynsys.errors import InvalidValue
from dynsys.precision import x64

MAX_BINNED = 5  # dimensions; from 6 on the pseudo-counts (1e-5 * 30^6 = 7,290) outweigh the data
_DENSE = 2**20  # up to so many bins a plain array of counts is faster than sorting


class VisitHistogram(eqx.Module):
    """The visits of a true series in a box of bins^N cells: make it once, then compare many free runs with it.

    low, high (N,): the box. cells (U,): codes of the visited bins, ascending; counts (U,): their visits; total: P.
    `divergence` works on NumPy arrays (nothing is compiled) and inside jit and vmap on JAX arrays.
    """

    low: Any
    high: Any
    cells: Any
    counts: Any
    total: int = eqx.field(static=True)
    bins: int = eqx.field(static=True)
    smoothing: float = eqx.field(static=True)

    @classmethod
    def of(cls, true: Real[Any, "T N"], *, bins: int = 30, pad: float = 0.1, smoothing: float = 1e-5) -> "VisitHistogram":
        """Histogram of the true series; the box is its range widened by `pad` standard deviations at either end.

        Raises InvalidValue for bad settings, N >= 6, constant columns, or values that are not finite.
        """
        _check_settings(true, bins, pad, smoothing)
        data = np.asarray(true, dtype=float)
        margin = pad * data.std(axis=0)
        low, high = data.min(axis=0) - margin, data.max(axis=0) + margin
        cells, counts = np.unique(_codes(data, low, high, bins, np), return_counts=True)
        return cls(low, high, cells, counts, len(data), bins, smoothing)

    @property
    def n_cells(self) -> int:
        """K = bins^N, all bins of the box."""
        return self.bins ** len(self.low)

    def divergence(self, made: Real[Any, "..."]) -> Float[Any, ""] | float:
        """D_stsp of a free run (S, N), or of several runs pooled (B, S, N); see `state_space_divergence_binned`."""
        xp, points, codes = self._place(made)
        visits = (codes < self.n_cells).sum()
        at_true, only_sum = _dense(self, codes, xp) if self.n_cells <= _DENSE else _sparse(self, codes, xp)
        weight = xp.asarray(self.counts, dtype=float) + self.smoothing
        mass = self.total + self.smoothing * self.n_cells
        value = xp.log((visits + self.smoothing * self.n_cells) / mass)
        value = value + (weight * xp.log(weight / (at_true + self.smoothing))).sum() / mass + only_sum / mass
        dead = (visits == 0) | ~xp.isfinite(points).all()
        return xp.where(dead, self.worst(len(points)), xp.maximum(value, 0.0))[()]

    def each(self, runs: Real[Any, "B S N"]) -> Float[Any, " B"]:
        """D_stsp of every run by itself, (B, S, N) -> (B,): the largest shows a start that ends elsewhere."""
        if namespace(runs) is np:
            return np.array([float(self.divergence(run)) for run in np.asarray(runs)])
        return jax.vmap(self.divergence)(runs)

    def worst(self, n_points: int) -> Float[Any, ""] | float:
        """The largest value that `n_points` points can get: all of them in one bin that the true series never visits."""
        xp, e = namespace(self.counts), self.smoothing
        weight, mass = xp.asarray(self.counts, dtype=float) + e, self.total + e * self.n_cells
        return np.log((n_points + e * self.n_cells) / mass) + (weight * xp.log(weight / e)).sum() / mass

    def outside(self, made: Real[Any, "..."]) -> Float[Any, ""] | float:
        """Share of the made points that lie outside the box or are not finite, in [0, 1]."""
        return (self._place(made)[2] == self.n_cells).mean()

    def _place(self, made: Any) -> tuple[Any, Any, Any]:
        """The array library, the points (S, N) and their bins (S,)."""
        xp = namespace(made)
        if xp is jnp and self.n_cells >= 2**31 and jnp.asarray(0).dtype.itemsize < 8:
            raise InvalidValue(f"VisitHistogram: {self.n_cells:,} bins need 64-bit integers; call it within dynsys.precision.x64().")
        points = xp.asarray(made, dtype=float).reshape(-1, len(self.low))
        low, high = xp.asarray(self.low, dtype=float), xp.asarray(self.high, dtype=float)
        return xp, points, _codes(points, low, high, self.bins, xp)


def state_space_divergence_binned(
    true: Real[Any, "T N"], made: Real[Any, "..."], *, bins: int = 30, pad: float = 0.1, smoothing: float = 1e-5
) -> float:
    """KL(true || made) of visit histograms, in nats: 0 for equal histograms, larger is worse.

    The box is the range of `true` widened by `pad` standard deviations at either end of each dimension and cut into `bins`
    equal parts; shares are Laplace-smoothed, (h + smoothing) / (sum h + smoothing * bins^N), and all bins^N bins count.

    true (T, N); made (S, N), or several runs (B, S, N), which are pooled. Points of `made` outside the box are dropped, as in
    the literature: they lower its total, nothing more, so look at `fraction_outside` too. If `made` holds a value that is not
    finite, or no point of it lies in the box, the result is the worst that S points can get (all in one bin that `true` never
    visits; about 16.4 for the Lorenz attractor with 100,000 points).

    Memory: a few vectors of length T + S; never the dense histogram when it is large. JAX arrays on an accelerator are counted
    there. Raises InvalidValue for N >= 6, where the pseudo-counts outweigh the data, and for input that can't be compared.
    Source: Brenner et al., ICML 2022; Hess et al., ICML 2023 (30 bins, pseudo-count 1e-5).
    """
    _check_pair("state_space_divergence_binned", true, made)
    with x64():
        histogram = VisitHistogram.of(true, bins=bins, pad=pad, smoothing=smoothing)
        return float(histogram.divergence(made) if namespace(made) is np else _compiled_divergence(histogram, made))


@eqx.filter_jit
def _compiled_divergence(histogram: VisitHistogram, made: Real[Array, "..."]) -> Float[Any, ""] | float:
    """The same as one program of the accelerator."""
    return histogram.divergence(made)


def fraction_outside(true: Real[Any, "T N"], made: Real[Any, "..."], *, pad: float = 0.1) -> float:
    """Share of the points of `made` outside the range of `true` widened by `pad` standard deviations, or not finite; in [0, 1].

    The box is that of `state_space_divergence_binned`, for any N. true (T, N); made (S, N) or (B, S, N).
    """
    _check_pair("fraction_outside", true, made)
    check_true("fraction_outside", true)
    data, points = np.asarray(true, dtype=float), np.asarray(made, dtype=float).reshape(-1, np.shape(true)[1])
    margin = pad * data.std(axis=0)
    inside = (points >= data.min(axis=0) - margin) & (points <= data.max(axis=0) + margin)
    return float(1.0 - inside.all(axis=1).mean())


def principal_components(
    true: Real[Any, "T N"], made: Real[Any, "..."], n: int = 3
) -> tuple[Float[np.ndarray, "T n"], Float[np.ndarray, "..."]]:
    """Both series on the first n principal axes of `true` alone, centred at the mean of `true`: (T, n), (S, n).

    The way to a binned score when N >= 6. The axes are the leading eigenvectors of the covariance of `true`, each with its
    largest entry positive; `made` never changes them. Standardise both first if the columns have different units.
    made (S, N) or (B, S, N). Raises InvalidValue unless 1 <= n <= N.
    """
    _check_pair("principal_components", true, made)
    check_true("principal_components", true)
    data = np.asarray(true, dtype=float)
    if not 1 <= n <= data.shape[1]:
        raise InvalidValue(f"principal_components: n must be in [1, {data.shape[1]}], got n={n}.")
    centre = data.mean(axis=0)
    centred = data - centre
    axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :n]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(n)])
    with np.errstate(invalid="ignore", over="ignore"):
        return centred @ axes, (np.asarray(made, dtype=float) - centre) @ axes


def state_space_divergence_gmm(
    true: Real[Any, "T N"], made: Real[Any, "..."], *, scale: float = 1.0, samples: int = 1000, key: Array
) -> float:
    """KL(true || made) of two Gaussian mixtures, in nats, by Monte Carlo; for data of many dimensions.

    Every point is the centre of a Gaussian with covariance scale * I (scale = sigma^2, in squared units of the data: standardise
    first). `samples` points are drawn from the true mixture and ln(p / q) is averaged over them. The estimate scatters by
    sd(ln p/q) / sqrt(samples) and may fall slightly below 0.

    true (T, N); made (S, N), or several runs (B, S, N), which are pooled. Infinite if `made` holds a value that is not finite:
    this form has no finite worst value. Memory does not grow with T * samples: densities are summed in blocks of points.
    Raises InvalidValue for input that can't be compared. Source: Koppe et al. 2019; Brenner et al., ICML 2022.
    """
    _check_pair("state_space_divergence_gmm", true, made)
    check_true("state_space_divergence_gmm", true)
    if not scale > 0 or samples < 1:
        raise InvalidValue(f"state_space_divergence_gmm: needs scale > 0 and samples >= 1, got scale={scale}, samples={samples}.")
    with x64():
        centre = jnp.asarray(true, float).mean(axis=0)
        p = jnp.asarray(true, float) - centre[None, :]
        q = jnp.asarray(made, float).reshape(-1, p.shape[1]) - centre[None, :]
        if not bool(jnp.isfinite(q).all()):
            return float("inf")
        which, noise = jr.split(key)
        drawn = p[jr.randint(which, (samples,), 0, p.shape[0])]
        drawn = drawn + jnp.sqrt(scale) * jr.normal(noise, drawn.shape, p.dtype)
        return float((_log_density(drawn, p, scale) - _log_density(drawn, q, scale)).mean())


@jax.jit
def _log_density(x: Float[Array, "samples N"], centres: Float[Array, "S N"], scale: Real[Any, ""] | float) -> Float[Array, " samples"]:
    """ln of the mean of exp(-|x - c|^2 / (2 scale)) over the centres c; the constant of the Gaussians cancels in the ratio."""
    count, width = centres.shape[0], min(2048, centres.shape[0])
    blocks = -(-count // width)
    padded = jnp.pad(centres, ((0, blocks * width - count), (0, 0)))
    valid = (jnp.arange(blocks * width) < count).reshape(blocks, width)

    def add(carry: tuple[Array, Array], part: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        largest, total = carry
        points, real = part
        square = (x**2).sum(axis=1)[:, None] + (points**2).sum(axis=1)[None, :] - 2 * x @ points.T
        exponent = jnp.where(real[None, :], -square / (2 * scale), -jnp.inf)
        new = jnp.maximum(largest, exponent.max(axis=1))
        return (new, total * jnp.exp(largest - new) + jnp.exp(exponent - new[:, None]).sum(axis=1)), None

    start = (jnp.full(x.shape[0], jnp.finfo(x.dtype).min), jnp.zeros(x.shape[0], x.dtype))
    (largest, total), _ = jax.lax.scan(add, start, (padded.reshape(blocks, width, -1), valid))
    return largest + jnp.log(total) - jnp.log(count)


def _codes(points: Real[Any, "S N"], low: Real[Any, " N"], high: Real[Any, " N"], bins: int, xp: Any) -> Int[Any, " S"]:
    """The bin of every point as one whole number in [0, bins^N); bins^N itself for a point outside the box or not finite."""
    n_cells = bins ** len(low)
    dtype = xp.int32 if n_cells < 2**31 else xp.int64
    code = xp.zeros(len(points), dtype=dtype)
    inside = xp.ones(len(points), dtype=bool)
    for i in range(len(low)):  # column by column: no temporary array of shape (S, N)
        column = points[:, i]
        within = (column >= low[i]) & (column <= high[i])
        place = xp.where(within, (column - low[i]) / (high[i] - low[i]) * bins, 0.0)
        code = code * bins + xp.minimum(place.astype(dtype), bins - 1)
        inside = inside & within
    return xp.where(inside, code, n_cells)


def _dense(histogram: VisitHistogram, codes: Int[Any, " S"], xp: Any) -> tuple[Any, Any]:
    """Visits of the made series in the true series' bins, and the sum of e ln(e / (g + e)) over the other bins."""
    e, size = histogram.smoothing, histogram.n_cells
    if xp is np:
        counts = np.bincount(codes, minlength=size + 1)[:size]
    else:
        counts = jnp.zeros(size + 1, int).at[codes].add(1)[:size]
    at_true = counts[histogram.cells]
    return at_true, e * (xp.log(e / (counts + e)).sum() - xp.log(e / (at_true + e)).sum())


def _sparse(histogram: VisitHistogram, codes: Int[Any, " S"], xp: Any) -> tuple[Any, Any]:
    """The same without an array of all bins: sort the codes, count by binary search; each of g points carries 1 / g of its bin."""
    e = histogram.smoothing
    codes = xp.sort(codes)

    def visits(cells: Any) -> Any:
        return xp.searchsorted(codes, cells, side="right") - xp.searchsorted(codes, cells, side="left")

    at_true, own = visits(xp.asarray(histogram.cells)), visits(codes)
    all_bins = xp.where(codes < histogram.n_cells, xp.log(e / (own + e)) / own, 0.0).sum()
    return at_true, e * (all_bins - xp.log(e / (at_true + e)).sum())


def _check_settings(true: Any, bins: int, pad: float, smoothing: float) -> None:
    who = "state_space_divergence_binned"
    check_series(who, "true", true)
    total, n = np.shape(true)
    if n > MAX_BINNED:
        raise InvalidValue(
            f"{who}: got N={n} dimensions, wanted at most {MAX_BINNED}. Beyond that the pseudo-counts of the bins "
            f"({smoothing:g} * {bins}^{n} = {smoothing * float(bins) ** n:,.0f}) outweigh the {total:,} points: bad models score well. "
            "Use state_space_divergence_gmm, or the first three principal components: principal_components(true, made, n=3)."
        )
    if bins < 2 or not pad >= 0 or not smoothing > 0:
        raise InvalidValue(f"{who}: needs bins >= 2, pad >= 0 and smoothing > 0, got {bins=}, {pad=}, {smoothing=}.")
    if bins**n >= 2**62:
        raise InvalidValue(f"{who}: bins^N must be below 2^62, got {bins}^{n}. Use fewer bins.")
    check_true(who, true)


def _check_pair(who: str, true: Any, made: Any) -> None:
    check_series(who, "true", true)
    check_series(who, "made", made, batched=True)
    if np.shape(true)[-1] != np.shape(made)[-1]:
        raise InvalidValue(f"{who}: true has N={np.shape(true)[-1]} columns but made has {np.shape(made)[-1]}; both must observe the same.")

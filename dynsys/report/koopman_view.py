"""What the pictures of a Koopman spectrum show, as plain arrays, computed from a reconstruction and data that it is tested on.

    eigenpairs with residuals   dynsys.analysis.residual, on the data
    pseudospectrum              res(z) on a grid of the plane, in the leading directions of the latent functions
    eigenfunctions              on a plane of two observed variables; in points of the data where a plane makes no states (delays)
    spectral measure            of the first observed variable, from its series

The model sees prepared data (scaled, embedded), so residuals are those of functions of prepared states. Places are given in the
user's units, rates in the recording's unit of time, and modes in standard deviations of each column. What can't be computed is a note.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Complex, Float, Int
from scipy.spatial import KDTree

from dynsys.analysis.compression import Compression
from dynsys.analysis.koopman_spectrum import LIMIT, SPURIOUS, KoopmanSpectrum
from dynsys.analysis.pseudospectrum import pseudospectrum, unit_grid
from dynsys.analysis.residual import encoder, koopman_spectrum, latent_moments
from dynsys.analysis.spectral_measure import FourierKernel, SpectralMeasure, cosine, spectral_measure_of_series
from dynsys.errors import DynsysError, InvalidValue
from dynsys.models.koopman.lifted import AbstractLinear, windows
from dynsys.models.regressed import as_numpy
from dynsys.prepare.preparation import Preparation, Prepared
from dynsys.reconstruct import Reconstruction

LARGEST = 300  # latent functions beyond which there is no pseudospectrum
RANK = 60  # directions of the pseudospectrum
RESOLUTION = 61  # points of a side of its grid
COST = 8e9  # multiplications of a pass over the data: some seconds of a core
ROWS = 100_000  # of the data at most
SHOWN = 4  # eigenfunctions drawn
FLAT = 1e-2  # standard deviation of an eigenfunction of mean square 1 below which it is a constant
SIDE = 81  # points of a side of a plane of eigenfunctions
POINTS = 4000  # states drawn
LONG = 300  # points of a trajectory with a spectral measure
AWAY = 0.04  # of the width of a plane: farther from all data nothing is drawn
FEW = 30  # data on a plane that it needs
SLAB = 0.35  # standard deviations from the plane within which the data are drawn on it


@dataclasses.dataclass(frozen=True, eq=False)
class Levels:
    """res (n, n) at the points axis[j] + i axis[k], row k. floor: below is rounding. rank: directions kept of `size` functions."""

    axis: Float[np.ndarray, " n"]
    res: Float[np.ndarray, "n n"]
    floor: float
    rank: int
    size: int


@dataclasses.dataclass(frozen=True, eq=False)
class Functions:
    """Eigenfunctions `numbers` (k,) of the spectrum: on a line x (n,), on a plane y (m,) by x (n,), or in points (x[j], y[j]).

    values: (k, n), (k, m, n) or (k, n); NaN far from all data. near (p, 2): data on the plane, or of a line their x. Places are in the
    user's units.
    """

    kind: Literal["line", "plane", "points"]
    numbers: Int[np.ndarray, " k"]
    values: Complex[np.ndarray, "k *n"]
    x: Float[np.ndarray, " n"]
    y: Float[np.ndarray, " m"]
    columns: tuple[int, int]
    top: Float[np.ndarray, " k"]  # moduli that all but 2 % of the data are below
    lag: int = 0  # samples between x and y, which are then one column
    near: Float[np.ndarray, "p 2"] = dataclasses.field(default_factory=lambda: np.zeros((0, 2)))


@dataclasses.dataclass(frozen=True, eq=False)
class KoopmanView:
    """A spectrum with what else is drawn. columns: names of the N' prepared columns; of the first n_obs modes are drawn.

    data: what it was tested on, in words ("the test part"). modes are in the data's standard deviations of each column.
    """

    spectrum: KoopmanSpectrum
    limit: float
    model: str
    data: str
    columns: tuple[str, ...]
    n_obs: int
    units: str | None
    time_unit: str
    constant: Bool[np.ndarray, " S"]  # which eigenfunctions do not vary over the data
    functions: Functions | None = None
    levels: Levels | None = None
    measure: SpectralMeasure | None = None
    missing: tuple[tuple[str, str], ...] = ()  # (picture, why there is none)
    notes: tuple[str, ...] = ()


def koopman_view(
    found: Reconstruction,
    data: Prepared,
    *,
    words: str,
    steps: int = 1,
    limit: float = LIMIT,
    pictures: bool = True,
    plane: tuple[int, int] = (0, 1),
) -> KoopmanView:
    """The spectrum of a reconstruction's linear model on prepared data, and with `pictures` what they show.

    words: what the data are. steps, limit: as in `koopman_spectrum` and `KoopmanSpectrum.words`. plane: the two prepared columns of the
    eigenfunctions. Raises InvalidValue for another kind of model, irregular samples, too few points or bad settings.
    """
    model = found.model
    if not isinstance(model, AbstractLinear):
        raise InvalidValue(f"koopman_view: needs a linear Koopman model, such as edmd, got a {type(model).__name__}.")
    if data.gapped:
        raise InvalidValue("koopman_view: the samples are irregular, and eigenvalues belong to one interval. Give an even recording.")
    runs, notes = _excerpt(data, model.n_latent)
    spectrum = koopman_spectrum(model, runs, dt=data.dt, steps=steps)
    spectrum.trusts(limit)
    preparation = found.preparation
    units = found.units if isinstance(found.units, str) or found.units is None else ", ".join(found.units)
    about: dict[str, Any] = {
        "limit": limit,
        "model": type(model).__name__,
        "data": words,
        "columns": data.names,
        "n_obs": preparation.n_obs,
        "units": units,
        "time_unit": preparation.time_unit or "units of time",
    }
    w, psi = _sample(model, runs)
    about["constant"] = np.std(psi @ spectrum.vectors, axis=0) <= FLAT
    notes = (*notes, *_trivial(about["constant"], spectrum.trusts(limit)))
    deviations = np.std(np.concatenate([np.asarray(x[:ROWS], float) for x in runs]), axis=0)
    if spectrum.modes is not None:
        spectrum = dataclasses.replace(spectrum, modes=spectrum.modes / np.where(deviations > 0, deviations, 1.0)[None, :])
    view = KoopmanView(spectrum, **about, notes=notes)
    if not pictures:
        return view
    parts: dict[str, Any] = {}
    missing = []
    work: tuple[tuple[str, str, Callable[[], Any]], ...] = (
        ("eigenfunctions", "functions", lambda: _functions(model, preparation, view, w, psi, plane)),
        ("pseudospectrum", "levels", lambda: _levels(model, view, runs)),
        ("measure", "measure", lambda: _measure(runs)),
    )
    for name, field, make in work:
        try:
            parts[field] = make()
        except (DynsysError, ArithmeticError, ValueError, MemoryError) as error:  # a picture less is no failure
            missing.append((f"koopman_{name}", str(error)))
    return dataclasses.replace(view, **parts, missing=tuple(missing))


def leading(view: KoopmanView, most: int) -> Int[np.ndarray, " k"]:
    """Numbers of the trusted pairs that carry most of the observed variables, rising; constants left out, conjugates once.

    If none is trusted: of those that are not spurious.
    """
    found = view.spectrum
    once = ~view.constant & (np.imag(found.values) >= 0)
    good = once & found.trusts(view.limit)
    numbers = np.flatnonzero(good if good.any() else once & found.trusts(SPURIOUS * view.limit))
    if found.modes is None:
        return numbers[:most]
    size = np.sqrt(np.sum(np.abs(found.modes[numbers, : view.n_obs]) ** 2, axis=1))
    return np.sort(numbers[np.argsort(-size, kind="stable")[:most]])


def verdict(found: KoopmanSpectrum, i: int, limit: float) -> str:
    """One word for an eigenpair, that of its sentence in `KoopmanSpectrum.words`; 'not tested' without data."""
    residual, error = float(found.residuals[i]), float(found.errors[i])
    if not found.count:
        return "not tested"
    if np.isfinite(error) and abs(residual - limit) < 2 * error:
        return "undecided"
    if not np.isfinite(residual):
        return "no eigenfunction"
    if residual <= limit:
        return "trusted"
    return "spurious" if residual > SPURIOUS * limit else "doubtful"


def rows_of(found: KoopmanSpectrum) -> Int[np.ndarray, " R"]:
    """Eigenpairs by number, conjugates once."""
    return np.flatnonzero(np.imag(found.values) >= 0)


def untested(model: AbstractLinear, dt: float) -> KoopmanSpectrum:
    """The eigenvalues alone, slowest first, with unknown residuals; no pairs of points."""
    values, V = np.linalg.eig(np.asarray(as_numpy(model).matrix, float).T)
    values, V = values.astype(complex), V.astype(complex)
    order = np.lexsort((-np.imag(values), -np.round(np.abs(values), 12)))
    unknown = np.full(len(values), np.nan)
    return KoopmanSpectrum(values[order], unknown, unknown, np.zeros(len(values)), V[:, order], None, 0, dt)


def _trivial(constant: Bool[np.ndarray, " S"], trusted: Bool[np.ndarray, " S"]) -> tuple[str, ...]:
    """That the constants' eigenvalue says nothing, where it is among the trusted ones."""
    rows = np.flatnonzero(constant & trusted)
    if not len(rows):
        return ()
    rest = " No other eigenpair is trusted." if len(rows) == trusted.sum() else ""
    return (f"No. {int(rows[0]) + 1} is the constant function, which every system keeps: it says nothing about this one.{rest}",)


def _excerpt(data: Prepared, size: int) -> tuple[list[Any], tuple[str, ...]]:
    """The beginning of all trajectories, as many rows as a pass over them in some seconds reads."""
    most = int(np.clip(COST / size**2, 2000, ROWS))
    total = sum(len(x) for x in data.trajectories)
    if total <= most:
        return list(data.trajectories), ()
    share = most / total
    runs = [np.asarray(x[: max(int(share * len(x)), 1)], float) for x in data.trajectories]
    return runs, (f"Tested on the first {share:.1%} of every trajectory: {size} functions of {total:,} rows would take long.",)


def _sample(model: AbstractLinear, runs: list[Any]) -> tuple[Float[np.ndarray, "R DN"], Float[np.ndarray, "R L"]]:
    """Windows spread over the beginnings of all trajectories, and their latent states."""
    w = np.concatenate([windows(np.asarray(x[: 5 * POINTS], float), model.delays) for x in runs if len(x) >= model.delays])
    w = w[np.unique(np.linspace(0, len(w) - 1, POINTS).astype(int))]
    return w, encoder(model)(w)


def _levels(model: AbstractLinear, view: KoopmanView, runs: list[Any]) -> Levels:
    size = model.n_latent
    if size > LARGEST:
        raise InvalidValue(f"a pseudospectrum of {size} functions would take long; call dynsys.analysis.pseudospectrum.pseudospectrum")
    space = Compression.of(latent_moments(model, runs), min(RANK, size))
    trusted = np.abs(view.spectrum.values[view.spectrum.trusts(view.limit)])
    grid = unit_grid(float(np.clip(1.15 * trusted.max(initial=0.0), 1.2, 2.0)), RESOLUTION)
    return Levels(grid[0].real, pseudospectrum(space, grid), space.rounding / float(np.sqrt(space.strengths[0])), len(space.A), size)


def _measure(runs: list[Any]) -> SpectralMeasure:
    """Of the first column, about its mean."""
    longest = max(len(x) for x in runs)
    if longest < LONG:
        raise InvalidValue(f"trajectories of {longest} points are too short for a spectral measure, which wants {LONG}")
    kernel = FourierKernel(min(longest // 10, 1000), cosine)
    angles = np.linspace(0.0, np.pi, 8 * kernel.lags + 1)  # the other half is the same
    return spectral_measure_of_series([np.asarray(x[:ROWS][:, 0], float) for x in runs], angles, kernel=kernel, centred=True)


def _functions(
    model: AbstractLinear, preparation: Preparation, view: KoopmanView, w: np.ndarray, psi: np.ndarray, plane: tuple[int, int]
) -> Functions:
    """The leading eigenfunctions on a line or plane, or at the windows w (R, D N) with latent states psi (R, L)."""
    lift, D = encoder(model), model.delays
    numbers = leading(view, SHOWN)
    if not len(numbers):
        raise InvalidValue("all eigenvalues but that of the constants are spurious")
    V = view.spectrum.vectors[:, numbers]
    top = np.quantile(np.abs(psi @ V), 0.98, axis=0)
    i, j = plane
    if model.n_obs == 1 and D == 1:
        x = np.linspace(w.min(), w.max(), 4 * SIDE)
        near = np.stack([_placed(preparation, w[:, 0], 0), np.zeros(len(w))], axis=1)
        return Functions("line", numbers, (lift(x[:, None]) @ V).T, _placed(preparation, x, 0), np.zeros(0), (0, 0), top, near=near)
    off = np.delete((w - w.mean(axis=0)) / np.where(w.std(axis=0) > 0, w.std(axis=0), 1.0), plane, axis=1)
    near = w[np.sqrt(np.mean(off**2, axis=1)) < SLAB][:, plane] if off.shape[1] else w[:, plane]
    if D == 1 and preparation.dimension == 1 and len(near) >= FEW:
        low, high = near.min(axis=0), near.max(axis=0)
        wide = np.where(high > low, high - low, 1.0)
        x, y = (np.linspace(low[k] - AWAY * wide[k], high[k] + AWAY * wide[k], SIDE) for k in range(2))
        grid = np.tile(w.mean(axis=0), (SIDE * SIDE, 1))
        grid[:, i], grid[:, j] = np.tile(x, SIDE), np.repeat(y, SIDE)
        distance = KDTree(near / wide).query(grid[:, plane] / wide)[0]
        values = np.where(distance[:, None] <= AWAY, lift(grid) @ V, np.nan).T.reshape(len(numbers), SIDE, SIDE)
        near = np.stack([_placed(preparation, near[:, k], plane[k]) for k in range(2)], axis=1)
        return Functions("plane", numbers, values, _placed(preparation, x, i), _placed(preparation, y, j), plane, top, near=near)
    lag = _lag(w, D) if model.n_obs == 1 else 0
    i, j = (0, lag) if lag else plane
    values = (psi @ V).T
    columns = (0, 0) if lag else plane
    return Functions(
        "points", numbers, values, _placed(preparation, w[:, i], columns[0]), _placed(preparation, w[:, j], columns[1]), columns, top, lag
    )


def _placed(preparation: Preparation, values: np.ndarray, column: int) -> np.ndarray:
    """A prepared column in the user's units; columns of a delay embedding have the scale of the variable that they delay."""
    at = column % preparation.n_obs
    return values * preparation.scale[at] + preparation.mean[at]


def _lag(w: np.ndarray, delays: int) -> int:
    """Where the correlation of the newest point of windows with an older one has fallen to 1/e, or the last of them."""
    w = w - w.mean(axis=0)
    correlation = np.mean(w * w[:, :1], axis=0) / max(float(np.mean(w[:, 0] ** 2)), np.finfo(float).tiny)
    below = np.flatnonzero(correlation < np.exp(-1))
    return int(below[0]) if len(below) else delays - 1

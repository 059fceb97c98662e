"""One dictionary with what it is fitted to: features of pairs, their moments, and the fit's ridge and rank chosen by free runs."""

import inspect
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from dynsys import registry
from dynsys.errors import InvalidValue
from dynsys.models.koopman.data import Data
from dynsys.models.koopman.dictionary import AbstractDictionary
from dynsys.models.koopman.moments import BLOCK, Moments
from dynsys.models.regressed import Holdout

DEPENDENT = 1e-14  # an eigenvalue of the scaled normal matrix below this share of the largest is rounding
ON_CIRCLE = 1e-12  # beyond the unit circle: rounding of an eigenvalue 1
BUILT = 1e-6  # the relative error up to which a matrix counts as built from its eigenvectors


@dataclass(frozen=True)
class Candidate:
    """psi(w) = (1, v, dictionary(v)); with inputs the regressors are (psi, u), and u psi if bilinear."""

    dictionary: AbstractDictionary
    bilinear: bool = False

    def lift(self, v: Float[np.ndarray, "*R V"]) -> Float[np.ndarray, "*R L"]:
        """Features of standardised windows; of a long matrix (R, V) in memory column by column."""
        if v.ndim == 2 and len(v) > v.shape[1]:
            v = np.ascontiguousarray(v.T)
            return np.concatenate([np.ones((1, v.shape[1])), v, self.dictionary.columns(v)]).T
        return np.concatenate([np.ones((*v.shape[:-1], 1)), v, np.asarray(self.dictionary(v))], axis=-1)

    def terms(self, data: Data) -> tuple[str, ...]:
        """The functions in words."""
        return ("1", *data.names, *self.dictionary.terms(data.names))

    def moments(self, who: str, data: Data) -> Moments:
        """Of all pairs. Raises InvalidValue if a function overflows, with its name."""
        with np.errstate(over="ignore", invalid="ignore"):
            found = self.summed(data)
        bad = ~np.isfinite(np.diag(found.G))
        bad[: len(found.L)] |= ~np.isfinite(np.diag(found.L))  # at the last point of a run only
        if bad.any():
            term = self.terms(data)[int(np.argmax(bad)) % len(self.terms(data))]
            raise InvalidValue(
                f"{who}: the function '{term}' overflows or is undefined on these data (its mean square is not finite). Leave it out, "
                "lower the degree, or rescale the data."
            )
        return found

    def summed(self, data: Data) -> Moments:
        """The moments as they come, finite or not."""
        G = A = L = None
        for stretch in data.runs(BLOCK):
            psi = self.lift(stretch.v)
            before, after = stretch.pairs(psi)
            if stretch.u is None:
                whole = psi.T @ psi  # of which both G and L lack only the ends of runs
                new = whole - _square(psi[stretch.last]), before.T @ after, whole - _square(psi[stretch.first])
            else:
                before = self.regressors(before, stretch.u)
                new = before.T @ before, before.T @ after, after.T @ after
            G, A, L = new if G is None else (G + new[0], A + new[1], L + new[2])
        return Moments(G / data.pairs, A / data.pairs, L / data.pairs, data.pairs)  # pyright: ignore[reportOptionalOperand]

    def regressors(self, psi: Float[np.ndarray, "*R L"], u: Float[np.ndarray, "*R K"] | None) -> Float[np.ndarray, "*R E"]:
        """(psi, u), and u psi if bilinear."""
        if u is None:
            return psi
        parts = [psi, u]
        if self.bilinear:
            parts += [u[..., i : i + 1] * psi for i in range(u.shape[-1])]
        return np.concatenate(parts, axis=-1)

    def transition(self, W: Float[np.ndarray, "*R E L"]) -> Float[np.ndarray, "*R E L"]:
        """The operator over one sampling interval of solutions of the normal equations: the solutions, but that 1 stays 1.

        A ridge would shrink it, and a run then decays towards psi = 0, which no point is lifted to.
        """
        W = np.array(W)
        W[..., 0] = 0.0
        W[..., 0, 0] = 1.0
        return W

    def split(self, W: Float[np.ndarray, "E L"], n_inputs: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The fitted A (L, L), B (L, K) and N (K or 0, L, L) of a solution."""
        size = W.shape[1]
        rest = W[size + n_inputs :]
        return W[:size].T, W[size : size + n_inputs].T, rest.reshape(-1, size, size).swapaxes(1, 2)


def _square(rows: np.ndarray) -> np.ndarray:
    return rows.T @ rows


def learned(who: str, dictionary: Any, v: np.ndarray, rng: np.random.Generator, **options: Any) -> AbstractDictionary:
    """A dictionary object as it is, or one of a registered name, learned from standardised windows v; options that are None are left out.

    Raises UnknownName for a name that is not there, InvalidValue for an option that it does not take or something that is neither.
    """
    if isinstance(dictionary, AbstractDictionary):
        shape = np.shape(dictionary(v[:2]))
        if len(shape) != 2 or shape[0] != len(v[:2]):
            raise InvalidValue(
                f"{who}: the dictionary must map {v[:2].shape} to (2, F), F functions on the last axis, got {shape}. "
                "Of a single variable take v[..., :1], not v[..., 0]."
            )
        return dictionary
    if not isinstance(dictionary, str):
        raise InvalidValue(
            f"{who}: dictionary must be a dictionary object or a registered name, got {dictionary!r}. "
            "Functions of your own: dictionary=Custom(function) of dynsys.models.koopman.dictionary."
        )
    maker = registry.lookup("dictionary", dictionary).learn
    takes = [name for name in inspect.signature(maker).parameters if name not in ("v", "rng")]
    asked = {name: value for name, value in options.items() if value is not None}
    allowed = [name for name in takes if name in ("degree", *options)]  # others only as an object's
    for name in asked:
        if name not in takes:
            raise InvalidValue(f"{who}: the dictionary '{dictionary}' has no option {name}; it takes: {', '.join(allowed) or 'none'}.")
    return maker(v, **asked, rng=rng)


def explain(who: str, candidate: Candidate, data: Data, found: Moments, ridge: float, rank: int | None) -> None:
    """Raise InvalidValue if plain least squares is not determined: fewer pairs than functions, or functions that depend on each other."""
    if ridge > 0:
        return
    functions = len(found.G)
    if rank is not None:
        values = found.spectrum[1]
        there = int((values >= DEPENDENT * functions * values[-1]).sum())
        if min(rank, functions) > there:
            raise InvalidValue(
                f"{who}: rank={rank} with ridge=0 fits directions that are mere rounding: on these data the normal matrix has rank "
                f"{there} of {functions}. Set a rank of at most {there}, or a ridge (such as ridge=1e-10)."
            )
        return
    remedy = "Set a ridge (such as ridge=1e-10), a rank, or leave both open to have them chosen; or use fewer functions."
    if data.pairs < functions:
        raise InvalidValue(f"{who}: {data.pairs} pairs of points do not determine {functions} functions by plain least squares. {remedy}")
    _, values, vectors = found.spectrum
    lost = values < DEPENDENT * functions * values[-1]
    if lost.any():
        terms = (*candidate.terms(data), *(f"input {i + 1}" for i in range(data.n_inputs)))
        sizes = np.abs(vectors[:, lost]).max(axis=1)
        zero = np.diag(found.G) == 0
        worst = [terms[i] if i < len(terms) else f"input function {i + 1}" for i in np.argsort(-np.where(zero, 2.0, sizes))[:3]]
        raise InvalidValue(
            f"{who}: the functions depend on each other on these data: the normal matrix has rank {int((~lost).sum())} of {functions}. "
            f"Most involved: {', '.join(worst)}" + (" (zero everywhere: a constant column?)" if zero.any() else "") + f". {remedy}"
        )


def choose(
    who: str, candidates: Sequence[Candidate], data: Data, ridges: Sequence[float], shares: Sequence[Any], reencode: int, bound: float
) -> tuple[Candidate, float, int | None]:
    """The candidate, ridge and rank whose free runs on the end of the series err least; ranks are numbers or shares of the functions."""
    if len(candidates) == len(ridges) == len(shares) == 1 and not isinstance(shares[0], float):
        return candidates[0], float(ridges[0]), shares[0]
    tail = data.tail()
    held = Holdout.of([np.asarray(x) for x in tail.series])
    fitted = tail.cut(held.ends)
    if fitted.pairs < 1:
        raise InvalidValue(
            f"{who}: trajectories of {max(len(x) for x in tail.series)} points are too short to choose settings on their ends. "
            "Say which: a ridge (such as ridge=1e-10) and, for monomials, a degree."
        )
    best: tuple[float, Any] = (np.inf, None)
    for candidate in candidates:
        try:
            found = candidate.moments(who, fitted)
        except InvalidValue:
            if len(candidates) == 1:
                raise
            continue
        for share in shares:
            rank = share if not isinstance(share, float) else None if share == 1.0 else max(1, round(share * len(found.G)))
            W = candidate.transition(found.solve(np.asarray(ridges, float), rank))
            errors = held.error(free_runs(candidate, W, tail, held, reencode, data.box(bound)))
            i = int(np.argmin(errors))
            if errors[i] < best[0] - 1e-12:
                best = float(errors[i]), (candidate, float(ridges[i]), rank)
    if best[1] is None:
        raise InvalidValue(
            f"{who}: no setting could be fitted; every dictionary overflows on these data. Rescale them or lower the degree."
        )
    return best[1]


def free_runs(
    candidate: Candidate, W: Float[np.ndarray, "R E L"], data: Data, held: Holdout, reencode: int, box: tuple[np.ndarray, np.ndarray]
) -> Float[np.ndarray, "R S H N"]:
    """Free runs of R solutions from S starts at once, in the units of the data."""
    n, steps = len(data.mean), held.true.shape[1]
    first = held.windows(data.delays)[:, ::-1].reshape(len(held.starts), -1)  # newest point first
    w = np.broadcast_to(first, (len(W), *first.shape))
    us = None
    if data.inputs is not None:
        us = np.stack([np.asarray(data.inputs[i][row : row + steps], float) for i, row in held.starts])
    y = candidate.lift(data.standard(w))
    made = np.empty((len(W), len(held.starts), steps, n))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for t in range(steps):
            u = None if us is None else np.broadcast_to(us[:, t], (len(W), *us[:, t].shape))
            y = candidate.regressors(y, u) @ W
            made[:, :, t] = data.mean + data.scale * y[..., 1 : n + 1]
            if reencode:
                x = np.minimum(np.maximum(made[:, :, t], box[0]), box[1])
                w = np.concatenate([x, w[..., :-n]], axis=-1)
                if (t + 1) % reencode == 0:
                    y = candidate.lift(data.standard(w))
    return made


def within_circle(A: Float[np.ndarray, "L L"]) -> Float[np.ndarray, "L L"]:
    """The matrix with every eigenvalue beyond the unit circle moved onto it, along its ray; eigenvectors stay.

    A modulus of 1 to rounding stays as well. Where eigenvectors are too nearly parallel to build the matrix from, it shrinks as a whole.
    """
    values, vectors = np.linalg.eig(A)
    size = np.abs(values)
    if np.all(size <= 1.0 + ON_CIRCLE):
        return A
    inverse = np.linalg.pinv(vectors)
    if np.linalg.norm((vectors * values[None, :]) @ inverse - A) > BUILT * np.linalg.norm(A):
        return A / size.max()
    return np.real((vectors * (values / np.maximum(size, 1.0))[None, :]) @ inverse)

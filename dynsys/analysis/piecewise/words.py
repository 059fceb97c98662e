"""Words: the sequence of region codes of a cycle, up to where it begins; and the cycle that solves a word's affine equations.

    word r_0 ... r_{k-1}:   z_{t+1} = J(r_t) z_t + h(r_t),   z_k = z_0      (real if region(z_t) = r_t for all t, else virtual)

All k points are solved at once by orthogonal elimination of one point after the other. The product of the J is never formed, so the
points of a long unstable cycle are as good as those of a fixed point.
Source: Wright, SIAM J. Sci. Stat. Comput. 13 (1992) 742, algorithm SQR for one-stage boundary conditions.
"""

import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dynsys.analysis.piecewise.cycle import Cycle
from dynsys.analysis.piecewise.verified import composed, eigenvalues, padded, verified_all
from dynsys.dynamics import AbstractPiecewiseLinear

SINGULAR = 1e-9  # an eigenvalue this near 1 leaves the position of the cycle undetermined
ON_BORDER = 1e-9  # a point this near a switching manifold, relative to the state's scale, lies on it


def canonical(word: Bool[np.ndarray, "k R"]) -> bytes:
    """The same bytes for a word and all its cyclic shifts: the smallest of them."""
    rows = np.packbits(word, axis=1)
    return min(np.roll(rows, -shift, axis=0).tobytes() for shift in range(len(rows)))


def root(word: Bool[np.ndarray, "k R"]) -> Bool[np.ndarray, "d R"]:
    """The shortest word whose repetition is this one."""
    k = len(word)
    return next(word[:d] for d in range(1, k + 1) if k % d == 0 and np.array_equal(word, np.roll(word, d, axis=0)))


@eqx.filter_jit
def _affine(model: AbstractPiecewiseLinear, codes: Bool[Array, "n R"]) -> tuple[Float[Array, "n M M"], Float[Array, "n M"]]:
    return jax.vmap(model.affine)(codes)


def affine_maps(model: AbstractPiecewiseLinear, codes: Bool[np.ndarray, "*n R"]) -> tuple[np.ndarray, np.ndarray]:
    """J (*n, M, M) and h (*n, M) of many regions; each distinct region is computed once."""
    flat = codes.reshape(int(np.prod(codes.shape[:-1])), codes.shape[-1])
    # without switching manifolds (R = 0) there is one region
    distinct, index = np.unique(flat, axis=0, return_inverse=True) if flat.shape[1] else (flat[:1], np.zeros(len(flat), int))
    J, h = (np.asarray(part)[index.reshape(-1)] for part in _affine(model, jnp.asarray(padded(distinct))))
    return J.reshape(*codes.shape[:-1], *J.shape[1:]), h.reshape(*codes.shape[:-1], -1)


def solved(J: Float[np.ndarray, "n k M M"], h: Float[np.ndarray, "n k M"]) -> Float[np.ndarray, "n k M"]:
    """The cycles of n words; rows of a singular system are NaN or very large."""
    n, k, M, _ = J.shape
    one = np.broadcast_to(np.eye(M), (n, M, M))
    first, last, value = -J[:, 0], one, h[:, 0, :, None]  # first z_0 + last z_t = value, so far for t = 1
    steps = []
    for t in range(1, k):
        q, r = np.linalg.qr(np.concatenate([last, -J[:, t]], axis=1), mode="complete")
        zero, offset = np.zeros((n, M, M)), h[:, t, :, None]
        rest = np.concatenate([np.concatenate([first, zero, value], axis=2), np.concatenate([zero, one, offset], axis=2)], axis=1)
        turned = np.swapaxes(q, 1, 2) @ rest
        steps.append((r[:, :M], turned[:, :M]))
        first, last, value = turned[:, M:, :M], turned[:, M:, M : 2 * M], turned[:, M:, 2 * M :]
    points = np.empty((n, k, M))
    points[:, 0] = solve_each(first + last, value)[..., 0]
    following = points[:, 0]
    for t in range(k - 1, 0, -1):
        r, turned = steps[t - 1]
        right = turned[..., 2 * M :] - turned[..., :M] @ points[:, 0, :, None] - turned[..., M : 2 * M] @ following[..., None]
        following = points[:, t] = solve_each(r, right)[..., 0]
    return points


def solve_each(matrices: Float[np.ndarray, "n M M"], right: Float[np.ndarray, "n M m"]) -> Float[np.ndarray, "n M m"]:
    """matrix^-1 right for each; NaN where a matrix is exactly singular or not finite."""
    try:
        return np.linalg.solve(matrices, right)
    except np.linalg.LinAlgError:
        found = np.full(right.shape, np.nan)
        for i, (matrix, side) in enumerate(zip(matrices, right, strict=True)):
            if len(matrices) > 1:
                found[i] = solve_each(matrix[None], side[None])[0]
        return found


def cycles_of_words(
    model: AbstractPiecewiseLinear, words: list[np.ndarray], hyperplanes: tuple[np.ndarray, np.ndarray], scale: float
) -> tuple[list[Cycle], int]:
    """The cycle of each word (k, R), real or virtual, with least periods; and how many words have a singular system.

    `hyperplanes` is `switching()` in float64. A cycle is real if its points lie in the regions of its word, or within 1e-9 of the
    state's scale of them.
    """
    roots = sorted((root(word) for word in words), key=len)
    if not roots:
        return [], 0
    J, h = affine_maps(model, np.concatenate(roots))
    candidates, maps = [], []
    at = 0
    for k, same in itertools.groupby(roots, key=len):
        here = slice(at, at := at + k * len(list(same)))
        JJ, hh = J[here].reshape(-1, k, *J.shape[1:]), h[here].reshape(-1, k, h.shape[1])
        with np.errstate(all="ignore"):
            candidates += list(solved(JJ, hh))
        maps += list(zip(JJ, hh, strict=True))
    good = [bool((np.abs(points) < scale / np.finfo(float).eps / 10).all()) for points in candidates]  # NaN fails too
    records = verified_all(model, list(itertools.compress(candidates, good)), np.full(model.dim, ON_BORDER * scale))
    found, singular = [], len(good) - sum(good)
    for cycle, word, (JJ, hh) in zip(records, itertools.compress(roots, good), itertools.compress(maps, good), strict=True):
        real = outside(cycle.points, word[: cycle.period], hyperplanes) <= ON_BORDER * scale
        if real and (np.abs(cycle.eigenvalues - 1.0) < SINGULAR).any():
            singular += 1
        else:
            found.append(_placed(cycle) if real else _virtual(cycle, word, JJ, hh))
    return found, singular


def _virtual(cycle: Cycle, word: np.ndarray, J: np.ndarray, h: np.ndarray) -> Cycle:
    """The record of a cycle that its word's regions do not hold: eigenvalues and residual are those of the word's own maps."""
    k = cycle.period
    miss = (J[:k] @ cycle.points[..., None])[..., 0] + h[:k] - np.roll(cycle.points, -1, axis=0)
    return _placed(Cycle(cycle.points, eigenvalues(composed(J[:k])), float(np.abs(miss).max()), word[:k], virtual=True))


def outside(points: Float[np.ndarray, "k M"], word: Bool[np.ndarray, "k R"], hyperplanes: tuple[np.ndarray, np.ndarray]) -> float:
    """How far the points lie beyond the borders of the word's regions, at most over points and borders; 0 if they are inside."""
    distance = border_distances(points, hyperplanes)
    return float(np.where(word, -distance, distance).clip(min=0.0).max(initial=0.0))


def border_distances(points: Float[np.ndarray, "k M"], hyperplanes: tuple[np.ndarray, np.ndarray]) -> Float[np.ndarray, "k R"]:
    """Signed distances to the switching manifolds, positive where the code is True; a row of zeros is infinitely far."""
    normals, offsets = hyperplanes
    length = np.linalg.norm(normals, axis=1)
    flat = length == 0
    distance = (points @ normals.T + offsets) / np.where(flat, 1.0, length)
    return np.where(flat, np.where(offsets > 0, np.inf, -np.inf), distance)


def _placed(cycle: Cycle) -> Cycle:
    """The same cycle from its point with the smallest coordinates (the first one decides), so that equal cycles are equal records."""
    start = int(np.lexsort(np.round(cycle.points, 9).T[::-1])[0])
    regions: Any = None if cycle.regions is None else np.roll(cycle.regions, -start, axis=0)
    points = np.roll(cycle.points, -start, axis=0)
    return Cycle(points, cycle.eigenvalues, cycle.residual, regions, cycle.virtual, cycle.continuous)


def merged(cycles: list[Cycle], scale: float) -> list[Cycle]:
    """Each cycle once: by its word, and by its points where these lie on a border and so have several words; the most exact record."""
    kept: dict[bytes, Cycle] = {}
    for cycle in sorted(cycles, key=lambda cycle: cycle.residual):
        word = cycle.regions
        kept.setdefault(canonical(word) if word is not None else cycle.points.tobytes(), cycle)
    unique: list[Cycle] = []
    close = 10 * ON_BORDER * scale
    for cycle in kept.values():
        same = (other for other in unique if other.period == cycle.period and abs(other.points.mean() - cycle.points.mean()) < close)
        if not any((np.abs(other.points - np.roll(cycle.points, s, axis=0)) < close).all() for other in same for s in range(cycle.period)):
            unique.append(cycle)
    return unique


def singular_note(count: int) -> str:
    """What an eigenvalue 1 means, for a reader."""
    return (
        f"{count} sequences of regions have a singular I - J (an eigenvalue 1): they have either no cycle or a whole line of them, "
        "and are not listed. A small change of the parameters decides which."
    )


def border_note(cycles: list[Cycle], planes: tuple[np.ndarray, np.ndarray], scale: float) -> list[str]:
    """One sentence if cycles lie on a switching manifold."""
    touching = [cycle for cycle in cycles if (np.abs(border_distances(cycle.points, planes)) <= ON_BORDER * scale).any()]
    if not touching:
        return []
    periods = sorted({cycle.period for cycle in touching})
    return [
        f"{len(touching)} cycles (periods {periods}) have a point on a switching manifold: a border collision. Two affine maps meet there, "
        "and the eigenvalues are those of one side."
    ]

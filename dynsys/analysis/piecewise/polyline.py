"""Polylines under a piecewise-linear map: broken exactly at the switching manifolds, an image is again a polyline; preimages, joints.

A crossing of row i on the segment a -> b lies at s = f(a) / (f(a) - f(b)), f(z) = N_i z + b_i: no tolerance enters.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

_CHUNK = 1 << 22  # numbers of one table of crossings


def broken(
    points: Float[np.ndarray, "n M"], normals: Float[np.ndarray, "R M"], offsets: Float[np.ndarray, " R"]
) -> Float[np.ndarray, "m M"]:
    """The same polyline with a vertex wherever it crosses a switching manifold."""
    rows = max(2, _CHUNK // max(1, len(offsets)))
    at, where = [], []
    for i in range(0, len(points) - 1, rows - 1):
        f = points[i : i + rows] @ normals.T + offsets
        segment, row = np.nonzero(f[:-1] * f[1:] < 0)
        where.append(f[segment, row] / (f[segment, row] - f[segment + 1, row]))
        at.append(segment + i)
    if not at or not sum(map(len, at)):
        return points
    at, where = np.concatenate(at), np.concatenate(where)
    order = np.lexsort((where, at))
    at, where = at[order], where[order]
    fresh = np.append(True, (np.diff(at) > 0) | (np.diff(where) > 1e-14))  # two manifolds crossed at one point: one vertex
    at, where = at[fresh], where[fresh]
    return np.insert(points, at + 1, points[at] + where[:, None] * (points[at + 1] - points[at]), axis=0)


def clipped(
    a: Float[np.ndarray, "n M"], b: Float[np.ndarray, "n M"], normals: Float[np.ndarray, "R M"], offsets: Float[np.ndarray, " R"]
) -> Float[np.ndarray, "m 2 M"]:
    """The parts of the segments a -> b where all rows of N z + b are >= 0 (Liang & Barsky 1984)."""
    fa, fb = a @ normals.T + offsets, b @ normals.T + offsets
    with np.errstate(divide="ignore", invalid="ignore"):
        s = fa / (fa - fb)
    enter = np.where((fa < 0) & (fb > fa), s, 0.0).max(1, initial=0.0)
    leave = np.where((fb < 0) & (fa > fb), s, 1.0).min(1, initial=1.0)
    kept = (enter < leave) & ~((fa < 0) & (fb < 0)).any(1)
    a, step = a[kept], b[kept] - a[kept]
    return np.stack([a + enter[kept, None] * step, a + leave[kept, None] * step], axis=1)


def lengths(points: Float[np.ndarray, "n M"]) -> Float[np.ndarray, " n"]:
    """Arc length from the first vertex to each."""
    return np.append(0.0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1)))


def cut_at(points: Float[np.ndarray, "n M"], length: float) -> Float[np.ndarray, "m M"]:
    """The first part of a polyline, up to an arc length."""
    at = lengths(points)
    if at[-1] <= length:
        return points
    n = int(np.searchsorted(at, length))
    last = points[n - 1] + (length - at[n - 1]) / (at[n] - at[n - 1]) * (points[n] - points[n - 1])
    return np.concatenate([points[:n], last[None]])


def chained(segments: Float[np.ndarray, "n 2 M"], close: float) -> list[np.ndarray]:
    """Segments joined where their ends meet, into polylines (m, M); a joint of three or more ends parts them."""
    if not len(segments):
        return []
    ends = segments.reshape(-1, segments.shape[-1])
    _, index = np.unique(np.round(ends / close), axis=0, return_inverse=True)
    index = index.reshape(-1, 2)
    meeting: list[list[int]] = [[] for _ in range(int(index.max()) + 1)]
    for n, (i, j) in enumerate(index):
        meeting[i].append(n)
        meeting[j].append(n)
    used = np.zeros(len(segments), bool)
    curves = []
    open_ends = [n for n, (i, j) in enumerate(index) if len(meeting[i]) != 2 or len(meeting[j]) != 2]
    for n in [*open_ends, *range(len(segments))]:  # open curves from their ends, then closed ones
        if used[n]:
            continue
        backward = len(meeting[index[n][0]]) == 2 and len(meeting[index[n][1]]) != 2
        curves.append(_walk(segments, index, meeting, used, n, int(backward)))
    return curves


def _walk(
    segments: np.ndarray, index: Int[np.ndarray, "n 2"], meeting: list[list[int]], used: Bool[np.ndarray, " n"], n: int, entry: int
) -> np.ndarray:
    """The polyline that enters segment n by its end `entry` (0 or 1), until it ends or closes."""
    points = [segments[n, entry]]
    while True:
        used[n] = True
        points.append(segments[n, 1 - entry])
        joint = index[n][1 - entry]
        following = [m for m in meeting[joint] if not used[m]]
        if len(meeting[joint]) != 2 or not following:
            return np.stack(points)
        n = following[0]
        entry = 0 if index[n][0] == joint else 1


def meetings(first: Float[np.ndarray, "n 2"], second: Float[np.ndarray, "m 2"]) -> Float[np.ndarray, "c 2"]:
    """Where two polylines in the plane cross transversally, in the order of the first; ends that touch count."""
    a, b = first[:-1], second[:-1]
    u, v = np.diff(first, axis=0), np.diff(second, axis=0)
    pairs = _near(first, second)
    if not len(pairs):
        return np.zeros((0, 2))
    i, j = pairs.T
    gap = b[j] - a[i]
    det = u[i, 0] * v[j, 1] - u[i, 1] * v[j, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        s = (gap[:, 0] * v[j, 1] - gap[:, 1] * v[j, 0]) / det
        r = (gap[:, 0] * u[i, 1] - gap[:, 1] * u[i, 0]) / det
    hit = (s >= 0) & (s <= 1) & (r >= 0) & (r <= 1)  # parallel segments give NaN or inf
    i, s = i[hit], s[hit]
    order = np.lexsort((s, i))
    return a[i[order]] + s[order, None] * u[i[order]]


def _near(first: np.ndarray, second: np.ndarray, block: int = 64) -> Int[np.ndarray, "c 2"]:
    """Pairs of segments whose bounding boxes meet: first whole blocks of segments, then the segments of the blocks that meet."""

    def boxes(points: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
        starts = np.arange(0, len(points) - 1, size)
        low = np.minimum(points[:-1], points[1:])
        high = np.maximum(points[:-1], points[1:])
        return np.minimum.reduceat(low, starts), np.maximum.reduceat(high, starts)

    def meet(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, ...]:
        (low, high), (least, most) = one, other
        return np.nonzero(((low[:, None] <= most[None]) & (least[None] <= high[:, None])).all(-1))

    if len(first) < 2 or len(second) < 2:
        return np.zeros((0, 2), int)
    fine_1, fine_2 = boxes(first, 1), boxes(second, 1)
    found = []
    for p, q in zip(*meet(boxes(first, block), boxes(second, block)), strict=True):
        one, other = slice(p * block, (p + 1) * block), slice(q * block, (q + 1) * block)
        i, j = meet((fine_1[0][one], fine_1[1][one]), (fine_2[0][other], fine_2[1][other]))
        found.append(np.stack([i + p * block, j + q * block], axis=1))
    return np.concatenate(found) if found else np.zeros((0, 2), int)

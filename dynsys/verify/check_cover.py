"""Whether boxes cover [-1, 1]^N without a gap, decided exactly: the checker's first question about the leaves of a proof."""

import numpy as np

FINEST = 2.0**-50  # half-width of a box; above it all halving is exact


def covers(mid: np.ndarray, rad: np.ndarray) -> bool:
    """Whether boxes (L, N) are the ends of halving [-1, 1]^N again and again: every cell is a box, or is cut in two that are covered.

    `cell` is the cell that each box is in by now, `node` its number. A cell that is no box itself is cut at the middle of a coordinate in
    which none of its boxes lies across; if there is none, or one half is empty, the boxes overlap or leave a gap.
    """
    cell_mid, cell_rad, node = np.zeros_like(mid), np.ones_like(rad), np.zeros(len(mid), int)
    while len(node):
        count = np.bincount(node)
        done = np.all((mid == cell_mid) & (rad == cell_rad), axis=1)
        if np.any(count == 0) or np.any(count[node[done]] != 1) or np.any(np.max(cell_rad, axis=1) < FINEST):
            return False
        mid, rad, cell_mid, cell_rad, node = (x[~done] for x in (mid, rad, cell_mid, cell_rad, node))
        if not len(node):
            return bool(len(count))
        node = np.unique(node, return_inverse=True)[1]
        across = np.zeros((node.max() + 1, mid.shape[1]), bool)
        np.logical_or.at(across, node, (mid - rad < cell_mid) & (mid + rad > cell_mid))
        if np.any(np.all(across, axis=1)):
            return False
        axis, rows = np.argmin(across, axis=1)[node], np.arange(len(node))
        upper = mid[rows, axis] > cell_mid[rows, axis]
        half = 0.5 * cell_rad[rows, axis]
        if np.any(half < FINEST):
            return False
        cell_rad[rows, axis] = half
        cell_mid[rows, axis] += np.where(upper, half, -half)
        node = 2 * node + upper
        if len(np.unique(node)) != 2 * len(across):
            return False
        node = np.unique(node, return_inverse=True)[1]
    return False


def faces(n: int, p: int) -> tuple[np.ndarray, np.ndarray]:
    """The 2n faces of [-1, 1]^n times [-1, 1]^p: mid and rad."""
    mid = np.concatenate([np.eye(n), -np.eye(n)])
    return np.hstack([mid, np.zeros((2 * n, p))]), np.hstack([1 - np.abs(mid), np.ones((2 * n, p))])

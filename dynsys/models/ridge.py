"""Ridge regression for many penalties and many sets of leading columns from one orthogonal factorisation.

    min |A w - y|^2 + (ridge s_1^2) |w|^2,    A = Q R = Q (U S V^T),    w = V diag(s / (s^2 + ridge s_1^2)) U^T Q^T y

Columns of A and y are centred and scaled to unit variance first; s_1 is the largest singular value. R comes from blocks of rows
(never all of A at once), and the R of the first p columns is its corner, so nested models share it. Working on A itself and not on
A^T A keeps twice the digits, which clean data need. Source: Golub & Van Loan, Matrix Computations, 4th ed., secs. 5.2 and 6.1.4.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

BLOCK = 8192  # rows that are factorised at a time

Blocks = Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]]


@dataclass(frozen=True)
class Regression:
    """The triangular factor of standardised (features, targets), with what standardised them."""

    R: Float[np.ndarray, "r FN"]
    mean: Float[np.ndarray, " F"]
    scale: Float[np.ndarray, " F"]
    target_mean: Float[np.ndarray, " N"]
    target_scale: Float[np.ndarray, " N"]

    @classmethod
    def of(cls, blocks: Blocks) -> "Regression":
        """Factorise pairs (features (n, F), targets (n, N)); `blocks` is called twice and gives them block by block."""
        count, total, squares = 0, np.zeros(()), np.zeros(())
        first = None
        for features, targets in blocks():
            both = np.concatenate([features, targets], axis=1)
            first = both.mean(axis=0) if first is None else first  # a shift near the mean, against cancellation
            shifted = both - first[None, :]
            count, total, squares = count + len(both), total + shifted.sum(axis=0), squares + (shifted**2).sum(axis=0)
        if first is None:
            raise ValueError("no rows to regress on")
        offset = total / count
        mean, scale = first + offset, np.sqrt(np.maximum(squares / count - offset**2, 0.0))
        scale = np.where(scale > 0, scale, 1.0)
        R = np.zeros((0, len(mean)))
        width = 0
        for features, targets in blocks():
            width = features.shape[1]
            rows = (np.concatenate([features, targets], axis=1) - mean[None, :]) / scale[None, :]
            R = np.asarray(np.linalg.qr(np.concatenate([R, rows]), mode="r"))
        return cls(R, mean[:width], scale[:width], mean[width:], scale[width:])

    def solve(self, columns: int, ridges: Float[np.ndarray, " R"]) -> tuple[Float[np.ndarray, "R F N"], Float[np.ndarray, "R N"]]:
        """Weights (R, F, N) and offsets (R, N) of the first `columns` features, for every ridge: target = features @ W + b."""
        rows = min(columns, len(self.R))
        U, s, Vt = svd(self.R[:rows, :columns])
        projected = U.T @ self.R[:rows, len(self.mean) :]
        penalty = np.reshape(ridges, (-1, 1)) * s[:1][None, :] ** 2
        power = s[None, :] ** 2 + penalty
        gain = np.where(power > 0, s[None, :] / np.where(power > 0, power, 1.0), 0.0)
        W = Vt.T[None] @ (gain[:, :, None] * projected[None])
        W = W * self.target_scale[None, None, :] / self.scale[None, :columns, None]
        return W, self.target_mean[None, :] - np.einsum("f,rfn->rn", self.mean[:columns], W)


def svd(A: Float[np.ndarray, "r c"]) -> tuple[Float[np.ndarray, "r k"], Float[np.ndarray, " k"], Float[np.ndarray, "k c"]]:
    """The thin SVD. LAPACK's divide and conquer fails on some finite matrices of huge range, which its slower QR iteration can do."""
    try:
        return np.linalg.svd(A, full_matrices=False)
    except np.linalg.LinAlgError:
        from scipy.linalg import svd as by_iteration

        return by_iteration(A, full_matrices=False, lapack_driver="gesvd")

"""Is a matrix positive definite? Answered in exact arithmetic: every float is a fraction, and so are sums and products of floats.

A symmetric matrix is positive definite if and only if its leading minors are positive (Sylvester); Bareiss' elimination computes them
with whole numbers alone. Source: Bareiss, Math. Comp. 22 (1968).
"""

from fractions import Fraction
from math import lcm
from typing import Any

import numpy as np


def fractions(values: Any) -> np.ndarray:
    """An array of floats as an array of the same numbers as fractions."""
    values = np.asarray(values)
    return np.array([value if isinstance(value, Fraction) else Fraction(float(value)) for value in values.ravel()], dtype=object).reshape(
        values.shape
    )


def exactly_definite(matrix: np.ndarray) -> bool:
    """Whether a symmetric matrix of fractions (n, n) is positive definite; nothing is rounded."""
    n = len(matrix)
    if any(matrix[i, j] != matrix[j, i] for i in range(n) for j in range(i)):
        return False
    scale = lcm(*(value.denominator for value in matrix.ravel())) if n else 1
    rows = [[int(value * scale) for value in row] for row in matrix]
    before = 1
    for k in range(n):
        pivot = rows[k][k]  # the leading minor of order k + 1
        if pivot <= 0:
            return False
        for i in range(k + 1, n):
            for j in range(k + 1, n):
                rows[i][j] = (rows[i][j] * pivot - rows[i][k] * rows[k][j]) // before
        before = pivot
    return True


def least_eigenvalue(matrix: Any) -> float:
    """The smallest eigenvalue of a symmetric matrix, in floats."""
    return float(np.linalg.eigvalsh(np.asarray(matrix, float))[0])

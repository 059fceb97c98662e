"""Two ways to write the program of a horizon in variables v: min 1/2 v'Hv + f'v, rows v <= bound, equal v = fixed.

    condensed   v = (u[0], ..., u[T-1])                  the states are eliminated: a size without M (Korda & Mezic 2018, sec. 4), but dense
    banded      v = (u[0], ..., u[T-1], z[1], ..., z[T])   with the dynamics as equalities: sparse, so the work grows as T, not as T^3, and
                                                         no power of A is formed, which matters where the system is unstable

Only f, bound and fixed depend on the present state. Rows come in the order of `kind`: 0 inputs, 1 their changes, 2 observations, 3 the
end; each constraint of a kind at all its steps, step by step.
"""

import abc
from typing import Any

import numpy as np
from jaxtyping import Float

from dynsys.control.constraints import Constraints

Numbers = tuple[Float[np.ndarray, " V"], Float[np.ndarray, " E"], Float[np.ndarray, " F"]]


class AbstractForm(abc.ABC):
    """Of a system z+ = A z + B u + c, x = C z + d, with weights Q (N, N), R (K, K) and P (M, M) at the end. H, rows, equal: sparse."""

    H: Any
    rows: Any
    equal: Any

    def __init__(self, arrays: dict[str, np.ndarray], constraints: Constraints, horizon: int):
        self.A, self.B, self.c, self.C, self.d, self.Q, self.R, self.P = (arrays[name] for name in ("A", "B", "c", "C", "d", "Q", "R", "P"))
        self.T, (self.M, self.K), self.N = horizon, self.B.shape, len(self.C)
        self.on = {name: np.asarray(getattr(constraints, name), float) for name in ("D", "d", "W", "w", "G", "g", "E", "e")}
        counts = [horizon * len(self.on[name]) for name in ("d", "w", "g")]
        self.kind = np.repeat([0, 1, 2, 3], [*counts, len(self.on["e"])])

    @abc.abstractmethod
    def numbers(self, z: np.ndarray, last: np.ndarray, goals: np.ndarray, rests: np.ndarray, end: np.ndarray) -> Numbers:
        """f, bound and fixed for the state z (M,) after the input `last` (K,); goals (T, N) of x[1..T], rests (T, K), end (M,) of z[T]."""

    def _limits(self, last: np.ndarray) -> list[np.ndarray]:
        """The bounds of inputs and of changes."""
        w = np.repeat(self.on["w"][None], self.T, axis=0)
        w[0] += self.on["W"] @ last
        return [np.tile(self.on["d"], self.T), w.ravel()]

    def _changes(self) -> np.ndarray:
        return np.kron(np.eye(self.T) - np.eye(self.T, k=-1), self.on["W"])


class Condensed(AbstractForm):
    """In the inputs alone."""

    def __init__(self, arrays: dict[str, np.ndarray], constraints: Constraints, horizon: int):
        from scipy.sparse import csr_matrix

        super().__init__(arrays, constraints, horizon)
        T, M, K, N = self.T, self.M, self.K, self.N
        ends = np.zeros((M, T, K))  # of z[T] by the inputs
        power = self.B
        for t in range(T - 1, -1, -1):
            ends[:, t] = power
            power = self.A @ power
        responses = np.einsum("nm,mtk->tnk", self.C, ends[:, ::-1])  # C A^s B
        moved = np.zeros((T, N, T, K))  # of x[1], ..., x[T]
        for t in range(T):
            moved[t, :, : t + 1] = responses[t::-1].transpose(1, 0, 2)
        self.ends, self.moved = ends.reshape(M, T * K), moved.reshape(T * N, T * K)
        self.weight = np.kron(np.diag([1.0] * (T - 1) + [0.0]), self.Q)
        H = self.moved.T @ self.weight @ self.moved + self.ends.T @ self.P @ self.ends + np.kron(np.eye(T), self.R)
        self.H, self.equal = csr_matrix(H + H.T), csr_matrix((0, T * K))
        blocks = [np.kron(np.eye(T), self.on["D"]), self._changes(), np.kron(np.eye(T), self.on["G"]) @ self.moved]
        self.rows = csr_matrix(np.concatenate([*blocks, self.on["E"] @ self.moved[(T - 1) * N :]]))

    def numbers(self, z: np.ndarray, last: np.ndarray, goals: np.ndarray, rests: np.ndarray, end: np.ndarray) -> Numbers:
        """As above."""
        xs = np.empty((self.T, self.N))
        for t in range(self.T):
            z = self.A @ z + self.c
            xs[t] = self.C @ z + self.d
        f = self.moved.T @ (self.weight @ (xs - goals).ravel()) + self.ends.T @ (self.P @ (z - end)) - (rests @ self.R).ravel()
        g = self.on["g"][None] - xs @ self.on["G"].T
        return 2 * f, np.concatenate([*self._limits(last), g.ravel(), self.on["e"] - self.on["E"] @ xs[-1]]), np.zeros(0)


class Banded(AbstractForm):
    """In the inputs and the states."""

    def __init__(self, arrays: dict[str, np.ndarray], constraints: Constraints, horizon: int):
        from scipy.sparse import block_diag, bmat, csr_matrix, eye, kron

        super().__init__(arrays, constraints, horizon)
        T, every = self.T, eye(self.T)
        seen = self.C.T @ self.Q @ self.C
        self.H = csr_matrix(2 * block_diag([kron(every, self.R), kron(eye(T - 1), seen), self.P]))
        shift = csr_matrix(np.eye(T, k=-1))
        self.equal = csr_matrix(bmat([[-kron(every, self.B), kron(every, np.eye(self.M)) - kron(shift, self.A)]]))
        on_inputs = np.concatenate([np.kron(np.eye(T), self.on["D"]), self._changes()])
        last = csr_matrix(np.eye(1, T, T - 1))
        on_states = bmat([[kron(every, self.on["G"] @ self.C)], [kron(last, self.on["E"] @ self.C)]])
        self.rows = csr_matrix(block_diag([csr_matrix(on_inputs), on_states]))
        self.slope = seen, self.C.T @ self.Q

    def numbers(self, z: np.ndarray, last: np.ndarray, goals: np.ndarray, rests: np.ndarray, end: np.ndarray) -> Numbers:
        """As above."""
        to_states = (self.d[None] - goals[:-1]) @ self.slope[1].T
        f = -2 * np.concatenate([(rests @ self.R).ravel(), -to_states.ravel(), self.P @ end])
        g = np.tile(self.on["g"] - self.on["G"] @ self.d, self.T)
        fixed = np.tile(self.c, self.T)
        fixed[: self.M] += self.A @ z
        return f, np.concatenate([*self._limits(last), g, self.on["e"] - self.on["E"] @ self.d]), fixed

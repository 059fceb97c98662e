"""The quadratic program of a predicted horizon, written down once and solved again with other numbers; and what if it has no solution.

    min 1/2 v'Hv + f'v + price's,    rows v <= bound (+ s where soft),    equal v = fixed,    s >= 0       (`dynsys.control.mpc_forms`)

Where no inputs keep the hard rows, a second program puts a price on each of them that is far above every slope of the cost: its slacks
say what can't be kept and where. It gives way on observations first, and on inputs and their changes only if that does not help.
"""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from dynsys.control.constraints import Breach, Constraints
from dynsys.control.mpc_forms import AbstractForm, Banded, Condensed
from dynsys.control.qp import Engine, engine

STIFF = 1e4  # how far the price of a hard row is above the largest slope of the cost
BROKEN = 1e-5  # a breach below this share of 1 + |bound| is the solver's rounding
KEPT = 1e-4  # a solution that breaks a hard row by more is none
LIFTED = 2  # states per observation from which on they are eliminated


@dataclass(frozen=True)
class Solved:
    """inputs (T, K) or None if the solver failed; the hard rows that could not be kept; the soft ones that are not."""

    inputs: Float[np.ndarray, "T K"] | None
    broken: tuple[Breach, ...]
    softened: tuple[Breach, ...]
    reason: str = ""


class Program:
    """Of a system with its weights (`arrays`) and constraints; `form` is how it is written, by default the one that is smaller."""

    def __init__(self, arrays: dict[str, np.ndarray], constraints: Constraints, horizon: int, solver: str, form: Any = None):
        lifted = len(arrays["A"]) > LIFTED * len(arrays["C"])
        self.form: AbstractForm = (form or (Condensed if lifted else Banded))(arrays, constraints, horizon)
        self.T, self.K, self.solver, self.names = horizon, arrays["B"].shape[1], solver, constraints.names()
        self.price = np.zeros(len(self.form.kind))
        self.price[self.form.kind == 2] = np.tile(np.asarray(constraints.price), horizon)
        self.steep = float(np.abs(self.form.H).max())
        self.engines: dict[str, Engine] = {}

    def solve(
        self,
        z: Float[np.ndarray, " M"],
        last: Float[np.ndarray, " K"],
        goals: Float[np.ndarray, "T N"],
        rests: Float[np.ndarray, "T K"],
        end: Float[np.ndarray, " M"],
    ) -> Solved:
        """From the state z after the input `last`, towards goals of x[1], ..., x[T], resting inputs, and `end` of z[T]."""
        numbers = self.form.numbers(z, last, goals, rests, end)
        reason = ""
        for name in ("plain", "states give way", "all give way"):
            found, reason = self._attempt(name, *numbers)
            if found is None:
                continue
            over = self.form.rows @ found - numbers[1]
            small = 1.0 + np.abs(numbers[1])
            hard = self.price == 0
            if name == "plain" and np.any(over[hard] > KEPT * small[hard]):
                continue
            broken = over > BROKEN * small
            inputs = found[: self.T * self.K].reshape(self.T, self.K)
            kept = () if name == "plain" else self._breaches(broken & hard, over)
            return Solved(inputs, kept, self._breaches(broken & ~hard, over))
        return Solved(None, (), (), reason)

    def _attempt(self, name: str, f: np.ndarray, bound: np.ndarray, fixed: np.ndarray) -> tuple[np.ndarray | None, str]:
        """The v that solves one of the programs, or None and why there is none."""
        yields = self.price > 0
        if name == "states give way":
            yields = yields | (self.form.kind >= 2)
        elif name == "all give way":
            yields = np.ones(len(yields), bool)
        slacks = int(yields.sum())
        if name not in self.engines:
            self.engines[name] = self._written(name, np.flatnonzero(yields))
        stiff = STIFF * max(1.0, float(np.abs(f).max()), self.steep)
        price = np.where(self.price > 0, self.price, stiff)[yields]
        found, reason = self.engines[name].solve(np.concatenate([f, price]), np.concatenate([bound, np.zeros(slacks)]), fixed)
        return (found[: len(f)], "") if found is not None and np.isfinite(found).all() else (None, reason or "the solution is not finite")

    def _written(self, name: str, yielding: np.ndarray) -> Engine:
        from scipy.sparse import block_diag, bmat, csc_matrix, csr_matrix, eye

        slacks, (E, _) = len(yielding), self.form.rows.shape
        solver = self.solver if name == "plain" else "CLARABEL"
        if not slacks:
            return engine(solver, *(csc_matrix(M) for M in (self.form.H, self.form.rows, self.form.equal)))
        slack = csr_matrix((-np.ones(slacks), (yielding, np.arange(slacks))), shape=(E, slacks))
        rows = bmat([[self.form.rows, slack], [None, -eye(slacks)]])
        equal = bmat([[self.form.equal, csr_matrix((self.form.equal.shape[0], slacks))]])
        return engine(solver, csc_matrix(block_diag([self.form.H, csr_matrix((slacks, slacks))])), csc_matrix(rows), csc_matrix(equal))

    def _breaches(self, broken: np.ndarray, over: np.ndarray) -> tuple[Breach, ...]:
        """The rows that are marked, a constraint with all its steps and its largest excess."""
        if not broken.any():
            return ()
        found, start = [], 0
        for kind, names in enumerate(self.names):
            steps = 1 if kind == 3 else self.T
            size = len(names) * steps
            marked, amount = (x[start : start + size].reshape(steps, len(names)) for x in (broken, over))
            start += size
            for i in np.flatnonzero(marked.any(axis=0)):
                at = np.flatnonzero(marked[:, i]) + (self.T if kind == 3 else 1 if kind == 2 else 0)
                found.append(Breach(names[i], tuple(at.tolist()), float(amount[:, i].max())))
        return tuple(found)


def program(arrays: dict[str, Any], constraints: Constraints, horizon: int, solver: str) -> Program:
    """The program of this configuration, the same object for the same numbers."""
    parts = [(name, np.ascontiguousarray(np.asarray(x, float))) for name, x in arrays.items()]
    parts += [(name, np.ascontiguousarray(np.asarray(getattr(constraints, name), float))) for name in _ROWS]
    return _program(tuple((name, x.shape, x.tobytes()) for name, x in parts), horizon, solver)


_ROWS = ("D", "d", "W", "w", "G", "g", "price", "E", "e")


@functools.lru_cache(maxsize=32)
def _program(parts: tuple[tuple[str, tuple[int, ...], bytes], ...], horizon: int, solver: str) -> Program:
    made = [np.frombuffer(data).reshape(shape) for _, shape, data in parts]
    named = {name: x for (name, _, _), x in zip(parts[: -len(_ROWS)], made[: -len(_ROWS)], strict=True)}
    return Program(named, Constraints(*made[-len(_ROWS) :]), horizon, solver)  # pyright: ignore[reportCallIssue]

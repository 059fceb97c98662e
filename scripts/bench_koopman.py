"""Koopman regression against kooplearn and PyDMD in one process, and the parallel rollout against the sequential one.

    python scripts/bench_koopman.py [--cases edmd,kernel,rollout] [--toy]

One JSON row for each case and library. Case `edmd`: all monomials to degree 5 of 100,000 pairs of Lorenz-63, from the series to the
operator, lift included; the rivals get the same standardised series, lifted by scikit-learn, and plain least squares as ours.
`eigenvalue_difference` is the largest distance of an eigenvalue to the nearest one of ours, both ways. `peak_mb`: the most memory that was
allocated beyond the series. Cases `kernel` and `rollout`: see bench_koopman_kernel.py and bench_koopman_rollout.py.
"""

import argparse
import json
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import bench_koopman_kernel
import bench_koopman_rollout
import numpy as np

from dynsys.integrate import simulate_system
from dynsys.models.koopman.edmd import EDMD

DEGREE = 5


def lorenz(points: int) -> np.ndarray:
    """Lorenz-63 every 0.01, (points, 3)."""
    return np.asarray(simulate_system("Lorenz", points=points, dt=0.01, key=0).trajectories[0])


def ours(x: np.ndarray) -> np.ndarray:
    """The operator's eigenvalues by dynsys."""
    return np.linalg.eigvals(EDMD.from_series([x], degree=DEGREE, ridge=0.0).A)


def by_kooplearn(x: np.ndarray) -> np.ndarray:
    """The same by kooplearn's least-squares estimator on lifted data."""
    from kooplearn.linear_model import Ridge

    exact: Any = {"alpha": None}  # what its documentation calls for least squares without a ridge
    return np.asarray(Ridge(n_components=None, reduced_rank=False, **exact).fit(_lifted(x)).eig())


def by_pydmd(x: np.ndarray) -> np.ndarray:
    """The same by PyDMD's exact DMD on lifted data."""
    from pydmd import DMD

    psi = _lifted(x)
    return np.asarray(DMD(svd_rank=psi.shape[1], exact=True).fit(psi.T).eigs)


def _lifted(x: np.ndarray) -> np.ndarray:
    from sklearn.preprocessing import PolynomialFeatures

    return PolynomialFeatures(DEGREE).fit_transform((x - x.mean(axis=0)) / x.std(axis=0))


def apart(a: np.ndarray, b: np.ndarray) -> float:
    """The largest distance to the nearest eigenvalue of the other, both ways; inf if their numbers differ."""
    distance = np.abs(np.asarray(a)[:, None] - np.asarray(b)[None, :])
    return float(max(distance.min(axis=0).max(), distance.min(axis=1).max())) if len(a) == len(b) else float("inf")


def timed(call: Callable[[], Any], repeats: int) -> tuple[Any, float, float]:
    """The result, median milliseconds after a warm-up, and the peak of allocated memory in MB, taken in a run of its own."""
    result = call()
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return result, 1e3 * float(np.median(taken)), peak / 2**20


def edmd_rows(toy: bool) -> Iterator[dict]:
    """The rows of case `edmd`; a rival that is not installed gets a row that says so."""
    x = lorenz(2001 if toy else 100_001)
    repeats = 2 if toy else 9
    reference, first = None, 0.0
    for name, call in (("dynsys", ours), ("kooplearn", by_kooplearn), ("pydmd", by_pydmd)):
        row: dict[str, Any] = {"case": f"edmd-{len(x) - 1}x3-degree-{DEGREE}", "library": name}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                values, ms, peak = timed(lambda call=call: call(x), repeats)
        except ImportError as error:
            yield row | {"error": f"not installed: {error.name}"}
            continue
        reference, first = (values, ms) if reference is None else (reference, first)
        yield row | {
            "ms": round(ms, 2),
            "times_ours": round(ms / first, 2),
            "peak_mb": round(peak, 1),
            "eigenvalue_difference": apart(reference, values),
        }
    if not toy:
        longer = np.concatenate([x, x[::-1], x, x[::-1]])
        _, ms, peak = timed(lambda: ours(longer), 3)
        yield {"case": f"edmd-{len(longer) - 1}x3-degree-{DEGREE}", "library": "dynsys", "ms": round(ms, 2), "peak_mb": round(peak, 1)}


CASES = {"edmd": edmd_rows, "kernel": bench_koopman_kernel.rows, "rollout": bench_koopman_rollout.rows}


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--toy", action="store_true", help="tiny sizes: does it run?")
    asked = parser.parse_args()
    for name in asked.cases.split(","):
        for row in CASES[name](asked.toy):
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()

"""Reduced-rank kernel EDMD of Lorenz-63 beside kooplearn's, with one kernel, rank and regulariser: equal numbers, and how long a fit takes.

    python scripts/bench_koopman_kernel.py

One JSON row a library and way of solving. `eigenvalue_error` is the largest distance between an eigenvalue of either spectrum and the
other one, `prediction_error` the largest difference of forecasts in standard deviations, one step and three steps ahead of 200 points;
both against kooplearn's ARPACK solver where it is installed. A fit is timed in one process, several times in turn; `ms` is the median.

kooplearn 2.0.3 predicts with the observable of the earlier point of each pair, so `predict(x, n_steps=1)` of a state returns an estimate
of the present one. The rows therefore hand it the next state as the observable, of which it then returns the operator's forecast.
"""

import argparse
import json
import time
from typing import Any

import numpy as np

from dynsys.integrate import simulate_system
from dynsys.models.koopman.kernel_edmd import KernelEDMD

WIDTH, RIDGE, RANK, AHEAD = 1.0, 1e-6, 20, 200


def rows(toy: bool = False) -> list[dict[str, Any]]:
    """One row a library; at toy size 300 pairs."""
    pairs, repeats = (300, 1) if toy else (5000, 3)
    raw = np.asarray(simulate_system("Lorenz", points=pairs + 1, dt=0.05, key=0).trajectories[0][:])
    x = (raw - raw.mean(axis=0)) / raw.std(axis=0)
    ways = {"dynsys": lambda: _ours(x, False), "dynsys, sketch": lambda: _ours(x, True)}
    try:
        from kooplearn.kernel import KernelRidge  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        missing = f"not importable here ({error}); its rows are left out"
    else:
        missing = None
        for solver in ("arpack", "randomized"):
            ways[f"kooplearn, {solver}"] = lambda solver=solver: _theirs(KernelRidge, x, solver)
    made, seconds = {}, {name: [] for name in ways}
    for _ in range(repeats):
        for name, fit in ways.items():
            start = time.perf_counter()
            model = fit()
            seconds[name].append(time.perf_counter() - start)
            made[name] = model
    told = {name: _told(model, x) for name, model in made.items()}
    true = told.get("kooplearn, arpack", told["dynsys"])
    found: list[dict[str, Any]] = []
    for name, (values, forecasts) in told.items():
        row = {"case": f"kernel-edmd-{pairs}", "library": name, "ms": round(1000 * float(np.median(seconds[name])), 1), "rank": RANK}
        row["eigenvalue_error"] = _apart(values, true[0])
        row["prediction_error"] = float(max(np.abs(a - b).max() for a, b in zip(forecasts, true[1], strict=True)))
        found.append(row)
    if missing:
        found.append({"case": f"kernel-edmd-{pairs}", "library": "kooplearn", "note": missing})
    return found


def _ours(x: np.ndarray, sketch: bool) -> KernelEDMD:
    return KernelEDMD.from_series([x], kernel="gaussian", width=WIDTH, rank=RANK, ridge=RIDGE, sketch=sketch)


def _theirs(maker: Any, x: np.ndarray, solver: str) -> Any:
    model = maker(RANK, kernel="rbf", gamma=0.5 / WIDTH**2, alpha=RIDGE, eigen_solver=solver, random_state=0)
    return model.fit(x, np.concatenate([x[1:], x[-1:]]))


def _told(model: Any, x: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Eigenvalues, and forecasts of the first points one step and three steps ahead."""
    if not isinstance(model, KernelEDMD):
        return model.eig(), (model.predict(x[:AHEAD], 1, observable=True), model.predict(x[:AHEAD], 3, observable=True))
    states = [model.step(model.lift(point)) for point in x[:AHEAD]]
    later = [model.step(model.step(z)) for z in states]
    return np.linalg.eigvals(model.M), (np.stack([model.observe(z) for z in states]), np.stack([model.observe(z) for z in later]))


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    apart = np.abs(a[:, None] - b[None, :])
    return float(max(apart.min(axis=0).max(), apart.min(axis=1).max()))


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="tiny sizes: does it run?")
    for row in rows(parser.parse_args().toy):
        print(json.dumps(row))


if __name__ == "__main__":
    main()

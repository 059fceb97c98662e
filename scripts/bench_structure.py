"""What an AL-RNN with the fewest rectified units says of a known system: regions visited, and fixed points beside the true ones.

    train: 100,000 clean points (Lorenz: dt .01; Roessler: 100 a period);  AL-RNN, M = 20, P = 2 (Lorenz) or 1 (Roessler)

fit, keep the seed with the best free-run score on the recording, run it freely for 100,000 points after 1,000, count the linear
regions that it visits (targets: 3 and 2, Brenner et al., NeurIPS 2024), find its fixed points, and compare what they look like to an
observer with the true fixed points: `distance` is that of each true one to the nearest of the model, over the largest extent of the
recording in any column (target 5 %). Seeds whose scores are within 10 % of the best can't be told apart; `minimal` is the one of them
with the fewest regions. One JSON row a case. `--toy` makes everything small; `--case NAME` picks one.
"""

import argparse
import dataclasses
import json
import platform
import time
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

import dynsys
from dynsys.analysis.symbols import MINIMAL_CODES, symbolic_code


@dataclasses.dataclass(frozen=True)
class Case:
    """A system and its fit; `fixed` (n, 3) are the true fixed points, the first `compared` those that the attractor turns around."""

    system: str
    dt: float
    interval: int | None
    fixed: np.ndarray
    compared: int

    @property
    def n_relu(self) -> int:
        """P of the known minimal code."""
        return MINIMAL_CODES[self.system][0]

    @property
    def regions(self) -> int:
        """Regions of the known minimal code."""
        return MINIMAL_CODES[self.system][1]


def lorenz_fixed(beta: float = 8 / 3, rho: float = 28.0) -> np.ndarray:
    """The two saddle-foci (+-s, +-s, rho - 1), s = sqrt(beta (rho - 1)), and the origin, which the attractor does not show."""
    s = np.sqrt(beta * (rho - 1.0))
    return np.array([[s, s, rho - 1.0], [-s, -s, rho - 1.0], [0.0, 0.0, 0.0]])


def rossler_fixed(a: float = 0.2, b: float = 0.2, c: float = 5.7) -> np.ndarray:
    """(a s, -s, s) with a s**2 - c s + b = 0: the inner one, around which the attractor turns, and the outer one, far from it."""
    s = (c + np.array([-1.0, 1.0]) * np.sqrt(c**2 - 4 * a * b)) / (2 * a)
    return np.stack([a * s, -s, s], axis=1)


CASES = {
    "lorenz": Case("Lorenz", 0.01, 16, lorenz_fixed(), 2),
    "rossler": Case("Rossler", 0.0585691, None, rossler_fixed(), 1),
}
COMMON = (
    *("model.dim=20", "training.window=200", "training.checkpoints=80", "training.forcing=sparse"),
    *("training.learning_rate=1e-3", "training.final_learning_rate=1e-5", "split.validation=0.1", "split.test=0.1"),
)


def orbit(model: dynsys.AbstractMap, start: np.ndarray, points: int) -> np.ndarray:
    """Latent states of a free run, 1,000 steps after its start (points, M)."""
    return np.asarray(dynsys.rollout(model, model.lift(jnp.asarray(start, jnp.float32)), 1000 + points))[1000:]


def read(case: Case, found: dynsys.Reconstruction, model: Any, points: int, extent: float) -> dict:
    """Regions and fixed points of one seed's model."""
    from dynsys.analysis.piecewise.search import find_cycles

    states = orbit(model, np.asarray(found.start), points)
    code, cycles = symbolic_code(model, states), find_cycles(model, 1, states=states)
    seen = [found.preparation.backward(np.asarray(model.observe(jnp.asarray(cycle.points[0])))[None])[0] for cycle in cycles]
    away = [min((float(np.linalg.norm(at - true)) for at in seen), default=np.inf) / extent for true in case.fixed[: case.compared]]
    return {
        "regions": code.n_symbols,
        "shares": code.shares.round(5).tolist(),
        "distance": [round(share, 4) if np.isfinite(share) else None for share in away],
        "fixed_points": [{"kind": cycle.kind, "at": at.round(2).tolist()} for cycle, at in zip(cycles, seen, strict=True)],
    }


def run(name: str, toy: bool, seeds: int, seed: int, out: Path | None, extra: list[str]) -> dict:
    """Train, count and compare one case."""
    case = CASES[name]
    series = dynsys.simulate_system(case.system, 2000 if toy else 100_000, dt=case.dt)
    settings = [*COMMON, f"model.n_relu={case.n_relu}", f"training.seed={seed}"]
    settings += [] if case.interval is None else [f"training.interval={case.interval}"]
    settings += ["selection.starts=2", "selection.steps=200", "training.checkpoints=2"] if toy else []
    began = time.perf_counter()
    found = dynsys.fit(series, model="alrnn", seeds=2 if toy else seeds, steps=50 if toy else 40_000, set=[*settings, *extra], out=out)
    seconds, points = time.perf_counter() - began, 2000 if toy else 100_000
    extent = float(np.ptp(series.trajectories[0], axis=0).max())
    best = found.outcome.best
    # a finished folder holds the best seed alone
    models = dict(enumerate(found.ensemble)) if found.ensemble else {best: found.model}
    rows = {i: {"validation": round(found.outcome.scores[i], 3), **read(case, found, m, points, extent)} for i, m in models.items()}
    near = [i for i in rows if found.outcome.scores[i] <= 1.1 * found.outcome.scores[best]]
    return {
        "case": name,
        **rows[best],
        "regions_target": case.regions,
        "distance_target": 0.05,
        "extent": round(extent, 2),
        "kept": best,
        "minimal": min(near, key=lambda i: (rows[i]["regions"], found.outcome.scores[i])),
        "seeds": [{name: row[name] for name in ("validation", "regions", "distance")} for row in rows.values()],
        "test": {score.name: round(score.value, 4) for score in found.scores if score.name in ("d_stsp_binned", "d_h", "lyapunov_max")},
        "updates": found.settings.training.steps,
        "seed": seed,
        "seconds": round(seconds, 1),
        "machine": platform.processor() or platform.machine(),
    }


def main() -> None:
    """Print one JSON row a case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--case", choices=list(CASES))
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0, help="where the random numbers begin")
    parser.add_argument("--out", type=Path, help="keep the run folder here; one that is finished is read, and its best seed alone is shown")
    parser.add_argument("--set", action="append", default=[], help="change a setting of every case")
    given = parser.parse_args()
    for name in CASES:
        if given.case in (None, name):
            print(json.dumps(run(name, given.toy, given.seeds, given.seed, given.out, given.set)), flush=True)


if __name__ == "__main__":
    main()

"""The verifier that `learn` asks: branch and bound, whose counterexamples go back into training."""

from typing import Any

import numpy as np

from dynsys.verify.certify import certify
from dynsys.verify.learn import Verifier
from dynsys.verify.loop import ClosedLoop
from dynsys.verify.lyapunov import AbstractLyapunov
from dynsys.verify.search import Told


def by_certify(
    plant: Any, low: Any, high: Any, *, rest: Any = None, rate: float = 0.0, seconds: float = 30.0, progress: Told | None = None
) -> Verifier:
    """A verifier for a plant with the equilibrium (V.goal, rest) on the box [low, high] (n,); each question takes at most `seconds`.

    progress: as `certify` takes it.
    """

    def ask(V: AbstractLyapunov, policy: Any, level: float) -> tuple[bool, Any]:
        loop = ClosedLoop.of(plant, policy, goal=V.goal, rest=rest)
        box = tuple(np.broadcast_to(np.asarray(side, float), (V.dim,)) for side in (low, high))
        proof = certify(loop, V, domain=(box[0], box[1]), rate=rate, level=level, seconds=seconds, keep_leaves=False, progress=progress)
        found = proof.counterexample  # it may lie outside the box, where the set sticks out: then its nearest state of the border counts
        return proof.proved, [] if found is None else [np.clip(found.state, *box)]

    return ask

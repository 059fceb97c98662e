"""Linear industrial plants with additive noise, in deviations from their operating point.

    x' = A x + B u + w,    w = noise * sqrt(dt) * xi,    xi independent standard normal numbers

A and B are those of a continuous plant, exact for inputs that are held over dt. The state is (x, s): s, a whole number below 2^24, is the
state of a random generator, from which xi is hashed, so that a state determines everything after it. The agent does not see s.
`quiet(environment)` is the same plant without noise, which a planner should plan on: with s in hand it would foresee the noise.

helicopter     vertical take-off helicopter at 135 knots, longitudinal: horizontal and vertical speed (knots), pitch rate (deg/s), pitch
               (deg); collective and longitudinal cyclic (deg). Narendra & Tripathi, J. Aircraft 10, 193 (1973)
reactor        unstable batch reactor. Rosenbrock, Computer-Aided Control System Design, Academic Press (1974), p. 213
distillation   distillation column, ill-conditioned: product compositions; reflux and boil-up, minutes.
               Skogestad, Morari, Doyle, IEEE Trans. Autom. Control 33, 1092 (1988)
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dynsys.dynamics import AnyInput, AnyState
from dynsys.errors import UnknownName
from dynsys.precision import x64
from dynsys_envs.functional import Regulation, numbers
from dynsys_envs.hashing import hashed_normal
from dynsys_envs.maps import AbstractSeen
from dynsys_envs.scenes import traces_scene

MODULUS = 1 << 24  # whole numbers up to here are exact in float32

# A, B, the limits of the inputs, the spread of first states, dt
PLANTS: dict[str, tuple[Any, Any, tuple[float, ...], tuple[float, ...], float]] = {
    "helicopter": (
        [[-0.0366, 0.0271, 0.0188, -0.4555], [0.0482, -1.01, 0.0024, -4.0208], [0.1002, 0.3681, -0.707, 1.42], [0.0, 0.0, 1.0, 0.0]],
        [[0.4422, 0.1761], [3.5446, -7.5922], [-5.52, 4.49], [0.0, 0.0]],
        (2.0, 2.0),
        (2.0, 2.0, 1.0, 1.0),
        0.05,
    ),
    "reactor": (
        [[1.38, -0.2077, 6.715, -5.676], [-0.5814, -4.29, 0.0, 0.675], [1.067, 4.273, -6.654, 5.893], [0.048, 4.273, 1.343, -2.104]],
        [[0.0, 0.0], [5.679, 0.0], [1.136, -3.146], [1.136, 0.0]],
        (3.0, 3.0),
        (0.5, 0.5, 0.5, 0.5),
        0.05,
    ),
    "distillation": (
        [[-1 / 75, 0.0], [0.0, -1 / 75]],
        [[0.878 / 75, -0.864 / 75], [1.082 / 75, -1.096 / 75]],
        (5.0, 5.0),
        (1.0, 1.0),
        1.0,
    ),
}


class NoisyLinear(AbstractSeen):
    """x' = A x + B u + noise xi on z = (x, s); noise (M,) is a standard deviation a step."""

    A: Float[Array, "X X"]
    B: Float[Array, "X K"]
    noise: Float[Array, " X"]

    @property
    def dim(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """M: the plant's states and s."""
        return len(self.noise) + 1

    @property
    def n_inputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """K."""
        return self.B.shape[1]

    def step(self, z: AnyState, u: AnyInput = None) -> AnyState:
        """The next (x, s), (M,), (K,) -> (M,)."""
        x, s = jnp.asarray(z[:-1]), jnp.asarray(z[-1]).astype(jnp.uint32)
        xi = hashed_normal(jnp.uint32(0), s, len(self.noise)).astype(x.dtype)
        after = self.A @ x + self.noise.astype(x.dtype) * xi
        if u is not None:
            after = after + self.B @ jnp.asarray(u)
        following = (s * np.uint32(1664525) + np.uint32(1013904223)) % np.uint32(MODULUS)  # of full period (Hull & Dobell 1962)
        return jnp.concatenate([after, following.astype(x.dtype)[None]])


def linear_plant(plant: str = "helicopter", *, noise: float = 0.05, dt: float | None = None, max_steps: int = 200) -> Regulation:
    """The task `dynsys/LinearPlant-v0`; plant: helicopter, reactor or distillation. noise: in units of the spread of first states."""
    if plant not in PLANTS:
        raise UnknownName("plant", plant, PLANTS)
    A, B, limits, spread, usual = PLANTS[plant]
    dt = usual if dt is None else dt
    held_A, held_B = held(np.asarray(A), np.asarray(B), dt)
    wide = np.asarray(spread)
    with x64():
        matrices = (jnp.asarray(held_A), jnp.asarray(held_B), jnp.asarray(noise * np.sqrt(dt) * wide))
    M = len(wide)
    return Regulation(  # pyright: ignore[reportCallIssue]
        dynamics=NoisyLinear(*matrices),  # pyright: ignore[reportCallIssue]
        goal=numbers(*np.zeros(M + 1)),
        rest=numbers(*np.zeros(len(limits))),
        low=numbers(*(-limit for limit in limits)),
        high=numbers(*limits),
        Q=numbers(*(1 / wide**2 / M), 0.0),
        R=numbers(*(0.1 / np.asarray(limits) ** 2)),
        start=numbers(*np.zeros(M), MODULUS / 2),
        spread=numbers(*wide, MODULUS / 2),
        box=numbers(*(100 * wide), np.inf),
        hidden=(M,),
        scene=traces_scene,
        dt=dt,
        max_steps=max_steps,
    )


def held(A: Float[np.ndarray, "M M"], B: Float[np.ndarray, "M K"], dt: float) -> tuple[np.ndarray, np.ndarray]:
    """exp(A dt) and int_0^dt exp(A s) ds B, by one exponential of a block matrix (Van Loan 1978)."""
    from scipy.linalg import expm

    M, K = B.shape
    block = expm(dt * np.block([[A, B], [np.zeros((K, M + K))]]))
    return block[:M, :M], block[:M, M:]


def quiet(environment: Regulation) -> Regulation:
    """The same plant without noise."""
    return eqx.tree_at(lambda tree: tree.dynamics.noise, environment, replace_fn=jnp.zeros_like)

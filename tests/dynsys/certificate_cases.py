"""Certificates for the tests of the checker, made without a search: a grid of boxes, which the checker may halve."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from dynsys.dynamics import AbstractFlow, Discretized
from dynsys.verify import branch
from dynsys.verify.certificate import save_certificate
from dynsys.verify.certify import Outcome, Proof
from dynsys.verify.loop import ClosedLoop, respond
from dynsys.verify.lyapunov import NeuralLyapunov, PiecewiseAffineLyapunov, QuadraticLyapunov
from dynsys.verify.network import Network
from dynsys.verify.symbolic import SymbolicLyapunov

from . import verify_cases as cases


class ReverseVanDerPol(AbstractFlow):
    dim: int = 2
    n_inputs: int = 0

    def field(self, t, z, u=None):
        return jnp.stack([-z[1], z[0] - (1 - z[0] ** 2) * z[1]])


class Leap(cases.LinearMap):
    """Halves x, but throws states far away that are near the goal and to its left; the goal itself stays."""

    def step(self, z, u=None):
        return jnp.where((z[0] < 0) & (jnp.max(jnp.abs(z)) < 0.1), 3.0, 0.5 * z)


def claimed(loop, V, path, level, rate, frame, *, r0=2.0**-6, core=0.0, domain=None, cells=256):
    """A file that claims this, whether it is true or not."""
    n = loop.dim
    mid, rad = branch.grid(n, loop.low.shape[0], cells)
    search = branch.Search([], [], [(mid, rad, np.zeros((len(mid), 2)))], 1.0, len(mid), None)
    domain = (np.full(n, -np.inf), np.full(n, np.inf)) if domain is None else tuple(np.asarray(z, float) for z in domain)
    proof = Proof(
        Outcome.PROVED, "", level, (level, float("nan")), rate, core, len(mid), 0.0, 0.0, 1.0, r0, 0, 0.1, np.asarray(frame, float), domain,
        None, (), search,
    )  # fmt: skip
    return save_certificate(proof, loop, V, path, about={"system": "a test"})


def ellipse(V, level):
    """The frame whose cube touches {V <= level} of a quadratic V."""
    values, vectors = np.linalg.eigh(np.asarray(V.P))
    return vectors @ np.diag(np.sqrt(level / values)) * (1 + 1e-9)


def swinging():
    """The inverted pendulum, as a flow, under its saturated regulator."""
    plant = cases.InvertedPendulum()
    return cases.regulated(plant, plant, np.eye(2), np.eye(1), 6.0)


def friction(plant, x, u, w):
    """w is a change of the friction."""
    return respond(plant, x, u) - jnp.stack([0.0 * w[0], w[0] * x[1]])


def contraction():
    return cases.linear_map(np.array([[0.6, 0.2], [-0.1, 0.5]]))


def spiral():
    return cases.linear_flow(np.array([[-1.0, 0.3], [-0.2, -1.0]]))


def network(activation, last):
    return Network.init((2, 8, 4), activation=activation, last=last, key=jr.key(0))


def pendulum_map():
    plant = Discretized(cases.InvertedPendulum(), 0.05, cases.euler)
    loop, V = cases.regulated(plant, plant, np.eye(2), np.eye(1), 6.0)
    return loop, V, 50.0, 0.001, ellipse(V, 50.0), dict(r0=2.0**-4, domain=([-12, -12], [12, 12]))


def pendulum_flow():
    loop, V = swinging()
    return loop, V, 100.0, 0.1, ellipse(V, 100.0), dict(r0=2.0**-4)


def linear_map():
    A = np.array([[0.9, 0.2], [-0.1, 0.8]])
    V = QuadraticLyapunov.of_linear(A)
    return cases.linear_map(A), V, 2.0, 0.01, ellipse(V, 2.0), dict(domain=([-3, -3], [3, 3]))


def van_der_pol():
    loop = ClosedLoop.of(ReverseVanDerPol(), goal=np.zeros(2))
    V = QuadraticLyapunov.of_linear(np.array([[0.0, -1.0], [1.0, -1.0]]), continuous=True)
    return loop, V, 2.0, 0.01, ellipse(V, 2.0), dict(domain=([-3, -3], [3, 3]))


def norm_map():
    V = NeuralLyapunov(net=network("leaky", 0.1), R=jnp.eye(2), goal=jnp.zeros(2), eps=0.1, form="absolute")
    return contraction(), V, 2.0, 0.01, 3 * np.eye(2), dict(domain=([-3, -3], [3, 3]))


def neural_map():
    V = NeuralLyapunov(net=network("tanh", 0.3), R=jnp.eye(2), goal=jnp.zeros(2), eps=0.1)
    return contraction(), V, 2.0, 0.01, 3 * np.eye(2), dict(domain=([-3, -3], [3, 3]))


def neural_flow():
    loop, plain = swinging()
    R = jnp.asarray(np.linalg.cholesky(np.asarray(plain.P)).T)
    V = NeuralLyapunov(net=network("tanh", 0.1), R=R, goal=jnp.zeros(2), eps=0.01)
    return loop, V, 20.0, 0.1, 1.1 * ellipse(plain, 21.0), {}


def symbolic_flow():
    V = SymbolicLyapunov.of("2*(x + 0.1*y)**2 + y**2 + 0.5*(1 - cos(x))", ("x", "y"))
    return spiral(), V, 1.0, 0.01, 2 * np.eye(2), {}


def polytope_map():
    V = PiecewiseAffineLyapunov.of(np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
    return contraction(), V, 1.0, 0.01, 2 * np.eye(2), {}


def norm_flow():
    return spiral(), cases.NormLyapunov(jnp.eye(2), jnp.zeros(2)), 0.9, 0.1, np.eye(2), {}


def pushed_flow():
    """A push of the input that does not vanish at the goal: nothing is claimed below the core."""
    loop, V = swinging()
    loop = ClosedLoop.of(loop.plant, loop.policy, goal=loop.goal, rest=np.zeros(1), disturbance=([-0.1], [0.1]))
    return loop, V, 20.0, 0.01, ellipse(V, 20.0), dict(core=2.0, r0=float("nan"))


def rough_flow():
    loop, V = swinging()
    loop = ClosedLoop.of(loop.plant, loop.policy, goal=loop.goal, rest=np.zeros(1), disturbance=([-0.1], [0.3]), enter=friction)
    return loop, V, 20.0, 0.1, ellipse(V, 20.0), {}


def leaping_map():
    """A claim that is false in one half of a small neighbourhood of the goal, and true everywhere else."""
    loop = contraction()
    plant = loop.plant
    loop = eqx.tree_at(lambda loop: loop.plant, loop, Leap(plant.A, plant.place, plant.width, plant.depth))
    return loop, QuadraticLyapunov.of(np.eye(2)), 1.0, 0.01, 1.01 * np.eye(2), {}


TRUE = (
    pendulum_map, pendulum_flow, linear_map, van_der_pol, norm_map, neural_map, neural_flow, symbolic_flow, polytope_map, norm_flow,
    pushed_flow, rough_flow,
)  # fmt: skip


def written(case, path):
    loop, V, level, rate, frame, more = case()
    return claimed(loop, V, path, level, rate, frame, **more)

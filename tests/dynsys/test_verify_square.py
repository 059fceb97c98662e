"""Quadratic forms on boxes, and the coordinates that boxes are split in: against sampled and independently optimised values."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from dynsys.control.lqr import lqr_of
from dynsys.dynamics import AbstractFlow
from dynsys.errors import InvalidValue
from dynsys.precision import x64
from dynsys.verify import frames
from dynsys.verify.affine import Affine, lift
from dynsys.verify.certify import certify
from dynsys.verify.frames import along, bent_forms, diagonal, directions, enclosing
from dynsys.verify.level import volume_in
from dynsys.verify.loop import ClosedLoop
from dynsys.verify.lyapunov import NeuralLyapunov, PiecewiseAffineLyapunov, QuadraticLyapunov
from dynsys.verify.network import Network
from dynsys.verify.parts import quadratic, rest
from dynsys.verify.policy import SaturatedLinear
from dynsys.verify.square import Factors, Square, enclosed, opposite, upper

from .verify_cases import linear_map


@pytest.fixture(autouse=True)
def _double():
    with x64():
        yield


def case(rng, n, extra, indefinite=False):
    """A form, its box and a plane."""
    A = rng.normal(size=(n, n))
    M = 0.5 * (A + A.T) if indefinite else -(A @ A.T)
    N = n + extra
    mid, rad = rng.normal(size=N), rng.uniform(0, 1, size=N) * rng.choice([1e-3, 1.0])
    rad[rng.integers(N)] = 0.0
    return M, mid, rad, rng.normal(), rng.normal(size=N), rng.uniform(0, 0.1)


def form_at(M, mid, rad, c, a, xi):
    """The form and the plane at xi (S, N), in extended precision."""
    n = len(M)
    M, mid, rad, a, xi = (np.asarray(z, np.longdouble) for z in (M, mid, rad, a, xi))
    y = (mid + rad * xi)[..., :n]
    return np.einsum("...i,ij,...j->...", y, M, y) + xi @ a + np.longdouble(c)


def minus(xi, M, mid, rad, c, a):
    return -float(form_at(M, mid, rad, c, a, xi))


def scattered(rng, N):
    """Points of the cube, half of them corners, edges and faces."""
    xi = rng.uniform(-1, 1, size=(4000, N))
    return np.where(rng.uniform(size=xi.shape) < 0.5, np.sign(xi), xi)


@pytest.mark.parametrize("n", [1, 2, 4, 7])
@pytest.mark.parametrize("extra", [0, 2])
def test_a_concave_form_is_bounded_by_its_largest_value(n, extra):
    rng = np.random.default_rng(10 * n + extra)
    for _ in range(15):
        M, mid, rad, c, a, e = case(rng, n, extra)
        square = enclosed(lift(jnp.asarray(M)), Factors.of(M))
        got = upper(square, jnp.asarray(mid), jnp.asarray(rad), Affine(jnp.asarray(c), jnp.asarray(a), jnp.asarray(e)))
        xi = scattered(rng, n + extra)
        values = form_at(M, mid, rad, c, a, xi) + e
        assert np.all(values <= float(got.total))
        best = minimize(minus, np.zeros(n + extra), (M, mid, rad, c, a), bounds=[(-1, 1)] * (n + extra), tol=1e-12)
        scale = np.abs(M).sum() * (1 + np.max(np.abs(mid)) + np.max(rad)) ** 2
        assert float(got.total) <= -best.fun + e + 0.05 * scale * np.max(rad) + 1e-12  # a few sweeps need not reach the top
        faces = np.asarray(got.on_faces())
        for i in range(n + extra):
            for row, side in enumerate((1.0, -1.0)):
                held = xi.copy()
                held[:, i] = side
                assert np.all(form_at(M, mid, rad, c, a, held) + e <= faces[row, i])


def test_nothing_is_lost_where_the_form_is_diagonal():
    rng = np.random.default_rng(3)
    for _ in range(50):
        q, mid, rad, a = -rng.uniform(0.1, 2, size=3), rng.normal(size=3), rng.uniform(0, 1, size=3), rng.normal(size=3)
        square = enclosed(lift(jnp.diag(q)), Factors.of(np.diag(q)))
        got = float(upper(square, jnp.asarray(mid), jnp.asarray(rad), Affine(jnp.zeros(()), jnp.asarray(a), jnp.zeros(()))).total)
        xi = np.linspace(-1, 1, 20_001)
        terms = [np.max(q[i] * (mid[i] + rad[i] * xi) ** 2 + a[i] * xi) for i in range(3)]
        assert sum(terms) <= got <= sum(terms) + 1e-6


def test_whatever_the_factors_are_the_bound_holds():
    """Wrong eigenvectors cost sharpness, not truth; and the part that is not concave is told apart."""
    rng = np.random.default_rng(4)
    for k in range(20):
        M, mid, rad, c, a, e = case(rng, 3, 0, indefinite=True)
        factors = Factors.of(M + (0.1 if k % 2 else 0.0) * rng.normal(size=(3, 3)))
        square = enclosed(lift(jnp.asarray(M)), factors)
        convex = M + np.asarray(square.down).T @ np.asarray(square.down)  # what is left for the affine number is |U y|^2
        off = np.abs(convex - np.asarray(square.up).T @ np.asarray(square.up))
        assert np.all(0.5 * (off + off.T) <= np.asarray(square.off) + 1e-12)
        got = upper(square, jnp.asarray(mid), jnp.asarray(rad), Affine(jnp.asarray(c), jnp.asarray(a), jnp.asarray(e)))
        xi = scattered(rng, 3)
        rising = np.sum(((mid + rad * xi) @ np.asarray(square.up).T) ** 2, axis=1)
        assert np.all(form_at(M, mid, rad, c, a, xi) - rising + e <= float(got.total))


class Compensated(eqx.Module):
    """x1^2 - 0.9 x2^2, told as the quadratic part, plus x2^2: positive, though its quadratic part is not."""

    goal: Any

    def value(self, x):
        return x[0] ** 2 + 0.1 * x[1] ** 2


@quadratic.register
def _(V: Compensated):
    return jnp.diag(jnp.array([1.0, -0.9])), jnp.zeros((2, 2)), True


@rest.register
def _(V: Compensated, x):
    return x[1] ** 2


@pytest.mark.parametrize("frame", ["box", None, 2 * np.eye(2)])
def test_a_quadratic_part_that_is_not_positive_hides_nothing(frame):
    """The set {V <= 1} reaches |x2| = 3.16, out of the domain."""
    proof = certify(
        ClosedLoop.of(Linear(), goal=np.zeros(2)), Compensated(jnp.zeros(2)), domain=([-2, -2], [2, 2]), rate=0.1, level=1.0, frame=frame
    )
    assert proof.counterexample is not None
    inside = certify(ClosedLoop.of(Linear(), goal=np.zeros(2)), Compensated(jnp.zeros(2)), domain=([-2, -2], [2, 2]), rate=0.1, level=0.2)
    assert not inside.proved or np.max(np.abs(inside.frame)) >= 1.4


def test_the_opposite_of_a_form_is_bounded_too():
    rng = np.random.default_rng(5)
    for _ in range(20):
        M, mid, rad, c, a, e = case(rng, 3, 1)
        square = enclosed(lift(jnp.asarray(M)), Factors.of(M))
        got = opposite(square, jnp.asarray(mid), jnp.asarray(rad), Affine(jnp.asarray(c), jnp.asarray(a), jnp.asarray(e)))
        xi = scattered(rng, 4)
        assert np.all(form_at(-M, mid, rad, c, a, xi) + e <= float(got))


def test_a_matrix_known_within_bounds():
    rng = np.random.default_rng(6)
    M, mid, rad, c, a, e = case(rng, 3, 0)
    off = np.full((3, 3), 1e-3)
    square: Square = enclosed(Affine(jnp.asarray(M), None, jnp.asarray(off)), Factors.of(M))
    got = float(upper(square, jnp.asarray(mid), jnp.asarray(rad), Affine(jnp.asarray(c), jnp.asarray(a), jnp.asarray(e))).total)
    for _ in range(50):
        shift = rng.choice([-1e-3, 1e-3], size=(3, 3))
        assert np.all(form_at(M + 0.5 * (shift + shift.T), mid, rad, c, a, scattered(rng, 3)) + e <= got)


class Coupled(AbstractFlow):
    """Two pendulums with a spring, a torque each."""

    dim: int = eqx.field(static=True, default=4)
    n_inputs: int = eqx.field(static=True, default=2)

    def field(self, t, z, u=None):
        pull = 0.5 * (z[1] - z[0])
        return jnp.stack([z[2], z[3], jnp.sin(z[0]) + pull + u[0], jnp.sin(z[1]) - pull + u[1]])


def coupled():
    """The loop with saturated torques, V, the gain, and the matrix of the decrease."""
    plant = Coupled()
    regulator = lqr_of(plant, np.zeros(4), np.zeros(2), np.eye(4), np.eye(2))
    loop = ClosedLoop.of(plant, SaturatedLinear.of(regulator.K, low=-1.5, high=1.5), goal=np.zeros(4), rest=np.zeros(2))
    P = np.asarray(regulator.P)
    A = np.asarray(jax.jacfwd(lambda x: loop.field(x))(loop.goal))
    return loop, QuadraticLyapunov.of(P), np.asarray(regulator.K), A.T @ P + P @ A


def parallel(g, rows):
    return any(abs(g @ row) > (1 - 1e-9) * np.linalg.norm(g) * np.linalg.norm(row) for row in rows)


def test_the_directions_of_coupled_pendulums_are_their_angles_and_torques():
    loop, V, K, M = coupled()
    G = directions(loop, np.asarray(V.P), M)
    assert G is not None
    for wanted in (*np.eye(4)[:2], *K):
        assert parallel(wanted, G)
    assert all(parallel(g, [*np.eye(4)[:2], *K]) for g in bent_forms(loop))


@pytest.mark.parametrize("kind", ["diagonal", "directions"])
def test_the_cube_encloses_the_set(kind):
    loop, V, _, M = coupled()
    P, level = np.asarray(V.P), 2.0
    G = directions(loop, P, M)
    T = diagonal(P, M, level) if kind == "diagonal" else along(G, P, level)
    x = np.random.default_rng(0).normal(size=(10_000, 4))
    x = x / np.sqrt(np.einsum("si,ij,sj->s", x, P, x))[:, None] * np.sqrt(level)
    reach = np.max(np.abs(np.linalg.solve(T, x.T)))
    assert 0.9 < reach < 1


def test_a_linear_loop_and_a_network_have_no_directions():
    plain = ClosedLoop.of(Linear(), goal=np.zeros(2))
    assert directions(plain, np.eye(2), -np.eye(2)) is None
    waves = ClosedLoop.of(Waves(), goal=np.zeros(2))
    assert directions(waves, np.eye(2), -np.eye(2)) is None


class Linear(AbstractFlow):
    dim: int = eqx.field(static=True, default=2)
    n_inputs: int = eqx.field(static=True, default=0)

    def field(self, t, z, u=None):
        return -z


class Waves(Linear):
    """Three directions in a plane."""

    def field(self, t, z, u=None):
        return -z + 0.1 * jnp.stack([jnp.sin(z[0]) + jnp.sin(z[1]), jnp.sin(z[0] + z[1]) + jnp.sin(z[0] - z[1])])


def test_directions_need_fewer_boxes():
    loop, V, _, _ = coupled()
    boxes = {}
    for frame in ("diagonal", "directions"):
        proof = certify(loop, V, domain=None, rate=0.01, level=1.75, frame=frame, seconds=30)
        assert proof.proved
        boxes[frame] = proof.boxes
    assert boxes["directions"] < 0.5 * boxes["diagonal"]
    assert certify(loop, V, domain=None, rate=0.01, level=1.75, seconds=30).boxes == boxes["directions"]  # the default


def test_a_wrong_frame_is_refused():
    loop, V, _, _ = coupled()
    for frame in ("diagonals", np.ones((4, 4)), np.eye(3)):
        with pytest.raises(InvalidValue, match="frame"):
            certify(loop, V, domain=None, rate=0.01, level=1.0, frame=frame)


def neural(n, key=0):
    """|phi(x) - phi(0)|^2 + 0.1 |x|^2."""
    net = Network.init((n, 8, 4), key=jax.random.key(key))
    return NeuralLyapunov(net=net, R=jnp.sqrt(0.1) * jnp.eye(n), goal=jnp.zeros(n))


@pytest.mark.parametrize("n", [2, 4])
def test_the_cube_of_a_curved_set_encloses_it_and_is_smaller_than_the_box(n):
    V, level, half = neural(n), 0.3, np.full(n, 2.0)
    T = np.asarray(enclosing(V, level, -half, half))
    x = jax.random.uniform(jax.random.key(1), (200_000, n), minval=-2.0, maxval=2.0)
    inside = x[jax.vmap(V.value)(x) <= level]
    assert len(inside) > 100
    assert np.max(np.abs(np.linalg.solve(T, np.asarray(inside).T))) < 1
    assert abs(np.linalg.det(T)) < 0.7 * 2.0**n
    value, _ = volume_in(V, level, -half, half, T, key=jax.random.key(2), samples=100_000)
    whole, error = volume_in(V, level, -half, half, np.diag(half), key=jax.random.key(3), samples=400_000)
    assert abs(value - whole) < 6 * error


def test_a_set_without_a_curvature_has_its_box():
    V = PiecewiseAffineLyapunov.of(np.concatenate([np.eye(2), -np.eye(2)]))
    assert np.array_equal(enclosing(V, 0.5, [-2, -2], [2, 2]), 2 * np.eye(2))
    loop = linear_map(0.5 * np.eye(2))
    proof = certify(loop, V, domain=([-2, -2], [2, 2]), rate=0.1, level=0.5)
    assert proof.proved
    assert np.array_equal(proof.frame, 2 * np.eye(2))
    with pytest.raises(InvalidValue, match="frame"):
        certify(loop, V, domain=([-2, -2], [2, 2]), rate=0.1, level=0.5, frame="curvature")


def test_a_cube_that_is_too_small_grows(monkeypatch):
    """The claim is of all of {V <= level} in the domain; a guess of its size that falls short must not refute it."""
    V, loop = neural(2), ClosedLoop.of(Linear(), goal=np.zeros(2))
    settings = {"domain": ([-4, -4], [4, 4]), "rate": 0.2, "level": 0.3}
    whole = certify(loop, V, **settings)
    short = frames._reach
    monkeypatch.setattr(frames, "_reach", lambda *given: 0.5 * short(*given))
    grown = certify(loop, V, **settings)
    assert whole.proved
    assert grown.proved
    assert abs(np.linalg.det(grown.frame)) > 0.5 * abs(np.linalg.det(whole.frame))

"""Fixed points, cycles and equilibria by Newton's method: systems in which all of them are known by formula."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from dynsys.analysis.piecewise.newton import fixed_points
from dynsys.dynamics import AbstractFlow, AbstractMap, Discretized
from dynsys.errors import InvalidValue
from dynsys.models.alrnn import ALRNN
from dynsys.status import Status
from dynsys.systems import load_system


class _Map(AbstractMap):
    dim: int = 2
    n_inputs: int = 0

    @property
    def n_obs(self):
        return self.dim

    def observe(self, z):
        return z

    def lift(self, x):
        return x


class Henon(_Map):
    def step(self, z, u=None):
        return jnp.stack([1.0 - 1.4 * z[0] ** 2 + z[1], 0.3 * z[0]])


class Tanh(_Map):
    W: jnp.ndarray = eqx.field(default_factory=lambda: jnp.zeros((2, 2)))

    def step(self, z, u=None):
        return jnp.tanh(self.W @ z)


def test_the_equilibria_of_lorenz():
    sigma, rho, beta = 10.0, 28.0, 8 / 3
    found = fixed_points(load_system("Lorenz"))
    assert len(found) == 3
    assert found.status is Status.SUCCESS
    c = np.sqrt(beta * (rho - 1))
    expected = {(0.0, 0.0, 0.0): None, (c, c, rho - 1): None, (-c, -c, rho - 1): None}
    for cycle in found:
        (name,) = [point for point in expected if np.allclose(cycle.points[0], point, atol=1e-9)]
        expected[name] = cycle
        assert cycle.continuous
        assert cycle.residual < 1e-10
    origin, wing = expected[0.0, 0.0, 0.0], expected[c, c, rho - 1]
    root = np.sqrt((sigma + 1) ** 2 + 4 * sigma * (rho - 1))
    np.testing.assert_allclose(origin.eigenvalues, [(-sigma - 1 + root) / 2, -beta, (-sigma - 1 - root) / 2], atol=1e-8)
    cubic = np.roots([1, sigma + 1 + beta, beta * (sigma + rho), 2 * sigma * beta * (rho - 1)])
    np.testing.assert_allclose(np.sort_complex(wing.eigenvalues), np.sort_complex(cubic), atol=1e-8)
    assert origin.kind == "saddle"
    assert wing.kind == "saddle-focus"
    assert wing.n_unstable == 2


def test_the_equilibria_of_roessler():
    flow = load_system("Rossler")
    a, b, c = (float(flow.parameters[name]) for name in "abc")
    found = fixed_points(flow, starts=200)
    z = (c + np.array([-1, 1]) * np.sqrt(c**2 - 4 * a * b)) / (2 * a)
    expected = np.stack([a * z, -z, z], axis=1)
    points = np.stack([cycle.points[0] for cycle in found])
    np.testing.assert_allclose(points[np.argsort(points[:, 2])], expected, atol=1e-9)


def test_all_cycles_of_the_logistic_map_to_period_five():
    found = fixed_points(load_system("Logistic", r=4.0), period=(3, 4, 5), starts=500, box=([0.0], [1.0]))
    counts = [len(found.of_period(k)) for k in range(1, 6)]
    assert counts == [2, 1, 2, 3, 6]  # by Moebius inversion of 2^k
    for k in range(1, 6):
        known = {0.0}
        known |= {np.sin(np.pi * j / (2**k - 1)) ** 2 for j in range(2**k)} | {np.sin(np.pi * j / (2**k + 1)) ** 2 for j in range(2**k + 1)}
        points = np.concatenate([cycle.points[:, 0] for cycle in found if k % cycle.period == 0])
        assert len(points) == 2**k
        gaps = np.abs(points[:, None] - np.array(sorted(known))).min(1)
        assert gaps.max() < 1e-10
    for cycle in found:
        # the slope along every cycle is +-2^k, but at 0, where it is 4
        expected = 4.0 if np.abs(cycle.points).max() < 1e-9 else 2.0**cycle.period
        assert abs(cycle.eigenvalues[0]) == pytest.approx(expected, rel=1e-8)
        assert cycle.residual < 1e-10


def test_henon_by_formula():
    found = fixed_points(Henon(), period=2, starts=300)
    a, b = 1.4, 0.3
    x = ((b - 1) + np.array([-1, 1]) * np.sqrt((1 - b) ** 2 + 4 * a)) / (2 * a)
    np.testing.assert_allclose(sorted(cycle.points[0, 0] for cycle in found.fixed_points), x, atol=1e-12)
    (cycle,) = found.of_period(2)
    pair = np.roots([a**2, -(1 - b) * a, (1 - b) ** 2 - a])
    np.testing.assert_allclose(np.sort(cycle.points[:, 0]), np.sort(pair), atol=1e-12)
    np.testing.assert_allclose(cycle.points[:, 1], b * np.roll(cycle.points[:, 0], 1), atol=1e-12)
    assert np.prod(cycle.eigenvalues) == pytest.approx(b**2)  # the determinant
    assert "period 2" in found.notes[0]


def test_a_tanh_network():
    # two units that excite themselves, not each other: z_i = tanh(2 z_i) has three solutions, so there are nine fixed points
    w = 2.0
    s = 1.0
    for _ in range(200):
        s = np.tanh(w * s)
    found = fixed_points(Tanh(W=w * jnp.eye(2)), starts=300, box=([-2, -2], [2, 2]))
    points = sorted(tuple(np.round(cycle.points[0], 9) + 0.0) for cycle in found)
    assert points == sorted(tuple(np.round(p, 9)) for p in itertools.product([-s, 0.0, s], repeat=2))
    assert sorted(cycle.n_unstable for cycle in found) == [0] * 4 + [1] * 4 + [2]
    outer = w * (1 - s**2)
    for cycle in found:
        expected = [w if abs(x) < 1e-9 else outer for x in cycle.points[0]]
        np.testing.assert_allclose(np.sort(cycle.eigenvalues.real), np.sort(expected), atol=1e-9)


def test_deflation_finds_what_one_start_misses():
    box = ([0.5, 0.5], [1.5, 1.5])  # in the basin of one of the nine fixed points
    plain = fixed_points(Tanh(W=2.0 * jnp.eye(2)), starts=8, box=box, rounds=0)
    deflated = fixed_points(Tanh(W=2.0 * jnp.eye(2)), starts=8, box=box)
    assert len(plain) < len(deflated)
    assert dict(deflated.about)["found by deflation"] >= 3
    assert max(cycle.residual for cycle in deflated) < 1e-10


def test_against_every_region_of_an_almost_linear_network():
    rng = np.random.default_rng(4)
    model = ALRNN.init(2, dim=4, n_relu=3, key=jr.key(0))
    model = eqx.tree_at(lambda m: (m.W, m.h), model, (jnp.asarray(0.9 * rng.normal(size=(4, 4))), jnp.asarray(rng.normal(size=4))))
    expected = []
    for code in itertools.product([False, True], repeat=3):
        J, h = model.affine(jnp.array(code))
        z = np.linalg.solve(np.eye(4) - J, h)
        if ((z[1:] > 0) == np.array(code)).all():
            expected.append(z)
    found = fixed_points(model, starts=200, box=(-20 * np.ones(4), 20 * np.ones(4)))
    assert 2 <= len(expected) == len(found)
    for z in expected:
        assert min(np.abs(cycle.points[0] - z).max() for cycle in found) < 1e-9
    for cycle in found:
        np.testing.assert_array_equal(cycle.regions[0], cycle.points[0, 1:] > 0)


class Driven(AbstractFlow):
    dim: int = 1
    n_inputs: int = 0

    def field(self, t, z, u=None):
        return 1.0 - z + jnp.sin(t)


class Line(_Map):
    def step(self, z, u=None):
        return jnp.stack([z[0], 0.5 * z[1]])


class Shift(_Map):
    def step(self, z, u=None):
        return z + 1.0


def test_what_a_reader_must_know_is_said():
    driven = fixed_points(Driven(), starts=8, box=([-2], [2]))
    np.testing.assert_allclose(driven.cycles[0].points, [[1.0]], atol=1e-12)
    assert "depends on time" in " ".join(driven.notes)
    line = fixed_points(Line(), starts=16, box=([-1, -1], [1, 1]), max_cycles=10)  # the Jacobian is singular everywhere
    assert "singular Jacobian from 16" in line.notes[0]
    assert len(line) == 0
    none = fixed_points(Shift(), starts=8, box=([-1, -1], [1, 1]))
    assert len(none) == 0
    assert none.status is Status.SUCCESS
    assert "Nothing was found" in none.notes[-1]


def test_a_parameter_that_is_a_python_number_does_not_compile_again():
    class Scaled(_Map):
        a: float = 0.5

        def step(self, z, u=None):
            return jnp.tanh(self.a * z) + 1.0

    for a in (0.4, 0.5):
        found = fixed_points(Scaled(a=a), starts=8, box=([0, 0], [2, 2]))
        x = found.cycles[0].points[0, 0]
        assert np.tanh(a * x) + 1.0 == pytest.approx(x, abs=1e-12)


def test_float32_models_and_cycles_of_a_sampled_flow():
    with jax.enable_x64(False):
        found = fixed_points(Tanh(W=jnp.asarray(2.0 * np.eye(2), jnp.float32)), starts=50, box=([-2, -2], [2, 2]))
    assert found.cycles[0].points.dtype == np.float64
    assert max(cycle.residual for cycle in found) < 1e-10
    sampled = fixed_points(Discretized(load_system("Lorenz"), 0.01), starts=20, box=([-20, -20, -5], [20, 20, 40]))
    assert len(sampled) == 3  # a Runge-Kutta step keeps equilibria


def test_misuse_is_named():
    with pytest.raises(InvalidValue, match="period must be a whole number of at least 1"):
        fixed_points(Henon(), period=0)
    with pytest.raises(InvalidValue, match=r"a flow has equilibria \(period=1\), got period=\[2\]"):
        fixed_points(load_system("Lorenz"), period=2)
    with pytest.raises(InvalidValue, match="where should it look"):
        fixed_points(Driven())
    with pytest.raises(InvalidValue, match=r"states must be latent states of shape \(T, 2\), got \(5, 3\)"):
        fixed_points(Henon(), states=np.zeros((5, 3)))
    with pytest.raises(InvalidValue, match="low < high"):
        fixed_points(Henon(), box=([0, 0], [0, 1]))

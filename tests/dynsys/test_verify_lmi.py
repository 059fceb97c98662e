"""Matrix inequalities and sums of squares, against closed solutions and cases that are known to be infeasible."""

from fractions import Fraction

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.linalg import solve_discrete_lyapunov

from dynsys.dynamics import AbstractFlow
from dynsys.errors import InvalidValue
from dynsys.models.alrnn import ALRNN
from dynsys.status import Status
from dynsys.verify.exact import exactly_definite, fractions
from dynsys.verify.lmi import common_quadratic
from dynsys.verify.lyapunov import PolynomialLyapunov, QuadraticLyapunov
from dynsys.verify.piecewise_lmi import Regulated, piecewise_quadratic
from dynsys.verify.polynomial import Space, polynomial_field, powers
from dynsys.verify.sos import sum_of_squares, sum_of_squares_region

pytest.importorskip("cvxpy")


def test_definiteness_is_decided_exactly_where_floats_can_not():
    third = Fraction(1, 3)
    edge = np.array([[Fraction(1), third], [third, third * third]], dtype=object)  # determinant 0
    assert not exactly_definite(edge)
    assert exactly_definite(edge + np.array([[0, 0], [0, Fraction(1, 10**60)]], dtype=object))
    assert not exactly_definite(fractions([[1.0, 0.5], [0.25, 1.0]]))  # not symmetric
    rng = np.random.default_rng(0)
    for n in (1, 3, 6):
        a = rng.normal(size=(n, n))
        m = (a @ a.T + (a @ a.T).T) / 2
        assert exactly_definite(fractions(m))
        least = np.linalg.eigvalsh(m)[0]
        assert not exactly_definite(fractions(m - 1.001 * least * np.eye(n)))


def test_a_known_system_gets_a_quadratic_that_the_lyapunov_equation_confirms():
    A = np.array([[0.9, 0.5], [0.0, 0.8]])
    found = common_quadratic(A, rate=0.05)
    assert found.status is Status.SUCCESS
    assert found.exact
    P = np.asarray(found.V.P)
    Q = 0.95 * P - A.T @ P @ A
    assert np.linalg.eigvalsh(Q)[0] >= 0.999 * found.margin > 0
    assert_allclose(P, solve_discrete_lyapunov(A.T / np.sqrt(0.95), Q / 0.95), rtol=1e-6)  # the P that belongs to its own Q


def test_the_margin_of_a_symmetric_case_is_the_closed_one():
    found = common_quadratic(0.6 * np.eye(2))  # P = I by symmetry: t = 1 - 0.36
    assert_allclose(found.margin, 0.64, rtol=1e-6)
    flow = common_quadratic([-np.eye(2), -2 * np.eye(2)], continuous=True, rate=0.5)  # the slower vertex: 2 - 0.5, capped by P >= t I
    assert_allclose(flow.margin, 1.0, rtol=1e-6)


def test_stable_vertices_whose_product_is_unstable_have_no_common_function():
    A, B = np.array([[0.5, 2.0], [0.0, 0.5]]), np.array([[0.5, 0.0], [2.0, 0.5]])
    assert np.abs(np.linalg.eigvals(A @ B)).max() > 1  # so no V of any kind exists
    found = common_quadratic([A, B, 0.1 * np.eye(2)])
    assert found.V is None
    assert found.status is Status.FAILED
    assert "vertices 0, 1" in found.reason


def test_an_unstable_vertex_is_named():
    with pytest.raises(InvalidValue, match=r"vertex 1 is not stable.*eigenvalue 1\.2"):
        common_quadratic([[[0.5]], [[1.2]]])
    with pytest.raises(InvalidValue, match="vertex 0"):
        common_quadratic([[0.9]], rate=0.2)  # 0.81 > 0.8


def small_rnn(dim=2, n_relu=1, seed=0, gain=4.0):
    model = ALRNN.init(dim, 1, dim=dim, n_relu=n_relu, key=jr.key(seed))
    model = eqx.tree_at(lambda m: (m.W, m.h), model, (gain * model.W, 0.3 * jr.normal(jr.key(9), (dim,))))
    return model


def fixed_point(model):
    z = jnp.zeros(model.dim)
    for _ in range(2000):
        z = model.step(z)
    return z


@pytest.mark.parametrize("common", [True, False])
def test_a_quadratic_of_a_piecewise_linear_map_decreases_in_its_box(common):
    model = Regulated(small_rnn(), jnp.zeros((1, 2)), jnp.zeros(2), jnp.zeros(1))
    goal = fixed_point(model)
    found = piecewise_quadratic(model, goal, low=goal - 3.0, high=goal + 3.0, rate=0.01, common=common)
    assert found.status is Status.SUCCESS, found.reason
    assert found.exact
    x = goal[None, :] + 3 * jr.uniform(jr.key(1), (4000, 2), minval=-1.0, maxval=1.0)
    before, after = jax.vmap(found.V.value)(x), jax.vmap(lambda z: found.V.value(model.step(z)))(x)
    assert float(jnp.max(after / before)) < 0.99  # decrease holds in the whole box
    wide = goal[None, :] + 9 * jr.uniform(jr.key(2), (20_000, 2), minval=-1.0, maxval=1.0)
    inside = jax.vmap(found.V.value)(wide) <= found.level
    assert float(jnp.max(jnp.abs(wide - goal[None, :])[inside])) <= 3.0  # and the set lies in it
    codes = {tuple(np.asarray(model.region(z)).tolist()) for z in x}
    assert len(codes) == 2  # both regions were met


def test_regulated_is_the_loop_that_it_says():
    inner = small_rnn()
    inner = eqx.tree_at(lambda m: m.C, inner, jnp.asarray([[0.5], [1.0]]))
    loop = Regulated(inner, jnp.asarray([[0.2, 0.3]]), jnp.asarray([0.1, 0.2]), jnp.asarray([0.4]))
    for z in jr.normal(jr.key(3), (10, 2)):
        J, h = loop.affine(loop.region(z))
        assert_allclose(J @ z + h, loop.step(z), atol=1e-13)
        assert_allclose(loop.step(z), inner.step(z, 0.4 - jnp.asarray([0.2, 0.3]) @ (z - jnp.asarray([0.1, 0.2]))[:, None]), atol=1e-13)


def test_a_map_that_is_unstable_in_a_far_region_fails_everywhere_but_not_in_a_box():
    model = small_rnn(dim=2, n_relu=1)
    model = eqx.tree_at(
        lambda m: (m.A, m.W, m.h), model, (jnp.asarray([0.5, 0.5]), jnp.asarray([[0.0, 0.0], [0.0, 1.5]]), jnp.asarray([0.0, -0.25]))
    )
    model = Regulated(model, jnp.zeros((1, 2)), jnp.zeros(2), jnp.zeros(1))  # z2 > 0 doubles: unstable; the goal is z2 = -0.5
    goal = np.array([0.0, -0.5])
    everywhere = piecewise_quadratic(model, goal)
    assert everywhere.V is None
    assert "region 1" in everywhere.reason
    near = piecewise_quadratic(model, goal, low=goal - 0.45, high=goal + 0.45)
    assert near.exact
    assert_allclose(near.level / np.linalg.inv(np.asarray(near.V.P[0])).diagonal().max() ** -1, 0.45**2, rtol=1e-6)


class Polynomial(AbstractFlow):
    dim: int = 2
    n_inputs: int = 0

    def field(self, t, z, u=None):
        return jnp.stack([-z[0] - z[0] ** 3 + z[1], -z[1] - z[1] ** 3 - z[0]])


class ReverseVanDerPol(AbstractFlow):
    dim: int = 2
    n_inputs: int = 0

    def field(self, t, z, u=None):
        return jnp.stack([-z[1], z[0] - (1 - z[0] ** 2) * z[1]])


def test_the_coefficients_of_a_polynomial_field_are_found_and_others_refused():
    f, g = polynomial_field(ReverseVanDerPol(), [0, 0], 3)
    assert f == {(0, 1): -1.0}
    assert g == {(1, 0): 1.0, (0, 1): -1.0, (2, 1): 1.0}
    moved = polynomial_field(Polynomial(), [0, 0], 3)
    assert moved[0] == {(1, 0): -1.0, (0, 1): 1.0, (3, 0): -1.0}
    with pytest.raises(InvalidValue, match="no polynomial of degree 2"):
        polynomial_field(ReverseVanDerPol(), [0, 0], 2)
    with pytest.raises(InvalidValue, match="no equilibrium"):
        polynomial_field(ReverseVanDerPol(), [0.5, 0], 3)


def test_the_maps_of_a_space_of_polynomials():
    space, rng = Space(2, 4), np.random.default_rng(0)
    x = rng.normal(size=(20, 2))
    p, q = (np.where(np.sum(space.powers, axis=1) <= 2, rng.normal(size=space.size), 0.0) for _ in range(2))
    m = space.values(x)
    assert_allclose(m @ (space.times(p) @ q), (m @ p) * (m @ q), rtol=1e-10, atol=1e-10)
    basis = powers(2, 1, 2)
    G = rng.normal(size=(5, 5))
    mono = np.array([[np.prod(row ** np.array(power)) for power in basis] for row in x])
    assert_allclose(m @ space.gram(basis) @ G.ravel(), np.einsum("bi,ij,bj->b", mono, G, mono), rtol=1e-9, atol=1e-9)
    h = 1e-6
    shifted = (space.values(x + np.array([[0, h]])) - space.values(x - np.array([[0, h]]))) @ p / (2 * h)
    assert_allclose(m @ space.derivative(1) @ p, shifted, atol=1e-7)


def test_a_globally_stable_polynomial_flow_is_proved_so():
    found = sum_of_squares(Polynomial(), [0, 0], degree=2, rate=0.5)  # V = |x|^2 has dV/dt = -2 V - 2 (x^4 + y^4)
    assert found.exact
    assert found.level == float("inf")
    x = 4 * jr.normal(jr.key(0), (1000, 2))
    slope = jax.vmap(lambda z: jax.jvp(found.V.value, (z,), (Polynomial().field(0.0, z),))[1])(x)
    assert bool(jnp.all(slope < -0.5 * jax.vmap(found.V.value)(x)))
    assert sum_of_squares(ReverseVanDerPol(), [0, 0], degree=2).status is Status.FAILED  # it has a limit cycle
    with pytest.raises(InvalidValue, match="even"):
        sum_of_squares(Polynomial(), [0, 0], degree=3)


@pytest.mark.parametrize("form", ["default", "quadratic", "polynomial"])
def test_a_region_of_attraction_is_proved_and_lies_inside_the_limit_cycle(form):
    P = QuadraticLyapunov.of_linear([[0.0, -1.0], [1.0, -1.0]], continuous=True)
    R = np.linalg.cholesky(np.asarray(P.P) - 0.1 * np.eye(2)).T
    V = {"default": None, "quadratic": P, "polynomial": PolynomialLyapunov.of(R, [(1, 0), (0, 1)], 0.1)}[form]
    found = sum_of_squares_region(ReverseVanDerPol(), [0, 0], V)
    assert found.exact
    assert found.level == 1.0
    g = np.linspace(-3, 3, 300)
    x = jnp.asarray(np.stack(np.meshgrid(g, g), -1).reshape(-1, 2))
    v = jax.vmap(found.V.value)(x)
    slope = jax.vmap(lambda z: jax.jvp(found.V.value, (z,), (ReverseVanDerPol().field(0.0, z),))[1])(x)
    assert bool(jnp.all(slope[(v <= 1) & (v > 0)] < 0))
    # this quadratic fails first at a level whose ellipse has this area, by a scan of its border; a degree-2 multiplier proves nearly all
    angles = np.linspace(0, 2 * np.pi, 2000)
    L = np.linalg.inv(np.linalg.cholesky(np.asarray(P.P)).T)
    levels = np.linspace(0.5, 4.0, 400)
    good = [
        all(
            2 * (y @ np.asarray(P.P)) @ [-y[1], y[0] - (1 - y[0] ** 2) * y[1]] < 0
            for y in (np.sqrt(c) * L @ np.array([np.cos(angles), np.sin(angles)])).T[::20]
        )
        for c in levels
    ]
    most = levels[np.argmin(good)]
    assert_allclose(float(jnp.mean(v <= 1)) * 36, np.pi * most / np.sqrt(np.linalg.det(np.asarray(P.P))), rtol=0.06)

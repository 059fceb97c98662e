"""Basins of attraction: maps whose basins are known by formula, a double well against an adaptive integrator."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from dynsys.analysis.piecewise.basins import basins
from dynsys.analysis.piecewise.verified import verified
from dynsys.dynamics import AbstractFlow
from dynsys.errors import InvalidValue

from .planar_maps import chain, lozi, two_pieces

LINE = {"origin": [0.0], "axis_x": [1.0], "axis_y": [0.0]}


def bistable():
    """Stable at -1 and 1, unstable at 0; what is beyond 2.5 is thrown to the other side."""
    return chain([0.5, 2.0, 0.5, -3.0], [-1 / 3, 1 / 3, 2.0], -0.5)


def test_a_bistable_line():
    found = basins(bistable(), **LINE, extent=(-3, 3.99, 0, 0), resolution=(700, 1), steps=200)
    assert found.labels.shape == (1, 700)
    assert len(found.attractors) == 2
    ends = np.array([attractor.points[0, 0] for attractor in found.attractors])[np.maximum(found.labels[0], 0)]
    expected = np.where((found.x > 0) & (found.x < 2.5), 1.0, -1.0)
    clear = np.abs(found.x) > 1e-12
    sharp = clear & (np.abs(found.x - 2.5) > 1e-12)
    np.testing.assert_allclose(ends[sharp], expected[sharp], atol=1e-9)
    for attractor in found.attractors:
        assert attractor.name == "fixed point"
        assert attractor.cycle.kind == "stable node"
        assert attractor.share == pytest.approx((ends == attractor.points[0, 0]).mean(), abs=2 / 700)
    assert found.diverged == 0
    assert (found.labels[0][~clear] == -2).all()
    assert len(found.notes) == (~clear).sum()  # a start exactly on the unstable point


def test_known_cycles_come_first_and_may_begin_at_any_point():
    model = chain([0.5, -1.5], [0.0], 1.0)
    cycle, repelling = verified(model, np.array([[6 / 7], [-2 / 7]]), 1e-9), verified(model, np.array([[0.4]]), 1e-9)
    assert cycle.eigenvalues == pytest.approx([-0.75])
    for steps in (300, 30):  # 0.75^15 = 0.01: not there yet, but on the way
        found = basins(model, **LINE, extent=(-2, 2, 0, 0), resolution=(102, 1), steps=steps, cycles=[repelling, cycle])
        assert (found.labels == 0).all()
        assert len(found.attractors) == 1
        assert found.attractors[0].cycle is cycle
        assert found.attractors[0].name == "2-cycle"
        assert found.attractors[0].share == 1.0
        assert "1 of the given cycles are not stable" in found.notes[0]
    unknown = basins(model, **LINE, extent=(-2, 2, 0, 0), resolution=(102, 1), steps=300)
    assert len(unknown.attractors) == 1
    assert unknown.attractors[0].period == 2
    np.testing.assert_allclose(np.sort(unknown.attractors[0].points[:, 0]), [-2 / 7, 6 / 7], atol=1e-9)


def test_orbits_that_come_slowly_end_at_one_fixed_point():
    model, point = chain([0.9995], [], 0.0005), verified(chain([0.9995], [], 0.0005), np.array([[1.0]]), 1e-9)
    # 0.9995^16000 = 3e-4: an orbit repeats to 1e-6 at each step, at as many places as there are starts
    for cycles in ((), (point,)):
        found = basins(model, **LINE, extent=(-2, 2, 0, 0), resolution=(12, 1), steps=16_000, cycles=cycles)
        (attractor,) = found.attractors
        assert attractor.name == "fixed point"
        assert attractor.share == 1.0
        assert attractor.points[0, 0] == pytest.approx(1.0, abs=1e-12)
        assert found.notes == ()
    early = basins(model, **LINE, extent=(-2, 2, 0, 0), resolution=(12, 1), steps=1000)  # 0.9995^1000 = 0.6
    assert "hardly move" in early.notes[0]


class Slow(AbstractFlow):
    dim: int = 2
    n_inputs: int = 0

    def field(self, t, z, u=None):
        x, y = z
        return jnp.stack([x * (1 - x**2 - y**2) - 0.05 * y, y * (1 - x**2 - y**2) + 0.05 * x])


def test_a_slow_limit_cycle_is_no_fixed_point():
    found = basins(Slow(), [0, 0], [1, 0], [0, 1], extent=(-2, 2, -2, 2), resolution=4, steps=200_000, dt=1e-4)  # 5e-6 a step
    assert all(attractor.period is None for attractor in found.attractors)
    assert any("hardly move" in note for note in found.notes)


def test_two_chaotic_attractors_are_told_apart():
    s = 1.9  # two tent maps, mirrored: attractors in s(1 - s/2) < |x| < s/2
    found = basins(chain([-s, s, -s], [-0.5, 0.5], -s), **LINE, extent=(-1.5, 1.499, 0, 0), resolution=(600, 1), steps=300)
    assert len(found.attractors) == 2
    assert [attractor.name for attractor in found.attractors] == ["chaotic or quasi-periodic"] * 2
    side = np.array([np.sign(attractor.points[0, 0]) for attractor in found.attractors])[found.labels[0]]
    inside = np.abs(found.x) < 1  # beyond 1 a point changes sides
    clear = (np.abs(found.x) > 1e-9) & (np.abs(np.abs(found.x) - 1) > 1e-9)
    assert (side == np.where(inside, 1, -1) * np.sign(found.x))[clear].all()
    for attractor in found.attractors:
        assert np.abs(attractor.points).min() > s * (1 - s / 2) - 1e-9
        assert np.abs(attractor.points).max() < s / 2 + 1e-9


def test_the_boundary_of_an_oblique_slice_is_the_stable_manifold_of_the_saddle():
    # x: stable at -2, unstable at 1 (x' = x / 2 - 1 or 2 x - 1); y follows: the boundary is the line x = 1
    model = two_pieces([[0.5, 0], [1, 0.3]], [[2, 0], [1, 0.3]], [-1, 0])
    origin, u, v = np.array([0.3, 1.0]), np.array([1.0, 2.0]), np.array([-0.7, 1.0])
    found = basins(model, origin, u, v, extent=(-2, 2, -1, 1), resolution=(81, 61), steps=300)
    x = origin[0] + found.x[None] * u[0] + found.y[:, None] * v[0]
    clear = np.abs(x - 1) > 1e-9
    assert (found.labels == np.where(x < 1, 0, -1))[clear].all()
    assert found.diverged == pytest.approx((x > 1).mean(), abs=1e-3)
    np.testing.assert_allclose(found.attractors[0].points, [[-2, -2 / 0.7]], atol=1e-9)


def test_the_chaotic_attractor_of_lozi_and_infinity():
    found = basins(lozi(), [0, 0], [1, 0], [0, 1], extent=(-2, 2, -2, 2), resolution=60, steps=500)
    assert len(found.attractors) == 1
    assert found.attractors[0].period is None
    assert found.labels[30, 30] == 0
    assert found.labels[0, 0] == -1
    # the left saddle (-1, -b) / (a + b - 1) is on the border of the basin: its stable line x (a + b - 1)... is checked by iteration
    z = np.stack(np.meshgrid(found.x, found.y), axis=-1).reshape(-1, 2)
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(300):
            z = np.stack([1 - 1.7 * np.abs(z[:, 0]) + z[:, 1], 0.5 * z[:, 0]], axis=-1)
    assert (found.labels.ravel() == np.where(np.isfinite(z).all(1) & (np.abs(z) < 1e6).all(1), 0, -1)).all()


class DoubleWell(AbstractFlow):
    dim: int = 2
    n_inputs: int = 0

    def field(self, t, z, u=None):
        return jnp.stack([z[1], -0.2 * z[1] + z[0] - z[0] ** 3])


def test_the_double_well_against_an_adaptive_integrator():
    found = basins(DoubleWell(), [0, 0], [1, 0], [0, 1], extent=(-2, 2, -2, 2), resolution=(80, 80), steps=4000, dt=0.05)
    assert [attractor.name for attractor in found.attractors] == ["fixed point"] * 2
    ends = np.array([attractor.points[0] for attractor in found.attractors])
    np.testing.assert_allclose(np.sort(ends[:, 0]), [-1, 1], atol=1e-6)
    np.testing.assert_allclose(ends[:, 1], 0, atol=1e-6)
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(60):
        i, j = rng.integers(80, size=2)
        run = solve_ivp(lambda t, z: [z[1], -0.2 * z[1] + z[0] - z[0] ** 3], (0, 60), [found.x[i], found.y[j]], rtol=1e-9, atol=1e-9)
        wrong += np.sign(run.y[0, -1]) != np.sign(ends[found.labels[j, i], 0])
    assert wrong <= 1  # a start within the error of the step of the boundary
    assert found.attractors[0].share == pytest.approx(0.5, abs=0.01)  # the flow is odd


def test_a_conservative_map_has_no_attractors():
    turn = np.array([[np.cos(1), -np.sin(1)], [np.sin(1), np.cos(1)]])
    found = basins(
        two_pieces(turn, turn, [0, 0]), [0, 0], [1, 0], [0, 1], extent=(0.1, 1, 0, 0), resolution=(10, 1), steps=50, max_attractors=3
    )
    assert (found.labels == -2).any()
    assert "conservative" in found.notes[0]
    assert len(found.attractors) == 3


class Driven(AbstractFlow):
    dim: int = 1
    n_inputs: int = 0

    def field(self, t, z, u=None):
        return -z + jnp.cos(t)


def test_notes_and_misuse():
    assert "depends on time" in basins(Driven(), **LINE, extent=(-1, 1, 0, 0), resolution=(3, 1), steps=10, dt=0.1).notes[0]
    with pytest.raises(InvalidValue, match="a flow needs dt"):
        basins(Driven(), **LINE, extent=(-1, 1, 0, 0))
    with pytest.raises(InvalidValue, match=r"axis_y must be a latent state of shape \(2,\), got shape \(3,\)"):
        basins(lozi(), [0, 0], [1, 0], [0, 1, 0], extent=(-1, 1, 0, 0))
    with pytest.raises(InvalidValue, match=r"extent must be \(x from, x to, y from, y to\)"):
        basins(lozi(), [0, 0], [1, 0], [0, 1], extent=(1, -1, 0, 0))
    with pytest.raises(InvalidValue, match="tail at least 2"):
        basins(lozi(), [0, 0], [1, 0], [0, 1], extent=(-1, 1, 0, 0), tail=1)
    gone = basins(chain([3.0], [], 1.0), **LINE, extent=(1, 2, 0, 0), resolution=(5, 1), steps=2000)
    assert gone.diverged == 1.0
    assert gone.attractors == ()

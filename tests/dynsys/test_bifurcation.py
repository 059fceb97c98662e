"""Bifurcations at parameters that are known by formula: smooth ones by arclength, border collisions exactly."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from dynsys.analysis.piecewise.continuation import along, between, follow
from dynsys.analysis.piecewise.verified import verified
from dynsys.dynamics import AbstractFlow
from dynsys.errors import InvalidValue
from dynsys.models.alrnn import ALRNN
from dynsys.status import Status
from dynsys.systems import load_system

from .planar_maps import chain, lozi


def lorenz(rho):
    return load_system("Lorenz", rho=rho)


def logistic(r):
    return load_system("Logistic", r=r)


def test_lorenz_pitchfork_and_hopf():
    sigma, beta = 10.0, 8 / 3
    found = follow(lorenz, np.linspace(0, 30, 16), searches=2)
    assert len(found) == 2
    (pitchfork,) = found.of_kind("pitchfork")
    assert pitchfork.value == pytest.approx(1.0, abs=1e-8)
    np.testing.assert_allclose(pitchfork.points, 0, atol=1e-6)
    assert pitchfork.eigenvalue == pytest.approx(0.0, abs=1e-6)
    hopf = found.of_kind("Hopf")
    assert len(hopf) == 2  # one on each wing
    rho_h = sigma * (sigma + beta + 3) / (sigma - beta - 1)
    frequency = np.sqrt(beta * (sigma + rho_h))  # the characteristic polynomial at +-i omega
    for event in hopf:
        assert event.value == pytest.approx(rho_h, abs=1e-8)
        assert abs(event.eigenvalue.imag) == pytest.approx(frequency, rel=1e-6)
        np.testing.assert_allclose(np.abs(event.points[0, :2]), np.sqrt(beta * (rho_h - 1)), rtol=1e-8)
    assert len(found.events) == 3
    origin, wings = (found.branches[i] for i in (pitchfork.branch, hopf[0].branch))
    np.testing.assert_allclose(origin.points, 0, atol=1e-8)
    off = np.abs(origin.values - 1) > 1e-6
    np.testing.assert_array_equal(origin.stable[off], (origin.values < 1)[off])
    x = np.sqrt(beta * np.maximum(wings.values - 1, 0))
    np.testing.assert_allclose(np.abs(wings.coordinate(0)[:, 0]), x, atol=1e-6)
    away = np.abs(wings.values - 1) > 1e-6
    np.testing.assert_array_equal(wings.stable[away], (wings.values < rho_h)[away])
    assert wings.continuous
    assert wings.regions is None
    assert np.ptp(np.sign(wings.coordinate(0)[[0, -1], 0])) == 2  # one curve from wing to wing, through the pitchfork
    assert [event.value for event in found.events] == sorted(event.value for event in found.events)


def test_logistic_map_transcritical_and_flips():
    found = follow(logistic, np.linspace(0.5, 3.5, 16), searches=2, box=([-1], [1.5]))
    (crossing,) = found.of_kind("transcritical")
    assert crossing.value == pytest.approx(1.0, abs=1e-6)
    flips = sorted(event.value for event in found.of_kind("flip"))
    np.testing.assert_allclose(flips, [3.0, 1 + np.sqrt(6)], atol=1e-8)
    (merge,) = found.of_kind("merges")
    assert merge.value == pytest.approx(3.0, abs=1e-8)
    assert found.branches[merge.branch].period == 2
    assert len(found.events) == 4
    for branch in found.branches:
        r, x = branch.values, branch.points[:, :, 0]
        if branch.period == 2:
            slope = -(r**2) + 2 * r + 4  # product of the slopes along the 2-cycle
            inner = r > 3 + 1e-3  # where it shrinks onto the fixed point its equations are singular
            np.testing.assert_allclose(branch.eigenvalues[inner, 0], slope[inner], atol=1e-6)
            off = np.abs(np.abs(slope) - 1) > 1e-3
            np.testing.assert_array_equal(branch.stable[off], (np.abs(slope) < 1)[off])
        elif np.abs(x).max() > 0.1:
            np.testing.assert_allclose(x[:, 0], 1 - 1 / r, atol=1e-8)
            off = (np.abs(r - 1) > 1e-6) & (np.abs(r - 3) > 1e-6)
            np.testing.assert_array_equal(branch.stable[off], ((r > 1) & (r < 3))[off])


def test_henon_fold():
    b = 0.3
    found = follow(
        lambda a: load_system("Henon", a=a), np.linspace(-0.3, 0.6, 10), max_period=1, searches=1, box=([-4, -4], [4, 4]), cycles=[]
    )
    assert found.status is Status.FAILED  # at a = -0.3 there is no fixed point
    assert "No cycle was found" in found.notes[-1]
    found = follow(lambda a: load_system("Henon", a=a), np.linspace(-0.3, 0.6, 10), max_period=1, searches=2, box=([-4, -4], [4, 4]))
    (fold,) = found.of_kind("fold")
    assert fold.value == pytest.approx(-((1 - b) ** 2) / 4, abs=1e-9)
    assert fold.eigenvalue == pytest.approx(1.0, abs=1e-4)
    (flip,) = found.of_kind("flip")
    assert flip.value == pytest.approx(3 * (1 - b) ** 2 / 4, abs=1e-9)
    branch = found.branches[fold.branch]
    assert branch.values.min() > fold.value - 1e-3
    x, a = branch.points[:, 0, 0], branch.values
    np.testing.assert_allclose(a * x**2 + (1 - b) * x - 1, 0, atol=1e-7)  # both solutions on one branch
    assert len(found.branches) == 2  # the lower solution passes through infinity at a = 0, where the branch is left
    assert "a coordinate passed" in " ".join(found.notes)


class Saddle(AbstractFlow):
    """x' = p - x^2, y' = -y: a saddle-node at p = 0."""

    p: jnp.ndarray
    dim: int = 2
    n_inputs: int = 0

    def field(self, t, z, u=None):
        return jnp.stack([self.p - z[0] ** 2, -z[1]])


def test_a_saddle_node_of_a_flow_from_a_given_cycle():
    start = verified(Saddle(jnp.asarray(1.0)), np.array([[1.0, 0.0]]), 1e-9)
    found = follow(lambda p: Saddle(jnp.asarray(p)), np.linspace(-1, 1, 21), searches=0, cycles=[(1.0, start)])
    assert len(found) == 1
    branch = found.branches[0]
    np.testing.assert_allclose(branch.points[:, 0, 0] ** 2, branch.values, atol=1e-9)
    np.testing.assert_array_equal(branch.stable, branch.points[:, 0, 0] > 0)
    (fold,) = found.events
    assert fold.kind == "fold"
    assert fold.value == pytest.approx(0.0, abs=1e-10)
    assert sorted(np.sign(branch.points[[0, -1], 0, 0])) == [-1, 1]


class Wells(AbstractFlow):
    p: jnp.ndarray
    dim: int = 1
    n_inputs: int = 0

    def field(self, t, z, u=None):
        return self.p + z**2 - 0.3 * z**4


def test_a_branch_to_the_ends_of_the_range_is_traced_once():
    # p = 0.3 x^4 - x^2 is one curve; -1 + (0.2 - -1) is not 0.2 in floating point
    found = follow(lambda p: Wells(jnp.asarray(p)), np.linspace(-1, 0.2, 9), starts=100, searches=4, box=([-2.0], [2.0]))
    assert len(found) == 1
    assert [event.value for event in found.of_kind("fold")] == pytest.approx([-5 / 6, -5 / 6, 0.0], abs=1e-8)
    assert found.branches[0].values[[0, -1]].tolist() == [0.2, 0.2]


def collide(left, right, **settings):
    """The border-collision normal form x' = mu + left x (x < 0), mu + right x (x > 0); mu = 0 is no value of the grid."""
    return follow(lambda mu: chain([left, right], [0.0], mu), np.linspace(-1, 1.03, 12), starts=100, **settings)


def test_a_fixed_point_persists_at_a_border_collision():
    found = collide(0.5, -0.5)
    (event,) = found.events
    assert event.kind == "border collision"
    assert event.value == pytest.approx(0.0, abs=1e-9)
    assert event.branch == 0
    (branch,) = found.branches
    mu = branch.values
    np.testing.assert_allclose(branch.points[:, 0, 0], np.where(mu < 0, mu / 0.5, mu / 1.5), atol=1e-9)
    assert branch.stable.all()
    assert branch.regions is not None
    away = np.abs(mu) > 1e-9
    np.testing.assert_array_equal(branch.regions[away, 0, 0], mu[away] > 0)
    assert (~away).sum() == 2  # the border twice, with the slopes of both sides
    np.testing.assert_allclose(sorted(branch.eigenvalues[~away, 0].real), [-0.5, 0.5])


def test_a_nonsmooth_fold():
    found = collide(0.5, 1.5)
    (event,) = found.events
    assert event.kind == "nonsmooth fold"
    assert event.value == pytest.approx(0.0, abs=1e-9)
    (branch,) = found.branches
    assert branch.values.max() < 1e-9
    x, mu = branch.points[:, 0, 0], branch.values
    np.testing.assert_allclose(x, np.where(x < 0, mu / 0.5, -mu / 0.5), atol=1e-9)
    np.testing.assert_array_equal(branch.stable[np.abs(x) > 1e-9], (x < 0)[np.abs(x) > 1e-9])


@pytest.mark.parametrize("given", [False, True])
def test_a_closed_branch_has_no_gap(given):
    # x' = m - 2 |x|, m = 1 - 5 |p|: fixed points m / 3 and -m, which meet at m = 0; p = 0.04 is no value of the coarse grid
    def model(p):
        return chain([2.0, -2.0], [0.0], 1 - 5 * abs(p))

    if given:
        cycles = [(0.04, verified(model(0.04), np.array([[0.8 / 3]]), 1e-9))]
        found = follow(model, [-1.0, -0.5, 0.5, 1.0], searches=0, cycles=cycles)
    else:
        found = follow(model, np.linspace(-1, 1, 21), max_period=1, starts=50)
    (branch,) = found.branches
    p, x = branch.values, branch.points[:, 0, 0]
    m = 1 - 5 * np.abs(p)
    np.testing.assert_allclose(x, np.where(x > 0, m / 3, -m), atol=1e-9)
    assert p[0] == p[-1]
    assert x[0] == x[-1]
    for side in (x > 1e-9, x < -1e-9):  # every value of the grid on either side of the loop
        inner = [0.04] if given else np.linspace(-1, 1, 21)[9:12]
        assert set(inner) <= set(p[side])
    assert [event.kind for event in found.events] == ["nonsmooth fold"] * 2
    assert [event.value for event in found.events] == pytest.approx([-0.2, 0.2], abs=1e-9)


def test_one_word_that_lives_twice_has_two_branches():
    # fixed points cos(p) / 3 and -cos(p) where cos(p) > 0: p < pi / 2 and 3 pi / 2 < p < 5 pi / 2
    found = follow(lambda p: chain([2.0, -2.0], [0.0], float(np.cos(p))), np.linspace(0, 10, 41), max_period=1, starts=50)
    assert [event.value for event in found.events] == pytest.approx(np.pi / 2 * np.array([1, 3, 5]), abs=1e-9)
    assert len(found) == 2


def test_a_border_collision_with_a_cycle_of_period_two():
    found = collide(0.5, -1.5, max_period=2)
    kinds = {event.kind: event for event in found.events}
    assert set(kinds) == {"border collision", "merges"}
    assert "unstable directions 0 -> 1" in kinds["border collision"].what
    cycle = found.branches[kinds["merges"].branch]
    assert cycle.period == 2
    assert cycle.values.min() == pytest.approx(0.0, abs=1e-9)
    assert cycle.stable.all()
    np.testing.assert_allclose(cycle.eigenvalues[:, 0], -0.75)
    mu = cycle.values  # x_0 = mu + right x_1, x_1 = mu + left x_0
    np.testing.assert_allclose(np.sort(cycle.points[:, :, 0]), np.stack([-mu / 3.5, mu * 3 / 3.5], 1), atol=1e-9)


def test_lozi_changes_of_stability():
    b = 0.5
    found = follow(lambda a: lozi(a, b), np.linspace(0.21, 1.7, 12), max_period=2, starts=200)
    flips = sorted(event.value for event in found.of_kind("flip"))
    np.testing.assert_allclose(flips, [1 - b, 1 + b], atol=1e-9)  # of the fixed point; of the 2-cycle (no fold of the word's equations)
    gone = [event for event in found.of_kind("vanishes") if "infinity" in event.what]
    assert len(gone) == 1  # the left fixed point -1 / (a + b - 1)
    assert gone[0].value == pytest.approx(1 - b, abs=1e-6)
    degenerate = [event for event in found.of_kind("vanishes") if "1-cycle, which flips" in event.what]
    assert [event.value for event in degenerate] == pytest.approx([1 - b])
    for branch in found.branches:
        if branch.period == 1 and branch.points[0, 0, 0] > 0:
            np.testing.assert_allclose(branch.points[:, 0, 0], 1 / (1 + branch.values - b), atol=1e-12)


def test_a_neimark_sacker_bifurcation_of_a_model_family():
    # z' = R z + h with a rotation by 1 rad: its radius passes 1 at s = 0.4 of the way from 0.8 to 1.3
    turn = np.array([[np.cos(1), -np.sin(1)], [np.sin(1), np.cos(1)]])
    plain = ALRNN.init(2, dim=2, n_relu=0, key=jr.key(0))

    def model(radius):
        values = jnp.zeros(2), jnp.asarray(radius * turn), jnp.array([1.0, 0.5])
        return eqx.tree_at(lambda m: (m.A, m.W, m.h), plain, values)

    found = follow(between(model(0.8), model(1.3)), np.linspace(0, 1, 7), max_period=1, starts=20)
    (event,) = found.events
    assert event.kind == "Neimark-Sacker"
    assert event.value == pytest.approx(0.4, abs=1e-9)
    assert abs(np.angle(event.eigenvalue)) == pytest.approx(1.0, abs=1e-9)
    (branch,) = found.branches
    np.testing.assert_array_equal(branch.stable, branch.values < 0.4)


def test_models_along_checkpoints():
    models = [ALRNN.init(2, dim=3, n_relu=1, key=jr.key(k)) for k in range(3)]
    family = along(models)
    for value in (0.0, 1.0, 2.0):
        np.testing.assert_allclose(family(value).W, models[int(value)].W, rtol=1e-6)
    np.testing.assert_allclose(family(1.25).W, 0.75 * models[1].W + 0.25 * models[2].W, rtol=1e-6)
    found = follow(family, np.linspace(0, 2, 5), max_period=1, starts=20)
    assert len(found.branches) >= 1
    assert found.branches[0].values[[0, -1]] == pytest.approx([0, 2])


def test_misuse_is_named():
    with pytest.raises(InvalidValue, match="at least two different finite numbers"):
        follow(lorenz, [1.0, 1.0])
    with pytest.raises(InvalidValue, match="needs max_period >= 1"):
        follow(lorenz, [0.0, 1.0], max_period=0)
    with pytest.raises(InvalidValue, match="must be a map or a flow"):
        follow(lambda value: value, [0.0, 1.0])
    with pytest.raises(InvalidValue, match=r"model 1 \(ALRNN\) differs from model 0"):
        between(ALRNN.init(2, dim=3, n_relu=1, key=jr.key(0)), ALRNN.init(2, dim=3, n_relu=2, key=jr.key(0)))
    with pytest.raises(InvalidValue, match="at least two models"):
        along([1.0])

"""The region of attraction by simulation, and the largest violation: against regions, areas and decreases that are known in closed form."""

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from dynsys.dynamics import AbstractFlow, AbstractMap
from dynsys.errors import InvalidValue
from dynsys.verify.basin import AWAY, BLOCK, CONVERGED, UNDECIDED, basin, fates, paths, stretch
from dynsys.verify.loop import ClosedLoop, on_state
from dynsys.verify.lyapunov import QuadraticLyapunov
from dynsys.verify.violation import decrease, largest
from tests.dynsys.verify_cases import linear_flow, linear_map

SQUARE = (-2 * np.ones(2), 2 * np.ones(2))


class Squares(AbstractMap):
    """x+ = x^2 + shift, componentwise: for shift 0 the open square |x_i| < 1 goes to 0, everything beyond it leaves."""

    shift: float = 0.0

    @property
    def dim(self):
        return 2

    @property
    def n_obs(self):
        return 2

    @property
    def n_inputs(self):
        return 0

    def step(self, z, u=None):
        return z * z + self.shift

    def observe(self, z):
        return z

    def lift(self, x):
        return x


class Bistable(AbstractFlow):
    """dx/dt = -x (1 - x^2) (1 - x^2 / 2.25): 0 and 1.5 attract, 1 parts them; from beyond 1.5 on it goes to 1.5."""

    dim: int = 1
    n_inputs: int = 0

    def field(self, t, z, u=None):
        return -z * (1 - z * z) * (1 - z * z / 2.25)


def ring(r=1.0):
    """dx/dt = -x + |x|^2 x: starts with |x| < 1 go to 0, those beyond leave in finite time."""
    return linear_flow(-np.eye(2), cubic=1.0)


@pytest.fixture(scope="module")
def disc():
    """The ring's basin in a square of side 4 beside {|x|^2 <= 1/4}: areas pi and pi / 4."""
    return basin(ring(), QuadraticLyapunov.of(np.eye(2)), 0.25, *SQUARE, samples=3000, inside=500, key=1)


def test_a_flow_converges_from_the_disc_and_leaves_from_outside(disc):
    radius = np.linalg.norm(disc.starts, axis=1)
    clear = np.abs(radius - 1) > 1e-3  # nearer to the border the integrator's tolerance may decide
    assert_allclose(disc.codes[clear], np.where(radius < 1, CONVERGED, AWAY)[clear])


def test_volumes_and_shares_are_within_four_standard_errors(disc):
    for (value, error), true in ((disc.region, np.pi), (disc.certified, np.pi / 4), (disc.covered, 0.25)):
        assert abs(value - true) < 4 * error
    # by hand: a share p of 3000 starts has standard error sqrt(p (1 - p) / 3000)
    assert_allclose(disc.region[1], 16 * np.sqrt(np.pi / 16 * (1 - np.pi / 16) / 3000), rtol=0.05)


def test_starts_in_the_set_fill_it_to_its_border_and_converge(disc):
    values = np.sum(disc.inner**2, axis=1)
    assert values.max() <= 0.25
    assert np.mean(values > 0.2499) > 0.2
    assert values.min() < 1e-3
    assert disc.kept == 1.0
    assert len(disc.astray) == 0


def test_a_set_beyond_the_region_is_told_by_its_starts():
    found = basin(ring(), QuadraticLyapunov.of(np.eye(2)), 2.25, *SQUARE, samples=500, inside=500)
    assert found.kept < 0.8
    assert np.all(np.sum(found.astray**2, axis=1) > 1 - 1e-3)
    assert np.all(np.sum(found.astray**2, axis=1) <= 2.25)


def test_a_map_converges_from_its_square_in_more_than_one_block():
    loop = ClosedLoop.of(Squares(), goal=np.zeros(2))
    starts = np.random.default_rng(0).uniform(-2, 2, size=(BLOCK + 7, 2))
    found = fates(loop, starts, *SQUARE)
    size = np.max(np.abs(starts), axis=1)
    assert_allclose(found.codes, np.where(size < 1, CONVERGED, AWAY))
    assert np.abs(found.ends[found.codes == CONVERGED]).max() <= 2e-3  # NEAR times half-width 2


def test_another_attractor_is_not_the_goal():
    loop = ClosedLoop.of(Bistable(), goal=np.zeros(1))
    found = fates(loop, np.array([[0.99], [1.01], [1.9], [-0.5]]), [-2.0], [2.0])
    assert found.codes.tolist() == [CONVERGED, UNDECIDED, UNDECIDED, CONVERGED]
    assert_allclose(found.ends[1:3], 1.5, atol=1e-4)


def test_a_state_that_passes_the_goal_has_not_arrived():
    # x+ = (y, x / 2 ...) is nilpotent but for a start that jumps over the goal: at one look only it is near
    loop = linear_map(np.array([[0.0, 1.0], [0.0, 0.0]]))
    assert fates(loop, [[1.0, 1.0]], *SQUARE, stretches=1).codes.tolist() == [UNDECIDED]
    assert fates(loop, [[1.0, 1.0]], *SQUARE, stretches=2).codes.tolist() == [CONVERGED]


def test_looks_are_a_time_constant_apart():
    assert_allclose(stretch(linear_flow(np.diag([-0.1, -2.0]))), 10.0)
    assert stretch(linear_map(0.99 * np.eye(2))) == 100.0  # 1 / -log 0.99 = 99.5
    assert stretch(linear_map(np.zeros((2, 2)))) == 10.0
    assert np.isfinite(stretch(linear_flow(np.array([[0.0, 1.0], [-1.0, 0.0]]))))


def test_a_disturbed_loop_arrives_at_its_core_only():
    """x+ = x / 2 + w, |w| <= 0.1: every trajectory comes to |x| <= 0.2 and moves about there."""
    loop = ClosedLoop.of(
        linear_map(0.5 * np.eye(2)).plant, goal=np.zeros(2), disturbance=(-0.1 * np.ones(2), 0.1 * np.ones(2)), enter=on_state
    )
    V = QuadraticLyapunov.of(np.eye(2))
    starts = np.random.default_rng(1).uniform(-2, 2, size=(50, 2))
    found = fates(loop, starts, *SQUARE)
    assert np.all(found.codes == UNDECIDED)
    assert np.all(np.abs(found.ends) <= 0.2 + 1e-12)
    assert np.abs(found.ends).max() > 0.05
    arrived = basin(loop, V, 4.0, *SQUARE, samples=50, inside=50, core=0.08)
    assert np.all(arrived.codes == CONVERGED)


def test_paths_of_a_map_and_of_a_flow_are_the_solutions():
    times, states = paths(linear_map(np.diag([0.5, -0.8])), [[1.0, 1.0], [2.0, 0.0]], *SQUARE, count=30)
    assert_allclose(times, np.arange(len(times)))
    assert_allclose(states[0], np.stack([0.5**times, (-0.8) ** times], axis=1), atol=1e-15)
    times, states = paths(linear_flow(np.diag([-1.0, -3.0])), [[1.0, 1.0]], *SQUARE, stretches=2.0, count=11)
    assert_allclose(times, np.linspace(0, 2, 11))
    assert_allclose(states[0], np.exp(-np.outer(times, [1.0, 3.0])), atol=2e-5)  # some tens of steps at a tolerance of 1e-6
    _, states = paths(ring(), [[1.5, 0.0]], *SQUARE, count=11)
    assert np.isnan(states[0, -1]).all()
    assert_allclose(states[0, 0], [1.5, 0.0])


def test_what_does_not_fit_is_refused():
    with pytest.raises(InvalidValue, match="finite and \\(S, 2\\)"):
        fates(ring(), np.zeros((3, 1)), *SQUARE)
    with pytest.raises(InvalidValue, match="hold the goal"):
        fates(ring(), np.zeros((3, 2)), np.ones(2), 2 * np.ones(2))
    with pytest.raises(InvalidValue, match="at least 1"):
        basin(ring(), QuadraticLyapunov.of(np.eye(2)), 1.0, *SQUARE, samples=0)


def test_the_largest_violation_of_linear_loops_is_that_of_their_worst_direction():
    # V = |x|^2, x+ = diag(0.5, 0.8) x: V+/V is at most 0.64, along the second axis, at every distance
    V = QuadraticLyapunov.of(np.eye(2))
    found = largest(linear_map(np.diag([0.5, 0.8])), V, *SQUARE, 1.0, rate=0.01, starts=256)
    assert_allclose(found.largest, 0.64 - 0.99, atol=1e-4)
    assert abs(found.state[0]) < 0.02 * abs(found.state[1])
    assert -1 < found.outside < -0.5  # |x+| <= 0.8 of half-width 2
    # dx/dt = -x + |x|^2 x: dV/dt / V = -2 + 2 |x|^2, largest on the border of the set
    found = largest(ring(), V, *SQUARE, 0.5, rate=0.1, starts=256)
    assert_allclose(found.largest, -2 + 1.0 + 0.1, atol=1e-3)
    assert np.isnan(found.outside)


def test_the_disturbance_is_the_worst_one():
    loop = ClosedLoop.of(linear_map(0.5 * np.eye(2)).plant, goal=np.zeros(2), disturbance=(-np.ones(2), np.ones(2)), enter=on_state)
    F, value, after = decrease(loop, QuadraticLyapunov.of(np.eye(2)), np.array([[1.0, -1.0]]), 0.1)
    assert_allclose(after, [[1.5, -1.5]])
    assert_allclose(value, 2.0)
    assert_allclose(F, 4.5 / 2.0 - 0.9)


def test_below_the_core_nothing_is_claimed():
    loop = ClosedLoop.of(
        linear_map(0.5 * np.eye(2)).plant, goal=np.zeros(2), disturbance=(-0.1 * np.ones(2), 0.1 * np.ones(2)), enter=on_state
    )
    V = QuadraticLyapunov.of(np.eye(2))
    found = largest(loop, V, *SQUARE, 1.0, rate=0.01, core=0.3, starts=256)
    assert jnp.sum(found.state**2) > 0.3
    assert found.largest < 0
    assert largest(loop, V, *SQUARE, 1.0, rate=0.01, starts=256).largest > 1.0  # without a core it is false near the goal

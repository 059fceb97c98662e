"""Branch and bound and the levels, limits, resumption and disturbances of proofs, against formulas."""

import jax.numpy as jnp
import numpy as np
import pytest

from dynsys.dynamics import Discretized
from dynsys.errors import InvalidValue
from dynsys.systems import load_system
from dynsys.verify.branch import faces, grid
from dynsys.verify.certify import Outcome, certify
from dynsys.verify.loop import ClosedLoop, on_parameters, on_state
from dynsys.verify.lyapunov import QuadraticLyapunov

from . import verify_cases as cases

BOX = ([-3.0, -3.0], [3.0, 3.0])
BALL = QuadraticLyapunov.of(np.eye(2))


def cubic(a=1.0, b=1.0):
    """dx/dt = -a x + b |x|^2 x: the basin is |x|^2 < a / b."""
    return cases.linear_flow(-a * np.eye(2), b)


def test_grid_and_faces_cover_the_cube():
    for n in (1, 2, 4, 6, 10):
        mid, rad = grid(n, 1)
        assert np.sum(np.prod(2 * rad, axis=1)) == 2.0 ** (n + 1)
        assert np.all(np.abs(mid) + rad <= 1)
        assert len(mid) <= 256
    mid, rad = faces(3, 0)
    assert len(mid) == 6
    assert np.all(np.max(np.abs(mid), axis=1) == 1)
    assert np.sum(np.prod(np.where(rad > 0, 2 * rad, 1.0), axis=1)) == 24


def test_leaves_tile_the_cube_and_no_point_of_them_is_a_violation():
    """The proved boxes are disjoint and fill the cube: volumes add up to one, and random points lie in one box each."""
    loop = cubic()
    proof = certify(loop, BALL, domain=BOX, rate=0.0, level=0.99)
    mid, rad, bounds = proof.leaves
    assert np.sum(np.prod(rad, axis=1)) == pytest.approx(1.0, abs=1e-12)
    points = np.random.default_rng(0).uniform(-1, 1, size=(2000, 2))
    inside = np.all(np.abs(points[:, None] - mid[None]) <= rad[None], axis=2)
    assert np.all(inside.sum(axis=1) == 1)
    x = points @ proof.frame.T
    square = np.sum(x**2, axis=1)
    rise = 2 * square * (square - 1)  # dV/dt
    box = np.argmax(inside, axis=1)
    assert np.all(square >= bounds[box, 0])
    assert np.all(rise <= bounds[box, 1])


def test_the_largest_level_is_bracketed():
    """The exact one is a / b."""
    proof = certify(cubic(1.0, 0.8), BALL, domain=BOX, rate=0.0, seconds=60)
    low, high = proof.bracket
    assert proof.proved
    assert low <= 1.25 <= high
    assert low > 0.97 * high


def test_a_stopped_proof_goes_on():
    loop, level = cubic(), 0.99
    whole = certify(loop, BALL, domain=BOX, rate=0.0, level=level, batch=64)
    proof = certify(loop, BALL, domain=BOX, rate=0.0, level=level, batch=64, boxes=500)
    assert proof.outcome is Outcome.UNDECIDED
    assert "boxes" in proof.reason
    assert len(proof.remaining[0]) > 0
    assert 0 < proof.volume < 1
    assert proof.outcome.remedy
    rounds = 0
    while not proof.proved:
        rounds += 1
        proof = certify(loop, BALL, domain=BOX, rate=0.0, level=level, batch=64, boxes=500, resume=proof)
        assert rounds < 50
    assert proof.volume == pytest.approx(1.0, abs=1e-12)
    assert proof.boxes == whole.boxes  # the same tree, in another order
    assert {tuple(x) for x in proof.leaves[0]} == {tuple(x) for x in whole.leaves[0]}


def test_a_proof_stopped_before_the_goal_was_enclosed_goes_on():
    loop = cubic()  # beyond |x| = 1 it leaves, so that the first and largest cube is refused, and no time is left for others
    settings = {"domain": BOX, "rate": 0.0, "level": 0.99, "batch": 64}
    proof = certify(loop, BALL, seconds=1e-9, frame=3 * np.eye(2), **settings)
    assert proof.outcome is Outcome.UNDECIDED
    assert np.isnan(proof.r0)
    whole = certify(loop, BALL, resume=proof, seconds=60, **settings)
    assert whole.proved
    assert whole.r0 > 0


def test_a_proof_goes_on_with_its_own_claim_only():
    loop = cubic()
    claim = {"domain": BOX, "rate": 0.0, "level": 0.99, "batch": 64}
    stopped = certify(loop, BALL, boxes=100, **claim)
    assert stopped.outcome is Outcome.UNDECIDED
    other = QuadraticLyapunov.of(2 * np.eye(2))
    small = ([-0.5, -0.5], [0.5, 0.5])
    for change in ({"level": 2.5}, {"level": None}, {"rate": 0.1}, {"core": 0.1}, {"domain": small}):
        with pytest.raises(InvalidValue, match=f"was begun with; {next(iter(change))}"):
            certify(loop, BALL, resume=stopped, **(claim | change))
    for given in ((cubic(1.0, 1.1), BALL), (loop, other)):
        with pytest.raises(InvalidValue, match="loop and V"):
            certify(*given, resume=stopped, **claim)
    whole = certify(loop, BALL, resume=stopped, **claim)
    assert whole.proved
    with pytest.raises(InvalidValue, match="can't go on"):
        certify(loop, BALL, resume=whole, **claim)


@pytest.mark.parametrize("side", [([-0.1, -0.1], [np.inf, np.inf]), ([-np.inf, -0.1], [0.1, np.inf]), ([-np.inf] * 2, [0.1, 0.1])])
def test_a_domain_with_one_side_is_one(side):
    """|x| <= 1 leaves it, by whichever side is there."""
    proof = certify(cubic(), BALL, domain=side, rate=0.1, level=0.5)
    assert proof.outcome is Outcome.COUNTEREXAMPLE
    assert "domain" in proof.counterexample.what
    assert certify(cubic(), BALL, domain=side, rate=0.1, level=0.009).proved


def test_a_stop_ends_the_search_for_a_level():
    told = []

    def stop(share, boxes, seconds):
        told.append(share)
        return True

    certify(cubic(), BALL, domain=BOX, rate=0.0, batch=64, progress=stop)
    assert len(told) == 1


def test_limits_and_a_stop_by_the_caller():
    loop = cubic()
    told = []

    def stop(share, boxes, seconds):
        told.append((share, boxes))
        return True

    proof = certify(loop, BALL, domain=BOX, rate=0.0, level=0.99, batch=64, progress=stop)
    assert proof.outcome is Outcome.UNDECIDED
    assert "stopped" in proof.reason
    assert len(told) == 1
    proof = certify(loop, BALL, domain=BOX, rate=0.0, level=0.99, batch=64, seconds=1e-6)
    assert "time" in proof.reason
    proof = certify(loop, BALL, domain=BOX, rate=0.0, level=0.99, batch=64, waiting=1)
    assert "memory" in proof.reason
    assert len(proof.remaining[0]) > 1


def test_a_tight_claim_is_undecided_not_proved():
    """V+ = V / 4 exactly, with rate 3/4: true, but with no margin at all; rounding must not prove it, and nothing refutes it."""
    loop = cases.linear_map(0.5 * np.eye(2))
    proof = certify(loop, BALL, domain=BOX, rate=0.75, level=1.0, boxes=100_000)
    assert proof.outcome is Outcome.UNDECIDED
    assert certify(loop, BALL, domain=BOX, rate=0.75 - 1e-9, level=1.0).proved


def test_disturbances_add_to_the_state():
    """x+ = a x + w, |w_i| <= d: V+ <= (a |x| + d sqrt 2)^2, so {|x|^2 <= core} is invariant from sqrt(core) = d sqrt 2 / (1 - a) on."""
    a, d = 0.5, 0.1
    least = 2 * d**2 / (1 - a) ** 2
    base = cases.linear_map(a * np.eye(2))
    loop = ClosedLoop.of(base.plant, goal=np.zeros(2), disturbance=([-d, -d], [d, d]), enter=on_state)
    assert certify(loop, BALL, domain=BOX, rate=0.0, level=4.0, core=1.05 * least).proved
    false = certify(loop, BALL, domain=BOX, rate=0.0, level=4.0, core=0.95 * least)
    assert false.outcome is Outcome.COUNTEREXAMPLE
    with pytest.raises(InvalidValue, match=r"no equilibrium.*core"):
        certify(loop, BALL, domain=BOX, rate=0.0, level=4.0)


@pytest.mark.slow
def test_uncertain_parameters():
    """dx/dt = -x + b |x|^2 x with b in [0.5, 2]: the basin that holds for every b is |x|^2 < 1 / 2."""
    loop = ClosedLoop.of(cubic().plant, goal=np.zeros(2), disturbance=([0.5], [2.0]), enter=on_parameters("cubic"))
    assert certify(loop, BALL, domain=BOX, rate=0.0, level=0.49).proved
    false = certify(loop, BALL, domain=BOX, rate=0.0, level=0.51)
    assert false.outcome is Outcome.COUNTEREXAMPLE
    assert false.counterexample.disturbance[0] * np.sum(false.counterexample.state**2) > 1


@pytest.mark.slow
def test_an_off_centre_goal_and_an_uneven_domain():
    """x+ = g + (x - g) / 2 in a box that is not centred at g: the level set must stay inside, |x - g|^2 <= 0.5^2."""

    class Moved(cases.LinearMap):
        def step(self, z, u=None):
            return self.place + self.A @ (z - self.place)

    goal = np.array([0.25, -1.5])
    plant = Moved(0.5 * jnp.eye(2), jnp.asarray(goal), jnp.asarray(1.0), jnp.asarray(0.0))
    loop, V = ClosedLoop.of(plant, goal=goal), QuadraticLyapunov.of(np.eye(2), goal)
    domain = ([-3.0, -2.0], [1.0, 3.0])
    for frame in ("box", "diagonal"):
        assert certify(loop, V, domain=domain, rate=0.1, level=0.24, frame=frame).proved
        false = certify(loop, V, domain=domain, rate=0.1, level=0.26, frame=frame)
        assert false.outcome is Outcome.COUNTEREXAMPLE
        assert "domain" in false.counterexample.what


@pytest.mark.slow
def test_pendulum_regulator_in_steps():
    """Saturated regulator of the inverted pendulum, Euler 0.05: proved to within 3 % of a level that is refuted; 2,000 points agree."""
    plant = Discretized(cases.InvertedPendulum(), 0.05, cases.euler)
    loop, V = cases.regulated(plant, plant, np.eye(2), np.eye(1), 6.0)
    proof = certify(loop, V, domain=([-12.0, -12.0], [12.0, 12.0]), rate=0.001, seconds=60)
    assert proof.proved
    assert proof.bracket[0] > 0.97 * proof.bracket[1]
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(2000, 2))
    L = np.linalg.cholesky(np.linalg.inv(np.asarray(V.P)))
    x = (directions / np.linalg.norm(directions, axis=1)[:, None] * np.sqrt(proof.level) * rng.uniform(0.01, 1, size=(2000, 1))) @ L.T
    for state in x[:200]:
        assert float(V.value(loop.step(state))) <= (1 - 0.001) * float(V.value(jnp.asarray(state)))


def test_what_cannot_be_asked_is_refused():
    loop = cubic()
    with pytest.raises(InvalidValue, match="rate"):
        certify(loop, BALL, domain=BOX, rate=-0.1, level=1.0)
    with pytest.raises(InvalidValue, match="must lie strictly inside the domain"):
        certify(loop, BALL, domain=([0.0, -1.0], [1.0, 1.0]), rate=0.0, level=1.0)
    with pytest.raises(InvalidValue, match="same goal"):
        certify(loop, QuadraticLyapunov.of(np.eye(2), [1.0, 0.0]), domain=BOX, rate=0.0, level=1.0)
    with pytest.raises(InvalidValue, match="no equilibrium: state 0"):
        ClosedLoop.of(loop.plant, goal=[0.5, 0.0])


def test_disturbances_enter_by_the_parameters_of_a_system():
    plant = load_system("Pendulum")
    loop = ClosedLoop.of(plant, goal=np.zeros(2), disturbance=([0.5], [2.0]), enter=on_parameters("l"))
    x, heavy = jnp.array([0.3, -0.2]), load_system("Pendulum", l=1.7)
    assert np.allclose(loop.field(x, jnp.array([1.7])), heavy.field(0.0, x, jnp.zeros(1)), rtol=1e-6)
    assert not np.allclose(loop.field(x, jnp.array([1.7])), loop.field(x, jnp.array([0.5])), rtol=1e-3)

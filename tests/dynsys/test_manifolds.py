"""Manifolds and their crossings: maps whose manifolds are known by formula, and what being invariant means."""

import dataclasses

import numpy as np
import pytest

from dynsys.analysis.piecewise.crossings import crossings
from dynsys.analysis.piecewise.manifolds import Manifold, grow_manifold
from dynsys.analysis.piecewise.polyline import broken, chained, cut_at, lengths, meetings
from dynsys.analysis.piecewise.saddle import saddle_of
from dynsys.analysis.piecewise.verified import verified
from dynsys.dynamics import AbstractMap
from dynsys.errors import InvalidValue
from dynsys.status import Status

from .planar_maps import lozi, two_pieces

A, B = 1.7, 0.5
LAMBDA = -(A + np.sqrt(A**2 + 4 * B)) / 2  # the unstable eigenvalue of Lozi's right fixed point; the other is -B / LAMBDA
X = np.array([1.0, B]) / (1 + A - B)
Z = np.array([(2 + A + np.sqrt(A**2 + 4 * B)) / (2 * (1 + A - B)), 0.0])  # Misiurewicz 1980: the first fold of the unstable manifold


def step(z):
    return np.stack([1 - A * np.abs(z[..., 0]) + z[..., 1], B * z[..., 0]], axis=-1)


def back(z):
    return np.stack([z[..., 1] / B, z[..., 0] - 1 + A * np.abs(z[..., 1]) / B], axis=-1)


def record(model, *points):
    return verified(model, np.array(points, float), 1e-9)


def distance(points, curve):
    """Of each point to the nearest segment of a polyline."""
    a, u = curve[:-1], np.diff(curve, axis=0)
    s = np.clip(((points[:, None] - a) * u).sum(-1) / (u**2).sum(-1), 0, 1)
    return np.linalg.norm(points[:, None] - a - s[..., None] * u, axis=-1).min(1)


def along(curve, upto, count=300):
    """Random points on the first part of a polyline."""
    at = np.random.default_rng(0).random(count) * upto
    return np.stack([np.interp(at, lengths(curve), column) for column in curve.T], axis=1)


@pytest.fixture(scope="module")
def grown():
    model = lozi(A, B)
    saddle = record(model, X)
    return model, saddle, grow_manifold(model, saddle, length=150.0), grow_manifold(model, saddle, "stable", iterations=5)


def test_the_unstable_manifold_of_lozi_folds_where_misiurewicz_says(grown):
    _, saddle, unstable, _ = grown
    assert saddle.eigenvalues[0] == pytest.approx(LAMBDA)
    one, other = unstable.curves
    np.testing.assert_allclose(one[0], X, atol=1e-15)
    np.testing.assert_allclose(other[0], X, atol=1e-15)
    assert np.abs(one - Z).max(1).min() < 1e-13
    assert np.abs(other - step(Z)).max(1).min() < 1e-13
    direction = np.array([LAMBDA, B])  # the unstable eigenvector: y' = b x
    for curve in unstable.curves:
        first = curve[1] - curve[0]
        assert abs(first[0] * direction[1] - first[1] * direction[0]) < 1e-13
        assert lengths(curve)[-1] == pytest.approx(150.0)
    assert unstable.length == pytest.approx(300.0)
    assert unstable.status.ok
    assert unstable.points.shape == (len(one) + len(other), 2)


def test_the_unstable_manifold_is_its_own_image(grown):
    _, _, unstable, _ = grown
    one, other = unstable.curves  # a negative eigenvalue: one branch maps onto the other, at most 2.2 times as long
    for here, there in ((one, other), (other, one)):
        # 1e-16 grows along the curve, not across it
        assert distance(step(along(here, 60.0)), there).max() < 1e-12
        assert distance(step(along(here, 60.0)) + np.array([0, 1e-6]), there).max() > 1e-8  # the test can fail


def test_points_of_the_unstable_manifold_come_from_the_saddle(grown):
    points = along(grown[2].curves[0], 100.0)
    nearest = np.full(len(points), np.inf)
    for _ in range(18):  # 100 / 1.96^18 = 6e-4, unevenly stretched; errors grow by 3.9 a step back: 1e-15 * 3.9^18 = 4e-5
        points = back(points)
        nearest = np.minimum(nearest, np.linalg.norm(points - X, axis=1))
    assert nearest.max() < 0.02


def test_points_of_the_stable_manifold_go_to_the_saddle(grown):
    _, _, _, stable = grown
    points = np.concatenate([along(curve, lengths(curve)[-1], 40) for curve in stable.curves])
    nearest = np.full(len(points), np.inf)
    for _ in range(16):
        points = step(points)
        nearest = np.minimum(nearest, np.linalg.norm(points - X, axis=1))
    assert nearest.max() < 1e-3  # 100 * 0.26^11, and 1e-13 * 1.96^16 for the rounding
    assert distance(X[None], stable.curves[0]).max() < 1e-12  # the piece through the cycle comes first


def test_a_cycle_of_period_two(grown):
    model = grown[0]
    # x_0 < 0 < x_1: x_1 = 1 + a x_0 + b x_1, x_0 = 1 - a x_1 + b x_0  (y_t = b x_{t-1})
    x0, x1 = np.linalg.solve([[A, B - 1], [B - 1, -A]], [-1, -1])
    assert x0 < 0 < x1
    cycle = record(model, [x0, B * x1], [x1, B * x0])
    assert cycle.period == 2
    assert cycle.residual < 1e-14
    unstable = grow_manifold(model, cycle, length=30.0)
    assert len(unstable.curves) == 4
    images = step(along(unstable.curves[0], 10.0))
    assert min(distance(images, curve).max() for curve in unstable.curves[2:]) < 1e-12
    assert min(distance(images, curve).max() for curve in unstable.curves[:2]) > 1e-3


def test_homoclinic_orbits_of_a_cycle_are_counted_once(grown):
    model = grown[0]
    x0, x1 = np.linalg.solve([[A, B - 1], [B - 1, -A]], [-1, -1])
    found = crossings(model, grow_manifold(model, record(model, [x0, B * x1], [x1, B * x0]), length=20.0))
    gap = np.linalg.norm(step(found.points)[:, None] - found.points, axis=-1)
    (at,) = np.nonzero(gap.min(1) < 1e-10)  # whose next point is in the list too: near the other point of the cycle
    assert len(at) > 20
    np.testing.assert_array_equal(found.orbits[at], found.orbits[gap[at].argmin(1)])


def skew(c=0.5, e=1.0):
    """x' = 1 - 2|x|, y' = c y + e x: not invertible; stable manifolds are vertical lines."""
    return two_pieces([[2, 0], [e, c]], [[-2, 0], [e, c]], [1, 0])


def test_the_stable_set_of_a_map_that_is_not_invertible():
    model = skew()
    target = record(model, [1 / 3, 2 / 3])
    stable = grow_manifold(model, target, "stable", iterations=4, bound=100.0)
    x, lines = 1 / 3, [1 / 3]
    for n in range(5):  # all preimages of 1/3 under the tent map, each line once
        x = np.array([-1 / 3]) if n == 0 else np.concatenate([(x - 1) / 2, (1 - x) / 2])
        lines += list(x if n < 4 else [])
    assert len(stable.curves) == 16
    np.testing.assert_allclose(sorted(curve[0, 0] for curve in stable.curves), sorted(lines), atol=1e-12)
    assert max(np.ptp(curve[:, 0]) for curve in stable.curves) < 1e-12
    assert stable.length == pytest.approx(16 * 200)


def test_heteroclinic_points_by_a_geometric_series():
    c, e = 0.5, 1.0
    model = skew(c, e)
    source, target = record(model, [-1, -e / (1 - c)]), record(model, [1 / 3, e / 3 / (1 - c)])
    found = crossings(model, grow_manifold(model, source, iterations=12), target)
    assert not found.homoclinic
    np.testing.assert_allclose(found.points[:, 0], 1 / 3, atol=1e-14)
    # y = e sum_n c^n x_{-n-1} along the preimages -1 + (4/3) 2^-m of 1/3 that go back to -1
    direct = e * (-1 / (1 - c) + (2 / 3) / (1 - c / 2))
    assert np.abs(found.points[:, 1] - direct).min() < 1e-12
    # once around: 1/3 <- -1/3 <- 2/3 <- -1/6 <- (-1/6 - 1)/2 ...
    x, turn = [-1 / 3, 2 / 3, -1 / 6], 0.0
    while len(x) < 60:
        x.append((x[-1] - 1) / 2)
    turn = e * np.sum(c ** np.arange(60) * np.array(x))
    assert np.abs(found.points[:, 1] - turn).min() < 1e-12
    assert (found.angles > 0.01).all()


def test_homoclinic_points_of_lozi(grown):
    model, _, unstable, _ = grown
    found = crossings(model, unstable)
    assert found.homoclinic
    assert found.status.ok
    # by hand: the unstable manifold goes straight from Z to F(F(Z)); the stable line through X has slope b / (stable eigenvalue)
    v, u = np.array([-B / LAMBDA, B]), step(step(Z)) - Z
    s, _ = np.linalg.solve(np.stack([u, -v], axis=1), X - Z)
    assert 0 < s < 1
    by_hand = Z + s * u
    assert by_hand[0] > 0
    assert np.abs(found.points - by_hand).max(1).min() < 1e-12
    forward, backward = found.points, found.points
    to, came = np.full(len(found), np.inf), np.full(len(found), np.inf)
    for _ in range(18):
        forward, backward = step(forward), back(backward)
        to = np.minimum(to, np.linalg.norm(forward - X, axis=1))
        came = np.minimum(came, np.linalg.norm(backward - X, axis=1))
    assert to.max() < 1e-5  # 0.26^n, against 1e-14 * 1.96^n
    assert came.max() < 0.02
    assert (np.linalg.norm(found.points - X, axis=1) > 1e-7).all()
    assert 1 < found.n_orbits < len(found)
    # the image of a point belongs to its orbit
    i = int(np.abs(found.points - by_hand).max(1).argmin())
    j = int(np.abs(found.points - step(by_hand)).max(1).argmin())
    assert i != j
    assert found.orbits[i] == found.orbits[j]


def test_two_grown_curves_give_the_flat_crossings_and_more(grown):
    model, _, unstable, stable = grown
    flat, both = crossings(model, unstable), crossings(model, unstable, stable=stable)
    assert len(both) > len(flat)
    gap = np.abs(flat.points[:, None] - both.points).max(-1).min(1)
    assert gap.max() < 1e-9


def test_a_branch_that_ends_in_an_attractor_has_no_crossings():
    # the skew map with slope -1/2 on the right: x' = 1 + 2x or 1 - x/2; the branch of (-1, .) ends at x = 2/3
    model = two_pieces([[2, 0], [1, 0.5]], [[-0.5, 0], [1, 0.5]], [1, 0])
    saddle = record(model, [-1, -2])
    unstable = grow_manifold(model, saddle, iterations=200)
    right = max(unstable.curves, key=lambda curve: curve[-1, 0])
    np.testing.assert_allclose(right[-1], [2 / 3, 4 / 3], atol=1e-9)
    assert "attractor" in " ".join(unstable.notes)
    assert "bound" in " ".join(unstable.notes)
    found = crossings(model, unstable)
    assert len(found) == 0
    assert found.n_orbits == 0
    assert "there may be none" in found.notes[-1]


def test_two_directions_give_a_cloud_in_the_eigenplane():
    turn = 1.3 * np.array([[np.cos(1), -np.sin(1)], [np.sin(1), np.cos(1)]])
    J = np.zeros((3, 3))
    J[:2, :2], J[2, 2], J[2, 0] = turn, 0.4, 0.7
    model = two_pieces(J, J, [-2, 0, 0])
    z = np.linalg.solve(np.eye(3) - J, [-2, 0, 0])
    left = np.linalg.eig(J.T)
    normal = left[1][:, np.argmin(np.abs(left[0] - 0.4))].real
    unstable = grow_manifold(model, record(model, z), iterations=6)
    assert unstable.dimension == 2
    assert unstable.curves == ()
    assert np.abs((unstable.cloud - z) @ normal).max() < 1e-11
    assert np.linalg.svd(unstable.cloud - z)[1][1] > 1
    shell, image = unstable.cloud[:256], unstable.cloud[256:512]
    np.testing.assert_allclose(image, shell @ J.T + [-2, 0, 0], atol=1e-12)
    stable = grow_manifold(model, record(model, z), "stable", bound=50.0)
    assert stable.dimension == 1
    assert max(np.ptp(curve[:, :2]) for curve in stable.curves) < 1e-12 + np.ptp(z[:2])
    assert "no stable direction" not in stable.notes


def test_a_stable_manifold_of_two_dimensions():
    J = np.diag([0.5, 0.8, 2.0])
    model = two_pieces(J, J, [1, 0, 0])
    stable = grow_manifold(model, record(model, [2, 0, 0]), "stable", iterations=5, bound=30.0)
    assert stable.dimension == 2
    assert np.abs(stable.cloud[:, 2]).max() < 1e-12
    assert np.abs(stable.cloud).max() <= 30
    assert np.abs(stable.cloud[:, 0]).max() > 10  # grown well beyond the border at x = 0


class Smooth(AbstractMap):
    dim: int = 2
    n_obs: int = 2
    n_inputs: int = 0

    def step(self, z, u=None):
        return z**2

    def observe(self, z):
        return z

    def lift(self, x):
        return x


def test_only_orbits_that_stay_in_the_region_reach_the_target_along_its_flat_set():
    # the stable direction turns over: x - 1 -> -0.9 (x - 1), so beyond x = 1 + 1/0.9 the next point is across the border at 0
    model = two_pieces([[0.5, 0], [1, 2]], [[-0.9, 0], [0, 2]], [1.9, 0])
    target = record(model, [1, 0])
    curve = np.array([[1.5, -1.0], [1.5, 1.0], [2.2, 1.0], [2.2, -1.0], [-0.5, -1.0], [-0.5, 1.0], [0.4, 1.0], [0.4, -1.0]])
    found = crossings(model, Manifold(target, "unstable", 1, (curve,)), target)
    np.testing.assert_allclose(np.sort(found.points[:, 0]), [0.4, 1.5], atol=1e-12)
    np.testing.assert_allclose(found.angles, np.pi / 2, atol=1e-7)


def test_the_flat_piece_of_a_cycle_ends_where_one_of_its_steps_meets_the_border(grown):
    model = grown[0]
    x0, x1 = np.linalg.solve([[A, B - 1], [B - 1, -A]], [-1, -1])
    cycle = record(model, [x0, B * x1], [x1, B * x0])
    saddle, finite = saddle_of(model, cycle, cycle.regions), 0
    for t in range(2):
        here = saddle.from_point(t)
        v = here.subspace(unstable=True)[0][:, 0]
        for side, reach in zip((v, -v), here.interval(v), strict=True):
            ends = [0.999 * reach, 1.001 * reach] if np.isfinite(reach) else [1.0, 1e6]
            orbit = [here.points[0] + np.outer(ends, side)]
            orbit.append(step(orbit[0]))
            stays = np.all([(z[:, 0] > 0) == (p[0] > 0) for z, p in zip(orbit, here.points, strict=True)], axis=0)
            assert stays.tolist() == [True, not np.isfinite(reach)]
            finite += np.isfinite(reach)
    assert finite >= 2


def test_the_fundamental_shell_holds_what_leaves_the_ball_at_the_next_return():
    turn = 1.01 * np.array([[np.cos(1), -3 * np.sin(1)], [np.sin(1) / 3, np.cos(1)]])  # slow, and not normal
    J = np.zeros((3, 3))
    J[:2, :2], J[2, 2] = turn, 0.4
    model = two_pieces(J, J, [-2, 0, 0])
    cycle = record(model, np.linalg.solve(np.eye(3) - J, [-2, 0, 0]))
    ball = saddle_of(model, cycle, cycle.regions).ball(unstable=True)
    rng = np.random.default_rng(0)
    shell, whole = ball.sample(500, rng, shell=True), ball.sample(500, rng, shell=False)
    assert ball.inside(shell * (1 - 1e-9)).all()
    assert not ball.inside(shell @ ball.B.T * (1 + 1e-9)).any()
    assert ball.inside(whole @ ball.B.T).any()
    edge = cycle.points[0, 0] + (shell @ ball.Q.T)[:, 0]
    assert np.ptp(np.sign(edge)) == 0  # all in the region of the cycle
    assert np.abs(edge).min() < 0.1 * np.abs(cycle.points[0, 0])  # and up to its border


def test_what_can_not_be_grown_is_explained(grown):
    model, saddle, unstable, stable = grown
    node = two_pieces([[0.5, 0], [0, 0.5]], [[0.5, 0], [0, 0.5]], [1, 0])
    border = two_pieces([[2, 0], [0, 0.5]], [[3, 0], [0, 0.5]], [0, 0])
    flat = two_pieces([[2, 0], [0, 0]], [[3, 0], [0, 0]], [1, 0])
    cases = [
        (model, dataclasses.replace(saddle, virtual=True), "virtual"),
        (node, record(node, [2, 0]), "no unstable direction"),
        (border, record(border, [0, 0]), "lies on a switching manifold"),
        (Smooth(), record(Smooth(), [1, 1]), "not piecewise linear"),
    ]
    for system, cycle, words in cases:
        found = grow_manifold(system, cycle)
        assert found.status is Status.FAILED
        assert words in found.notes[0]
        assert found.points.size == 0
    singular = grow_manifold(flat, record(flat, [-1, 0]), "stable")
    assert "singular" in " ".join(singular.notes)
    assert crossings(node, Manifold(record(node, [2, 0]), "unstable", 0)).status is Status.FAILED
    assert "0 unstable directions" in crossings(model, unstable, record(node, [2, 0])).notes[0]
    few = grow_manifold(model, saddle, max_points=50, iterations=50)
    assert few.status is Status.MAX_STEPS
    assert len(few.points) <= 50 + 4
    assert stable.status.ok


def test_misuse_is_named(grown):
    model, saddle, unstable, stable = grown
    with pytest.raises(InvalidValue, match="which must be 'unstable' or 'stable', got 'both'"):
        grow_manifold(model, saddle, "both")
    with pytest.raises(InvalidValue, match="length > 0"):
        grow_manifold(model, saddle, length=0.0)
    with pytest.raises(InvalidValue, match="needs an unstable manifold"):
        crossings(model, stable)
    with pytest.raises(InvalidValue, match=r"regions must be codes of shape \(C, 1\)"):
        grow_manifold(model, saddle, "stable", regions=np.zeros((3, 2), bool))
    assert unstable.which == "unstable"


def test_polylines_by_hand():
    line = np.array([[-1.0, 0.0], [1.0, 0.0], [1.0, 2.0]])
    rows, offsets = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([-0.5, -1.0])
    np.testing.assert_allclose(broken(line, rows, offsets), [[-1, 0], [0.5, 0], [1, 0], [1, 1], [1, 2]])
    np.testing.assert_allclose(cut_at(line, 3.0), [[-1, 0], [1, 0], [1, 1]])
    other = np.array([[0.0, -1.0], [0.0, 1.0], [3.0, 1.0], [3.0, 3.0]])
    np.testing.assert_allclose(meetings(line, other), [[0, 0], [1, 1]])
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(2, 300, 2)).cumsum(1)
    brute = 0
    for a, u in zip(one[:-1], np.diff(one, axis=0), strict=True):
        for b, v in zip(two[:-1], np.diff(two, axis=0), strict=True):
            s, r = np.linalg.solve(np.stack([u, -v], axis=1), b - a)
            brute += (0 <= s <= 1) and (0 <= r <= 1)
    assert len(meetings(one, two)) == brute
    assert brute > 10
    pieces = np.array([[[1.0, 0], [2, 0]], [[0.0, 0], [1, 0]], [[2.0, 0], [2, 1]], [[5.0, 5], [6, 6]]])
    curves = chained(pieces, 1e-9)
    assert sorted(len(curve) for curve in curves) == [2, 4]
    square = np.array([[[0.0, 0], [1, 0]], [[1.0, 0], [1, 1]], [[1.0, 1], [0, 1]], [[0.0, 1], [0, 0]]])
    (ring,) = chained(square, 1e-9)
    np.testing.assert_allclose(ring[0], ring[-1])
    assert len(ring) == 5

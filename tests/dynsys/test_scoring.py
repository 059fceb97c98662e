"""Scoring free runs: the data themselves score almost nothing, and each way of failing costs what it should."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from dynsys.dynamics import AbstractMap
from dynsys.metrics.divergence import state_space_divergence_binned
from dynsys.reconstruct.scoring import LARGEST_EXCERPT, FreeRunScorer, _excerpt, sensible_bins
from dynsys.train.trainer import WORST_SCORE


class Turn(AbstractMap):
    """x[t+1] = gain R x[t] + push u[t], all of it observed."""

    matrix: jnp.ndarray
    push: jnp.ndarray
    dim: int = 2
    n_obs: int = 2
    n_inputs: int = 0

    def step(self, z, u=None):
        return self.matrix @ z + (0.0 if u is None else self.push @ u)

    def observe(self, z):
        return z

    def lift(self, x):
        return x


def turn(angle=0.7, gain=1.0, push=0.0, n_inputs=0):
    matrix = gain * jnp.array([[jnp.cos(angle), -jnp.sin(angle)], [jnp.sin(angle), jnp.cos(angle)]])
    return Turn(matrix, push * jnp.ones((2, max(n_inputs, 1))), n_inputs=n_inputs)


def circle(points=4000, angle=0.7, phase=0.0):
    t = phase + angle * np.arange(points)
    return np.sqrt(2.0) * np.stack([np.cos(t), np.sin(t)], axis=1)


@pytest.fixture(scope="module")
def scorer():
    return FreeRunScorer([circle()], starts=6, steps=1000)


def parts(scored):
    return dict(scored.parts)


def test_the_true_system_scores_almost_nothing_and_others_worse(scorer):
    """A rotation by an angle that is no fraction of a turn fills the circle evenly, so 6 runs visit the data's bins as often."""
    true = scorer(turn())
    assert true.total < 0.05
    assert parts(true)["dead"] == 0.0
    constant = scorer(turn(gain=0.0))
    shrinking = scorer(turn(gain=0.999))
    slower = scorer(turn(angle=0.35))
    exploding = scorer(turn(gain=2.0))
    assert true.total < slower.total < shrinking.total < constant.total
    assert parts(slower)["d_stsp"] < 0.05  # the same circle,
    assert parts(slower)["d_h"] > 0.8  # another frequency
    assert constant.total == WORST_SCORE
    assert exploding.total == WORST_SCORE


def test_the_parts_add_up(scorer):
    runs = np.stack([circle(1000, phase=k) for k in range(6)])
    runs[4] = 0.0
    scored = scorer.score(runs)
    share = parts(scored)
    assert share["dead"] == pytest.approx(1 / 6)
    whole = np.concatenate([runs[k] for k in range(6)])
    assert share["d_stsp"] == pytest.approx(state_space_divergence_binned(circle(), whole, bins=scorer.bins), abs=1e-9)
    each = [state_space_divergence_binned(circle(), run, bins=scorer.bins) for run in runs]
    assert share["worst_start"] == pytest.approx(max(each), abs=1e-9)
    wanted = share["d_stsp"] + 3 * share["d_h"] + 8 / 6 + 8 * share["outside"] + max(0.0, max(each) - scorer.veto)
    assert scored.total == pytest.approx(wanted, abs=1e-9)


def test_one_start_that_ends_elsewhere_is_vetoed(scorer):
    """A second attractor inside the data's box that one of six starts falls into: the pooled divergence hardly sees it."""
    good = np.stack([circle(1000, phase=k) for k in range(6)])
    bad = good.copy()
    bad[2] = 0.3 * bad[2]
    assert parts(scorer.score(good))["worst_start"] < scorer.veto
    found = scorer.score(bad)
    assert parts(found)["d_stsp"] < 0.5
    assert parts(found)["dead"] == 0.0
    assert parts(found)["worst_start"] > scorer.veto
    assert found.total > scorer.score(good).total + 3.0


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1e30])
def test_runs_that_leave_the_numbers_are_dead(scorer, wrong):
    runs = np.stack([circle(1000, phase=k) for k in range(6)])
    runs[0, 700:] = wrong
    found = scorer.score(runs)
    assert np.isfinite(found.total)
    assert parts(found)["dead"] == pytest.approx(1 / 6)
    assert found.total > 8 / 6
    assert scorer.score(np.full_like(runs, wrong)).total == WORST_SCORE


def test_a_run_that_dies_in_its_second_half_is_dead(scorer):
    runs = np.stack([circle(1000, phase=k) for k in range(6)])
    runs[1, 500:] = runs[1, 500]
    assert parts(scorer.score(runs))["dead"] == pytest.approx(1 / 6)


def test_six_dimensions_go_through_three_components():
    """Two circles and noise in six columns: the three components hold the larger circle, and the score still tells right from wrong."""
    rng = np.random.default_rng(0)

    def made(points, seed, size=3.0):
        noise = 0.01 * np.random.default_rng(seed).normal(size=(points, 2))
        return np.concatenate([size * circle(points, phase=seed), circle(points, angle=1.1, phase=seed), noise], axis=1)

    scorer = FreeRunScorer([made(4000, 0)], starts=4, steps=1000)
    assert scorer.projected
    assert scorer.axes.shape == (6, 3)
    right = scorer.score(np.stack([made(1000, k) for k in range(4)]))
    wrong = scorer.score(np.stack([made(1000, k, size=2.0) for k in range(4)]))
    dead = scorer.score(np.zeros((4, 1000, 6)) + rng.normal(size=6))
    assert right.total < wrong.total - 1.0
    assert wrong.total < dead.total == WORST_SCORE


def test_runs_of_a_driven_model_follow_their_own_inputs():
    """x[t+1] = .9 R x[t] + u[t]: the true model repeats the data from every start, so nothing is left but the sampling of bins."""
    rng = np.random.default_rng(1)
    u, model = rng.normal(size=(4000, 1)), turn(gain=0.9, push=1.0, n_inputs=1)
    x = [np.zeros(2)]
    for t in range(3999):
        x.append(np.asarray(model.matrix) @ x[-1] + u[t])
    x = np.array(x)
    scorer = FreeRunScorer([x], [u], starts=5, steps=10_000)
    assert scorer.steps == 2000
    runs = []
    for start, given in zip(scorer.starts, scorer.inputs, strict=True):
        row = int(np.flatnonzero((x == start).all(axis=1))[0])
        np.testing.assert_array_equal(given, u[row : row + 2000])
        runs.append(x[row + 1 : row + 2001])
    ours = scorer(model)
    assert ours.total == pytest.approx(scorer.score(np.stack(runs)).total, rel=1e-2)  # rounding moves a point or two over an edge
    deaf = scorer(dataclasses.replace(model, push=jnp.zeros((2, 1))))
    assert deaf.total == WORST_SCORE


def test_the_same_scorer_is_made_of_the_same_data():
    first, again = (FreeRunScorer([circle(500), circle(50)], starts=4, steps=100, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.starts, again.starts)
    assert first.veto == again.veto
    rows = {tuple(row) for row in np.concatenate([circle(500), circle(50)])}
    assert all(tuple(start) in rows for start in first.starts[:, -1])


def test_settings_given_are_settings_used():
    scorer = FreeRunScorer([circle(500)], starts=2, steps=100, bins=7, smoothing=2.5, veto=0.1)
    assert (scorer.bins, scorer.smoothing, scorer.veto, scorer.length) == (7, 2.5, 0.1, 100)


def test_bins_follow_the_number_of_points():
    assert [sensible_bins(n) for n in (10, 1000, 10_000, 10**6)] == [5, 14, 30, 30]  # 30 (n / 10^4)^(1/3), within 5 and 30


def test_very_long_series_are_seen_through_whole_stretches():
    long = np.arange(4.0 * LARGEST_EXCERPT)[:, None]
    pieces = _excerpt([long], 1000)
    assert {len(piece) for piece in pieces} == {1000}
    assert sum(map(len, pieces)) == LARGEST_EXCERPT
    assert all(np.all(np.diff(piece[:, 0]) == 1) for piece in pieces)
    assert pieces[0][0, 0] == 0
    assert pieces[-1][-1, 0] == len(long) - 1
    assert max(np.diff([piece[0, 0] for piece in pieces])) <= 5000  # evenly: every fourth stretch of 1,000


def test_starts_of_a_model_with_a_memory_are_consecutive_points():
    x = np.arange(400.0).reshape(200, 2) ** 1.1
    scorer = FreeRunScorer([x, x[:3]], starts=30, steps=20, memory=6)
    assert scorer.starts.shape == (30, 7, 2)
    rows = [[int(np.flatnonzero((x == point).all(axis=1))[0]) for point in window] for window in scorer.starts]
    # the short trajectory holds fewer points: its first one repeats
    assert all(np.diff(window).tolist() in ([1] * 6, [0] * 4 + [1] * 2) for window in rows)
    assert len({window[0] for window in rows}) > 10

"""Random Fourier features: a smooth map is learned from few points, angles stay on the circle, bounds are kept and censored."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from dynsys.errors import InvalidValue
from dynsys.models.random_features import RandomFeatures, on_bound


def pendulum(points, seed=0, limit=8.0):
    """(cos, sin, w) of Gymnasium's pendulum under random torques, and the torques; |w| <= limit."""
    rng = np.random.default_rng(seed)
    theta, w, rows, us = rng.uniform(-np.pi, np.pi), rng.uniform(-1, 1), [], rng.uniform(-2, 2, (points, 1))
    for u in us:
        rows.append([np.cos(theta), np.sin(theta), w])
        w = float(np.clip(w + 0.05 * (15 * np.sin(theta) + 3 * u[0]), -limit, limit))
        theta += 0.05 * w
    return np.array(rows), us


def one_step_errors(model, x, u):
    model = jax.tree.map(jnp.asarray, model)
    return np.asarray(jax.vmap(model.step)(jnp.asarray(x[:-1]), jnp.asarray(u[:-1]))) - x[1:]


def test_a_pendulum_is_learned_from_200_steps_and_holds_elsewhere():
    x, u = pendulum(200)
    model = RandomFeatures.from_series([x], inputs=[u], angles="0,1", low=[-1, -1, -8], high=[1, 1, 8])
    fresh = one_step_errors(model, *pendulum(300, seed=5))
    assert np.abs(fresh).max() < 0.02  # a step moves them by up to 0.4 and 0.9
    made = np.asarray(jax.vmap(jax.tree.map(jnp.asarray, model).step)(jnp.asarray(x[:-1]), jnp.asarray(u[:-1])))
    assert_allclose(made[:, 0] ** 2 + made[:, 1] ** 2, 1.0, atol=1e-12)


def test_points_on_a_bound_are_left_out():
    """At |w| <= 1 many of the points sit on the bound: kept, they would teach that torque does nothing there."""
    x, u = pendulum(400, limit=1.0)
    assert 0.1 < np.mean(on_bound(x, np.array([-np.inf, -np.inf, -1]), np.array([np.inf, np.inf, 1]))) < 0.9
    known = {"angles": "0,1", "width": 4.0, "ridge": 1e-10}
    right = RandomFeatures.from_series([x], inputs=[u], low=[-1, -1, -1], high=[1, 1, 1], **known)
    wrong = RandomFeatures.from_series([x], inputs=[u], **known)
    fresh = pendulum(400, seed=3, limit=1.0)
    assert np.abs(one_step_errors(right, *fresh)).mean() < 0.2 * np.abs(one_step_errors(wrong, *fresh)).mean()
    assert np.all(np.abs(np.asarray(right.step(np.array([0.0, 1.0, 1.0]), np.array([2.0]))))[2] <= 1.0)


def test_a_smooth_map_without_inputs():
    x = [np.array([0.3])]
    for _ in range(300):
        x.append(1 - 1.6 * x[-1] ** 2)
    x = np.array(x)
    model = RandomFeatures.from_series([x[:200]], features=60)
    assert model.n_inputs == 0
    assert_allclose(np.array([model.step(row) for row in x[200:-1]]), x[201:], atol=1e-4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"angles": "0"}, "angles must be pairs of columns below 3, such as '0,1'"),
        ({"angles": "0,9"}, "angles must be pairs of columns below 3"),
        ({"angles": "cos,sin"}, "angles must be pairs"),
        ({"low": [2.0, 2.0, 2.0], "high": [1.0, 1.0, 1.0]}, "low must be below high"),
        ({"low": [5.0, 5.0, 5.0], "high": [6.0, 6.0, 6.0]}, "are off the bounds"),
        ({"features": 0}, "features must be a whole number of at least 1"),
        ({"inputs": []}, "inputs must be one array"),
    ],
)
def test_bad_input_is_refused_in_words(options, words):
    x, u = pendulum(50)
    with pytest.raises(InvalidValue, match=words):
        RandomFeatures.from_series([x], **({"inputs": [u]} | options))

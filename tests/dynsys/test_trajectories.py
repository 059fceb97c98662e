"""Training flows on trajectories: segments, missing values, trained starts, known systems with wrong parameters, failures."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dynsys.dynamics import AbstractFlow
from dynsys.errors import InvalidValue
from dynsys.integrate import solve
from dynsys.models.fields import MLPField
from dynsys.models.universal import Known
from dynsys.status import Status
from dynsys.systems import load_system
from dynsys.train.trajectories import cut_segments, train_trajectories


class Linear(AbstractFlow):
    """dz/dt = A z."""

    A: jax.Array
    n_inputs: int = eqx.field(static=True, default=0)

    @property
    def dim(self):
        return self.A.shape[0]

    def field(self, t, z, u=None):
        return self.A @ z


TRUE = np.array([[-0.1, 2.0], [-2.0, -0.1]])
WRONG = Linear(jnp.array([[0.0, 1.5], [-1.8, 0.0]]))


def spiral(times, start=(1.0, 0.0)):
    """The exact solution of dz/dt = TRUE z."""
    turn = np.stack([np.cos(2 * times), np.sin(2 * times), -np.sin(2 * times), np.cos(2 * times)], -1).reshape(*times.shape, 2, 2)
    return np.exp(-0.1 * times)[..., None] * (turn @ np.asarray(start))


def test_segments_share_their_ends_and_cover_the_series():
    x, t = np.arange(24.0).reshape(12, 2), np.arange(12.0) ** 1.5
    cut = cut_segments(x, t, segment=4)
    assert_array_equal(cut.xs[:, 0, 0], x[[0, 4, 7], 0])  # 11 steps: the last piece of 4 begins early
    assert_array_equal(cut.xs[:, -1, 0], x[[4, 8, 11], 0])
    assert_array_equal(cut.follows, [True, False, False])
    assert_allclose(cut.times[1], t[4:9] - t[4])
    several = cut_segments([x, x[:9]], [t, t[:9]], [x, x[:9]], segment=4)
    assert_array_equal(several.follows, [True, False, False, True, False])
    assert several.inputs is not None
    assert_array_equal(several.inputs, several.xs)
    for bad, words in (
        ({"segment": 12}, r"segment must be in \[1, 11\]"),
        ({"times": t[::-1]}, "increasing"),
        ({"series": [x, x[:9]], "times": [t, t[:9]]}, "unequal length need segment"),
        ({"series": [x, x[:9]], "times": [t, t[:9], t]}, "2 series need as many times"),
    ):
        call = {"series": x, "times": t} | bad
        with pytest.raises(InvalidValue, match=words):
            cut_segments(**call)


def test_a_linear_field_is_found_from_irregular_times_with_values_missing():
    rng = np.random.default_rng(0)
    times = np.sort(rng.uniform(0.0, 6.0, (4, 41)), axis=1)
    x = np.stack([spiral(times[b], rng.normal(size=2)) for b in range(4)])
    x[:, 1:][rng.uniform(size=x[:, 1:].shape) < 0.3] = np.nan  # not at the first points, from which the solves start
    fit = train_trajectories(WRONG, x, times, steps=800, optimizer=optax.adam(0.05), rtol=1e-6, atol=1e-6, key=jr.key(0))
    assert fit.status is Status.SUCCESS
    assert int(fit.skipped) == 0
    assert_allclose(fit.flow.A, TRUE, atol=1e-3)
    assert float(fit.losses[-1]) < 1e-6 < float(fit.losses[0])
    assert np.all(np.asarray(fit.evaluations) > 0)


def test_irregular_times_that_are_regular_give_the_regular_gradient():
    times = np.linspace(0.0, 2.0, 11)
    x = np.stack([spiral(times), spiral(times, (0.0, 1.5))])
    nudged = np.stack([times, times])
    nudged[1, 5] += 1e-6  # enough to take the path of unequal times
    options = {"steps": 1, "optimizer": optax.sgd(1.0), "rtol": 1e-9, "atol": 1e-9, "key": jr.key(0)}
    regular, other = (train_trajectories(WRONG, x, t, **options) for t in (times, nudged))
    assert_allclose(other.losses, regular.losses, rtol=1e-4)
    assert_allclose(other.flow.A, regular.flow.A, atol=1e-5)


def test_trained_starts_find_an_unobserved_state_and_join_the_pieces():
    times = np.linspace(0.0, 6.0, 61)
    x = spiral(times, (1.0, 0.5))[:, :1]  # the second state is never seen
    fit = train_trajectories(
        Linear(jnp.asarray(TRUE)), x, times, segment=20, continuity=1.0, steps=800, optimizer=optax.adam(2e-2), key=jr.key(0)
    )
    # the sign and size of what is not observed follow from the field; it was right from the start and may drift a little with the starts
    state = np.stack([spiral(times[k], (1.0, 0.5)) for k in (0, 20, 40)])
    assert_allclose(fit.starts[:, 0], state[:, 0], atol=0.02)
    begins = jnp.asarray(fit.starts)
    ends = solve(fit.flow, begins, times[[0, 20]]).states[:, -1]
    assert_allclose(ends[:-1], begins[1:], atol=0.03)
    assert float(fit.losses[-1]) < 1e-3


def test_a_wrong_parameter_of_a_known_system_is_found():
    system = load_system("Lorenz", rho=35.0)
    times = 0.02 * np.arange(101)
    x = np.asarray(solve(system, system.start, times).states)
    mean, scale = x.mean(0), x.std(0)
    flow = Known.of("Lorenz", mean=mean, scale=scale, dt=1.0, train=("rho",))
    fit = train_trajectories(
        flow, (x - mean) / scale, times, segment=10, steps=200, optimizer=optax.adam(0.2), rtol=1e-7, atol=1e-7, key=jr.key(0)
    )
    assert_allclose(fit.flow.theta[0], 35.0, atol=0.01)


@pytest.mark.slow  # two compiled training runs
def test_a_local_penalty_lowers_the_error_estimate():
    times = np.linspace(0.0, 2.0, 21)
    x = np.stack([spiral(times), spiral(times, (0.0, 1.5))])
    field = MLPField.init(2, hidden=8, scale=1.0, key=jr.key(0))
    options = {"steps": 60, "optimizer": optax.adam(1e-2), "rtol": 1e-6, "atol": 1e-6}
    plain, local = (train_trajectories(field, x, times, regularise=w, key=jr.key(1), **options) for w in (0.0, 10.0))
    assert_allclose(plain.errors, 0.0, atol=0)
    # in units of the tolerance: the first is what the controller aims at
    assert 0.01 < float(local.errors[0]) < 3.0
    assert int(local.evaluations[-1]) < int(plain.evaluations[-1])


class Blowing(Linear):
    """dz/dt = exp(30 |A z|^2): leaves every bound."""

    def field(self, t, z, u=None):
        return jnp.exp(30 * (self.A @ z) ** 2)


def test_a_run_without_finite_gradients_says_so_and_changes_nothing():
    times = np.linspace(0.0, 2.0, 5)
    fit = train_trajectories(Blowing(jnp.asarray(TRUE)), spiral(times), times, steps=5, max_steps=50, key=jr.key(0))
    assert fit.status is Status.NOT_FINITE_LOSS
    assert int(fit.skipped) == 5
    assert_array_equal(fit.flow.A, TRUE)


def test_wrong_options_are_refused():
    times = np.linspace(0.0, 2.0, 5)
    for bad, words in (
        ({"regularise": -1.0}, "can't be negative"),
        ({"regularise": 1.0, "adjoint": "backsolve"}, "can't regularise"),
        ({"series": np.zeros((5, 3))}, "3 columns, more than the 2 states"),
    ):
        call = {"series": spiral(times), "times": times, "steps": 1, "key": jr.key(0)} | bad
        with pytest.raises(InvalidValue, match=words):
            train_trajectories(WRONG, call.pop("series"), call.pop("times"), **call)


def test_the_weight_of_the_regulariser_reaches_the_parameters():
    """From the same start and the same draws another weight ends at other parameters; what it does there is the slow test."""
    times = np.linspace(0.0, 1.0, 5)
    waves = np.stack([np.sin(6 * times), np.cos(6 * times)], axis=1)
    field = MLPField.init(2, hidden=8, scale=1.0, key=jr.key(0))
    plain, heavy = (
        train_trajectories(field, waves, times, steps=60, optimizer=optax.adam(0.02), regularise=weight, key=jr.key(1)).flow
        for weight in (0.0, 10.0)
    )
    changed = [float(jnp.abs(a - b).max()) for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(heavy), strict=True)]
    assert max(changed) > 1e-3

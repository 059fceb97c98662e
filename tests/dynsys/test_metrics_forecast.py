"""Forecast scores: systems whose errors are known by formula, hand-made error curves, small sums by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from dynsys.dynamics import AbstractMap
from dynsys.errors import InvalidValue
from dynsys.metrics import mase, prediction_error, prediction_errors, smape, valid_prediction_time, valid_prediction_times


class Linear(AbstractMap):
    """z' = A z + C u, all states observed."""

    A: jnp.ndarray
    C: jnp.ndarray

    @property
    def dim(self):
        return self.A.shape[0]

    @property
    def n_obs(self):
        return self.A.shape[0]

    @property
    def n_inputs(self):
        return self.C.shape[1]

    def step(self, z, u=None):
        return self.A @ z if u is None else self.A @ z + self.C @ u

    def observe(self, z):
        return z

    def lift(self, x):
        return x


class Oscillation(AbstractMap):
    """x' = 2 cos(w) x - (x before), of which only x is seen."""

    w: float
    dim: int = 2
    n_obs: int = 1
    n_inputs: int = 0

    def step(self, z, u=None):
        return jnp.stack([2 * jnp.cos(self.w) * z[0] - z[1], z[0]])

    def observe(self, z):
        return z[:1]

    def lift(self, x):
        return jnp.concatenate([x, jnp.zeros(1)])


def decay(rate, steps=200):
    return Linear(jnp.array([[rate]]), jnp.zeros((1, 0))), min(rate, 1.0) ** np.arange(steps)[:, None]


def test_prediction_error_of_a_wrong_rate():
    model, _ = decay(0.9)
    true = 0.95 ** np.arange(6000)[:, None]  # more starts than one block of 4,096
    errors = prediction_errors(model, true, steps=5)
    for n in range(1, 6):
        exact = ((0.95 ** np.arange(6000 - 5)) ** 2 * (0.95**n - 0.9**n) ** 2).mean()
        assert errors[n - 1] == pytest.approx(exact, rel=1e-10)
    assert prediction_error(model, true, steps=5) == errors[-1]


def test_a_perfect_model_has_no_error_and_a_float32_one_is_taken_to_float64():
    model, true = decay(0.5)
    assert prediction_error(model, true, steps=20) < 1e-30
    single = Linear(jnp.array([[0.5]], jnp.float32), jnp.zeros((1, 0), jnp.float32))
    assert prediction_error(single, true, steps=20) < 1e-30


def test_inputs_act_between_two_rows():
    rng = np.random.default_rng(0)
    A, C, u = np.array([[0.8, 0.1], [0.0, 0.5]]), np.array([[1.0], [2.0]]), rng.normal(size=(50, 1))
    x = [np.zeros(2)]
    for t in range(49):
        x.append(A @ x[-1] + C @ u[t])
    model = Linear(jnp.asarray(A), jnp.asarray(C))
    assert prediction_error(model, np.stack(x), steps=7, inputs=u) < 1e-28
    assert prediction_error(model, np.stack(x), steps=7, inputs=u[::-1].copy()) > 0.1
    with pytest.raises(InvalidValue, match=r"pass inputs of shape \(50, 1\)"):
        prediction_error(model, np.stack(x))


def test_warm_up_finds_hidden_states():
    model, true = Oscillation(0.3), np.sin(0.3 * np.arange(100))[:, None]
    assert prediction_error(model, true, steps=10) > 0.1  # the hidden state starts at 0
    assert prediction_error(model, true, steps=10, warmup=1) < 1e-24  # one forced step fills it with the value before


def test_a_forecast_that_overflows_is_infinitely_wrong():
    assert prediction_error(decay(1e300)[0], np.ones((50, 1)), steps=3) == np.inf


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps >= 1"),
        ({"steps": 200}, "more than steps"),
        ({"warmup": -1}, "warmup >= 0"),
        ({"inputs": np.zeros((3, 1))}, "inputs must have shape"),
    ],
)
def test_prediction_error_names_bad_settings(settings, message):
    model, true = decay(0.5)
    with pytest.raises(InvalidValue, match=message):
        prediction_error(model, true, **settings)
    with pytest.raises(InvalidValue, match="true has N=2 columns but the model observes n_obs=1"):
        prediction_error(model, np.ones((50, 2)))


def test_valid_prediction_time_of_a_growing_error():
    true = np.stack([np.sin(np.arange(100.0)), 5 * np.cos(np.arange(100.0))], axis=1)
    sd = true.std(axis=0)
    error = 0.01 * np.arange(1, 101)[:, None] * sd  # normalised error 0.01, 0.02, ...: exceeds 0.4 at row 41, index 40
    assert valid_prediction_time(true, true + error, threshold=0.405) == 40.0
    assert valid_prediction_time(true, true + error, threshold=0.405, dt=0.1) == pytest.approx(4.0)
    assert valid_prediction_time(true, true + error, threshold=0.405, dt=0.1, lyapunov=0.9) == pytest.approx(3.6)
    assert valid_prediction_time(true, true + error, threshold=0.4025, scale=2 * sd) == 80.0
    assert valid_prediction_time(true, true, dt=0.1) == pytest.approx(10.0)  # never fails: the whole length
    lost = true.copy()
    lost[7] = np.nan
    assert valid_prediction_time(true, lost) == 7.0


def test_valid_prediction_times_of_several_forecasts():
    true = np.random.default_rng(1).normal(size=(3, 20, 2))
    forecast = true.copy()
    forecast[0, 4:] += 10
    forecast[2, 0] += 10
    np.testing.assert_array_equal(valid_prediction_times(true, forecast), [4, 20, 0])
    assert valid_prediction_time(true, forecast) == 8.0
    with pytest.raises(InvalidValue, match="one shape"):
        valid_prediction_time(true, forecast[:2])
    with pytest.raises(InvalidValue, match="Pass those of the training data"):
        valid_prediction_time(np.ones((9, 1)), np.ones((9, 1)))
    with pytest.raises(InvalidValue, match="must be positive"):
        valid_prediction_time(true, forecast, lyapunov=-0.1)


def test_smape_by_hand():
    assert smape(np.array([[100.0]]), np.array([[110.0]])) == pytest.approx(200 * 10 / 210)
    assert smape(np.array([[1.0], [0.0], [2.0]]), np.array([[-3.0], [0.0], [np.nan]])) == pytest.approx((200 + 0 + 200) / 3)
    x = np.random.default_rng(2).uniform(1, 2, size=(5, 9, 3))
    assert smape(x, x) == 0.0
    assert smape(x * 1000, x * 1100) == pytest.approx(smape(x, x * 1.1), rel=1e-12)


def test_mase_of_the_naive_forecast_is_one():
    x = np.random.default_rng(3).normal(size=(400, 2)).cumsum(axis=0) * [1.0, 50.0]
    assert mase(x[1:], x[:-1], x) == pytest.approx(1.0, rel=1e-12)
    assert mase(x[12:], x[:-12], x, period=12) == pytest.approx(1.0, rel=1e-12)
    assert mase(x[1:], x[1:], x) == 0.0
    assert mase(np.array([[3.0]]), np.array([[5.0]]), np.array([[0.0], [1.0], [0.0]])) == 2.0
    assert mase(x[1:], np.full((399, 2), np.nan), x) == np.inf
    with pytest.raises(InvalidValue, match="column 0 of train never changes over 2 steps"):
        mase(np.ones((4, 1)), np.ones((4, 1)), np.tile([[0.0], [1.0]], (5, 1)), period=2)
    with pytest.raises(InvalidValue, match="more than period=20"):
        mase(np.ones((4, 1)), np.ones((4, 1)), np.arange(9.0)[:, None], period=20)

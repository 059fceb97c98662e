"""What a first-time user of the Koopman models met: the constants under a ridge, words for mistakes, and which eigenvalue says nothing."""

import dataclasses

import numpy as np
import pytest
from numpy.testing import assert_allclose

import dynsys
from dynsys.errors import InvalidValue
from dynsys.models.baseline import Mean
from dynsys.models.koopman.candidate import learned
from dynsys.models.koopman.dictionary import Custom
from dynsys.models.koopman.edmd import EDMD
from dynsys.reconstruct.closed_form import resolve
from dynsys.reconstruct.settings import FitSettings, ModelSettings
from dynsys.report.koopman_view import koopman_view
from dynsys.status import Status
from dynsys_datasets.series import TimeSeries


def parabola(steps: int = 400) -> np.ndarray:
    """x' = 1 - 1.2 x^2, (T, 1)."""
    x = [np.array([0.3])]
    for _ in range(steps):
        x.append(1 - 1.2 * x[-1] ** 2)
    return np.array(x)


@pytest.mark.parametrize("options", [{"ridge": 1e-2}, {"ridge": 1e-6, "rank": 2}, {}])
def test_the_function_one_stays_one_under_any_ridge(options):
    """Its row of A is exact, so a run never leaves the lifted states towards psi = 0; a shrunk one made x = mean a fixed point."""
    x = parabola()
    model = EDMD.from_series([x], degree=3, **options)
    assert_allclose(model.A[0], np.eye(len(model.A))[0], atol=0)
    y = model.encode(x[7])
    for _ in range(300):
        y = model.advance(y)
    assert y[0] == 1.0


def test_inputs_do_not_move_the_function_one():
    rng = np.random.default_rng(0)
    u, x = rng.normal(size=(200, 1)) + 0.5, np.zeros((200, 1))
    for t in range(199):
        x[t + 1] = 0.8 * x[t] + u[t] * (1 + 0.1 * x[t])
    model = EDMD.from_series([x], inputs=[u], bilinear=True, degree=2, ridge=1e-3)
    assert_allclose(model.advance(model.encode(x[3]), np.array([2.0]))[0], 1.0, atol=0)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"dictionary": Custom(lambda v: v[..., 0])}, r"F functions on the last axis, got \(2,\)"),
        ({"dictionary": Custom(lambda v: np.sqrt(v - 100.0))}, "overflows or is undefined"),
        ({"dictionary": "radial", "degree": 3}, r"it takes: features, width\."),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_wrong_dictionary_is_explained(options, told):
    with pytest.raises(InvalidValue, match=told):
        EDMD.from_series([parabola()], ridge=1e-10, **options)


@pytest.mark.parametrize("given", [lambda v: v**2, Custom])
def test_a_bare_function_is_no_dictionary(given):
    with pytest.raises(InvalidValue, match=r"must be a dictionary object or a registered name, got .*dictionary=Custom\(function\)"):
        learned("EDMD", given, parabola(), np.random.default_rng(0))


def test_one_array_instead_of_a_list_is_explained():
    with pytest.raises(InvalidValue, match=r"Of a single trajectory x give \[x\]"):
        EDMD.from_series(list(parabola()))


@pytest.fixture(scope="module")
def chaotic():
    """A chaotic map, of whose operator a regression finds nothing but the constants, and a linear model of it whose run rests."""
    x = [0.3]
    for _ in range(1499):
        x.append(4 * x[-1] * (1 - x[-1]))
    series = TimeSeries(np.array(x)[:, None], dt=1.0, names=["p"])
    found = dynsys.fit(series, model="mean", set=["preparation.embedding='none'"], progress=False)
    data = found.preparation.forward(series)
    model = EDMD.from_series([np.asarray(one) for one in data.trajectories], degree=3, ridge=1e-4)
    return dataclasses.replace(found, model=model, last=model), data


def test_the_constants_are_said_to_say_nothing(chaotic):
    found, data = chaotic
    view = koopman_view(found, data, words="the test part", pictures=False)
    assert view.constant.tolist() == [True, False, False, False]
    (note,) = view.notes
    assert note.startswith("No. 1 is the constant function")
    assert note.endswith("No other eigenpair is trusted.")


def test_a_linear_run_that_rests_is_not_told_to_train_longer(chaotic):
    found, _ = chaotic
    dead = dataclasses.replace(found, outcome=dataclasses.replace(found.outcome, status=(Status.DEAD.value,)))
    assert "model.reencode=1" in dead.remedy
    for other in (dead.model.reencoded(1), Mean.from_series([np.arange(20.0)[:, None]])):
        assert dataclasses.replace(dead, model=other).remedy == Status.DEAD.remedy


@pytest.mark.parametrize(("name", "told"), [("dpnet", "model.steps"), ("koopman-vae", "model.steps"), ("edmd", "in closed form")])
def test_a_network_is_not_said_to_be_fitted_in_closed_form(name, told):
    _, words = resolve(dataclasses.replace(FitSettings(), model=ModelSettings(name=name)))
    assert told in words[0]
    assert ("closed form" in words[0]) == (name == "edmd")

"""From a plant to a proof: the equilibrium is found, the plain quadratic is proved up to near where it fails, volumes by formula."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from dynsys.dynamics import AbstractFlow, Discretized, euler
from dynsys.errors import InvalidValue
from dynsys.systems import load_system
from dynsys.verify.candidates import MAKERS, Made, formula_names
from dynsys.verify.certify import certify
from dynsys.verify.learn import Recipe
from dynsys.verify.loop import ClosedLoop, depends_on_time
from dynsys.verify.lyapunov import NeuralLyapunov, PolynomialLyapunov, QuadraticLyapunov
from dynsys.verify.routine import certified, equilibrium_near, regulated, slowest
from dynsys.verify.symbolic import SymbolicLyapunov


@pytest.fixture(scope="module")
def pendulum():
    return certified(load_system("Pendulum"), [-3.0, -8.0], [3.0, 8.0], limit=6.0, seconds=15.0)


def test_the_plain_quadratic_of_a_saturated_pendulum_is_proved(pendulum):
    proof = pendulum.proof
    assert proof.proved
    assert proof.bracket[0] / proof.bracket[1] > 0.9  # a real counterexample is that near
    P = np.asarray(pendulum.V.P)
    assert_allclose(pendulum.volume[0], np.pi * proof.level / np.sqrt(np.linalg.det(P)), rtol=1e-12)  # an ellipse
    assert proof.limit in ("V does not decrease", "the level set leaves the domain")  # what fails at the refuted level
    assert pendulum.plain[2] is proof
    assert_allclose(proof.rate, 0.01 * slowest(pendulum.loop, pendulum.V))


def test_states_of_the_certified_set_go_home(pendulum):
    """Runge-Kutta from 200 states on the border of the set: V falls along all of them."""
    loop, V, level = pendulum.loop, pendulum.V, pendulum.proof.level
    half = np.linalg.cholesky(np.linalg.inv(np.asarray(V.P))) * np.sqrt(level)
    turn = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    model = Discretized(load_system("Pendulum"), 0.01)
    x = jnp.asarray((half @ np.stack([np.cos(turn), np.sin(turn)])).T)
    step, value = jax.jit(jax.vmap(lambda x: model.step(x, loop.policy(x)))), jax.jit(jax.vmap(V.value))
    before = value(x)
    assert_allclose(before, level, rtol=1e-9)
    for _ in range(300):
        x = step(x)
        assert bool(jnp.all(value(x) < before))
        before = value(x)
    assert float(jnp.max(before)) < 0.1 * level


def test_an_equilibrium_is_found_and_exact_numbers_are_kept():
    assert_allclose(equilibrium_near(load_system("Pendulum"), [3.0, 0.4], [0.0]), [np.pi, 0.0], atol=1e-12)
    assert equilibrium_near(load_system("ReversedVanDerPol"), [0.3, 0.2], [0.0]).tolist() == [0.0, 0.0]
    with pytest.raises(InvalidValue, match="give the goal"):
        equilibrium_near(load_system("Rossler", a=0.2, b=40.0, c=0.1), [0.0, 0.0, 0.0], [])


class Offset(AbstractFlow):
    """dx/dt = place + 100 - (x + 100): the sum is rounded, so that the field is 0 in floats at many x near `place`, and Newton's method
    stops at any of them."""

    place: float
    dim: int = 1
    n_inputs: int = 0

    def field(self, t, z, u=None):
        return self.place + 100 - (z + 100)


def test_what_newtons_method_misses_by_a_rounding_is_rounded_to_a_short_number():
    start, short = 0.3, Offset(0.5)
    once = start + float(short.field(0.0, start))  # a step of Newton's method: the slope is -1
    assert once != 0.5
    assert float(short.field(0.0, once)) == 0.0  # where it ends
    assert equilibrium_near(short, [start], []).tolist() == [0.5]
    long = Offset(0.1)  # the short number next to it is no equilibrium: what was found stays
    found = equilibrium_near(long, [start], [])
    assert found.tolist() != [round(0.1 * 2**20) / 2**20]
    assert_allclose(found, 0.1, atol=1e-13)


def test_a_plant_without_a_controller_must_be_stable():
    with pytest.raises(InvalidValue, match="not stable"):
        certified(load_system("Pendulum"), [-1.0, -1.0], [1.0, 1.0], controller="none")
    found = certified(load_system("ReversedVanDerPol"), [-3.0, -3.0], [3.0, 3.0], controller="none", seconds=10.0)
    assert found.proof.proved
    assert 5.0 < found.volume[0] < 23.3  # the region of attraction itself has about 24.6 (Topcu et al. 2008: 23.3 is certified)


FORMULA = "0.218*(x + 0.297*y)**2 + 0.0208*y**2 + 0.141*sin(0.5*y)**2"  # of a search; it has about 1.8 times the quadratic's area


@pytest.fixture
def found(monkeypatch):
    """As if the search for formulas had found this one."""

    def make(wanted):
        return Made(wanted.loop, SymbolicLyapunov.of(FORMULA, ("x", "y"), wanted.loop.goal), "a formula")

    monkeypatch.setitem(MAKERS, "symbolic", make)
    return {"low": [-3.0, -8.0], "high": [3.0, 8.0], "limit": 6.0, "rate": 0.05, "candidate": "symbolic"}


def test_the_larger_set_wins_and_the_other_stands_beside(found, monkeypatch):
    plant = load_system("Pendulum")
    made = certified(plant, **found, level=0.6)
    assert made.V.text == FORMULA
    assert made.plain[2].proved
    assert made.volume[0] > made.plain[3][0]
    assert made.other[2] is made.proof
    assert made.unfinished is None
    make = MAKERS["symbolic"]
    monkeypatch.setitem(MAKERS, "symbolic", lambda wanted: replace(make(wanted), level=0.01))
    made = certified(plant, **found, level=0.6)
    assert made.proof is made.plain[2]
    assert made.other[2].proved
    assert made.other[2].level == 0.01
    monkeypatch.setitem(MAKERS, "symbolic", lambda wanted: replace(make(wanted), V=None, words="none was found"))
    made = certified(plant, **found, level=0.6)
    assert made.proof is made.plain[2]
    assert (made.other, made.words) == (None, "none was found")


def test_a_candidate_that_a_limit_stopped_goes_on_beside_the_plain_quadratic(found, pendulum):
    plant = load_system("Pendulum")
    first = certified(plant, **found, level=0.8, boxes=1)  # all of one batch: enough for the quadratic, whose set is small
    assert first.plain[2].proved
    assert first.proof is first.plain[2]
    loop, V, proof = first.unfinished
    assert V.text == FORMULA
    assert "boxes" in proof.reason
    done = certified(plant, **found, level=0.8, resume=first.unfinished)
    assert done.V is V
    assert done.loop is loop
    assert done.proof.proved
    assert done.proof.boxes > proof.boxes
    assert done.unfinished is None
    assert FORMULA in done.words
    with pytest.raises(InvalidValue, match="no candidate of 'neural'"):
        certified(plant, **{**found, "candidate": "neural"}, resume=first.unfinished)


def test_an_end_during_the_plain_proof_ends_all(found):
    calls = []
    made = certified(load_system("Pendulum"), **found, level=8.0, watch=lambda *_: calls.append(1) or True)
    assert made.other is None
    assert "stopped" in made.proof.reason
    assert made.unfinished[2] is made.proof
    assert len(calls) == 1


SHORT = Recipe(steps=1000, batch=512, adversaries=128)


@pytest.mark.slow
def test_a_trained_polynomial_has_more_than_the_quadratic():
    pytest.importorskip("cvxpy")
    plant = load_system("ReversedVanDerPol")
    found = certified(plant, [-3.0, -3.0], [3.0, 3.0], controller="none", candidate="sos", seconds=5.0, recipe=SHORT)
    assert isinstance(found.V, PolynomialLyapunov)
    assert found.proof.proved
    assert "degree 4" in found.words
    assert found.other[2] is found.proof
    assert 1.2 * found.plain[3][0] < found.volume[0] < 24.6  # the region of attraction itself has 24.6


@pytest.mark.slow
def test_an_end_during_the_training_hands_out_the_trained_function():
    plant, told = load_system("Pendulum"), []
    known = {"limit": 6.0, "level": 2.0, "rate": 0.01, "candidate": "neural", "hidden": (4,), "recipe": SHORT, "seconds": 10.0}
    found = certified(
        plant, [-3.0, -8.0], [3.0, 8.0], **known, progress=told.append, watch=lambda *_: "training V and the controller" in told
    )
    assert found.plain[2].proved  # before the end
    assert found.proof is found.plain[2]
    assert "training was stopped" in found.words
    _, V, proof = found.unfinished
    assert isinstance(V, NeuralLyapunov)
    assert "stopped" in proof.reason


def test_formulas_take_names_of_the_states_that_their_language_takes():
    assert formula_names(("theta", "omega"), 2) == ("theta", "omega")
    for names in (("x[0]", "x[1]"), ("x", "x"), ("sin", "y"), ("x",), ()):
        assert formula_names(names, 2) == ("x1", "x2")


def test_inputs_are_the_limits_themselves():
    plant = load_system("Pendulum")
    loop, _ = regulated(plant, np.zeros(2), np.zeros(1), "lqr", None, None, None, ([-1.0], [6.0]))
    far = jnp.asarray([[3.0, 8.0], [-3.0, -8.0]])
    assert jax.vmap(loop.policy)(far).tolist() == [[-1.0], [6.0]]
    with pytest.raises(InvalidValue, match="not both"):
        certified(plant, [-1, -1], [1, 1], limit=1.0, inputs=([-1.0], [1.0]))


def test_a_map_is_proved_at_its_own_rate():
    plant = Discretized(load_system("Pendulum", g=9.81, m=0.15, l=0.5), 0.05, euler)
    found = certified(plant, [-12.0, -12.0], [12.0, 12.0], limit=6.0, seconds=15.0)
    assert found.proof.proved
    assert found.proof.rate == 0.001


class Clocked(AbstractFlow):
    """A flow whose clock enters through a call or a loop, or is given and not used."""

    how: str = "call"
    dim: int = 2
    n_inputs: int = 0

    def field(self, t, z, u=None):
        by = {
            "call": lambda: jax.jit(lambda t, z: -z * (4 * jnp.cos(t) - 3))(t, z),
            "loop": lambda: jax.lax.fori_loop(0, 3, lambda i, z: z - 0.1 * t * z, -z),
            "unused": lambda: jax.jit(lambda t, z: -z)(t, z),
            "asked": lambda: -z * jnp.ones_like(t),
        }
        return by[self.how]()


@pytest.mark.parametrize(("how", "depends"), [("call", True), ("loop", True), ("unused", False), ("asked", False)])
def test_a_field_that_depends_on_time_makes_no_loop(how, depends):
    """The field at t = 0 alone would be proved: it is not what the flow does."""
    for plant in (Clocked(how), Discretized(Clocked(how), 0.1, euler)):
        assert depends_on_time(plant) == depends
        if depends:
            with pytest.raises(InvalidValue, match="depends on the time t"):
                ClosedLoop.of(plant, goal=[0.0, 0.0])
        else:
            assert certify(ClosedLoop.of(plant, goal=[0.0, 0.0]), QuadraticLyapunov.of(np.eye(2)), domain=None, rate=0.01, level=1.0).proved


def test_a_counterexample_is_told_with_the_names_of_the_states():
    loop, V = ClosedLoop.of(Clocked("unused"), goal=[0.0, 0.0]), QuadraticLyapunov.of(np.eye(2))
    proof = certify(loop, V, domain=([-1, -1], [1, 1]), rate=3.0, level=0.5)
    x, y = proof.counterexample.state
    assert proof.counterexample.words(("x", "y")) == f"V does not decrease at x = {x:.6g}, y = {y:.6g}, where V = {x * x + y * y:.6g}"
    assert "x0 = " in proof.counterexample.words()


def test_what_cannot_be_is_refused():
    plant = load_system("Pendulum")
    with pytest.raises(InvalidValue, match="needs a plant with inputs"):
        certified(plant, [-1, -1], [1, 1], candidate="neural", controller="none")
    with pytest.raises(InvalidValue, match="one of"):
        certified(plant, [-1, -1], [1, 1], candidate="polynomial")
    with pytest.raises(InvalidValue, match="no equilibrium"):
        certified(plant, [-1, -1], [1, 1], goal=[0.5, 0.0])

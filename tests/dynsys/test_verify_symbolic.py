"""Readable candidates: what the syntax shows to be positive, and a search that finds formulas of known systems."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from numpy.testing import assert_allclose

from dynsys.dynamics import AbstractFlow
from dynsys.errors import DataError, InvalidValue
from dynsys.status import Status
from dynsys.verify.certificate import save_certificate
from dynsys.verify.certify import certify
from dynsys.verify.checker import check
from dynsys.verify.symbolic import SymbolicLyapunov, nonnegative
from dynsys.verify.symbolic_search import search_symbolic
from dynsys_datasets.equation import Block, Names, compile_program, parse

from . import verify_cases as cases

POSITIVE = [
    "x**2",
    "3*x**2 + abs(y)",
    "(x - y)*(x - y)",
    "1 - cos(x*y)",
    "max(x, y**2)",
    "min(x**2, abs(y))",
    "log(1 + x**4)",
    "exp(x)",
    "--x**2",
    "abs(x)**3 / 7",
]
NOT_SEEN = [
    "x",
    "x**3",
    "-x**2",
    "x**2 - y**2",
    "0.5 - cos(x)",
    "x**2 / y**2",
    "log(x)",
    "min(x, y**2)",
    "x*y",
    "log(1 + x)",
    "x**2 / (-2)",
]


@pytest.mark.parametrize("text", POSITIVE)
def test_what_is_seen_as_not_negative_is_not(text):
    assert nonnegative(parse(text, "test"))
    names = Names(state=(Block("value"),), inputs=(Block("x"), Block("y")), time=False)
    value = compile_program(names, {"value": text}, {}, where="test")
    assert min(float(value(0.0, np.zeros(1), z, {})[0]) for z in np.random.default_rng(0).normal(size=(500, 2)) * 3) >= 0


@pytest.mark.parametrize("text", NOT_SEEN)
def test_what_may_be_negative_or_undefined_is_not_taken(text):
    assert not nonnegative(parse(text, "test"))


def test_the_value_is_that_of_the_formula_at_the_deviation():
    V = SymbolicLyapunov.of("2*(x - 0.5*y)**2 + y**2/3 + (1 - cos(x))", ("x", "y"), [1.0, -1.0], floor=0.1)
    x, y = 0.7, 0.4
    truth = 2 * (x - 0.5 * y) ** 2 + y**2 / 3 + 1 - np.cos(x) + 0.1 * (x**2 + y**2)
    assert_allclose(V.value(jnp.asarray([1.7, -0.6])), truth, rtol=1e-13)
    assert float(V.value(V.goal)) == 0


@pytest.mark.parametrize(
    ("text", "error", "match"),
    [
        ("x**2 + x*y + y**2", InvalidValue, "nowhere negative"),
        ("x**2", InvalidValue, "fewer than 2 independent"),
        ("(x + y)**2 + 2*(2*x + 2*y)**2 + (1 - cos(x))", InvalidValue, "fewer than 2 independent"),
        ("x**2 + y**2 + 1", InvalidValue, "not zero"),
        ("x**2 + z**2", DataError, "unknown name 'z'"),
        ("__import__('os')", DataError, "not part of the language"),
    ],
)
def test_a_formula_that_is_no_candidate_is_refused(text, error, match):
    with pytest.raises(error, match=match):
        SymbolicLyapunov.of(text, ("x", "y"))


def test_a_floor_makes_a_semidefinite_formula_a_candidate():
    V = SymbolicLyapunov.of("(1 - cos(theta)) + omega**2/2", ("theta", "omega"), floor=1e-3)
    assert float(V.value(jnp.asarray([2 * np.pi, 0.0]))) > 0.03


class Pendulum(AbstractFlow):
    dim: int = 2
    n_inputs: int = 0

    def field(self, t, z, u=None):
        return jnp.stack([z[1], -jnp.sin(z[0]) - 0.5 * z[1]])


class Growing(AbstractFlow):
    dim: int = 2
    n_inputs: int = 0

    def field(self, t, z, u=None):
        return jnp.stack([z[0], -z[1]])


FEW = {"generations": 2, "population": 8, "steps": 150}


def test_the_search_finds_a_formula_of_a_damped_pendulum():
    found = search_symbolic(Pendulum(), ("theta", "omega"), -3.0, 3.0, rate=0.01, margin=0.02, **FEW)
    assert found.status is Status.SUCCESS
    assert found.tried == 16
    assert found.volume > 0.3 * 36  # a good quadratic has half of the box
    V = SymbolicLyapunov.of(found.V.text, ("theta", "omega"))  # the text is all there is
    x = jr.uniform(jr.key(0), (5000, 2), minval=-3.0, maxval=3.0)
    assert_allclose(jax.vmap(V.value)(x), jax.vmap(found.V.value)(x), rtol=1e-12)
    x = x[jax.vmap(V.value)(x) <= found.level]
    slope = jax.vmap(lambda z: jax.jvp(V.value, (z,), (Pendulum().field(0.0, z),))[1])(x)
    assert bool(jnp.all(slope <= -0.01 * jax.vmap(V.value)(x)))


def test_the_search_says_when_there_is_none():
    found = search_symbolic(Growing(), ("x", "y"), -1.0, 1.0, generations=1, population=2, steps=20)
    assert found.V is None
    assert found.status is Status.FAILED
    with pytest.raises(InvalidValue, match="at least 1"):
        search_symbolic(Growing(), ("x", "y"), -1.0, 1.0, generations=0)


@pytest.mark.parametrize(
    "text",
    [
        "x**2 + y**2 + 3*(1 - cos(x - y))",
        "x**2 + y**2 + log(1 + (x*y)**2)",
        pytest.param("2*(x + 0.1*y)**2 + y**2 + 9.81*(1 - cos(x))/2 + 0.3*log(1 + x**2)", marks=pytest.mark.slow),
    ],
)
def test_a_formula_with_a_cosine_or_a_logarithm_is_proved_down_to_the_goal(text, tmp_path):
    loop, V = cases.linear_flow(np.array([[-1.0, 0.3], [-0.2, -1.0]])), SymbolicLyapunov.of(text, ("x", "y"))
    proof = certify(loop, V, domain=([-2, -2], [2, 2]), rate=0.01, level=1.0)
    assert proof.proved
    assert proof.r0 > 0
    assert check(save_certificate(proof, loop, V, tmp_path / "formula.h5")).valid

"""The language of system files: what it means, on three array libraries, and what it refuses."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from numpy.testing import assert_allclose

from dynsys_datasets.equation import Block, Names, compile_program, constant, latex, parse
from dynsys_datasets.errors import DataError

SCALARS = Names(state=(Block("x"), Block("y"), Block("z")), parameters=(Block("sigma"), Block("rho"), Block("beta")))
PARAMETERS = {"sigma": 10.0, "rho": 28.0, "beta": 8 / 3}


def value_of(text, x=0.7, y=-1.3, z=2.1, t=0.4, names=SCALARS, parameters=PARAMETERS):
    """The value of an expression in three scalars, on NumPy."""
    program = compile_program(names, {"x": text, "y": "0", "z": "0"}, {}, where="test.toml")
    return program(t, np.array([x, y, z]), None, parameters)[0]


# ---- meaning

MEANING = [
    ("x + y*z", 0.7 - 1.3 * 2.1),
    ("(x + y)*z", (0.7 - 1.3) * 2.1),
    ("-x**2", -(0.7**2)),
    ("(-x)**2", 0.7**2),
    ("z**-x", 2.1**-0.7),
    ("x - y - z", 0.7 + 1.3 - 2.1),
    ("x/y/z", 0.7 / -1.3 / 2.1),
    ("+x", 0.7),
    ("--x", 0.7),
    ("1e3*x", 700.0),
    (".5*x", 0.35),
    ("8/3*x", 8 / 3 * 0.7),
    ("pi*x", math.pi * 0.7),
    ("t", 0.4),
    ("sin(x)", math.sin(0.7)),
    ("cos(x)", math.cos(0.7)),
    ("tan(x)", math.tan(0.7)),
    ("asin(x)", math.asin(0.7)),
    ("acos(x)", math.acos(0.7)),
    ("atan(x)", math.atan(0.7)),
    ("sinh(x)", math.sinh(0.7)),
    ("cosh(x)", math.cosh(0.7)),
    ("tanh(x)", math.tanh(0.7)),
    ("exp(x)", math.exp(0.7)),
    ("log(x)", math.log(0.7)),
    ("sqrt(x)", math.sqrt(0.7)),
    ("abs(y)", 1.3),
    ("sign(y)", -1.0),
    ("max(x, y, z)", 2.1),
    ("min(x, y, z)", -1.3),
    ("max(x, 5)", 5.0),
    ("heaviside(x)", 1.0),
    ("heaviside(y)", 0.0),
    ("floor(y)", -2.0),
    ("floor(2.7)*x", 1.4),
    ("mod(z, x - 0.2)", 0.1),
    ("mod(y, 1)", 0.7),
    ("mod(z, y)", -0.5),
    ("mod(7, z) + x", 1.4),
    ("where(x < y, 1, z)", 2.1),
    ("where(x >= y, 1, z)", 1.0),
    ("where(1 == 1, x, y)", 0.7),
    ("sin(1) + x", math.sin(1) + 0.7),
    ("x**10", 0.7**10),
    ("sigma*(y - x)", -20.0),
]


@pytest.mark.parametrize(("text", "expected"), MEANING)
def test_expression_means_what_arithmetic_says(text, expected):
    # one rounding an operation, at most ten operations: 1e-14 relative
    assert_allclose(value_of(text), expected, rtol=1e-14)


@pytest.mark.parametrize(("text", "expected"), MEANING)
def test_same_value_and_type_on_jax_and_torch(text, expected):
    program = compile_program(SCALARS, {"x": text, "y": "0", "z": "x"}, {}, where="test.toml")
    z = np.array([0.7, -1.3, 2.1])
    on_jax = jax.jit(lambda z: program(0.4, z, None, PARAMETERS))(jnp.asarray(z))
    on_torch = program(0.4, torch.from_numpy(z), None, PARAMETERS)
    assert on_jax.dtype == jnp.float64
    assert isinstance(on_torch, torch.Tensor)
    assert on_torch.dtype == torch.float64
    # the libraries round their functions on their own: a few units in the last place
    assert_allclose(on_jax[0], expected, rtol=1e-13)
    assert_allclose(on_torch[0].numpy(), expected, rtol=1e-13)


expressions = st.recursive(
    st.sampled_from(["x", "y", "z", "sigma", "2", "0.5", "1e-3"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/"]), inner).map(lambda part: f"({part[0]} {part[1]} {part[2]})"),
        inner.map(lambda part: f"-{part}"),
        inner.map(lambda part: f"{part}**2"),
        st.tuples(st.sampled_from(["sin", "cos", "tanh", "abs"]), inner).map(lambda part: f"{part[0]}({part[1]})"),
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(expressions)
def test_random_expressions_agree_with_python(text):
    known = {"sin": np.sin, "cos": np.cos, "tanh": np.tanh, "abs": abs} | {
        "x": np.float64(0.7),
        "y": np.float64(-1.3),
        "z": np.float64(2.1),
    }
    with np.errstate(all="ignore"):
        try:
            expected = eval(text, {"__builtins__": {}}, known | {"sigma": np.float64(10.0)})  # noqa: S307 - the text is our own
        except (ArithmeticError, TypeError):
            return  # numbers alone, as 1/0: refused when compiled, see REFUSED
        try:
            found = value_of(text)
        except DataError as error:
            assert not np.isfinite(expected) or "numbers is undefined" in str(error) or "exponent" in str(error)  # noqa: PT017
            return
    # the same operations in the same order; sin of a large number of twelve leaves may lose some digits
    assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_whole_number_states_do_not_cut_the_parameters():
    program = compile_program(SCALARS, {"x": "beta*x", "y": "y", "z": "z"}, {}, where="test.toml")
    for z in (np.array([3, 0, 0]), jnp.array([3, 0, 0]), torch.tensor([3, 0, 0])):
        assert_allclose(np.asarray(program(0.0, z, None, PARAMETERS))[0], 8.0, rtol=1e-15)


def test_float32_states_stay_float32():
    program = compile_program(SCALARS, {"x": "beta*x + pi", "y": "1", "z": "sin(z)"}, {}, where="test.toml")
    parameters = {name: jnp.asarray(value) for name, value in PARAMETERS.items()}  # float64 under x64
    assert program(0.0, jnp.ones(3, dtype=jnp.float32), None, parameters).dtype == jnp.float32
    assert program(0.0, torch.ones(3, dtype=torch.float32), None, PARAMETERS).dtype == torch.float32
    assert program(0.0, np.ones(3, dtype=np.float32), None, PARAMETERS).dtype == np.float32


# ---- families, sums, definitions, delays, fields

RING = Names(
    state=(Block("x", (7,)), Block("V")),
    parameters=(Block("W", (7, 7)), Block("k", (7,)), Block("F")),
    indices={"i": 7, "j": 7},
    sizes={"n": 7},
    inputs=(Block("u", (7,)),),
)


def ring_values():
    rng = np.random.default_rng(1)
    return rng.normal(size=8), rng.normal(size=7), {"W": rng.normal(size=(7, 7)), "k": rng.normal(size=7), "F": 8.0}


RING_CASES = {
    "(x[i+1] - x[i-2])*x[i-1] - x[i] + F": lambda x, V, u, W, k, F: [
        (x[(i + 1) % 7] - x[(i - 2) % 7]) * x[(i - 1) % 7] - x[i] + F for i in range(7)
    ],
    "sum(j, W[i,j]*x[j])": lambda x, V, u, W, k, F: W @ x,
    "sum(j, W[j,i]*x[j])": lambda x, V, u, W, k, F: W.T @ x,
    "sum(j, sin(x[j] - x[i]))/n": lambda x, V, u, W, k, F: [np.mean(np.sin(x - x[i])) for i in range(7)],
    "k[i]*V + u[i]": lambda x, V, u, W, k, F: k * V + u,
    "x[0] + W[i,3]": lambda x, V, u, W, k, F: x[0] + W[:, 3],
    "W[2,i+1]": lambda x, V, u, W, k, F: np.roll(W[2], -1),
    "W[i-1,i+9]": None,
    "i + sum(j, 1)": lambda x, V, u, W, k, F: np.arange(7) + 7.0,
    "where(i == 0, F, x[i-1])": lambda x, V, u, W, k, F: [F, *x[:6]],
    "V": lambda x, V, u, W, k, F: np.full(7, V),
    "3": lambda x, V, u, W, k, F: np.full(7, 3.0),
    "sum(j, sum(i, 1))": None,
}


@pytest.mark.parametrize("text", [text for text, reference in RING_CASES.items() if reference])
def test_families_agree_with_loops_on_three_libraries(text):
    program = compile_program(RING, {"x[i]": text, "V": "sum(i, x[i]) - V"}, {}, where="ring.toml")
    z, u, parameters = ring_values()
    expected = np.append(RING_CASES[text](z[:7], z[7], u, **parameters), z[:7].sum() - z[7])
    # sums of at most 7 terms of order one
    assert_allclose(program(0.0, z, u, parameters), expected, atol=1e-13)
    assert_allclose(jax.jit(lambda z: program(0.0, z, jnp.asarray(u), parameters))(jnp.asarray(z)), expected, atol=1e-13)
    assert_allclose(program(0.0, torch.from_numpy(z), torch.from_numpy(u), parameters).numpy(), expected, atol=1e-13)


def test_family_of_two_indices_is_a_lattice():
    names = Names(state=(Block("a", (3, 4)),), indices={"j": 4, "i": 3})
    text = "a[i+1,j] + 10*a[i,j-1] + 100*i + 1000*j"
    program = compile_program(names, {"a[i,j]": text}, {}, where="lattice.toml")
    a = np.random.default_rng(0).normal(size=(3, 4))
    i, j = np.mgrid[:3, :4]
    expected = np.roll(a, -1, 0) + 10 * np.roll(a, 1, 1) + 100 * i + 1000 * j
    assert_allclose(program(0.0, a.ravel(), None, {}), expected.ravel(), atol=1e-11)
    assert_allclose(program(0.0, jnp.asarray(a.ravel()), None, {}), expected.ravel(), atol=1e-11)


def test_a_family_costs_the_same_number_of_operations_whatever_its_size():
    def operations(n):
        names = Names(state=(Block("x", (n,)),), indices={"i": n})
        program = compile_program(names, {"x[i]": "(x[i+1] - x[i-2])*x[i-1] - x[i] + 8"}, {}, where="l96.toml")
        return len(jax.make_jaxpr(lambda z: program(0.0, z, None, {}))(jnp.ones(n)).eqns)

    assert operations(2000) == operations(20)


def test_definitions_may_stand_in_any_order_and_be_families():
    define = {"total": "sum(i, r[i])", "r[i]": "x[i+1]*half", "half": "F/2"}
    program = compile_program(RING, {"x[i]": "r[i] - r[i-1]", "V": "total"}, define, where="ring.toml")
    z, u, parameters = ring_values()
    r = np.roll(z[:7], -1) * 4.0
    assert_allclose(program(0.0, z, u, parameters), np.append(r - np.roll(r, 1), r.sum()), atol=1e-12)


def test_a_missing_input_is_zero():
    program = compile_program(RING, {"x[i]": "u[i] + 1", "V": "0"}, {}, where="ring.toml")
    z, _, parameters = ring_values()
    assert_allclose(program(0.0, z, None, parameters), [1.0] * 7 + [0.0])


def test_delays_read_the_past_states_in_the_order_of_lags():
    names = Names(state=(Block("x"), Block("w", (3,))), parameters=(Block("tau"),), indices={"i": 3})
    program = compile_program(names, {"x": "delay(x, tau) - x", "w[i]": "delay(w[i+1], 2*tau) + delay(x, tau)"}, {}, where="mg.toml")
    assert program.lags({"tau": 17.0}) == (17.0, 34.0)
    past = np.array([[5.0, 0, 0, 0], [0.0, 1, 2, 3]])
    assert_allclose(program(0.0, np.array([1.0, 0, 0, 0]), None, {"tau": 17.0}, past), [4.0, 7.0, 8.0, 6.0])


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_spatial_derivatives_are_spectral(order):
    names = Names(state=(Block("v", (32,)),), indices={"x": 32}, grid={"x": 2 * math.pi})
    program = compile_program(names, {"v": f"diff(v, x, {order}) + 0*laplacian(v)"}, {}, where="ks.toml")
    x = np.arange(32) * 2 * np.pi / 32
    v = np.sin(3 * x)
    expected = 3**order * np.sin(3 * x + order * np.pi / 2)
    # one wave of the grid: exact but for rounding, which the highest wave number amplifies by 16**4
    assert_allclose(program(0.0, v, None, {}), expected, atol=1e-9)
    assert_allclose(program(0.0, jnp.asarray(v), None, {}), expected, atol=1e-9)
    assert_allclose(program(0.0, torch.from_numpy(v), None, {}).numpy(), expected, atol=1e-9)


def test_laplacian_in_two_dimensions():
    names = Names(state=(Block("v", (16, 24)),), indices={"x": 16, "y": 24}, grid={"x": 2 * math.pi, "y": 4 * math.pi})
    program = compile_program(names, {"v": "laplacian(v)"}, {}, where="field.toml")
    x, y = np.meshgrid(np.arange(16) * 2 * np.pi / 16, np.arange(24) * 4 * np.pi / 24, indexing="ij")
    v = np.sin(2 * x) * np.cos(1.5 * y)
    assert_allclose(program(0.0, v.ravel(), None, {}), -(4 + 2.25) * v.ravel(), atol=1e-11)


@pytest.mark.parametrize(
    ("value", "expected"), [("8/3", 8 / 3), (10, 10.0), ("-2*pi", -2 * math.pi), ("sqrt(2)", 2**0.5), (" 1e-3 ", 1e-3)]
)
def test_constants_are_exact(value, expected):
    assert constant(value, "file.toml") == expected


@pytest.mark.parametrize("value", ["a", "1/0", "inf", "nan", True, None, [1], "", "x[0]", float("inf"), float("nan"), "sqrt(-1)", "t"])
def test_constants_refuse_all_but_finite_numbers(value):
    with pytest.raises(DataError, match=r"^file\.toml"):
        constant(value, "file.toml")


def test_latex():
    assert latex(parse("-beta*y + x**2/3", "f")) == r"-\beta\, y + \frac{x^{2}}{3}"
    assert latex(parse("(x + y)*sin(tau_m*x1)", "f")) == r"\left(x + y\right)\, \sin\left(\tau_{m}\, x_{1}\right)"
    assert latex(parse("x - (y - z)", "f")) == r"x - \left(y - z\right)"
    assert latex(parse("mod(2*x, 1) + floor(y)", "f")) == r"\operatorname{mod}\left(2\, x, 1\right) + \left\lfloor y \right\rfloor"
    assert latex(parse("sum(j, W[i,j]*x[j-1])", "f")) == r"\sum_{j} W_{i,j}\, x_{j-1}"


# ---- what is refused

ATTRIBUTE, CHARACTER, FUNCTION = "attribute", "is not part of the language", "unknown function"

REFUSED = [
    ("x.real", ATTRIBUTE),
    ("x.__class__", ATTRIBUTE),
    ("(1).real", ATTRIBUTE),
    ("x.y.z", ATTRIBUTE),
    ("x.conj()", "plain name"),
    ("__import__(os)", FUNCTION),
    ("open(x)", FUNCTION),
    ("eval(x)", FUNCTION),
    ("exec(x)", FUNCTION),
    ("getattr(x, y)", FUNCTION),
    ("print(x)", FUNCTION),
    ("sine(x)", "Did you mean 'sin'"),
    ("sin(x)(y)", "plain name"),
    ("(sin)(x)(y)", "plain name"),
    ("x(y)", FUNCTION),
    ("[a for a in x]", "comprehension"),
    ("(a for a in x)", "comprehension"),
    ("sum(a for a in x)", "comprehension"),
    ("{x}", CHARACTER),
    ("{x: y}", CHARACTER),
    ("lambda: x", CHARACTER),
    ("lambda x, y", "no expression"),
    ("9**9**9", "power in the exponent"),
    ("x**y**z", "power in the exponent"),
    ("x**1000", "too large"),
    ("x**-1000", "too large"),
    ("x**(10*10)", "too large"),
    ("x**(1/0)", "too large"),
    ("2**999999999", "too large"),
    ("10.0**32*10.0**32*1e300*1e300 + x", "undefined or overflows"),
    ("1/0 + x", "undefined or overflows"),
    ("log(-1)", "undefined or overflows"),
    ("1e999", "too large"),
    ("1e301*x", "too large"),
    ("9" * 400, "too large"),
    ("__x", "can't be a name"),
    ("x__y", "can't be a name"),
    ("_x", "can't be a name"),
    ("__builtins__", "can't be a name"),
    ("a" * 41, "can't be a name"),
    ("True", "not a real number"),
    ("False*x", "not a real number"),
    ("None", "not a real number"),
    ("...", "not a real number"),
    ("2j", "not a real number"),
    ("1 + 2j*x", "not a real number"),
    ("'x'", CHARACTER),
    ('"x"', CHARACTER),
    ("f'{x}'", CHARACTER),
    ("b'x'", CHARACTER),
    ("(y := x)", CHARACTER),
    ("x = y", "no expression"),
    ("x; y", CHARACTER),
    ("sin(*x)", "plain arguments"),
    ("*x", "no expression"),
    ("sin(**x)", "plain arguments"),
    ("sin(x=y)", "plain arguments"),
    ("max(x, key=y)", "plain arguments"),
    ("sin()", "takes 1 arguments"),
    ("sin(x, y)", "takes 1 arguments"),
    ("max(x)", "takes 2 to 8"),
    ("where(x, y, z)", "one comparison"),
    ("where(x < y < z, 1, 2)", "one comparison"),
    ("where(x < y, 1)", "takes 3"),
    ("where(x < y and y < z, 1, 2)", "one comparison"),
    ("where(x in y, 1, 2)", "one comparison"),
    ("x < y", "stands alone"),
    ("x == y", "stands alone"),
    ("x and y", "and/or"),
    ("not x", "UnaryOp"),
    ("~x", CHARACTER),
    ("x if y else z", "if/else"),
    ("x % y", r"write a remainder as mod\(a, b\)"),
    ("floor(x, y)", "takes 1 arguments"),
    ("mod(x)", "takes 2 arguments"),
    ("mod(x, y, z)", "takes 2 arguments"),
    ("mod*x", "round brackets"),
    ("x // y", "FloorDiv"),
    ("x ^ 2", "write a power as"),
    ("x & y", CHARACTER),
    ("x | y", CHARACTER),
    ("x << 2", "LShift"),
    ("x @ y", CHARACTER),
    ("x[0]", "0 subscripts"),
    ("x[0:1]", CHARACTER),
    ("x[i]", "0 subscripts"),
    ("x[y[z]]", "subscript in"),
    ("(x + y)[0]", "does not follow a name"),
    ("x[0][1]", "does not follow a name"),
    ("x[-1]", "subscript in"),
    ("x[1.5]", "subscript in"),
    ("x[True]", "subscript in"),
    ("x[2*i]", "subscript in"),
    ("x[i+100000]", "subscript in"),
    ("x, y", "a tuple"),
    ("(x, y)", "a tuple"),
    ("[x, y]", "a list"),
    ("await x", "no expression|Await"),
    ("yield x", "no expression|Yield"),
    ("import os", "no expression"),
    ("x y", "no expression"),
    ("x +", "no expression"),
    ("(x", "no expression"),
    ("x)", "no expression"),
    ("", "empty"),
    ("   ", "empty"),
    ("x\\y", CHARACTER),
    ("x # y", CHARACTER),
    ("x\x00", CHARACTER),
    ("σ*x", CHARACTER),
    ("ｘ", CHARACTER),
    ("(" * 60 + "x" + ")" * 60, "nested deeper"),
    ("-" * 500 + "x", "nested deeper"),
    ("x" + " + x" * 400, "more than"),
    ("x" * 5000, "at most 4000"),
    ("sin", "round brackets"),
    ("sum*x", "round brackets"),
    ("sum(x, y)", "unknown index"),
    ("sum(1, y)", "must be written"),
    ("sum(x)", "must be written"),
    ("delay(x)", "must be written"),
    ("delay(x + y, 1)", "must be written"),
    ("delay(sigma, 1)", "only a state has a past"),
    ("delay(x, y)", "made of numbers and parameters"),
    ("delay(x, delay(y, 1))", "made of numbers and parameters"),
    ("diff(x, y)", r"only systems of kind 'field'"),
    ("diff(x, y, 99)", "must be written"),
    ("laplacian(x)", r"only systems of kind 'field'"),
    ("sgima*(y - x)", "Did you mean 'sigma'"),
    ("e*x", "unknown name 'e'"),
    ("os", "unknown name"),
    ("sin(True)", "not a real number"),
    ("x**True", "not a real number"),
    ("x[x for x in y]", "no expression"),
    ("sum(j, [x for x in y])", "comprehension"),
    ("x**33", "too large"),
    ("__class__(x)", "unknown function"),
    ("x.__init__.__globals__", ATTRIBUTE),
    ("compile(x)", FUNCTION),
]


def test_there_are_at_least_sixty_refusals():
    assert len({text for text, _ in REFUSED}) == len(REFUSED) >= 60


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_refused(text, message):
    with pytest.raises(DataError, match=message) as caught:
        value_of(text)
    assert str(caught.value).startswith("test.toml: ")
    assert len(str(caught.value)) < 1000


def test_errors_point_into_the_text():
    with pytest.raises(DataError) as caught:
        compile_program(SCALARS, {"x": "sgima*(y - x)", "y": "0", "z": "0"}, {}, where="lorenz.toml")
    expected = "lorenz.toml: unknown name 'sgima' in 'sgima*(y - x)'; known: beta, rho, sigma, x, y, z. Did you mean 'sigma'?"
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", "which one as x"),
        ("x[j]", "sum over it"),
        ("x[q]", "unknown index 'q'"),
        ("x[i,j]", "1 subscripts, got 2"),
        ("W[i,i]", "twice"),
        ("x[7]", "past the end"),
        ("k + 1", "which one as k"),
        ("sum(i, x[i])", "already in use"),
        ("sum(q, x[q])", "unknown index"),
        ("V[i]", "0 subscripts"),
        ("sum(j, sum(j, x[j]))", "already in use"),
    ],
)
def test_refused_in_families(text, message):
    with pytest.raises(DataError, match=message):
        compile_program(RING, {"x[i]": text, "V": "0"}, {}, where="ring.toml")


@pytest.mark.parametrize(
    ("equations", "define", "message"),
    [
        ({"x": "1", "y": "1"}, {}, "state 'z' has no equation"),
        ({"x": "1", "y": "1", "z": "1", "w": "1"}, {}, "'w', which is not in state"),
        ({"x": "a", "y": "1", "z": "1"}, {"a": "b", "b": "a"}, "circular definition a -> b -> a"),
        ({"x": "a", "y": "1", "z": "1"}, {"a": "a + 1"}, "circular definition a -> a"),
        ({"x": "1", "y": "1", "z": "1"}, {"a": "nothing"}, "unknown name 'nothing'"),
        ({"x": "1", "y": "1", "z": "1"}, {"a[i]": "1"}, "no index 'i'"),
        ({"x[i]": "1", "y": "1", "z": "1"}, {}, "1 indices, the state has 0"),
    ],
)
def test_systems_that_do_not_fit_together(equations, define, message):
    with pytest.raises(DataError, match=message):
        compile_program(SCALARS, equations, define, where="test.toml")


def test_a_map_has_no_time():
    names = Names(state=(Block("x"),), time=False)
    with pytest.raises(DataError, match="a map has no continuous time"):
        compile_program(names, {"x": "x + t"}, {}, where="map.toml")


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="xyz019.+-*/()[],<>=! sincowhertt_", max_size=60))
def test_any_text_is_a_value_or_a_data_error(text):
    with np.errstate(all="ignore"):
        try:
            assert np.isscalar(value_of(text))
        except DataError as error:
            assert str(error).startswith("test.toml: ")  # noqa: PT017 - either outcome is right

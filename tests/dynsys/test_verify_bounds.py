"""Sound bounds: every rule contains the true value, computed with 100 digits, at random and corner points of random boxes."""

import functools
import itertools

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from dynsys.errors import InvalidValue
from dynsys.verify.affine import Affine, lift, variables
from dynsys.verify.germ import Germ
from dynsys.verify.interpret import bounded

mpmath.mp.dps = 100
W = np.array([[0.3, -1.7], [2.1, 0.1], [-0.4, 0.9]])

# name: (function of two numbers in jnp, the same in mpmath, whether both must be positive)
CASES = {
    "add": (lambda x: x[0] + x[1], lambda p, q: p + q, False),
    "sub": (lambda x: x[0] - x[1], lambda p, q: p - q, False),
    "neg": (lambda x: -x[0], lambda p, q: -p, False),
    "mul": (lambda x: x[0] * x[1], lambda p, q: p * q, False),
    "square": (lambda x: jnp.square(x[0]), lambda p, q: p * p, False),
    "cube": (lambda x: x[0] ** 3, lambda p, q: p**3, False),
    "fifth inverse": (lambda x: x[0] ** -5, lambda p, q: p**-5, True),
    "div": (lambda x: x[0] / x[1], lambda p, q: p / q, True),
    "pow": (lambda x: x[0] ** 1.7, lambda p, q: p ** mpmath.mpf(1.7), True),
    "sqrt": (lambda x: jnp.sqrt(x[0]), lambda p, q: mpmath.sqrt(p), True),
    "rsqrt": (lambda x: jax.lax.rsqrt(x[0]), lambda p, q: 1 / mpmath.sqrt(p), True),
    "sin": (lambda x: jnp.sin(x[0]), lambda p, q: mpmath.sin(p), False),
    "cos": (lambda x: jnp.cos(x[0]), lambda p, q: mpmath.cos(p), False),
    "tan": (lambda x: jnp.tan(0.1 * x[0]), lambda p, q: mpmath.tan(mpmath.mpf(0.1) * p), False),
    "tanh": (lambda x: jnp.tanh(x[0]), lambda p, q: mpmath.tanh(p), False),
    "logistic": (lambda x: jax.nn.sigmoid(x[0]), lambda p, q: 1 / (1 + mpmath.exp(-p)), False),
    "atan": (lambda x: jnp.arctan(x[0]), lambda p, q: mpmath.atan(p), False),
    "erf": (lambda x: jax.scipy.special.erf(x[0]), lambda p, q: mpmath.erf(p), False),
    "exp": (lambda x: jnp.exp(x[0]), lambda p, q: mpmath.exp(p), False),
    "exp2": (lambda x: jnp.exp2(x[0]), lambda p, q: mpmath.mpf(2) ** p, False),
    "expm1": (lambda x: jnp.expm1(x[0]), lambda p, q: mpmath.expm1(p), False),
    "log": (lambda x: jnp.log(x[0]), lambda p, q: mpmath.log(p), True),
    "log1p": (lambda x: jnp.log1p(x[0]), lambda p, q: mpmath.log1p(p), True),
    "abs": (lambda x: jnp.abs(x[0]), lambda p, q: abs(p), False),
    "sign": (lambda x: jnp.sign(x[0]), lambda p, q: mpmath.sign(p), False),
    "max": (lambda x: jnp.maximum(x[0], x[1]), lambda p, q: max(p, q), False),
    "min": (lambda x: jnp.minimum(x[0], 0.3), lambda p, q: min(p, mpmath.mpf(0.3)), False),
    "clip": (lambda x: jnp.clip(x[0], -0.7, jnp.inf), lambda p, q: max(p, mpmath.mpf(-0.7)), False),
    "relu": (lambda x: jax.nn.relu(x[0]), lambda p, q: max(p, 0), False),
    "leaky": (lambda x: jax.nn.leaky_relu(x[0], 0.1), lambda p, q: max(p, mpmath.mpf(0.1) * p), False),
    "leaky max": (lambda x: jnp.maximum(x[0], 0.1 * x[0]), lambda p, q: max(p, mpmath.mpf(0.1) * p), False),
    "where": (lambda x: jnp.where(x[0] > x[1], x[0] * x[1], 0.1), lambda p, q: p * q if p > q else mpmath.mpf(0.1), False),
    "where both": (
        lambda x: jnp.where((x[0] > 0) & ~(x[1] <= 0.5), x[0], -x[1]),
        lambda p, q: p if p > 0 and q > 0.5 else -q,
        False,
    ),
    "indicator": (lambda x: (x[0] >= x[1]).astype(float), lambda p, q: mpmath.mpf(p >= q), False),
    "matrix": (lambda x: (W @ x)[2], lambda p, q: mpmath.mpf(W[2, 0]) * p + mpmath.mpf(W[2, 1]) * q, False),
    "quadratic": (
        lambda x: x @ (W[:2] @ x),
        lambda p, q: mpmath.mpf(W[0, 0]) * p * p + (mpmath.mpf(W[0, 1]) + mpmath.mpf(W[1, 0])) * p * q + mpmath.mpf(W[1, 1]) * q * q,
        False,
    ),
    "outer": (lambda x: (x[:, None] * x[None, :]).sum() / 3.0, lambda p, q: (p + q) ** 2 / 3, False),
    "largest": (lambda x: jnp.max(jnp.stack([x[0], x[1], -x[0]])), lambda p, q: max(p, q, -p), False),
    "places": (
        lambda x: jnp.zeros(3).at[1].set(x[0])[1] + jnp.flip(x).reshape(2, 1).T[0, 0] + jnp.pad(x, 1)[2] + jnp.split(x, 2)[0][0],
        lambda p, q: 2 * p + 2 * q,
        False,
    ),
    "scan": (
        lambda x: jax.lax.scan(lambda z, i: (z + 0.5 * i * x[1], z), x[0], jnp.arange(3.0))[0],
        lambda p, q: p + mpmath.mpf(1.5) * q,
        False,
    ),
    "1 - cos": (lambda x: 3 * (1 - jnp.cos(x[0] - x[1])) + x[0] ** 2, lambda p, q: 3 * (1 - mpmath.cos(p - q)) + p * p, False),
    "log of 1 + squares": (lambda x: x[1] * jnp.log(1 + (x[0] * x[1]) ** 2), lambda p, q: q * mpmath.log(1 + (p * q) ** 2), False),
    "exp of a product": (lambda x: jnp.exp(x[0] * x[1]) - 1, lambda p, q: mpmath.expm1(p * q), False),
    "slope of max": (
        lambda x: jax.jvp(lambda z: jnp.maximum(z, 0.2) ** 2, (x[0],), (x[1],))[1],
        lambda p, q: 2 * p * q if p > 0.2 else mpmath.mpf(0),
        False,
    ),
}


def boxes(positive, n, rng):
    """Boxes of many sizes, some around kinks and turning points."""
    mid = rng.normal(size=(n, 2)) * rng.choice([0.01, 1.0, 6.0], size=(n, 1))
    mid[::7] = rng.choice([0.0, 0.2, np.pi / 2, -np.pi, 0.6584789485], size=(len(mid[::7]), 2))
    rad = 10.0 ** rng.uniform(-9, 0.7, size=(n, 2))
    if positive:
        mid = np.abs(mid) + 0.01
        rad = np.minimum(rad, 0.9 * mid)
    return mid, rad


def unit_points(n, rng):
    """Points of the unit square: uniform, near its border, and its corners."""
    inside = rng.uniform(-1, 1, size=(n - 4, 2))
    return np.concatenate(
        [inside, np.sign(inside) * rng.choice([1.0, 1 - 1e-9], size=inside.shape), list(itertools.product([-1.0, 1.0], repeat=2))]
    )


def exact(form, point):
    """(value of the plane, error) of an affine number (c, a, e) in many digits."""
    c, a, e = form
    return mpmath.mpf(float(c)) + sum(mpmath.mpf(float(x)) * mpmath.mpf(float(p)) for x, p in zip(a, point, strict=True)), mpmath.mpf(
        float(e)
    )


def parts(q, n=2):
    q = q if isinstance(q, Affine) else Affine(jnp.asarray(q), None, jnp.zeros(()))
    return q.c, jnp.zeros(n) if q.a is None else q.a, q.e


def stacked(numbers):
    """Several scalars as one array of each ingredient, so that one program bounds every case."""
    made = [parts(q) for q in numbers]
    return tuple(jnp.stack(column) for column in zip(*made, strict=True))


@functools.cache
def affine_forms(positive):
    """Every case on the same boxes; the last box is small and away from every kink."""
    rng = np.random.default_rng(3 + positive)
    mid, rad = boxes(positive, 40, rng)
    mid[-1], rad[-1] = (0.77, 0.83), 1e-5
    chosen = [f for f, _, wants in CASES.values() if wants <= positive]
    forms = jax.jit(jax.vmap(lambda m, r: stacked([bounded(f, variables(m, r)) for f in chosen])))(mid, rad)
    return mid, rad, [np.asarray(z) for z in forms]


def column(name, positive):
    return [key for key, case in CASES.items() if case[2] <= positive].index(name)


@pytest.mark.parametrize("name", CASES)
def test_contains_the_true_value(name):
    _, truth, positive = CASES[name]
    rng, k = np.random.default_rng(sum(map(ord, name))), column(name, positive)
    mid, rad, forms = affine_forms(positive)
    bounded_boxes = 0
    for m, r, *form in zip(mid, rad, *(z[:, k] for z in forms), strict=True):
        if not np.isfinite(form[2]):
            continue
        bounded_boxes += 1
        for xi in unit_points(8, rng):
            p, q = (mpmath.mpf(float(a)) + mpmath.mpf(float(b)) * mpmath.mpf(float(x)) for a, b, x in zip(m, r, xi, strict=True))
            plane, e = exact(form, xi)
            assert abs(truth(p, q) - plane) <= e, (m, r, xi)
    assert bounded_boxes >= 20  # half: others reach beyond the domain of a function, or of its bounds (x^5 of a wide box)
    assert forms[2][-1, k] <= 1e-7  # on the small box: second order, rad^2 f''/2 with f'' below 1000


@functools.cache
def germ_forms(goal, positive):
    rng = np.random.default_rng(5 + positive)
    mid, rad = rng.uniform(-1, 1, size=(10, 2)), rng.uniform(0, 0.5, size=(10, 2))
    r0 = np.where(np.arange(10) % 2, 1e-3, 0.2)
    chosen = [f for f, _, wants in CASES.values() if wants == positive]

    def form(m, r, r0):
        q0 = None if goal == (0.0, 0.0) else Affine(jnp.asarray(goal), None, jnp.zeros(2))
        germs = [bounded(f, Germ((2,), r0, q0, variables(m, r))) for f in chosen]
        germs = [q if isinstance(q, Germ) else Germ((), r0, lift(q)) for q in germs]
        return [stacked([jnp.zeros(()) if q.parts[i] is None else q.parts[i] for q in germs]) for i in range(3)]

    forms = jax.jit(jax.vmap(form))(mid, rad, r0)
    return mid, rad, r0, jax.tree_util.tree_map(np.asarray, forms)


SHARP = ("1 - cos", "log of 1 + squares", "exp of a product")  # whose values at the goal are exact
FAR = [(name, False) for name in CASES]
NEAR = [pytest.param(name, True, marks=() if name in SHARP else pytest.mark.slow) for name in CASES]


@pytest.mark.parametrize(("name", "at_zero"), [*FAR, *NEAR])
def test_germ_contains_the_true_value(name, at_zero):
    _, truth, positive = CASES[name]
    rng, k = np.random.default_rng(sum(map(ord, name)) + 1), [key for key, case in CASES.items() if case[2] == positive].index(name)
    seen = 0
    for goal in [(1.3, 0.7)] if positive else [(0.0, 0.0) if at_zero else (0.2, -0.7)]:
        mid, rad, r0, forms = germ_forms(goal, positive)
        for i, xi in itertools.product(range(len(mid)), unit_points(8, rng)):
            d = [mpmath.mpf(float(a)) + mpmath.mpf(float(b)) * mpmath.mpf(float(x)) for a, b, x in zip(mid[i], rad[i], xi, strict=True)]
            r = mpmath.mpf(r0[i] * rng.choice([1.0, 1e-6, rng.uniform()]))
            if not all(np.isfinite(part[2][i, k]) for part in forms):
                continue
            seen += 1
            made = [exact([z[i, k] for z in part], xi) for part in forms]
            value = truth(*(mpmath.mpf(g) + r * x for g, x in zip(goal, d, strict=True)))
            assert abs(value - sum(r**j * plane for j, (plane, _) in enumerate(made))) <= sum(r**j * e for j, (_, e) in enumerate(made)), (
                goal, r0[i], mid[i], rad[i], xi, r,
            )  # fmt: skip
    assert seen >= 40  # half of the boxes at least: those with r0 = 1e-3


def test_the_degree_of_a_square_is_two():
    """|d|^2 / r tends to zero, so that a bound of it away from zero would be false; |d|^2 / r^2 is at least 1."""
    y = Germ((2,), jnp.asarray(0.1), None, variables(jnp.asarray([1.0, 0.0]), jnp.asarray([0.0, 0.1])))
    q = bounded(lambda x: jnp.dot(x, x), y)
    assert q.q0 is None
    assert q.s1 is None
    assert 0.98 <= float(q.s2.range()[0]) <= 1.0


def test_values_at_the_goal_that_are_plain_numbers_leave_no_rounding():
    """f / r^2 lies between bounds around its limit at r = 0; 1 - cos with a rounded 1 would leave something of the order of 1e-16 / r^2."""
    y = Germ((2,), jnp.asarray(1e-3), None, variables(jnp.asarray([1.0, 0.0]), jnp.asarray([0.0, 1e-3])))
    near = {
        0.5: lambda x: 1 - jnp.cos(x[0]),
        4.905: lambda x: 9.81 - 9.81 * jnp.cos(x[0]),
        1.0: lambda x: jnp.log(1 + x[0] ** 2),
        -0.5: lambda x: 1 / jnp.sqrt(1 + x[0] ** 2) - 1,
        2.0: lambda x: jnp.exp(2 * x[0] ** 2) - 1,
        0.25: lambda x: jnp.stack([2.0, 1.0])[1] - 0.25 * (3 + jnp.cos(x[0])) + 0.125 * x[0] ** 2,
    }
    for limit, f in near.items():
        q = bounded(f, y)
        assert q.q0 is None
        assert q.s1 is None
        low, high = (float(z) for z in q.s2.range())
        assert low <= limit <= high
        assert high - low < 0.01 * abs(limit)
    assert bounded(lambda x: 0.1 + jnp.cos(x[0]) - 1.1, y).q0 is not None  # 0.1 + 1 is no float64 number


def test_an_unknown_primitive_is_named_with_its_line():
    with pytest.raises(InvalidValue, match=r"'sort'.*test_verify_bounds.py, line \d+"):
        bounded(lambda x: jnp.sort(x)[0], variables(jnp.zeros(2), jnp.ones(2)))


def test_single_precision_is_refused():
    with pytest.raises(InvalidValue, match="float64"):
        bounded(lambda x: x.astype(jnp.float32) * 2, variables(jnp.zeros(2), jnp.ones(2)))


def test_nothing_is_known_beyond_the_domain():
    q = bounded(lambda x: jnp.log(x[0]), variables(jnp.asarray([0.1, 0.0]), jnp.asarray([0.2, 0.0])))
    low, high = q.range()
    assert not (low <= high)

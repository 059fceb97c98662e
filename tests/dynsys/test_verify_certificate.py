"""Certificates: what is written is checked from the file alone, and fifty kinds of tampering are refused, digest or no digest."""

import ast
import json
import re
import shutil
from fractions import Fraction
from pathlib import Path

import equinox as eqx
import h5py
import jax.numpy as jnp
import numpy as np
import pytest

import dynsys.verify.checker as checker
from dynsys.errors import InvalidValue
from dynsys.verify.certificate import load_certificate, save_certificate
from dynsys.verify.certify import certify
from dynsys.verify.check_file import UNFINISHED, digest
from dynsys.verify.check_hole import Series, decided, still
from dynsys.verify.check_numbers import SMOOTH, Model
from dynsys.verify.check_program import Dual, apply, chosen, larger, parse, run
from dynsys.verify.checker import check, covers
from dynsys.verify.lyapunov import QuadraticLyapunov
from dynsys.verify.program import evaluate, trace
from dynsys.verify.unfinished import FORMAT, save_unfinished

from . import certificate_cases as made, verify_cases as cases


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Untouched certificates by name, written when they are asked for."""
    folder, done = tmp_path_factory.mktemp("certificates"), {}

    def get(case):
        if case not in done:
            done[case] = made.written(case, folder / f"{case.__name__}.h5")
        return done[case]

    return get


# The checker stands alone


def test_the_checker_imports_no_code_of_the_search():
    folder = Path(checker.__file__).parent
    own = {"checker.py", "check_cover.py", "check_words.py", "check_file.py", "check_hole.py", "check_numbers.py", "check_program.py"}
    allowed = {"numpy", "h5py", "dynsys.errors", *(f"dynsys.verify.{name[:-3]}" for name in own)}
    import sys

    for name in own:
        for node in ast.walk(ast.parse((folder / name).read_text())):
            found = (
                [x.name for x in node.names] if isinstance(node, ast.Import) else [node.module] if isinstance(node, ast.ImportFrom) else []
            )
            for module in found:
                assert module in allowed or module.split(".")[0] in sys.stdlib_module_names, (name, module)


# Enclosures contain the truth


def boxes(rng, count=40, n=3, wide=1.0):
    return rng.uniform(-1, 1, (count, n)), wide * rng.uniform(0, 0.5, (count, n))


def inside(q, xi, true):
    """Whether the polynomial and its error contain the true values at xi (B, N), in long floats."""
    p = q.p.astype(np.longdouble)
    n = xi.shape[1]
    i, j = np.triu_indices(n)
    xi = xi.astype(np.longdouble)
    if p.shape[-1] == 1:
        value = p[..., 0]
    else:
        value = p[..., 0] + np.einsum("bki,bi->bk", p[..., 1 : n + 1], xi) + np.einsum("bkm,bm->bk", p[..., n + 1 :], xi[:, i] * xi[:, j])
    low, high = q.range()
    # what is compared with is in extended precision, so its own error is far below the budget of one float64 rounding
    return np.all(np.abs(value - true) <= q.e) and np.all((low <= true) & (true <= high))


TRUTH = {
    "sin": np.sin, "cos": np.cos, "tanh": np.tanh, "exp": np.exp, "log": np.log, "sqrt": np.sqrt, "atan": np.arctan,
    "reciprocal": lambda z: 1 / z, "logistic": lambda z: 1 / (1 + np.exp(-z)),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:(overflow|invalid|divide):RuntimeWarning")  # where nothing is known
@pytest.mark.parametrize("wide", [1e-9, 1e-3, 1.0, 30.0])
@pytest.mark.parametrize("name", SMOOTH)
def test_a_smooth_function_is_enclosed(name, wide):
    rng = np.random.default_rng(0)
    mid, rad = boxes(rng, wide=wide)
    z = Model.box(mid, rad)
    z = z.mul(z.matrix(rng.normal(size=(3, 3)))).add(z)  # curved arguments with errors
    shift = 5 * rng.normal(size=3) if name not in ("log", "sqrt", "reciprocal") else np.full(3, 4.0 + 3 * wide**2)
    z = z.add(Model.constant(shift))
    result = z.smooth(SMOOTH[name])
    for _ in range(60):
        xi = rng.choice([-1.0, 1.0, 0.3], p=[0.3, 0.3, 0.4], size=mid.shape) * rng.uniform(0.5, 1, mid.shape) ** rng.integers(0, 2)
        value = np.einsum("bkm,bm->bk", z.p.astype(np.longdouble), monomials(xi))
        with np.errstate(invalid="ignore"):
            assert inside(keep(result, result.e < np.inf), xi, np.where(np.isfinite(result.e), TRUTH[name](value), result.p[..., 0]))


def keep(q, where):
    """q, with exact zeros instead of numbers of which nothing is known."""
    return Model(np.where(where[..., None], q.p, 0.0), np.where(where, q.e, np.inf))


def monomials(xi):
    i, j = np.triu_indices(xi.shape[1])
    xi = xi.astype(np.longdouble)
    return np.concatenate([np.ones((len(xi), 1)), xi, xi[:, i] * xi[:, j]], axis=1)


def test_sums_products_and_choices_are_enclosed():
    rng = np.random.default_rng(1)
    for wide in (1e-6, 0.1, 1.0, 10.0):
        mid, rad = boxes(rng, wide=wide)
        x = Model.box(mid, rad)
        W = rng.normal(size=(3, 3)) * 10.0 ** rng.integers(-8, 9, (3, 3))
        for _ in range(30):
            xi = rng.choice([-1.0, 1.0, 0.1], size=mid.shape)
            t = mid.astype(np.longdouble) + rad.astype(np.longdouble) * xi
            Wt = np.einsum("ij,bj->bi", W.astype(np.longdouble), t)
            assert inside(x.matrix(W), xi, Wt)
            assert inside(x.matrix(W).mul(x), xi, Wt * t)
            assert inside(x.mul(x).mul(x.mul(x)), xi, t**4)
            assert inside(x.matrix(W).mul(x).sums(3), xi, np.sum(Wt * t, axis=1, keepdims=True))
            assert inside(larger(x, x.matrix(W)), xi, np.maximum(t, Wt))
            assert inside(chosen(x, x.matrix(W), x), xi, np.where(t > 0, Wt, t))
            assert inside(x.join([x.mul(x)]).pick(np.array([4, 0])), xi, np.stack([t[:, 1] ** 2, t[:, 0]], axis=1))


def test_series_are_enclosed_at_every_distance():
    """f(goal + r d) for a function with every rule, against the function itself; the tangent against finite differences of it."""
    rng = np.random.default_rng(2)
    W, goal = rng.normal(size=(2, 2)), np.array([0.5, -0.25])
    text = """v0 = sub x k0
    v1 = matrix k1 v0
    v2 = tanh v1
    v3 = abs v2
    v4 = cos v0
    v5 = sub 1.0 v4
    v6 = max v2 v1
    v7 = exp x
    v8 = div v6 v7
    v9 = mul v3 v8
    v10 = add v5 v9
    return v10"""
    program = parse(text, {"k0": goal, "k1": W}, 2, 0, 2)

    def truth(x):
        u = W @ (x - goal)
        return 1 - np.cos(x - goal) + np.abs(np.tanh(u)) * np.maximum(np.tanh(u), u) / np.exp(x)

    r0 = 0.125
    mid = np.array([[1.0, y] for y in np.linspace(-0.9, 0.9, 10)])
    rad = np.tile([0.0, 0.1], (10, 1))
    d = Model.box(mid, rad)
    nobody = still(r0, Model.constant(np.zeros(0)))
    x = Series(r0, Model.constant(goal), d, still(r0, Model.constant(goal)).q1)
    q, _ = run(program, x, nobody)
    dual, _ = run(program, Dual(x, x.sub(x.constant(goal))), Dual(nobody, nobody))  # the derivative along x - goal
    assert q.q0.zero.all()
    assert q.q1.zero.all()  # of degree two
    for _ in range(200):
        xi = rng.uniform(-1, 1, 10)
        r = r0 * rng.uniform() ** 3
        points = goal + r * np.stack([np.ones(10), mid[:, 1] + 0.1 * xi], axis=1)
        values = np.stack([truth(point) for point in points])
        low, high = q.q2.range()
        assert np.all((values >= r * r * low - 1e-15) & (values <= r * r * high + 1e-15))
        # at points moved along d by h, r grows by the same factor: the tangent is r dq/dr
        h = 1e-6
        slope = np.stack([(truth(goal + (1 + h) * (x - goal)) - truth(goal + (1 - h) * (x - goal))) / (2 * h) for x in points])
        low, high = dual.tangent.q2.range()
        assert np.all((slope >= r * r * low - 1e-9) & (slope <= r * r * high + 1e-9))


def test_a_square_is_not_positive_by_the_first_order():
    """x^2 / r -> 0: a proof that V / r > 0 for a quadratic V would show a fault in the arithmetic."""
    d = Model.box(np.array([[1.0]]), np.array([[0.0]]))
    x = Series(0.5, Model.constant(np.zeros(1)), d, still(0.5, Model.constant(np.zeros(1))).q1)
    low, high = decided(x.mul(x))
    assert low[0] == pytest.approx(1.0)
    assert high[0] == pytest.approx(1.0)
    assert decided(x.mul(x).add(x))[0][0] == pytest.approx(1.0)  # x + x^2 has the degree one: (q / r) >= 1
    away = x.add(x.constant(np.array([1e-30])))
    assert np.isnan(decided(away.mul(away))[0][0])  # not zero at the goal


# Programs


@pytest.mark.parametrize("case", made.TRUE)
def test_a_program_is_the_function(case, tmp_path):
    loop, V, *_ = case()
    p = loop.low.shape[0]
    programs = trace(lambda loop, x, w: loop.advance(x, w), loop, n=2, p=p), trace(lambda V, x: V.value(x), V, n=2)
    rng = np.random.default_rng(0)
    for _ in range(5):
        x, w = rng.normal(size=2), rng.uniform(size=p)
        np.testing.assert_allclose(evaluate(programs[0], x, w), loop.advance(jnp.asarray(x), jnp.asarray(w)), rtol=1e-13, atol=1e-13)
        np.testing.assert_allclose(evaluate(programs[1], x)[0], V.value(jnp.asarray(x)), rtol=1e-12)


def test_programs_of_many_operations():
    def f(A, x, w):
        rows = jnp.stack([x, x[::-1], w])
        square = rows.T @ rows
        total = jnp.sum(jnp.where(square >= 0.1, square, -square) * A[None, :, None].reshape(1, 2, 1)[0], axis=1)
        clipped = jnp.clip(total, jnp.array([-jnp.inf, -0.5]), 3.0)
        y = jnp.concatenate([clipped, jnp.roll(x, 1)[:1] ** 3, jnp.max(jnp.outer(x, w), axis=0)]) / (2 + jnp.cos(x[0]))
        y = y.at[1].set(jnp.where((x[0] > 0) & (w[1] > 0), 1.0, jnp.tan(x[0])))
        return jnp.sign(y[:1]) + jnp.sqrt(1 + y[1:3] ** 2) ** -1 + jnp.dot(jnp.sin(A), jnp.exp(-(x**2)))

    A = jnp.array([0.3, -0.7])
    program = trace(f, A, n=2, p=2)
    arrays = dict(program.arrays)
    parse(program.text, arrays, 2, 2, 2)
    rng = np.random.default_rng(3)
    for _ in range(20):
        x, w = rng.normal(size=2), rng.normal(size=2)
        np.testing.assert_allclose(evaluate(program, x, w), f(A, jnp.asarray(x), jnp.asarray(w)), rtol=1e-12, atol=1e-12)


def test_rectifiers_become_max_and_the_offset_at_the_goal_stays_a_formula():
    program = trace(lambda c, x: jnp.where(x > 0, x, 0.1 * x) - jnp.tanh(x) + jnp.tanh(c), jnp.array([0.1, 0.2]), n=2)
    assert "choose" not in program.text
    assert program.text.count("tanh") == 2  # tanh(c) was not computed


def test_an_operation_outside_the_list_is_named():
    with pytest.raises(InvalidValue, match=r"floor.*is no operation of certificates"):
        trace(lambda c, x: jnp.floor(x), 0.0, n=2)
    with pytest.raises(InvalidValue, match="float64"):
        trace(lambda c, x: x.astype(jnp.float32) * 2, 0.0, n=2)


# Covers


def halvings(rng, n, depth):
    cells = [(np.zeros(n), np.ones(n))]
    for _ in range(depth):
        mid, rad = cells.pop(rng.integers(len(cells)))
        axis = rng.integers(n)
        half = np.where(np.arange(n) == axis, rad / 2, 0.0)
        cells += [(mid - half, rad - half), (mid + half, rad - half)]
    order = rng.permutation(len(cells))
    return tuple(np.stack([cells[i][k] for i in order]) for k in (0, 1))


def test_every_halving_covers_and_every_gap_is_seen():
    rng = np.random.default_rng(4)
    for n in (1, 2, 3, 5):
        for depth in (0, 1, 7, 200):
            mid, rad = halvings(rng, n, depth)
            assert covers(mid, rad)
            if depth:
                i = rng.integers(len(mid))
                others = np.arange(len(mid)) != i
                assert not covers(mid[others], rad[others])
                assert not covers(np.concatenate([mid, mid[i : i + 1]]), np.concatenate([rad, rad[i : i + 1]]))
                thinner = rad.copy()
                thinner[i, 0] *= 1 - 2.0**-30
                assert not covers(mid, thinner)
    assert not covers(np.zeros((0, 2)), np.zeros((0, 2)))


def test_equal_volume_is_no_cover():
    """Two boxes of the right volume that overlap, and so leave a gap."""
    mid = np.array([[-0.5, 0.0], [0.0, 0.5]])
    rad = np.array([[0.5, 1.0], [1.0, 0.5]])
    assert np.sum(np.prod(rad, axis=1)) == 1.0
    assert not covers(mid, rad)


# Whole certificates


@pytest.mark.parametrize("case", made.TRUE)
def test_true_claims_are_valid(case, files):
    path = files(case)
    verdict = check(path)
    assert verdict.valid, verdict.reason
    claim = load_certificate(path).claim
    assert verdict.volume[0] <= claim.volume + claim.volume_error
    assert claim.volume - claim.volume_error <= verdict.volume[1]
    assert ("converges" in verdict.claim) == (claim.core == 0)
    assert any("exact equilibrium" in text for text in verdict.assumptions) is False  # sin(0) = 0: nothing has to be believed


@pytest.mark.parametrize("case", [made.van_der_pol, pytest.param(made.pendulum_map, marks=pytest.mark.slow)])
def test_the_boxes_of_a_real_search_need_no_halving(case, tmp_path):
    loop, V, level, rate, _, more = case()
    proof = certify(loop, V, domain=more["domain"], rate=rate, level=level, seconds=60.0, batch=256)
    path = save_certificate(proof, loop, V, tmp_path / "cert.h5", about={"system": case.__name__})
    verdict = check(path)
    assert verdict.valid, verdict.reason
    assert verdict.split == 0
    back = load_certificate(path)
    assert back.words["about"] == {"system": case.__name__}
    assert len(back.bounds) == len(proof.leaves[0])
    if isinstance(V, QuadraticLyapunov):
        assert verdict.volume[0] <= float(V.volume(level)) <= verdict.volume[1]


def test_an_equilibrium_in_floats_only_is_an_assumption(tmp_path):
    class Shifted(cases.LinearFlow):
        def field(self, t, z, u=None):
            return jnp.stack([z[1], jnp.sin(0.3) - jnp.sin(z[0]) - z[1]])  # sin(0.3) is computed twice, by different names of 0.3

    loop = cases.linear_flow(np.eye(2))
    loop = eqx.tree_at(lambda loop: (loop.plant, loop.goal), loop, (Shifted(jnp.eye(2), jnp.asarray(0.0)), jnp.array([0.3, 0.0])))
    V = QuadraticLyapunov.of_linear(np.array([[0.0, 1.0], [-np.cos(0.3), -1.0]]), np.array([0.3, 0.0]), continuous=True)
    verdict = check(made.claimed(loop, V, tmp_path / "cert.h5", 0.5, 0.05, made.ellipse(V, 0.5)))
    assert verdict.valid, verdict.reason
    assert any("exact equilibrium" in text for text in verdict.assumptions)


def test_a_jump_beside_the_goal_is_not_hidden_by_the_equilibrium(files):
    verdict = check(files(made.leaping_map))
    assert not verdict.valid
    assert verdict.reason.startswith("hole")


def test_unfinished_proofs_make_no_certificate(tmp_path):
    loop, V, level, rate, _, more = made.van_der_pol()
    proof = certify(loop, V, domain=more["domain"], rate=rate, level=level, seconds=60.0, batch=256, keep_leaves=False)
    with pytest.raises(InvalidValue, match="keep_leaves"):
        save_certificate(proof, loop, V, tmp_path / "cert.h5")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def proved():
    """(loop, V, a proof) of a linear map."""
    loop, V, level, rate, _, more = made.linear_map()
    return loop, V, certify(loop, V, domain=more["domain"], rate=rate, level=level, batch=64)


def test_only_what_was_proved_is_written(proved, tmp_path):
    loop, V, proof = proved
    other = QuadraticLyapunov.of(1.01 * np.asarray(V.P))
    for pair in ((loop, other), (cases.linear_map(0.5 * np.eye(2)), V)):
        with pytest.raises(InvalidValue, match="about another loop or another V"):
            save_certificate(proof, *pair, tmp_path / "cert.h5")
    assert not list(tmp_path.iterdir())
    again, W, *_ = made.linear_map()  # other objects, the same numbers
    assert check(save_certificate(proof, again, W, tmp_path / "cert.h5")).valid


def test_the_volume_of_a_quadratic_is_exact_and_that_of_others_can_be_given(proved, files, tmp_path):
    loop, V, proof = proved
    verdict = check(save_certificate(proof, loop, V, tmp_path / "cert.h5"))
    exact = float(V.volume(proof.level))
    assert verdict.stated_volume == (exact, 0.0)
    assert verdict.volume[0] <= exact <= verdict.volume[1]
    size, error = check(files(made.norm_map)).stated_volume
    assert 0 < error < 0.1 * size
    verdict = check(save_certificate(proof, loop, V, tmp_path / "cert.h5", volume=(exact + 0.01, 0.25)))
    assert verdict.stated_volume == (exact + 0.01, 1.0)  # four standard errors
    assert verdict.valid, verdict.reason
    verdict = check(save_certificate(proof, loop, V, tmp_path / "cert.h5", volume=(2 * exact, 0.0)))
    assert verdict.reason.startswith("volume")
    with pytest.raises(InvalidValue, match="finite and not negative"):
        save_certificate(proof, loop, V, tmp_path / "cert.h5", volume=(float("nan"), 0.0))


def test_the_words_of_the_author_come_back_as_text(proved, tmp_path):
    loop, V, proof = proved
    path = save_certificate(proof, loop, V, tmp_path / "cert.h5", about={"system": "Pendulum", "dt": 0.1, "note": "\x1b[2J two\nlines"})
    assert check(path).about == {"system": "Pendulum", "dt": "0.1", "note": " [2J two lines"}
    for words in (b"no JSON", b"[1]", b'{"about": [1]}', b"[" * 100_000, b'{"about": {"a": "\\ud800"}}', b"\xff"):
        verdict = check(tampered(path, tmp_path / "other.h5", edited("words", lambda x, words=words: np.bytes_(words))))
        assert verdict.valid, verdict.reason
        assert set("".join(verdict.about.values())) <= {" "}
    assert check(tampered(path, tmp_path / "other.h5", without("words"))).about == {}


def test_numbers_with_many_digits_are_rounded_in_the_sentence_and_exact_after_it(files, tmp_path):
    path = tampered(files(made.linear_map), tmp_path / "cert.h5", attribute("rate", 0.0081234567890123))
    words = check(path).claim
    assert "V(x+) <= (1 - 0.00812346) V(x)" in words
    assert words.endswith(" Exactly: rate 0.0081234567890123.")
    assert "{V(x) <= 2.0}" in words


# Files of another kind


def plain_hdf5(path):
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(3.0)
    return path


def series(path):
    with h5py.File(path, "w") as file:
        file.attrs["format"] = "dynsys series 1"  # a text of any length, as dynsys_datasets writes it
    return path


def unfinished(path):
    loop, V, level, rate, _, more = made.van_der_pol()
    return save_unfinished(certify(loop, V, domain=more["domain"], rate=rate, level=level, batch=64, boxes=100), loop, V, path)


def contents(data):
    def write(path):
        path.write_bytes(data)
        return path

    return write


def cut(share):
    def write(path):
        whole = plain_hdf5(path).read_bytes()
        path.write_bytes(whole[: int(share * len(whole))])
        return path

    return write


OTHERS = [
    ("empty", contents(b""), "it is no HDF5 file."),
    ("a page", contents(b"<html>" * 1000), "it is no HDF5 file."),
    ("another HDF5 file", plain_hdf5, "it is no certificate of dynsys: it has no 'format'."),
    ("a time series", series, "it is no certificate of dynsys: its format is 'dynsys series 1'."),
    ("half a file", cut(0.5), "the HDF5 file is cut off or damaged."),
    ("the head of a file", cut(0.01), "the HDF5 file is cut off or damaged."),
    ("an unfinished proof", unfinished, "it is an unfinished proof, not a certificate; go on with dynsys certify ... --resume FILE."),
    ("nothing", lambda path: path, "there is no such file."),
    ("a folder", lambda path: path.parent, "it can't be opened: Is a directory."),
]


@pytest.mark.parametrize(("write", "words"), [x[1:] for x in OTHERS], ids=[x[0] for x in OTHERS])
def test_what_is_no_certificate_is_told_as_such(write, words, tmp_path):
    path = write(tmp_path / "file.h5")
    verdict = check(path)
    assert (verdict.valid, verdict.readable, verdict.reason) == (False, False, words)
    assert (verdict.claim, verdict.about) == ("", {})
    with pytest.raises(InvalidValue, match=re.escape(f"{path}: {words}")):
        load_certificate(path)


def test_the_checker_knows_the_name_of_an_unfinished_proof():
    assert UNFINISHED == FORMAT


# Tampering. Each row: a name, a change of the file, and the word that the reason must hold. The digest is made anew after every change, so
# that it is the proof that fails, and not the seal.


def attribute(key, value):
    def change(file):
        file.attrs[key] = value

    return change


def scaled(name, factor):
    return edited(name, lambda x: x * factor)


def edited(name, f):
    def change(file):
        value = np.asarray(file[name][()])
        new = f(value.copy())
        del file[name]
        file[name] = new

    return change


def put(name, index, value):
    def f(x):
        x[index] = value
        return x

    return edited(name, f)


def text(name, old, new, count=1):
    def change(file):
        before = bytes(file[f"{name}/text"][()]).decode()
        after = before.replace(old, new, count)
        assert after != before, before
        del file[f"{name}/text"]
        file[f"{name}/text"] = np.bytes_(after.encode())

    return change


def constant(name, pick, f):
    """Change the array of a program that `pick` accepts."""

    def change(file):
        key = next(key for key in sorted(file[name]) if key[0] in "ki" and pick(np.asarray(file[name][key])))
        edited(f"{name}/{key}", f)(file)

    return change


def leaves(f):
    def change(file):
        mid, rad = f(np.asarray(file["leaves/mid"]), np.asarray(file["leaves/rad"]))
        for key, value in (("mid", mid), ("rad", rad)):
            del file[f"leaves/{key}"]
            file[f"leaves/{key}"] = value

    return change


def one_leaf(mid_by=0.0, rad_by=1.0, row=100):
    def f(mid, rad):
        mid[row] += mid_by * rad[row]
        rad[row] *= rad_by
        return mid, rad

    return leaves(f)


def without(name, where="/"):
    def change(file):
        if name in file.attrs:
            del file.attrs[name]
        else:
            del file[name]

    return change


def matrix(x):
    return x.shape == (2, 2)


def row(x):
    return x.shape == (1, 2)


TAMPERED = [
    ("level raised a little", attribute("level", 50.05), "border"),
    ("level doubled", attribute("level", 100.0), "border"),
    ("level not a number", attribute("level", np.nan), "file"),
    ("level infinite", attribute("level", np.inf), "file"),
    ("level negative", attribute("level", -1.0), "file"),
    ("level a whole number", attribute("level", 50), "file"),
    ("level an array", attribute("level", np.array([50.0])), "file"),
    ("level left out", without("level"), "file"),
    ("rate raised", attribute("rate", 0.5), "hole"),
    ("rate 1", attribute("rate", 1.0), "file"),
    ("rate negative", attribute("rate", -0.001), "file"),
    ("rate not a number", attribute("rate", np.nan), "file"),
    ("core above the level", attribute("core", 51.0), "file"),
    ("core negative", attribute("core", -1.0), "file"),
    ("no hole proved", attribute("r0", np.nan), "file"),
    ("hole of size zero", attribute("r0", 0.0), "file"),
    ("hole larger than the cube", attribute("r0", 2.0), "file"),
    ("a leaf removed", leaves(lambda m, r: (m[1:], r[1:])), "leaves"),
    ("every leaf removed", leaves(lambda m, r: (m[:0], r[:0])), "leaves"),
    ("a leaf twice", leaves(lambda m, r: (np.vstack([m, m[:1]]), np.vstack([r, r[:1]]))), "leaves"),
    ("a leaf in place of another", leaves(lambda m, r: (np.vstack([m[1:2], m[1:]]), r)), "leaves"),
    ("a leaf shrunk", one_leaf(rad_by=0.5), "leaves"),
    ("a leaf shrunk by a hair", one_leaf(rad_by=1 - 2.0**-40), "leaves"),
    ("a leaf grown", one_leaf(rad_by=2.0), "leaves"),
    ("a leaf moved", one_leaf(mid_by=2.0), "leaves"),
    ("a leaf moved by a hair", one_leaf(mid_by=2.0**-40), "leaves"),
    ("a leaf of negative width", one_leaf(rad_by=-1.0), "leaves"),
    ("a leaf not a number", one_leaf(mid_by=np.nan), "file"),
    ("one box of half the cube", leaves(lambda m, r: (np.array([[0.5, 0.0]]), np.array([[0.5, 1.0]]))), "leaves"),
    ("one box larger than the cube", leaves(lambda m, r: (np.zeros((1, 2)), np.full((1, 2), 2.0))), "leaves"),
    ("mid and rad exchanged", leaves(lambda m, r: (r, m)), "leaves"),
    ("leaves of another dimension", leaves(lambda m, r: (np.hstack([m, m]), np.hstack([r, r]))), "file"),
    ("leaves in single precision", leaves(lambda m, r: (m.astype(np.float32), r)), "file"),
    ("goal moved", put("goal", 0, 1e-3), "equilibrium"),
    ("goal moved by a hair", put("goal", 0, 1e-12), "equilibrium"),
    ("goal not a number", put("goal", 0, np.nan), "file"),
    ("goal of another shape", edited("goal", lambda x: np.zeros(3)), "file"),
    ("goal outside the domain", put("domain", (1, 0), -1.0), "file"),
    ("domain too small", scaled("domain", 0.05), "leaves"),
    ("domain not a number", put("domain", (0, 1), np.nan), "file"),
    ("frame shrunk", scaled("frame", 0.99), "border"),
    ("frame singular", edited("frame", lambda T: T[:, [0, 0]]), "frame"),
    ("frame not a number", put("frame", (0, 0), np.nan), "file"),
    ("frame of another shape", edited("frame", lambda T: T[0]), "file"),
    ("V turned over", constant("V", matrix, lambda P: -P), "border"),
    ("V halved", constant("V", matrix, lambda P: P / 2), "border"),
    ("V indefinite", constant("V", matrix, lambda P: P * np.array([[1.0, 9.0], [9.0, 1.0]])), "border"),
    ("V no longer zero at the goal", text("V", "sub x k0", "add x 1e-12"), "hole"),
    ("V not finite", constant("V", matrix, lambda P: P * np.nan), "file"),
    ("V in single precision", constant("V", matrix, lambda P: P.astype(np.float32)), "file"),
    ("V without its matrix", without("V/k1"), "file"),
    ("V of two values", text("V", "return v3", "return v2"), "file"),
    ("gain turned over", constant("loop", row, lambda K: -K), "hole"),
    ("gain gone", constant("loop", row, lambda K: 0 * K), "hole"),
    ("gain of one state gone", constant("loop", row, lambda K: K * np.array([[0.0, 1.0]])), "hole"),
    ("limits too tight", text("loop", " 6.0", " 0.1"), "hole|leaves"),
    ("sine turned into cosine", text("loop", "sin", "cos"), "equilibrium"),
    ("sum turned into a difference", text("loop", "add", "sub", -1), "hole"),
    ("smaller turned into larger", text("loop", "min", "max"), "equilibrium"),
    ("heavier", text("loop", "= mul 0.73575", "= mul 3.73575"), "hole"),
    ("longer step", text("loop", "mul 0.05", "mul 0.9"), "hole"),
    ("an operation that there is not", text("loop", "sin", "sinh"), "file"),
    ("a value that there is not", text("loop", "sin v", "sin v99"), "file"),
    ("a value used before it is made", text("loop", "v0 =", "v00 ="), "file"),
    ("no return", text("loop", "return", "v99 = neg"), "file"),
    ("nothing but a return", edited("loop/text", lambda t: np.bytes_(b"return x")), "hole"),
    ("constant that is no number", text("loop", "mul 0.05", "mul nan"), "file"),
    ("an index out of range", constant("loop", lambda x: x.dtype == np.int64, lambda i: i + 2), "file"),
    ("an index below zero", constant("loop", lambda x: x.dtype == np.int64, lambda i: i - 2), "file"),
    ("text that is no text", edited("loop/text", lambda t: np.arange(3)), "file"),
    ("a flow instead of a map", attribute("time", np.bytes_(b"flow")), "equilibrium|hole"),
    ("a time of no kind", attribute("time", np.bytes_(b"both")), "file"),
    ("another format", attribute("format", np.bytes_(b"dynsys model")), "it is no certificate"),
    ("another version", attribute("version", 2), "it is a certificate of version 2"),
    ("the loop left out", without("loop"), "file"),
    ("the leaves left out", without("leaves"), "file"),
    ("the goal left out", without("goal"), "file"),
    ("volume too large", attribute("volume", 60.0), "volume"),
    ("volume too small", attribute("volume", 1.0), "volume"),
    ("volume not a number", attribute("volume", np.nan), "volume"),
    ("one number for the disturbances", edited("disturbance", lambda x: np.float64(1.0)), "file"),
    ("a format that is no text", attribute("format", np.arange(3)), "it is no certificate"),
    ("no room for a disturbance", edited("disturbance", lambda x: np.zeros((2, 1))), "file"),
]


def tampered(path, target, change, seal=True):
    shutil.copy(path, target)
    with h5py.File(target, "r+") as file:
        change(file)
        if seal:
            file.attrs["digest"] = np.bytes_(digest(file).encode())
    return target


@pytest.mark.parametrize(("change", "word"), [x[1:] for x in TAMPERED], ids=[x[0] for x in TAMPERED])
def test_tampering_is_refused(change, word, files, tmp_path):
    verdict = check(tampered(files(made.pendulum_map), tmp_path / "cert.h5", change))
    assert not verdict.valid
    assert verdict.reason.startswith(tuple(word.split("|"))), verdict.reason
    assert verdict.readable == (not word.startswith("it is"))


ROUGH = [
    ("disturbances too wide", scaled("disturbance", 300.0), "hole|leaves"),
    ("disturbances turned over", edited("disturbance", lambda x: x[::-1]), "file"),
    ("disturbances without an end", put("disturbance", (1, 0), np.inf), "file"),
    ("disturbances left out", edited("disturbance", lambda x: x[:, :0]), "file"),
    ("half of the disturbances not covered", leaves(lambda m, r: (m + np.array([0, 0, 0.5]), r * np.array([1, 1, 0.5]))), "leaves"),
    ("a disturbance that moves the goal", text("loop", "sub v", "add 0.01 v"), "equilibrium|file|hole"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "word"), [x[1:] for x in ROUGH], ids=[x[0] for x in ROUGH])
def test_tampering_with_disturbances_is_refused(change, word, files, tmp_path):
    verdict = check(tampered(files(made.rough_flow), tmp_path / "cert.h5", change))
    assert not verdict.valid
    assert verdict.reason.startswith(tuple(word.split("|"))), verdict.reason


@pytest.mark.parametrize(
    "change",
    [attribute("level", 49.0), attribute("rate", 0.0005), put("leaves/bounds", (0, 0), 7.0), scaled("domain", 2.0), without("words"),
     without("digest"), attribute("digest", np.bytes_(b"0" * 64))],
)  # fmt: skip
def test_whatever_is_changed_breaks_the_seal(change, files, tmp_path):
    verdict = check(tampered(files(made.pendulum_map), tmp_path / "cert.h5", change, seal=False))
    assert not verdict.valid
    assert verdict.reason.startswith("file")


@pytest.mark.parametrize("size", [0, 100, 5000, -1])
def test_a_damaged_file_is_a_verdict(size, files, tmp_path):
    whole = files(made.pendulum_map).read_bytes()
    path = tmp_path / "cert.h5"
    for data in (whole[:size], whole[:3000] + b"\x00" * 64 + whole[3064:]):
        path.write_bytes(data)
        verdict = check(path)
        assert not verdict.valid
        assert "synchronously" not in verdict.reason
    assert not check(tmp_path / "nothing.h5").valid


# Changes that leave the claim true: accepted as the weaker or equal claim that they make.
HARMLESS = [
    ("rate lowered", attribute("rate", 0.0005)),
    ("domain widened", scaled("domain", 2.0)),
    ("stored bounds changed", edited("leaves/bounds", lambda x: x + 1e9)),
    ("words changed", edited("words", lambda x: np.bytes_(json.dumps({"about": "anything"}).encode()))),
    ("leaves in another order", leaves(lambda m, r: (m[::-1], r[::-1]))),
    ("hole halved", attribute("r0", 2.0**-5)),
    ("hole larger than the checker can prove at once", attribute("r0", 1.0)),
]  # fmt: skip


@pytest.mark.parametrize("change", [x[1] for x in HARMLESS], ids=[x[0] for x in HARMLESS])
def test_a_claim_that_stays_true_is_proved_again(change, files, tmp_path):
    verdict = check(tampered(files(made.pendulum_map), tmp_path / "cert.h5", change))
    assert verdict.valid, verdict.reason


def test_a_lower_level_is_a_true_claim_about_a_smaller_set(files, tmp_path):
    path = tampered(files(made.pendulum_map), tmp_path / "cert.h5", attribute("level", 20.0))
    assert check(path).reason.startswith("volume")
    claim = load_certificate(path).claim
    path = tampered(path, tmp_path / "other.h5", attribute("volume", claim.volume * 20.0 / 50.0))  # an ellipse: area is linear in the level
    verdict = check(path)
    assert verdict.valid, verdict.reason
    assert "20.0" in verdict.claim


def test_exact_fractions_decide_whether_the_cube_is_in_the_domain(files):
    claim = load_certificate(files(made.norm_map)).claim
    assert checker.cube_in_domain(claim)
    object.__setattr__(claim, "high", np.nextafter(claim.high, 0))
    assert not checker.cube_in_domain(claim)
    assert Fraction(3.0) == 3


def test_apply_knows_every_operation():
    from dynsys.verify.check_program import ONE, TWO, Line

    x = Model.box(np.full((1, 2), 0.5), np.full((1, 2), 0.1))
    for op in (*ONE, *TWO):
        assert np.all(np.isfinite(apply(Line(op, None, ()), [x, x][: 1 + (op in TWO)]).e)), op

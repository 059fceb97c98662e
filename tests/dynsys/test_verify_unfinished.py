"""Proofs that a limit stopped: what the file holds comes back to the last bit, and a proof that goes on ends as if it was never stopped."""

import shutil

import h5py
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from dynsys import registry
from dynsys.errors import DataError, InvalidValue
from dynsys.models.store import read_module, write_module
from dynsys.systems import load_system
from dynsys.verify.certificate import load_modules, save_certificate
from dynsys.verify.certify import Outcome, certify
from dynsys.verify.check_file import digest
from dynsys.verify.checker import check
from dynsys.verify.loop import ClosedLoop, on_state
from dynsys.verify.lyapunov import (
    NeuralLyapunov,
    PiecewiseAffineLyapunov,
    PiecewiseQuadraticLyapunov,
    PolynomialLyapunov,
    QuadraticLyapunov,
)
from dynsys.verify.network import Network
from dynsys.verify.policy import NeuralPolicy, SaturatedLinear
from dynsys.verify.routine import certified, regulated
from dynsys.verify.symbolic import SymbolicLyapunov
from dynsys.verify.unfinished import can_go_on, load_unfinished, save_unfinished

from . import verify_cases as cases

CLAIM = {"domain": ([-3.0, -8.0], [3.0, 8.0]), "rate": 0.01, "level": 8.1, "batch": 64}
NET = Network.init((2, 5, 3), activation="leaky", key=jr.key(1))
GOAL = [0.1, -0.2]
CANDIDATES = {
    "quadratic": QuadraticLyapunov.of([[2.0, 0.3], [0.3, 1.0]], GOAL),
    "polynomial": PolynomialLyapunov.of(jr.normal(jr.key(2), (4, 5)), [(1, 0), (0, 1), (2, 0), (1, 1), (0, 2)], 1 / 3, GOAL),
    "neural": NeuralLyapunov(net=NET, R=jr.normal(jr.key(3), (2, 2)), goal=jnp.asarray(GOAL), eps=1 / 3, form="absolute"),
    "piecewise-affine": PiecewiseAffineLyapunov.of([[1.0, 0.1], [-1.0, 0.0], [0.0, 1 / 3], [0.0, -1.0]], GOAL),
    "piecewise-quadratic": PiecewiseQuadraticLyapunov.of([np.eye(2), np.eye(2) / 3], [[1.0, 0.2]], [0.3], GOAL),
    "symbolic": SymbolicLyapunov.of("2*(x + y/3)**2 + y**2 + (1 - cos(x))", ("x", "y"), GOAL, floor=0.1),
}
POLICIES = {
    "saturated-linear": SaturatedLinear.of([[1 / 3, 2.0]], GOAL, [0.5], high=[1.0]),  # low is -inf
    "neural-policy": NeuralPolicy.of(NET, None, GOAL, [0.1, 0.2, 0.3]),
    "network": NET,
}


def pendulum(**parameters):
    plant = load_system("Pendulum", **parameters)
    return plant, *regulated(plant, np.zeros(2), np.zeros(1), "lqr", 6.0, None, None)


@pytest.fixture(scope="module")
def stopped():
    """(loop, V, a proof that 300 boxes stopped)."""
    _, loop, V = pendulum()
    proof = certify(loop, V, **CLAIM, boxes=300)
    assert proof.outcome is Outcome.UNDECIDED
    return loop, V, proof


@pytest.fixture(scope="module")
def file(stopped, tmp_path_factory):
    loop, V, proof = stopped
    return save_unfinished(proof, loop, V, tmp_path_factory.mktemp("rest") / "rest.h5", {"system": "a test"})


# Modules


@pytest.mark.parametrize("name", registry.names("lyapunov"))
def test_a_candidate_comes_back_with_the_same_values(name, tmp_path):
    V = CANDIDATES[name]
    with h5py.File(tmp_path / "m.h5", "w") as file:
        write_module(file.create_group("V"), V)
        back = read_module(file["V"], "m.h5", type(V))
    x = jr.normal(jr.key(0), (200, 2))
    assert jax.tree_util.tree_structure(back) == jax.tree_util.tree_structure(V)  # the static parts are in it
    assert_array_equal(jax.vmap(back.value)(x), jax.vmap(V.value)(x))


@pytest.mark.parametrize("name", registry.names("policy"))
def test_a_policy_comes_back_with_the_same_values(name, tmp_path):
    policy = POLICIES[name]
    with h5py.File(tmp_path / "m.h5", "w") as file:
        write_module(file.create_group("policy"), policy)
        back = read_module(file["policy"], "m.h5", type(policy))
    x = jr.normal(jr.key(0), (200, 2))
    assert jax.tree_util.tree_structure(back) == jax.tree_util.tree_structure(policy)
    assert_array_equal(jax.vmap(back)(x), jax.vmap(policy)(x))


def test_a_certificate_holds_its_policy_and_its_candidate(stopped, tmp_path):
    loop, V, _ = stopped
    whole = certify(loop, V, **{**CLAIM, "level": 1.0})
    path = save_certificate(whole, loop, V, tmp_path / "cert.h5")
    modules = load_modules(path)
    assert set(modules) == {"policy", "candidate"}  # a system of the database is named by `about`, its equations are the program
    x = jr.normal(jr.key(0), (200, 2))
    assert_array_equal(jax.vmap(modules["candidate"].value)(x), jax.vmap(V.value)(x))
    assert_array_equal(jax.vmap(modules["policy"])(x), jax.vmap(loop.policy)(x))
    with pytest.raises(DataError, match="can't be read"):
        load_modules(tmp_path / "none.h5")


# Going on


def test_what_is_written_is_read_back(stopped, file):
    loop, V, proof = stopped
    again, W, back = load_unfinished(file, load_system("Pendulum"))
    assert jax.tree_util.tree_all(jax.tree_util.tree_map(lambda a, b: bool(jnp.all(a == b)), (again.policy, W), (loop.policy, V)))
    for name in ("outcome", "reason", "level", "rate", "core", "r0", "boxes", "face_boxes", "seconds", "volume", "assumptions"):
        assert getattr(back, name) == getattr(proof, name), name
    assert_array_equal(back.frame, proof.frame)
    assert_array_equal(np.stack(back.domain), np.stack(proof.domain))
    for a, b in zip((*back.remaining, *back.leaves), (*proof.remaining, *proof.leaves), strict=True):
        assert_array_equal(a, b)


def test_a_proof_that_goes_on_makes_the_tree_of_one_that_was_never_stopped(stopped, file, tmp_path):
    """Twice through a file, 300 boxes more each time, then to the end: the same boxes, each proved once."""
    loop, V, _ = stopped
    whole = certify(loop, V, **CLAIM)
    for boxes in (100, 10**6):
        again, W, proof = load_unfinished(file, load_system("Pendulum"))
        proof = certify(again, W, **{**CLAIM, "domain": proof.domain}, core=proof.core, boxes=boxes, resume=proof)
        if can_go_on(proof):
            file = save_unfinished(proof, again, W, tmp_path / "more.h5")
    assert file.name == "more.h5"  # the first round was not the last
    assert proof.proved
    assert proof.boxes == whole.boxes
    assert proof.volume == pytest.approx(1.0, abs=1e-12)
    assert sorted(map(tuple, np.hstack(proof.leaves[:2]))) == sorted(map(tuple, np.hstack(whole.leaves[:2])))


def test_disturbances_go_on_when_told_how_they_enter(tmp_path):
    """x+ = x / 2 + w: the set {|x|^2 <= core} is invariant, and larger ones shrink to it."""
    plant = cases.linear_map(0.5 * np.eye(2)).plant
    loop = ClosedLoop.of(plant, goal=np.zeros(2), disturbance=([-0.1, -0.1], [0.1, 0.1]), enter=on_state)
    V, claim = QuadraticLyapunov.of(np.eye(2)), {"domain": ([-3.0] * 2, [3.0] * 2), "rate": 0.0, "level": 4.0, "core": 0.1}
    proof = certify(loop, V, **claim, batch=64, boxes=64)
    path = save_unfinished(proof, loop, V, tmp_path / "rest.h5")
    with pytest.raises(InvalidValue, match=r"rest\.h5: the proof was made with another system"):
        load_unfinished(path, plant)  # w would enter by the input, of which there is none
    again, W, back = load_unfinished(path, plant, enter=on_state)
    assert certify(again, W, **claim, batch=64, resume=back).proved


def test_certified_hands_out_what_a_limit_stopped_and_takes_it_back():
    plant, known = load_system("ReversedVanDerPol"), {"controller": "none", "level": 2.2, "rate": 0.01}
    first = certified(plant, [-3.0, -3.0], [3.0, 3.0], **known, boxes=1)
    assert first.proof.outcome is Outcome.UNDECIDED
    assert first.unfinished[2] is first.proof
    done = certified(plant, [-3.0, -3.0], [3.0, 3.0], **known, resume=first.unfinished)
    assert done.proof.proved
    assert done.unfinished is None
    assert done.proof.boxes > first.proof.boxes
    assert done.proof.seconds > first.proof.seconds  # of both together
    for change, words in (({"level": 2.0}, "level 2.2, not 2.0"), ({"rate": 0.02}, "rate"), ({"goal": [1.0, 0.0]}, "goal")):
        with pytest.raises(InvalidValue, match=words):
            certified(plant, [-3.0, -3.0], [3.0, 3.0], **{**known, **change}, resume=first.unfinished)
    with pytest.raises(InvalidValue, match="domain"):
        certified(plant, [-3.0, -3.0], [3.0, 4.0], **known, resume=first.unfinished)
    with pytest.raises(InvalidValue, match="another plant"):
        certified(load_system("VanDerPolControlled"), [-3.0, -3.0], [3.0, 3.0], **known, resume=first.unfinished)


# Refusals


def test_another_plant_is_refused(file):
    with pytest.raises(InvalidValue, match=r"rest\.h5: the proof was made with another system, or other parameters"):
        load_unfinished(file, load_system("Pendulum", m=0.2))
    with pytest.raises(InvalidValue, match="2 states, this plant 3"):
        load_unfinished(file, load_system("Lorenz"))
    with pytest.raises(InvalidValue, match="this plant takes 0"):
        load_unfinished(file, cases.linear_flow(np.eye(2)).plant)


class FieldAsMap(cases.LinearMap):
    """x+ is what a flow has as dx/dt: the same program, another claim."""

    A: jnp.ndarray
    cubic: jnp.ndarray

    def __init__(self, A, cubic):
        self.A, self.cubic = A, cubic
        self.place = self.width = self.depth = jnp.zeros(())

    def step(self, z, u=None):
        return self.A @ z + self.cubic * jnp.dot(z, z) * z


def test_a_map_with_the_formula_of_a_flow_is_refused(tmp_path):
    loop, V = cases.linear_flow(-np.eye(2), 1.0), QuadraticLyapunov.of(np.eye(2))
    proof = certify(loop, V, domain=([-3, -3], [3, 3]), rate=0.0, level=0.99, batch=64, boxes=100)
    file = save_unfinished(proof, loop, V, tmp_path / "flow.h5")
    assert load_unfinished(file, loop.plant)[2].fingerprint == proof.fingerprint
    with pytest.raises(InvalidValue, match="about a flow, this plant is a map"):
        load_unfinished(file, FieldAsMap(loop.plant.A, loop.plant.cubic))


def changed(path, target, change, seal):
    shutil.copy(path, target)
    with h5py.File(target, "r+") as file:
        change(file)
        if seal:
            file.attrs["digest"] = np.bytes_(digest(file).encode())
    return target


def put(name, value):
    def change(file):
        del file[name]
        file[name] = value

    return change


DAMAGE = {
    "a number": (lambda f: f.attrs.__setitem__("rate", 0.02), False, "digest"),
    "open boxes left out": (lambda f: [put(f"open/{k}", f[f"open/{k}"][1:])(f) for k in ("mid", "rad")], True, "do not fill the cube"),
    "proved boxes left out": (
        lambda f: [put(f"leaves/{k}", f[f"leaves/{k}"][1:])(f) for k in ("mid", "rad", "bounds")], True, "do not fill the cube",
    ),
    "a level of no kind": (lambda f: f.attrs.__setitem__("level", -1.0), True, "wants 0 <= core < level"),
    "single precision": (lambda f: put("frame", f["frame"][()].astype(np.float32))(f), True, "frame must be float64"),
    "another gain": (lambda f: put("modules/policy/K", f["modules/policy/K"][()] * 1.1)(f), True, "another system"),
    "another V": (lambda f: put("modules/candidate/P", f["modules/candidate/P"][()] * 1.1)(f), True, "its V is not what its program says"),
    "no candidate": (lambda f: f.__delitem__("modules/candidate"), True, "can't be read"),
    "a certificate": (lambda f: f.attrs.__setitem__("format", np.bytes_(b"dynsys certificate")), True, "no unfinished proof of version 1"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "seal", "words"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_or_foreign_file_is_refused_by_name(change, seal, words, file, tmp_path):
    with pytest.raises(InvalidValue, match=rf"bad\.h5: .*{words}"):
        load_unfinished(changed(file, tmp_path / "bad.h5", change, seal), load_system("Pendulum"))


@pytest.mark.parametrize("size", [0, 100, 5000, -1])
def test_half_a_file_is_refused(size, file, tmp_path):
    (tmp_path / "bad.h5").write_bytes(file.read_bytes()[:size])
    with pytest.raises(InvalidValue, match=r"bad\.h5: "):
        load_unfinished(tmp_path / "bad.h5", load_system("Pendulum"))


def test_what_cannot_be_kept_is_told(stopped, tmp_path):
    loop, V, proof = stopped
    with pytest.raises(DataError, match="there is no such file"):
        load_unfinished(tmp_path / "none.h5", load_system("Pendulum"))
    with pytest.raises(InvalidValue, match=r"ended as 'proved'"):
        save_unfinished(certify(loop, V, **{**CLAIM, "level": 1.0}), loop, V, tmp_path / "rest.h5")
    with pytest.raises(InvalidValue, match=r"the candidate, a NormLyapunov, can't be stored: .*is not registered"):
        save_unfinished(proof, loop, cases.NormLyapunov(jnp.eye(2), jnp.zeros(2)), tmp_path / "rest.h5")
    assert not list(tmp_path.iterdir())


def test_the_certificate_of_a_proof_that_went_on_is_checked_alone(tmp_path):
    plant = load_system("ReversedVanDerPol")
    loop, V = regulated(plant, np.zeros(2), np.zeros(1), "none", None, None, None)
    claim = {"domain": ([-3.0] * 2, [3.0] * 2), "rate": 0.01, "level": 2.2, "batch": 64}
    proof = certify(loop, V, **claim, boxes=256)
    again, W, back = load_unfinished(save_unfinished(proof, loop, V, tmp_path / "rest.h5"), plant)
    proof = certify(again, W, **claim, resume=back)
    verdict = check(save_certificate(proof, again, W, tmp_path / "cert.h5"))
    assert verdict.valid, verdict.reason
    assert verdict.split == 0  # the boxes of the file are those of the search


def test_static_fields_tell_claims_apart(tmp_path):
    """A V that differs only in a number that is no array, or a disturbance that enters otherwise, is another claim."""
    plant = cases.linear_map(np.array([[0.6, 0.2], [-0.1, 0.5]])).plant
    V, W = (SymbolicLyapunov.of("x**2 + y**2 + x**2*y**2", ("x", "y"), floor=floor) for floor in (0.0, 1.0))
    loop, other = (
        ClosedLoop.of(plant, goal=[0.0, 0.0], disturbance=([-0.01] * 2, [0.01] * 2), enter=enter) for enter in (on_state, backwards)
    )
    claim = {"domain": ([-2, -2], [2, 2]), "rate": 0.01, "level": 1.0, "core": 0.1}
    proof = certify(loop, V, **claim, boxes=1, batch=16)
    assert not proof.proved
    for mine, yours in ((loop, W), (other, V)):
        with pytest.raises(InvalidValue, match="the loop and V are other ones"):
            certify(mine, yours, **claim, resume=proof)
    done = certify(loop, V, **claim, resume=proof)
    assert done.proved
    with pytest.raises(InvalidValue, match="about another loop or another V"):
        save_certificate(done, loop, W, tmp_path / "w.h5")


def backwards(plant, x, u, w):
    """w is taken off x+."""
    return plant.step(x, u) - w

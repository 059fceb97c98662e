"""Our systems against the collection dysts 0.96, from which they take their names: the same field at random states."""

import dysts_peer
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.integrate import solve_ivp

from dynsys_datasets.catalogue import names, system

# Where the source paper and dysts 0.96 differ, we follow the paper; the file of the system says so too.
EXCEPTIONS = {
    "DoublePendulum": "dysts has half of the mixed term p1*p2*cos(th1 - th2) in the momenta, which does not conserve the energy",
    "BickleyJet": "dysts has the opposite sign of the velocity, a jet against its own waves, and seconds beside a clock without unit",
    "BurkeShaw": "dysts has +y where the paper has -y in the second equation",
    "BlinkingVortexMap": "in dysts one vortex works all the time: the sign that it changes is not the one that it reads",
    "WindmiReduced": "dysts has p/2 where the paper has the square root of p (its code is p**1/2)",
}
# Where our constants or sizes are other ones: the equations are compared with those of dysts.
OTHER_CONSTANTS = {
    "Lorenz": ({}, {"beta": 2.667}, "the paper has 8/3"),
    "Chua": ({}, {"m0": -1.142857, "m1": -0.71429}, "the paper has -8/7 and -5/7"),
    "Lorenz96": ({"n": 4}, {"F": 20.0}, "the paper has F = 8 and 40 members; dysts has 4, which is no ring of waves"),
    "GumowskiMira": ({}, {"a": -1.1, "b": -0.2}, "with the constants of dysts every orbit is periodic or quasi-periodic"),
}
# Names of dysts that stand for no system: they have constants, but no equations in its code and no source.
WITHOUT_EQUATIONS = {"EndCap": "the constants of Henon and the citation '.'; no class"}
N_STATES = 100
# Both sides are a few dozen operations in float64, in another order: 1e-10 of the largest component leaves six digits for that.
TOLERANCE = 1e-10


def shared(kind):
    """Names that both have, with equations on both sides."""
    theirs = dysts_peer.discrete() if kind == "map" else dysts_peer.continuous()
    return [name for name in names(kind) if name in theirs and dysts_peer.made(name, kind) is not None]


def states(record, field):
    """100 random (t, z) about the start, as wide as the trajectory, at which dysts' field is a number (roots have a domain)."""
    rng = np.random.default_rng(sum(map(ord, record.name)))
    width = np.asarray(dysts_peer.spread(record.name) if dysts_peer.spread(record.name) is not None else np.nan, dtype=np.float64)
    if width.shape != record.start.shape:
        width = np.resize(width, record.start.shape)  # a delay equation has its embedding's
    width = np.where(np.isfinite(width) & (width > 0), width, 0.1 + 0.1 * np.abs(record.start))
    found = []
    for _ in range(100 * N_STATES):
        t, z = rng.uniform(0.0, 50.0), record.start + width * rng.normal(size=record.dim)
        with np.errstate(all="ignore"):
            if np.all(np.isfinite(field(t, z))):
                found.append((t, z))
        if len(found) == N_STATES:
            return found
    raise AssertionError(f"{record.name}: of {100 * N_STATES} states only {len(found)} have a finite field")


def difference(ours, theirs):
    """The largest difference of the components, as a share of the largest component."""
    assert ours.shape == theirs.shape
    return np.max(np.abs(ours - theirs)) / max(np.max(np.abs(theirs)), np.finfo(np.float64).tiny)


def differences(name, peer):
    sizes, changed, _ = OTHER_CONSTANTS.get(name, ({}, {}, ""))
    record = system(name, **sizes)
    constants = {**record.parameters, **changed}
    return [difference(record.field(t, z, parameters=constants), peer(t, z)) for t, z in states(record, peer)]


@pytest.mark.parametrize("name", [name for name in shared("flow") if name not in EXCEPTIONS])
def test_flow_is_that_of_the_collection(name):
    assert max(differences(name, dysts_peer.flow(name))) <= TOLERANCE


@pytest.mark.parametrize("name", [name for name in shared("flow") if name in EXCEPTIONS])
def test_exceptions_differ_and_say_so(name):
    assert max(differences(name, dysts_peer.flow(name))) > 1e-3, f"{name} agrees with dysts; take it off the list of exceptions"
    assert "dysts" in system(name).file.about


@pytest.mark.parametrize("name", [name for name in shared("map") if name not in EXCEPTIONS])
def test_map_is_that_of_the_collection(name):
    step = dysts_peer.step(name)
    assert max(differences(name, lambda t, z: step(z))) <= TOLERANCE


def test_blinking_vortices_are_those_of_the_collection():
    record, rng, peer = system("BlinkingVortexMap"), np.random.default_rng(1), dysts_peer.made("BlinkingVortexMap", "map")
    for _ in range(N_STATES):
        start = np.array([0.95 * np.sqrt(rng.uniform()), rng.uniform(-np.pi, np.pi)])
        # our frame is turned by half a circle at the end; dysts asks its root finder for 1.5e-8
        assert_allclose(plane(record.field(0.0, start)), -plane(peer._rhs(*start, 1.0, 0.5, 1.0, 1.5)), atol=1e-6)


def plane(polar):
    """A point of polar coordinates as a complex number."""
    return polar[0] * np.exp(1j * polar[1])


def test_blinking_vortices_are_those_of_the_flow():
    # Aref's flow, integrated: a vortex at b and its image at a**2/b, then a vortex at -b and its image
    record, rng = system("BlinkingVortexMap"), np.random.default_rng(2)
    a, b, gamma, duration = (record.parameters[name] for name in ("a", "b", "gamma", "duration"))

    def carried(z, side):
        def velocity(t, z):
            return np.conj(gamma / (2j * np.pi) * (1 / (z - side) - 1 / (z - a**2 / side)))

        return solve_ivp(velocity, (0.0, duration), [z], method="DOP853", rtol=1e-12, atol=1e-12).y[0, -1]

    for _ in range(10):
        start = np.array([0.95 * a * np.sqrt(rng.uniform()), rng.uniform(-np.pi, np.pi)])
        once = record.field(0.0, start)
        assert_allclose(plane(once), -carried(plane(start), b), atol=1e-9)
        assert_allclose(plane(record.field(0.0, once)), carried(carried(plane(start), b), -b), atol=1e-8)


@pytest.mark.parametrize("name", shared("delay"))
def test_delay_equation_is_that_of_the_collection(name):
    record = system(name)
    peer, tau = dysts_peer.delayed(name)
    assert_allclose(record.lags(), [tau], rtol=1e-12)
    drawn = states(record, lambda t, z: peer(t, z, z))
    for (t, z), (_, before) in zip(drawn, drawn[1:] + drawn[:1], strict=True):
        assert difference(record.field(t, z, delayed=np.array([before])), peer(t, z, before)) <= TOLERANCE


def test_every_system_of_the_collection_is_here():
    ours = {kind: set(names(kind)) for kind in ("flow", "map", "delay")}
    assert len(dysts_peer.continuous()) == 135
    assert len(dysts_peer.discrete()) == 26
    missing = (set(dysts_peer.continuous()) - ours["flow"] - ours["delay"]) | (set(dysts_peer.discrete()) - ours["map"])
    assert missing == set(WITHOUT_EQUATIONS), f"without a file: {sorted(missing - set(WITHOUT_EQUATIONS))}"


def test_another_version_of_the_collection_is_refused(monkeypatch):
    monkeypatch.setattr(dysts_peer.importlib.metadata, "version", lambda name: "0.95")
    with pytest.raises(ImportError, match=r"dysts 0\.95 is installed.*--no-deps -r tests/no-deps\.txt"):
        dysts_peer.module.__wrapped__("flows")


def test_a_missing_collection_is_named_with_the_command(monkeypatch):
    def missing(name):
        raise dysts_peer.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(dysts_peer.importlib.metadata, "version", missing)
    with pytest.raises(ImportError, match=r"dysts is not installed.*--no-deps -r tests/no-deps\.txt"):
        dysts_peer.module.__wrapped__("flows")

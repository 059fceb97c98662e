"""The systems that ship with the package: formulas from the papers, starts on the attractor, published exponents."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from dynsys_datasets.catalogue import names, path_of, system
from dynsys_datasets.collections import collection
from dynsys_datasets.errors import DataError, UnknownName
from dynsys_datasets.page import page
from dynsys_datasets.schema import KINDS

ISSUE = ("Chen", "Chua", "DoublePendulum", "Halvorsen", "Henon", "HindmarshRose", "Lorenz", "Lorenz96", "Rossler", "Thomas")


def lorenz96(x):
    n = len(x)
    return [(x[(i + 1) % n] - x[i - 2]) * x[i - 1] - x[i] + 8 for i in range(n)]


def chua(x, y, z):
    current = -8 / 7 * x if abs(x) <= 1 else -5 / 7 * x + np.sign(x) * (-8 / 7 + 5 / 7)
    return [15.6 * (y - x - current), x - y + z, -28 * y]


def pendulum(th1, th2, p1, p2):
    """Hamilton's equations by differentiation of the energy; masses, lengths 1, g 9.81."""

    def energy(q, p):
        m = jnp.array([[2.0, jnp.cos(q[0] - q[1])], [jnp.cos(q[0] - q[1]), 1.0]])
        return 0.5 * p @ jnp.linalg.solve(m, p) - 2 * 9.81 * jnp.cos(q[0]) - 9.81 * jnp.cos(q[1])

    by_q, by_p = jax.grad(energy, argnums=(0, 1))(jnp.array([th1, th2]), jnp.array([p1, p2]))
    return np.concatenate([by_p, -by_q])


def hindmarsh_rose(x, y, z):
    """The form of 1984 in w = y - tx x, changed back."""
    w = y - 0.03 * x
    dx = (w - 0.49 * x**3 + x**2 + z) / 0.03
    return [dx, (-(x**2) - w) + 0.03 * dx, (0.0322 - x - z) / 0.8]


BY_HAND = {
    "Lorenz": lambda x, y, z: [10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z],
    "Rossler": lambda x, y, z: [-y - z, x + 0.2 * y, 0.2 + z * (x - 5.7)],
    "Chua": chua,
    "Thomas": lambda x, y, z: [-1.85 * x + 10 * np.sin(y), -1.85 * y + 10 * np.sin(z), -1.85 * z + 10 * np.sin(x)],
    "Lorenz96": lambda *x: lorenz96(x),
    "Chen": lambda x, y, z: [35 * (y - x), -7 * x - x * z + 28 * y, x * y - 3 * z],
    "Halvorsen": lambda x, y, z: [-1.4 * a - 4 * b - 4 * c - b * b for a, b, c in ((x, y, z), (y, z, x), (z, x, y))],
    "HindmarshRose": hindmarsh_rose,
    "HindmarshRoseBursting": lambda x, y, z: [y - x**3 + 3 * x**2 - z + 3.25, 1 - 5 * x**2 - y, 0.006 * (4 * (x + 1.6) - z)],
    "DoublePendulum": pendulum,
    "Henon": lambda x, y: [1 - 1.4 * x**2 + y, 0.3 * x],
}


def states(record, count=20):
    return np.random.default_rng(0).normal(size=(count, record.dim)) * 2 + record.start


def test_the_systems_are_there_and_sorted():
    assert set(ISSUE) <= set(names())
    assert names() == tuple(sorted(names()))
    assert set().union(*(names(kind) for kind in KINDS)) == set(names())
    assert "Henon" in names("map")
    assert set(BY_HAND) <= set(names())
    assert set(collection("chaos")) <= set(names())


@pytest.mark.parametrize("name", BY_HAND)
def test_equations_by_hand(name):
    record = system(name)
    for z in states(record):
        expected = np.asarray(BY_HAND[name](*z), dtype=float)
        # at most about twenty operations on numbers up to 1e3: 1e-12 of the largest term
        assert_allclose(record.field(0.0, z), expected, rtol=1e-11, atol=1e-12 * (1 + np.abs(expected).max()))


@pytest.mark.parametrize("name", names())
def test_one_field_on_three_libraries(name):
    record = system(name)
    random = np.random.default_rng(0)
    z = record.start + 0.01 * (1 + np.abs(record.start)) * random.normal(size=record.dim)  # near the start: inside every domain
    past = np.tile(z, (len(record.lags()), 1)) + 0.01
    u = 0.1 * random.normal(size=record.n_inputs)
    expected = record.field(0.0, z, u, delayed=past)
    assert type(expected) is np.ndarray
    assert np.isfinite(expected).all()
    on_jax = jax.jit(lambda z: record.field(0.0, z, jnp.asarray(u), delayed=jnp.asarray(past)))(jnp.asarray(z))
    on_torch = record.field(0.0, torch.from_numpy(z), torch.from_numpy(u), delayed=torch.from_numpy(past))
    # XLA may fuse a product and a sum into one rounding, and terms a thousand times the result may cancel
    scale = 1 + np.abs(expected).max()
    assert_allclose(on_jax, expected, atol=1e-12 * scale)
    assert_allclose(on_torch.numpy(), expected, atol=1e-12 * scale)


@pytest.mark.parametrize("name", names())
def test_every_file_is_complete(name):
    record = system(name)
    assert record.file.name == name
    assert path_of(name).parent.name == record.kind
    assert len(record.file.source) > 40
    assert len(record.file.about) > 60
    dated = any(str(year) in record.file.source for year in range(1740, 2030))
    assert dated or name in ("Bedhead", "Svensson")  # known from web pages without a date
    assert all(entry.script == "scripts/regenerate_facts.py" and entry.version for entry in record.file.computed)
    assert r"\begin{aligned}" in record.latex()
    assert record.latex().count("{") == record.latex().count("}")


@pytest.mark.parametrize("name", names())
def test_every_system_is_a_page(name):
    record = system(name)
    text = page(record)
    assert text.startswith(f"## {name}\n")
    assert record.file.source in text
    assert all(f"`{parameter.name} = " in text for parameter in record.file.parameters)


def test_the_pendulum_is_hamiltonian():
    record = system("DoublePendulum")
    for z in states(record, 5):
        jacobian = np.asarray(jax.jacfwd(lambda z: record.field(0.0, z))(jnp.asarray(z)))
        symplectic = np.block([[np.zeros((2, 2)), np.eye(2)], [-np.eye(2), np.zeros((2, 2))]])
        product = symplectic @ jacobian
        # J times a Hamiltonian matrix is symmetric; entries are up to 1e3
        assert_allclose(product, product.T, atol=1e-9)
    spectrum = record.fact("lyapunov_spectrum").value
    for one, other in itertools.pairwise((spectrum[0], -spectrum[3])):
        assert math.isclose(one, other, rel_tol=0.02)


def test_unknown_names_have_close_matches():
    with pytest.raises(UnknownName, match=r"unknown system 'lorenz'.*Did you mean 'Lorenz'"):
        system("lorenz")
    with pytest.raises(UnknownName, match="Did you mean 'flow'"):
        names("flows")


def test_a_users_own_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(path_of("Lorenz").read_text().replace('name = "Lorenz"', 'name = "Mine"').replace("rho = 28", "rho = 45"))
    assert system(path).name == system(str(path)).name == "Mine"
    assert system(path).parameters["rho"] == 45
    path.write_text(path.read_text().replace("sigma*(y", "sgima*(y"))
    with pytest.raises(DataError, match=r"^mine\.toml: unknown name 'sgima' in 'sgima\*\(y - x\)'; known: .*Did you mean 'sigma'\?$"):
        system(path)


def test_sizes():
    assert system("Lorenz96", n=40).dim == 40
    assert len(set(np.round(system("Lorenz96", n=40).start, 6))) == 40  # not a repeated, symmetric state
    x = np.random.default_rng(0).normal(size=7)
    assert_allclose(system("Lorenz96", n=7).field(0.0, x), lorenz96(x), atol=1e-12)

"""Collections, and what is read off equations: which are polynomials of the state."""

import pytest

from dynsys_datasets.catalogue import system
from dynsys_datasets.collections import collection, is_polynomial
from dynsys_datasets.errors import UnknownName

# by hand: products and sums of states; sines, absolute values, quotients and time are none
POLYNOMIAL = ("Lorenz", "Rossler", "Chen", "Halvorsen", "Lorenz96", "Henon", "HindmarshRoseBursting", "SprottA", "LorenzBounded")
OTHER = ("Thomas", "Chua", "DoublePendulum", "MackeyGlass", "ForcedVanDerPol", "BeerRNN", "Torus", "Tent", "Ikeda")


@pytest.mark.parametrize("name", POLYNOMIAL)
def test_polynomials(name):
    assert is_polynomial(system(name))


@pytest.mark.parametrize("name", OTHER)
def test_what_is_no_polynomial(name):
    assert not is_polynomial(system(name))


@pytest.mark.parametrize(
    ("equation", "expected"),
    [
        ("x**2*y - y/a", True),
        ("x**a", False),  # whatever value the parameter has
        ("x**0.5", False),
        ("1/(1 + x**2)", False),
        ("sin(a)*x", True),
        ("sin(x)*a", False),
        ("x + t", False),
        ("half*x", True),
        ("bent*x", False),
    ],
)
def test_single_equations(tmp_path, equation, expected):
    path = tmp_path / "mine.toml"
    path.write_text(
        'name = "Mine"\nkind = "flow"\nsource = "None."\nabout = "A test."\nstate = ["x", "y"]\n[parameters]\na = 2\n'
        '[define]\nhalf = "y/2 + sqrt(a)"\nbent = "sqrt(y**2 + 1)"\n'
        f'[equations]\nx = "{equation}"\ny = "-y"\n[start]\nx = 1\ny = 1\n[time]\ndt = 0.1\n'
    )
    assert is_polynomial(system(path)) is expected


def test_the_chaos_collection():
    assert len(collection("chaos")) == len(set(collection("chaos"))) == 135
    assert {system(name).kind for name in collection("chaos")} == {"flow", "delay"}
    assert sum(system(name).kind == "delay" for name in collection("chaos")) == 6
    assert all(system(name).file.time.period for name in collection("chaos"))
    with pytest.raises(UnknownName, match="Did you mean 'chaos'"):
        collection("chaoss")

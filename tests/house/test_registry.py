"""Every registered name resolves, says what it is, and is found in the documentation."""

import inspect

import pytest
from house import ROOT

from dynsys import registry
from dynsys.errors import UnknownName

PAGES = {
    "model": "choose.md",
    "observation": "choose.md",
    "metric": "scores.md",
    "solver": "systems.md",
    "cell": "irregular.md",
    "flow": "neural_ode.md",
    "dictionary": "koopman.md",
    "controller": "control.md",
    "cost": "control.md",
    "part": "control.md",
    "policy": "certificates.md",
    "lyapunov": "certificates.md",
}
KINDS = tuple(registry._TABLES)  # a new kind fails below until it has a page


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in KINDS for name in registry.names(kind)])
def test_a_registered_name_resolves_and_says_what_it_is(kind, name):
    found = registry.lookup(kind, name)
    assert callable(found)
    assert inspect.getdoc(found)
    if inspect.isclass(found) and found.__module__.startswith("dynsys"):
        assert registry.name_of(kind, found) == name


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in KINDS for name in registry.names(kind)])
def test_a_registered_name_is_in_the_documentation(kind, name):
    assert f"`{name}`" in (ROOT / "docs" / PAGES[kind]).read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", KINDS)
def test_a_misspelt_name_gets_the_right_one(kind):
    name = registry.names(kind)[0]
    with pytest.raises(UnknownName, match=f"Did you mean '{name}'"):
        registry.lookup(kind, name[:-1])

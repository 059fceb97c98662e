"""The collection dysts 0.96 as a function of (name, t, state): the peer that our systems are compared with.

dysts asks for gluonts, which wants an older pandas than ours. It is installed without its dependencies (tests/no-deps.txt), and
the one name that it takes from gluonts, a writer of files that nothing here needs, is replaced by an empty class.
"""

import functools
import importlib.metadata
import json
import sys
import types
import warnings
from pathlib import Path

import numpy as np

COMMAND = "pip install --no-deps -r tests/no-deps.txt"
VERSION = "0.96"
# A flow and a map of dysts are both called Duffing; our names are unique, and the map's ends in Map.
RENAMED_MAPS = {"DuffingMap": "Duffing"}


@functools.cache
def module(name):
    """A module of dysts, 'flows' or 'maps'; ImportError with the command to run if dysts is not there or is another version."""
    try:
        found = importlib.metadata.version("dysts")
    except importlib.metadata.PackageNotFoundError:
        raise ImportError(f"dysts is not installed, and our systems are compared with it. Install it with: {COMMAND}") from None
    if found != VERSION:
        raise ImportError(f"dysts {found} is installed, and our systems are compared with {VERSION}. Install it with: {COMMAND}")
    added = []
    for stub in ("gluonts", "gluonts.dataset", "gluonts.dataset.arrow"):
        if stub not in sys.modules:
            sys.modules[stub] = types.ModuleType(stub)
            added.append(stub)
    if "gluonts.dataset.arrow" in added:
        sys.modules["gluonts.dataset.arrow"].ArrowWriter = type("ArrowWriter", (), {})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says that numba is not there
            return importlib.import_module(f"dysts.{name}")
    finally:
        for stub in added:  # nobody else should find a gluonts that is none
            del sys.modules[stub]


@functools.cache
def _records(file):
    folder = Path(module("flows").__file__).parent / "data"
    return json.loads((folder / file).read_text(encoding="utf-8"))


def continuous():
    """The names of all flows and delay equations of dysts."""
    return tuple(_records("chaotic_attractors.json"))


def discrete():
    """The names of all maps of dysts, under our names."""
    ours = {theirs: name for name, theirs in RENAMED_MAPS.items()}
    return tuple(ours.get(name, name) for name in _records("discrete_maps.json"))


def spread(name):
    """The standard deviations that dysts has stored for a system, (D,), or None."""
    return _records("chaotic_attractors.json").get(name, {}).get("std")


def made(name, kind):
    """A new object of dysts for a system of ours, or None if dysts has no equations of it."""
    source = module("maps" if kind == "map" else "flows")
    found = getattr(source, RENAMED_MAPS.get(name, name) if kind == "map" else name, None)
    return found() if found is not None else None


def flow(name):
    """dz/dt as (t, z (M,)) -> (M,)."""
    peer = made(name, "flow")
    return lambda t, z: np.asarray(peer.rhs(np.array(z), t), dtype=np.float64)


def step(name):
    """The next state of a map as (z (M,)) -> (M,)."""
    peer = made(name, "map")
    return lambda z: np.asarray(peer.rhs(np.array(z)[None, :]), dtype=np.float64)[0]


def delayed(name):
    """The right-hand side of a delay equation as (t, z (M,), past (M,)) -> (M,), and its delay."""
    peer = made(name, "delay")

    def field(t, z, past):
        found = peer.delayed_rhs(lambda time: z if time == t else past, t, peer.tau)
        return np.atleast_1d(np.asarray(found, dtype=np.float64))

    return field, float(peer.tau)

"""Named sets of systems, and what can be read off their equations without running them.

collection("chaos")  ->  the 135 continuous systems of the literature's standard collection
"""

import functools
import tomllib
from pathlib import Path

from dynsys_datasets.catalogue import SystemRecord
from dynsys_datasets.equation.tree import Binary, Derivative, Item, Name, Negative, Node, Number, Sum, fold, walk
from dynsys_datasets.errors import UnknownName

_FILE = Path(__file__).parent / "collections.toml"


@functools.cache
def _table() -> dict[str, tuple[str, ...]]:
    table = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    return {name: tuple(entry["systems"]) for name, entry in table.items()}


def collection(name: str) -> tuple[str, ...]:
    """The systems of a collection, sorted; UnknownName with close matches if there is none of that name."""
    if name not in _table():
        raise UnknownName("collection", name, _table())
    return _table()[name]


def is_polynomial(record: SystemRecord) -> bool:
    """True if the right-hand side is a polynomial in the state variables; time and functions of states make it none."""
    states = {family.name for family in record.file.state}
    moving, bent = states | {"t"}, set[str]()  # what changes with the state; definitions that are no polynomials
    for target, _, tree in record.trees:
        if _degree_free(tree, moving):
            continue
        polynomial = _polynomial(tree, moving) and _degree_free(tree, bent)
        if not polynomial and target in states:
            return False
        moving.add(target)
        if not polynomial:
            bent.add(target)
    return True


def _degree_free(node: Node, moving: set[str]) -> bool:
    """True if the expression does not depend on the state or on time."""
    return not any(isinstance(part, Name | Item) and part.name in moving for part in walk(node))


def _polynomial(node: Node, moving: set[str]) -> bool:
    if _degree_free(node, moving):
        return True
    match node:
        case Name("t"):
            return False
        case Name() | Item() | Number():
            return True
        case Negative(operand):
            return _polynomial(operand, moving)
        case Binary("+" | "-" | "*", left, right):
            return _polynomial(left, moving) and _polynomial(right, moving)
        case Binary("/", left, right):
            return _polynomial(left, moving) and _degree_free(right, moving)
        case Binary("**", left, right):
            power = fold(right)
            return power is not None and power >= 0 and float(power).is_integer() and _polynomial(left, moving)
        case Sum(_, body) | Derivative(body, _, _):
            return _polynomial(body, moving)
    return False

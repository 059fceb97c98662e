"""The rules of the house, read off the syntax trees: who may import whom, what loads late, what no module may hold.

Every rule takes the root of a source tree and returns a list of breaches, each with file, line and what to do. The tests
apply them to this repository, and to small wrong trees that each rule must refuse.
"""

import ast
import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = {"dynsys": "dynsys", "dynsys_datasets": "datasets/dynsys_datasets", "dynsys_envs": "envs/dynsys_envs"}

# Imports point to the left only. The first group holds what knows nothing of systems.
LAYERS = (
    ("errors", "status", "registry", "precision"),
    *(("dynamics",), ("systems",), ("config",), ("integrate",), ("models",), ("analysis",), ("metrics",), ("prepare",), ("train",)),
    *(("progress",), ("reconstruct",), ("control",), ("verify",), ("benchmark",), ("report",)),
    *(
        ("commands",),
        ("structure_commands",),
        ("koopman_commands",),
        ("control_commands",),
        ("certify_options", "certify_words"),
        ("certify_commands",),
        ("cli",),
    ),
)
RANK = {name: rank for rank, group in enumerate(LAYERS) for name in group}
RANK["interop"] = RANK["models"] + 0.5  # sees up to models; nothing but reconstruct and what follows may see it
NEVER = {"train": {"metrics": "train receives metrics as callables"}}
HEAVY = (
    *("torch", "torchdiffeq", "cvxpy", "ray", "matplotlib", "plotly", "h5py", "pyarrow", "pandas", "gymnasium", "netCDF4"),
    "scipy.io",
)
FOREIGN = {
    "dynsys_datasets": ("dynsys", "dynsys_envs", "jax", "jaxlib", "torch"),
    "dynsys": ("dynsys_envs",),
    "dynsys_envs": (),
}
MAX_LINES = 500
FORBIDDEN_CALLS = ("eval", "exec")
PICKLES = ("pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal")


@dataclasses.dataclass(frozen=True)
class Import:
    """One imported module: its absolute name, where, and whether it runs when the importing module is imported."""

    target: str
    line: int
    at_import: bool
    typing_only: bool


@dataclasses.dataclass(frozen=True)
class Module:
    """One source file: its dotted name, its path and its syntax tree."""

    name: str
    path: Path
    tree: ast.Module
    lines: int

    @property
    def package(self) -> str:
        """The first part of the dotted name."""
        return self.name.split(".")[0]

    @property
    def layer(self) -> str:
        """The second part of the dotted name; empty for the package itself."""
        return [*self.name.split("."), ""][1]


@functools.cache
def modules(root: Path = ROOT) -> tuple[Module, ...]:
    """All modules of the three packages below a root."""
    found = []
    for package, folder in PACKAGES.items():
        for path in sorted((root / folder).rglob("*.py")):
            parts = [package, *path.relative_to(root / folder).with_suffix("").parts]
            text = path.read_text(encoding="utf-8")
            name = ".".join(part for part in parts if part != "__init__")
            found.append(Module(name, path.relative_to(root), ast.parse(text), len(text.splitlines())))
    return tuple(found)


def imports(module: Module) -> Iterator[Import]:
    """Every import of a module, wherever it stands, with relative ones made absolute."""
    yield from _imports(module, module.tree, at_import=True, typing_only=False)


def _imports(module: Module, node: ast.AST, at_import: bool, typing_only: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, at_import, typing_only)
        elif isinstance(child, ast.ImportFrom):
            base = child.module or ""
            if child.level:
                parts = module.name.split(".")
                is_package = module.path.name == "__init__.py"
                kept = parts[: len(parts) - child.level + (1 if is_package else 0)]
                base = ".".join([*kept, *([child.module] if child.module else [])])
            for alias in child.names:
                yield Import(f"{base}.{alias.name}", child.lineno, at_import, typing_only)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            for part in child.body:
                yield from _imports(module, ast.Module([part], []), at_import, True)
            for part in child.orelse:
                yield from _imports(module, ast.Module([part], []), at_import, typing_only)
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(module, child, at_import and not inside, typing_only)


def is_under(target: str, package: str) -> bool:
    """True for a package and for everything in it."""
    return target == package or target.startswith(package + ".")


def layers(root: Path = ROOT) -> list[str]:
    """Imports inside dynsys that point to the right, layers that nobody placed, and pairs that must not meet."""
    breaches = []
    for module in modules(root):
        if module.package != "dynsys" or not module.layer or module.layer.startswith("__"):
            continue  # the package itself resolves all layers late
        if module.layer not in RANK:
            breaches.append(f"{module.path}: dynsys.{module.layer} stands in no layer; place it in LAYERS of tests/house/house.py")
            continue
        for found in imports(module):
            parts = found.target.split(".")
            if parts[0] != "dynsys" or len(parts) < 2 or parts[1] not in RANK or parts[1] == module.layer:
                continue
            reason = NEVER.get(module.layer, {}).get(parts[1])
            if RANK[parts[1]] >= RANK[module.layer] and not RANK[parts[1]] == RANK[module.layer] == 0:
                reason = reason or f"{parts[1]} lies to the right of {module.layer}"
            if reason:
                breaches.append(f"{module.path}:{found.line}: imports {found.target}, but {reason}")
    return breaches


def foreign(root: Path = ROOT) -> list[str]:
    """Imports that a whole package must not have at all, also not inside a function."""
    return [
        f"{module.path}:{found.line}: {module.package} must not import {found.target}"
        for module in modules(root)
        for found in imports(module)
        if any(is_under(found.target, name) for name in FOREIGN[module.package])
    ]


def heavy(root: Path = ROOT) -> list[str]:
    """Heavy packages imported while a module is imported, and not inside the function that needs them."""
    return [
        f"{module.path}:{found.line}: imports {found.target} at module level; import it inside the function that uses it"
        for module in modules(root)
        for found in imports(module)
        if found.at_import
        and not found.typing_only
        and any(is_under(found.target, name) for name in HEAVY)
        and not (module.package == "dynsys_envs" and is_under(found.target, "gymnasium"))  # a plug-in of gymnasium
    ]


def statements(root: Path = ROOT) -> list[str]:
    """What no module may hold: print outside cli, assert, eval, exec, pickles, NotImplementedError, too many lines."""
    breaches = []
    for module in modules(root):
        if module.lines > MAX_LINES:
            breaches.append(f"{module.path}: {module.lines} lines; split it (at most {MAX_LINES})")
        breaches += [
            f"{module.path}:{found.line}: imports {found.target}; files of dynsys hold no pickles"
            for found in imports(module)
            if any(is_under(found.target, name) for name in PICKLES)
        ]
        for node in ast.walk(module.tree):
            reason = _forbidden(node, module)
            if reason:
                breaches.append(f"{module.path}:{getattr(node, 'lineno', 0)}: {reason}")
    return breaches


def _forbidden(node: ast.AST, module: Module) -> str:
    """Why a syntax node may not stand in a module; empty if it may."""
    if isinstance(node, ast.Assert):
        return "assert vanishes under -O; raise an error of dynsys_datasets.errors"
    if isinstance(node, ast.Name) and node.id == "NotImplementedError":
        return "NotImplementedError; write it, or leave it out"
    if (
        isinstance(node, ast.keyword)
        and node.arg == "allow_pickle"
        and not (isinstance(node.value, ast.Constant) and node.value.value is False)
    ):
        return "allow_pickle must be False: a pickle runs code"
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id in FORBIDDEN_CALLS:
            return f"{node.func.id} of text; compile a whitelisted syntax tree"
        if node.func.id == "print" and module.name != "dynsys.cli":
            return "print outside cli.py; return the value, or use a progress bar"
    return ""


def docstrings(root: Path = ROOT) -> list[str]:
    """Modules, public functions, classes and methods that say nothing about themselves."""
    breaches = []
    for module in modules(root):
        if not ast.get_docstring(module.tree):
            breaches.append(f"{module.path}: the module has no docstring")
        breaches += [f"{module.path}:{line}: {name} has no docstring" for line, name in _undocumented(module.tree)]
    return breaches


def _undocumented(node: ast.Module | ast.ClassDef, prefix: str = "") -> Iterator[tuple[int, str]]:
    for child in node.body:
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or child.name.startswith("_"):
            continue
        is_setter = any(isinstance(mark, ast.Attribute) and mark.attr in ("setter", "deleter") for mark in child.decorator_list)
        is_overload = any("overload" in ast.dump(mark) for mark in child.decorator_list)
        if not ast.get_docstring(child) and not is_setter and not is_overload:
            yield child.lineno, prefix + child.name
        if isinstance(child, ast.ClassDef):
            yield from _undocumented(child, f"{prefix}{child.name}.")

"""Text of an equation -> a small syntax tree of our own, or an error that points into the text.

    expression   number | name | family[i + 1, j] | -a | a + b | a - b | a * b | a / b | a ** b | f(a, ...)
                 | where(a < b, c, d) | sum(j, a) | delay(x, lag) | diff(a, axis, order) | laplacian(a)
                 | invlaplacian(a)

Python's own grammar only reads the text (`ast.parse`); our walk then keeps the node types above and refuses everything
else, so that nothing in a file can call, import or look up anything. Length, nesting, names and exponents are bounded.
"""

import ast
import re
from dataclasses import dataclass
from typing import NoReturn

from dynsys_datasets.equation.tree import (
    MAX_EXPONENT,
    Binary,
    Call,
    Compare,
    Delayed,
    Derivative,
    Item,
    Name,
    Negative,
    Node,
    Number,
    Sum,
    fold,
    walk,
)
from dynsys_datasets.errors import DataError, did_you_mean

MAX_LENGTH = 4000
MAX_NESTING = 40
MAX_NODES = 600
MAX_NAME = 40
MAX_SHIFT = 1000

# the number of arguments of each function: (least, most)
FUNCTIONS = {
    **dict.fromkeys(("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "exp", "log", "sqrt"), (1, 1)),
    **dict.fromkeys(("abs", "sign", "heaviside", "floor"), (1, 1)),
    **dict.fromkeys(("min", "max"), (2, 8)),
    "mod": (2, 2),
    "where": (3, 3),
}
FORMS = ("sum", "delay", "diff", "laplacian", "invlaplacian")
RESERVED = (*FUNCTIONS, *FORMS, "pi", "t")

_ALLOWED = re.compile(r"[A-Za-z0-9_+\-*/().,\[\]<>=! ]*")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_TARGET = re.compile(r"([A-Za-z][A-Za-z0-9_]*)(?:\[([A-Za-z0-9_, ]+)\])?")
_BINARY = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**"}
_COMPARE = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}
_HINTS = {
    "^": "write a power as a**b",
    "%": "write a remainder as mod(a, b), and declare an angle in [wraps]",
    ":": "slices, lambda and := are not part of the language",
    "'": "text is not part of the language",
    '"': "text is not part of the language",
    "{": "use round brackets",
    "&": "nest where(...) instead",
    "|": "nest where(...) instead",
}


@dataclass(frozen=True)
class Text:
    """An equation and the file it stands in, for error messages."""

    where: str
    text: str

    def refuse(self, problem: str) -> NoReturn:
        """Raise a DataError that names the file, the problem and the text."""
        shown = self.text if len(self.text) <= 80 else f"{self.text[:77]}..."
        raise DataError(f"{self.where}: {problem.replace('@', repr(shown))}")


def parse(text: str, where: str) -> Node:
    """The syntax tree of an expression; DataError that starts with `where` (the file) and quotes the text if it is refused."""
    source = Text(where, " ".join(text.split()))
    clean = source.text
    if not clean:
        source.refuse("an equation is empty; write 0 for a quantity that does not change")
    if len(clean) > MAX_LENGTH:
        source.refuse(f"an equation of {len(clean)} characters; at most {MAX_LENGTH} are read: split it with [define]. It starts @")
    stop = _ALLOWED.match(clean).end()  # pyright: ignore[reportOptionalMemberAccess]
    if stop < len(clean):
        hint = _HINTS.get(clean[stop], "allowed are letters, digits and + - * / ** ( ) [ ] , . < > = !")
        source.refuse(f"character {clean[stop]!r} at position {stop + 1} of @ is not part of the language: {hint}")
    _check_brackets(source)
    try:
        tree = ast.parse(clean, mode="eval")
    except SyntaxError as error:
        source.refuse(f"@ is no expression: {error.msg} at position {error.offset or 1}")
    except (RecursionError, MemoryError, ValueError, OverflowError):
        source.refuse(f"@ is nested deeper than {MAX_NESTING} levels; split it with [define]")
    _check_size(source, tree)
    return _Walk(source).node(tree.body)


def parse_target(text: str, where: str) -> tuple[str, tuple[str, ...]]:
    """The left side of an equation, `x` or `x[i]` or `x[i, j]`: its name and its index names."""
    match = _TARGET.fullmatch(text.strip())
    if match is None:
        raise DataError(f"{where}: {text!r} is no name; wanted a name as x, or a family as x[i] or x[i, j]")
    name, index = match.groups()
    check_name(name, where)
    indices = tuple(part.strip() for part in index.split(",")) if index else ()
    for part in indices:
        check_name(part, where)
    if len(set(indices)) < len(indices):
        raise DataError(f"{where}: {text!r} names an index twice; use two indices of equal size")
    return name, indices


def check_name(name: str, where: str) -> None:
    """DataError unless the name is a plain ASCII identifier of at most 40 characters that the language does not use itself."""
    if not _NAME.fullmatch(name) or "__" in name or len(name) > MAX_NAME:
        raise DataError(
            f"{where}: {name[: 2 * MAX_NAME]!r} can't be a name; wanted a letter, then letters, digits and single underscores, "
            f"at most {MAX_NAME} in all"
        )
    if name in RESERVED:
        raise DataError(f"{where}: the name {name!r} belongs to the language (reserved: {', '.join(RESERVED)}); choose another")


def _check_brackets(source: Text) -> None:
    depth = 0
    for character in source.text:
        depth += (character in "([") - (character in ")]")
        if depth > MAX_NESTING:
            source.refuse(f"@ is nested deeper than {MAX_NESTING} levels; split it with [define]")


def _check_size(source: Text, tree: ast.AST) -> None:
    """Bound the number of nodes and the depth without recursion, so that no chain of signs can overflow our own walk.

    A chain a + b + c + ... leans to the left and is no nesting for a reader; it counts as one level. MAX_NODES bounds it,
    so that functions that recurse over the tree stay far from Python's recursion limit.
    """
    pending, count = [(tree, 0)], 0
    while pending:
        node, depth = pending.pop()
        count += isinstance(node, ast.expr)
        if depth > MAX_NESTING + 2:
            source.refuse(f"@ is nested deeper than {MAX_NESTING} levels; split it with [define]")
        if count > MAX_NODES:
            source.refuse(f"@ has more than {MAX_NODES} names, numbers and operators; split it with [define]")
        for child in ast.iter_child_nodes(node):
            chained = isinstance(node, ast.BinOp) and child is node.left and isinstance(child, ast.BinOp)
            pending.append((child, depth + (not chained)))


class _Walk:
    """From Python's tree to ours; every method refuses what it does not know."""

    def __init__(self, source: Text):
        self.source = source

    def node(self, tree: ast.expr) -> Node:
        if isinstance(tree, ast.BinOp):
            return self.chain(tree)
        if isinstance(tree, ast.Constant):
            return self.number(tree)
        if isinstance(tree, ast.Name):
            return Name(self.name(tree.id))
        if isinstance(tree, ast.Subscript):
            return self.item(tree)
        if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub | ast.UAdd):
            operand = self.node(tree.operand)
            return Negative(operand) if isinstance(tree.op, ast.USub) else operand
        if isinstance(tree, ast.Call):
            return self.call(tree)
        if isinstance(tree, ast.Compare):
            self.source.refuse("a comparison in @ stands alone; it is allowed only as the first argument of where(a < b, c, d)")
        words = {ast.Attribute: "an attribute (a dot after a name)", ast.Tuple: "a tuple", ast.List: "a list", ast.BoolOp: "and/or"}
        words |= {ast.IfExp: "if/else", ast.Starred: "a star", ast.GeneratorExp: "a comprehension", ast.ListComp: "a comprehension"}
        self.source.refuse(f"{words.get(type(tree), type(tree).__name__)} in @ is not part of the language")

    def chain(self, tree: ast.BinOp) -> Node:
        """Left-leaning chains are walked in a loop: a sum may have hundreds of terms."""
        links: list[ast.BinOp] = []
        current: ast.expr = tree
        while isinstance(current, ast.BinOp):
            links.append(current)
            current = current.left
        left = self.node(current)
        for link in reversed(links):
            op = _BINARY.get(type(link.op))
            if op is None:
                self.source.refuse(f"the operator {type(link.op).__name__} in @ is not part of the language; known: + - * / **")
            right = self.node(link.right)
            if op == "**":
                self.exponent(right)
            left = Binary(op, left, right)
        return left

    def exponent(self, node: Node) -> None:
        if any(isinstance(part, Binary) and part.op == "**" for part in walk(node)):
            self.source.refuse("a power in the exponent of @ is refused; name it in [define]")
        value = fold(node)
        if value is not None and not abs(value) <= MAX_EXPONENT:
            self.source.refuse(f"the exponent {value:g} in @ is too large; at most {MAX_EXPONENT} is allowed")

    def number(self, tree: ast.Constant) -> Number:
        value = tree.value
        if isinstance(value, bool) or value is None or not isinstance(value, int | float):
            self.source.refuse(f"{value!r} in @ is not a real number")
        if not abs(value) <= 1e300:
            self.source.refuse("a number in @ is too large; at most 1e300 is allowed")
        return Number(value)

    def name(self, name: str) -> str:
        if not _NAME.fullmatch(name) or "__" in name or len(name) > MAX_NAME:
            self.source.refuse(
                f"{name[: 2 * MAX_NAME]!r} in @ can't be a name; wanted a letter, then letters, digits and single "
                f"underscores, at most {MAX_NAME} in all"
            )
        if name in FUNCTIONS or name in FORMS:
            self.source.refuse(f"the function {name!r} in @ needs its arguments in round brackets")
        return name

    def item(self, tree: ast.Subscript) -> Item:
        if not isinstance(tree.value, ast.Name):
            self.source.refuse("a subscript in @ does not follow a name; only families as x[i] have subscripts")
        parts = tree.slice.elts if isinstance(tree.slice, ast.Tuple) else [tree.slice]
        return Item(self.name(tree.value.id), tuple(self.place(part) for part in parts))

    def place(self, tree: ast.expr) -> tuple[str | None, int]:
        if isinstance(tree, ast.Name):
            return self.name(tree.id), 0
        if isinstance(tree, ast.Constant) and type(tree.value) is int and tree.value <= MAX_SHIFT**2:
            return None, tree.value
        if isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.Add | ast.Sub) and isinstance(tree.left, ast.Name):
            step = tree.right.value if isinstance(tree.right, ast.Constant) else None
            if type(step) is int and step <= MAX_SHIFT:
                return self.name(tree.left.id), step if isinstance(tree.op, ast.Add) else -step
        self.source.refuse(f"a subscript in @ must be an index, an index plus or minus a whole number up to {MAX_SHIFT}, or a whole number")

    def call(self, tree: ast.Call) -> Node:
        if not isinstance(tree.func, ast.Name):
            self.source.refuse("only functions called by their plain name are part of the language, see @")
        name = tree.func.id
        if name not in FUNCTIONS and name not in FORMS:
            known = sorted((*FUNCTIONS, *FORMS))
            self.source.refuse(f"unknown function {name[: 2 * MAX_NAME]!r} in @; known: {', '.join(known)}.{did_you_mean(name, known)}")
        if tree.keywords or any(isinstance(argument, ast.Starred) for argument in tree.args):
            self.source.refuse(f"{name}(...) in @ takes plain arguments only")
        if name in FORMS:
            return self.form(name, tree.args)
        least, most = FUNCTIONS[name]
        if not least <= len(tree.args) <= most:
            wanted = f"{least}" if least == most else f"{least} to {most}"
            self.source.refuse(f"{name}(...) in @ takes {wanted} arguments, got {len(tree.args)}")
        if name == "where":
            return Call(name, (self.condition(tree.args[0]), self.node(tree.args[1]), self.node(tree.args[2])))
        return Call(name, tuple(self.node(argument) for argument in tree.args))

    def condition(self, tree: ast.expr) -> Compare:
        if not isinstance(tree, ast.Compare) or len(tree.ops) != 1 or type(tree.ops[0]) not in _COMPARE:
            self.source.refuse("the first argument of where(...) in @ must be one comparison as a < b")
        return Compare(_COMPARE[type(tree.ops[0])], self.node(tree.left), self.node(tree.comparators[0]))

    def form(self, name: str, arguments: list[ast.expr]) -> Node:
        nodes = [self.node(argument) for argument in arguments]
        match name, nodes:
            case "sum", [Name(index), body]:
                return Sum(index, body)
            case "delay", [Name() | Item() as what, lag]:
                return Delayed(what, lag)
            case "diff", [body, Name(axis)]:
                return Derivative(body, axis, 1)
            case "diff", [body, Name(axis), Number(int() as order)] if 1 <= order <= 8:
                return Derivative(body, axis, order)
            case "laplacian", [body]:
                return Derivative(body, None, 2)
            case "invlaplacian", [body]:
                return Derivative(body, None, -2)
        forms = {"sum": "sum(index, expression)", "delay": "delay(state, lag)", "laplacian": "laplacian(expression)"}
        forms["invlaplacian"] = "invlaplacian(expression)"
        self.source.refuse(f"{name}(...) in @ must be written {forms.get(name, 'diff(expression, axis, order) with order 1 to 8')}")

"""A syntax tree as LaTeX, for reports and pages."""

from dynsys_datasets.equation.tree import Binary, Call, Compare, Delayed, Derivative, Item, Name, Negative, Node, Number, Sum

_LOWER = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "kappa", "lambda", "mu", "nu", "xi", "pi", "rho", "sigma")
_UPPER = ("Gamma", "Delta", "Theta", "Lambda", "Sigma", "Phi", "Psi", "Omega")
_GREEK = frozenset((*_LOWER, *_UPPER, "tau", "phi", "chi", "psi", "omega"))
_NAMED = {
    "asin": r"\arcsin",
    "acos": r"\arccos",
    "atan": r"\arctan",
    "heaviside": r"\operatorname{H}",
    "mod": r"\operatorname{mod}",
    "sign": r"\operatorname{sign}",
}
_COMPARE = {"<": "<", "<=": r"\le", ">": ">", ">=": r"\ge", "==": "=", "!=": r"\ne"}
_ADD, _MULTIPLY, _POWER, _ATOM = 1, 2, 3, 4


def latex(node: Node) -> str:
    """LaTeX source (math mode) of an expression."""
    return _render(node)[0]


def symbol(name: str) -> str:
    """A name as a symbol: Greek letters by their name, digits or words behind as a subscript (x1, tau_m)."""
    head, _, tail = name.partition("_")
    digits = head[len(head.rstrip("0123456789")) :]
    head = head[: len(head) - len(digits)]
    base = f"\\{head}" if head in _GREEK else head if len(head) == 1 else rf"\mathrm{{{head}}}"
    below = ",".join(part for part in (digits, tail.replace("_", ",")) if part)
    return f"{base}_{{{below}}}" if below else base


def _render(node: Node) -> tuple[str, int]:
    """The text and how tightly it binds."""
    match node:
        case Number(value):
            return f"{value:g}" if isinstance(value, float) else str(value), _ATOM
        case Name(name):
            return symbol(name), _ATOM
        case Item(name, index):
            return f"{symbol(name)}_{{{','.join(_place(axis, shift) for axis, shift in index)}}}", _ATOM
        case Negative(operand):
            return f"-{_at(operand, _MULTIPLY)}", _ADD
        case Binary("*", left, right) if _leads_with_minus(left):
            return rf"{latex(left)}\, {_at(right, _MULTIPLY)}", _ADD
        case Binary("/", left, right):
            return rf"\frac{{{latex(left)}}}{{{latex(right)}}}", _MULTIPLY
        case Binary("**", left, right):
            return f"{_at(left, _ATOM)}^{{{latex(right)}}}", _POWER
        case Binary("*", left, right):
            between = r" \cdot " if isinstance(right, Number) else r"\, "
            return f"{_at(left, _MULTIPLY)}{between}{_at(right, _MULTIPLY)}", _MULTIPLY
        case Binary(op, left, right):
            return f"{_at(left, _ADD)} {op} {_at(right, _ADD if op == '+' else _MULTIPLY)}", _ADD
        case Compare(op, left, right):
            return f"{latex(left)} {_COMPARE[op]} {latex(right)}", _ADD
        case Call("where", (condition, yes, no)):
            rows = rf"{latex(yes)} & {latex(condition)} \\ {latex(no)} & \text{{otherwise}}"
            return rf"\begin{{cases}} {rows} \end{{cases}}", _ATOM
        case Call("sqrt", (argument,)):
            return rf"\sqrt{{{latex(argument)}}}", _ATOM
        case Call("abs", (argument,)):
            return rf"\left|{latex(argument)}\right|", _ATOM
        case Call("floor", (argument,)):
            return rf"\left\lfloor {latex(argument)} \right\rfloor", _ATOM
        case Call(function, arguments):
            inside = ", ".join(latex(argument) for argument in arguments)
            name = _NAMED.get(function, "\\" + function)
            return rf"{name}\left({inside}\right)", _ATOM
        case Sum(index, body):
            return rf"\sum_{{{symbol(index)}}} {_at(body, _MULTIPLY)}", _ADD
        case Delayed(what, lag):
            return rf"{latex(what)}\left(t - {_at(lag, _MULTIPLY)}\right)", _ATOM
        case Derivative(body, None, order):
            return rf"\nabla^{{{order}}} {_at(body, _ATOM)}", _MULTIPLY
        case Derivative(body, axis, order):
            return rf"\partial_{{{axis}}}{'' if order == 1 else f'^{{{order}}}'} {_at(body, _ATOM)}", _MULTIPLY
    return "", _ATOM


def _leads_with_minus(node: Node) -> bool:
    """True for -a, -a*b, -a*b*c: as the left end of a product they need no brackets."""
    return isinstance(node, Negative) or (isinstance(node, Binary) and node.op == "*" and _leads_with_minus(node.left))


def _at(node: Node, least: int) -> str:
    text, binds = _render(node)
    return text if binds >= least else rf"\left({text}\right)"


def _place(axis: str | None, shift: int) -> str:
    if axis is None:
        return str(shift)
    return axis if shift == 0 else f"{axis}{shift:+d}"

"""A system as a page of documentation: what it is, its equations, constants and facts, in Markdown, from its file alone."""

from collections.abc import Mapping
from typing import Any

from dynsys_datasets.catalogue import SystemRecord

_WORDS = {
    "flow": "flow, dz/dt = f(z)",
    "map": "map, z[t+1] = f(z[t])",
    "delay": "delay equation",
    "sde": "stochastic differential equation",
    "field": "field on a periodic grid",
}
_FACTS = {
    "lyapunov_spectrum": "Lyapunov exponents",
    "mean_divergence": "mean divergence",
    "kaplan_yorke": "Kaplan-Yorke dimension",
    "correlation_dimension": "correlation dimension",
    "period": "dominant period",
}
MOST = 6  # numbers of a list that are shown


def page(record: SystemRecord, *, formulas: bool = True, heading: str = "##") -> str:
    """Markdown of one system; equations as LaTeX (`formulas`) or as the text of the file."""
    file = record.file
    states = ", ".join(
        f"`{family.name}`" if not family.indices else f"`{family.name}[{','.join(family.indices)}]`" for family in file.state
    )
    count = f"{record.dim} state{'s' if record.dim > 1 else ''}: {states}"
    inputs = f"; inputs {', '.join(f'`{name}`' for name in record.input_names[:MOST])}" if record.n_inputs else ""
    parts = [f"{heading} {record.name}", f"{_WORDS[record.kind]}; {count}{inputs}.", file.about]
    parts.append(f"\\[\n{record.latex()}\n\\]" if formulas else f"```\n{equations(record)}\n```")
    if file.parameters or file.sizes:
        known = [f"{parameter.name} = {_short(parameter.value, parameter.text)}" for parameter in file.parameters]
        parts.append("Constants: " + ", ".join(f"`{text}`" for text in [*known, *(f"{name} = {size}" for name, size in file.sizes)]) + ".")
    if file.wraps:
        parts.append("Angles and clocks: " + ", ".join(f"`{name}` (period {period:.6g})" for name, period in file.wraps) + ".")
    if facts := _facts(record):
        parts.append(facts)
    parts.append(f"Source: {file.source}")
    return "\n\n".join(parts) + "\n"


def equations(record: SystemRecord) -> str:
    """The definitions and equations as they stand in the file, one a line."""
    file = record.file
    lines = [f"{name} = {text}" for name, text in file.define]
    mark = {"map": "(t+1)"}.get(record.kind, "'")
    lines += [f"{name}{mark} = {text}" for name, text in file.equations]
    lines += [f"{name}{mark} gets (linear part) {text}" for name, text in file.linear]
    lines += [f"noise of {name} = {text}" for name, text in file.diffusion]
    return "\n".join(lines)


def _facts(record: SystemRecord) -> str:
    rows = []
    for name, words in _FACTS.items():
        fact = record.fact(name)
        if fact is None:
            continue
        values, errors = _listed(fact.value), _listed(fact.error)
        shown = [f"{value:.6g} ± {error:.2g}" for value, error in zip(values[:MOST], errors[:MOST], strict=True)]
        more = f", … ({len(values)} in all)" if len(values) > MOST else ""
        rows.append(f"| {words} | {', '.join(shown)}{more} |")
    return "" if not rows else "\n".join(["| computed fact | value ± standard error |", "|---|---|", *rows])


def _listed(value: Any) -> list[float]:
    return [float(part) for part in value] if isinstance(value, tuple) else [float(value)]


def _short(value: Any, text: str) -> str:
    if not isinstance(value, tuple):
        return text
    numbers: list[float] = []

    def collect(part: Any) -> None:
        if isinstance(part, tuple):
            for inner in part:
                collect(inner)
        else:
            numbers.append(part)

    collect(value)
    shown = ", ".join(f"{number:.4g}" for number in numbers[:MOST])
    return f"[{shown}, … {len(numbers)} numbers]" if len(numbers) > MOST else f"[{shown}]"


def index(records: Mapping[str, SystemRecord]) -> str:
    """A table of systems: name, kind, states, maximal exponent, first sentence."""
    rows = ["| name | kind | states | λ₁ | what it is |", "|---|---|---|---|---|"]
    for name, record in records.items():
        fact = record.fact("lyapunov_spectrum")
        exponent = "" if fact is None else f"{_listed(fact.value)[0]:.3g}"
        sentence = record.file.about.split(". ")[0].rstrip(".").replace("|", "\\|")
        rows.append(f"| [`{name}`](#{name.lower()}) | {record.kind} | {record.dim} | {exponent} | {sentence} |")
    return "\n".join(rows)

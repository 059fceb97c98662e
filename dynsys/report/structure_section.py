"""The section "Structure" of the report: what the model is made of, in words, tables and pictures; HTML.

regions and entropies -> pictures -> table of fixed points and cycles -> exponents and dimensions beside data and system -> notes
"""

import base64
import math

import numpy as np

from dynsys.analysis.comparison import Estimate
from dynsys.analysis.piecewise.cycle import Cycle
from dynsys.analysis.settled import repeats
from dynsys.analysis.structure import Structure
from dynsys.report.content import BasinMap, number
from dynsys.report.structure_pictures import captions, structure_pictures
from dynsys.report.structure_view import Naming
from dynsys.report.tables import esc, table, tidy

ROWS = 30  # fixed points and cycles in the table
DPI = 150
MAIN = 0.01  # share of the time from which a region is a main one
ALTS = {
    "regions": "The attractor of the model, coloured by linear region",
    "transitions": "Graph of the transitions between regions",
    "code": "Time series of the free run over a bar of the regions visited",
    "cycles": "Fixed points and cycles in the attractor of the model",
    "eigenvalues": "Eigenvalues of the fixed points and cycles in the complex plane, with the unit circle",
    "basins": "Basins of attraction on a plane of two observed variables",
}


def structure_section(found: Structure, naming: Naming, basins: BasinMap | None = None) -> str:
    """The whole section. Raises MissingExtra if matplotlib is absent."""
    stills = structure_pictures(found, naming, basins=basins, dpi=DPI, small=True)
    words = captions(found, naming) | ({} if basins is None else {"basins": basins.note})
    figure = {name: _figure(name, data, words[name]) for name, data in stills.items()}
    lead = "".join(f"<li>{esc(line)}</li>" for line in summary(found))
    notes = "".join(f"<li>{esc(line)}</li>" for line in dict.fromkeys(found.notes))
    return "\n".join(
        [
            f'<ul class="plain">{lead}</ul>',
            f'<div class="pair">{figure["regions"]}{figure["transitions"]}</div>' if "regions" in figure else "",
            figure.get("code", ""),
            "<h3>Fixed points and cycles</h3>",
            cycle_table(found, naming),
            *(figure.get(name, "") for name in ("cycles", "eigenvalues", "basins")),
            "<h3>Exponents and dimensions</h3>",
            invariant_table(found, naming),
            f'<h3>Notes</h3><ul class="plain">{notes}</ul>' if notes else "",
        ]
    )


def summary(found: Structure) -> tuple[str, ...]:
    """What was found, in sentences."""
    lines = []
    turn = repeats(found.observed)
    if found.code is not None:
        code, step = found.code, "nats a step"
        main = code.n_above(MAIN)
        takers = f"{main:,} of them take" if main > 1 else "one of them takes" if main else "none of them takes"
        parts = f"; {takers} at least 1 % of the time" if main < code.n_symbols else ""
        regions = "one linear region" if code.n_symbols == 1 else f"{code.n_symbols:,} linear regions"
        lines.append(f"A free run of {len(code.labels):,} steps visits {regions}{parts}.")
        if code.n_symbols > 1 and turn is None:
            growth, blocks = code.word_growth(), code.block_entropies()
            told = (
                f"Topological entropy of the region sequence: at most {number(code.graph_entropy)} {step} (transition graph), "
                f"{_known(growth.entropy)} (growth of words of up to {growth.reliable} symbols). "
                f"Metric entropy: at most {_known(blocks.entropy)} {step}, from words of up to {blocks.reliable} symbols."
            )
            hidden = "These are too many regions for a run of this length: the entropies of its code can't be told."
            lines.append(told if growth.reliable and blocks.reliable else hidden)
    if turn is not None and turn > 1:
        still = "" if found.code is None else ", and the entropies of its region sequence are 0"
        lines.append(f"The free run repeats itself every {turn:,} steps: it is on a cycle{still}.")
    lines.append(_cycle_words(found))
    for place, distance in zip([] if found.equilibria is None else found.equilibria, found.distances, strict=True):
        if math.isfinite(distance):
            at = ", ".join(number(x) for x in _rounded(place, found.size)[:5])
            lines.append(
                f"The fixed point of the true system at ({at}) is {distance:.1%} of the attractor's "
                "size (its largest extent) away from the nearest fixed point of the model."
            )
    return tuple(lines)


def _rounded(place: np.ndarray, size: float) -> np.ndarray:
    """What a search leaves of a zero, -8e-83 or 3e-17, is 0."""
    return np.where(np.abs(place) < 1e-12 * size, 0.0, place)


def _cycle_words(found: Structure) -> str:
    fixed, virtual = len(found.cycles.fixed_points), len(found.cycles.virtual)
    loops = len(found.cycles) - fixed
    periods = sorted({cycle.period for cycle in found.cycles if cycle.period > 1})
    words = f"{_count(fixed, 'fixed point')} and {_count(loops, 'cycle')}".capitalize()
    words += f" of period {periods[0]}{f' to {periods[-1]}' if len(periods) > 1 else ''}" if periods else ""
    stable = sum(cycle.stable for cycle in found.cycles)
    words += " were found"
    if len(found.cycles):
        words += f"; {stable or 'none'} of them {'is' if stable < 2 else 'are'} stable"
    return f"{words}." + (f" {_count(virtual, 'virtual cycle')} came near to being real." if virtual else "")


def cycle_rows(found: Structure) -> list[tuple[int, str, int, float, np.ndarray, str]]:
    """Period, kind, unstable directions, largest |λ| of the whole cycle, first point as observed, and its regions."""
    names = {}
    if found.code is not None and found.code.codes is not None:
        names = {row.tobytes(): str(i) for i, row in enumerate(found.code.codes)}
    rows = []
    for cycle, place in zip(found.cycles, found.positions, strict=True):
        largest = float(np.abs(cycle.eigenvalues).max(initial=0.0))
        rows.append((cycle.period, cycle.kind, cycle.n_unstable, largest, _rounded(place[0], found.size), _word(cycle, names)))
    return rows


def cycle_table(found: Structure, naming: Naming) -> str:
    """The first 30 fixed points and cycles; empty if there are none."""
    rows = cycle_rows(found)
    if not rows:
        return "<p>None was found.</p>"
    coded = any(row[5] for row in rows)
    shown = naming.names[:5]
    body = []
    for period, kind, unstable, largest, place, word in rows[:ROWS]:
        cells = [str(period), str(unstable), number(largest, 5), *(number(x) for x in place[: len(shown)])]
        numbers = "".join(f'<td class="number">{tidy(cell)}</td>' for cell in cells)
        body.append(f'<tr><td class="name">{esc(kind)}</td>{numbers}{f"<td>{esc(word)}</td>" if coded else ""}</tr>')
    heads = ["period", "unstable directions", "largest |λ|", *shown]
    head = '<th scope="col">kind</th>' + "".join(f'<th scope="col" class="number">{esc(text)}</th>' for text in heads)
    head += '<th scope="col">regions</th>' if coded else ""
    more = (
        f" {len(rows) - ROWS:,} more are not shown; structure.json of <code>dynsys structure</code> holds all." if len(rows) > ROWS else ""
    )
    unit = f" in {esc(naming.units)}" if naming.units else ""
    note = f"Periods in steps; λ: eigenvalues over the whole period. Of a cycle the first point is given, as observed{unit}."
    note += " Regions by their numbers above; a star is one that the run does not visit." if coded else ""
    return table(head, body) + f'<p class="meta">{note}{more}</p>'


def invariant_table(found: Structure, naming: Naming) -> str:
    """Exponents and dimensions of model, data and true system with standard errors."""
    rows = []
    shown = [name for name in ("model", "data", "system") if any(getattr(row, name) is not None for row in found.invariants)]
    if not shown:
        return "<p>None could be computed; the notes say why.</p>"
    for row in found.invariants:
        unit = f" [{esc(unit_of(row.unit, naming))}]" if row.unit else ""
        cells = "".join(f'<td class="number">{tidy(estimate(getattr(row, name)))}</td>' for name in shown)
        rows.append(f'<tr><td class="name">{esc(row.name)}{unit}</td>{cells}<td>{esc(row.definition)}</td></tr>')
    titles = {"model": "model", "data": "data", "system": "true system"}
    head = '<th scope="col">quantity</th>' + "".join(f'<th scope="col" class="number">{titles[name]}</th>' for name in shown)
    note = "± one standard error. Estimates from a series are made in the same way, with as many points, from free run and data."
    return table(head + '<th scope="col">method</th>', rows) + f'<p class="meta">{note}</p>'


def unit_of(unit: str, naming: Naming) -> str:
    """1/time in the recording's unit of time, if that has one."""
    return f"1/{naming.time_unit}" if unit == "1/time" and naming.time_unit not in ("dimensionless", "units of time") else unit


def estimate(found: Estimate | None) -> str:
    """`0.905 ± 0.012`: the value to the last digit that its error, to two digits, leaves."""
    if found is None:
        return "–"
    value, error = found.value, found.error
    if not math.isfinite(value) or not math.isfinite(error) or error <= 0:
        return number(value, 4)
    digits = 1 - math.floor(math.log10(error))
    if not 0 <= digits <= 7:
        return f"{number(value, 4)} ± {number(error, 2)}"
    return f"{value:.{digits}f} ± {error:.{digits}f}".replace("-", "−")


def _word(cycle: Cycle, names: dict[bytes, str]) -> str:
    """The regions of a cycle by number, * for one that was not visited; long ones cut."""
    if cycle.regions is None or not names:
        return ""
    word = [names.get(row.tobytes(), "*") for row in cycle.regions]
    return " ".join(word[:12]) + (" …" if len(word) > 12 else "")


def _figure(name: str, data: bytes, caption: str) -> str:
    image = f'<img alt="{esc(ALTS[name])}" src="data:image/png;base64,{base64.b64encode(data).decode("ascii")}">'
    width = int.from_bytes(data[16:20], "big") * 100 // DPI  # of a png: letters are as large in all pictures
    return f'<figure class="still" id="figure-{name}" style="max-width: {width}px">{image}<figcaption>{esc(caption)}</figcaption></figure>'


def _known(value: float) -> str:
    return "not known" if math.isnan(value) else number(value)


def _count(n: int, what: str) -> str:
    return f"{'no' if n == 0 else f'{n:,}'} {what}{'s' if n != 1 else ''}"

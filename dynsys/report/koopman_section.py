"""The section "Koopman spectrum" of the report: sentences, table of eigenpairs with residuals, pictures, notes; HTML.

summary -> eigenvalues -> table (smallest residual first) -> pseudospectrum, eigenfunctions, modes, spectral measure -> what it proves
"""

import base64
from typing import Any

import numpy as np

from dynsys.analysis.koopman_spectrum import KoopmanSpectrum
from dynsys.report.content import number
from dynsys.report.koopman_pictures import NAMES, captions, koopman_pictures
from dynsys.report.koopman_view import KoopmanView, rows_of, verdict
from dynsys.report.tables import esc, table

ROWS = 15  # eigenpairs in the table
SAID = 5  # trusted ones and others in words
DPI = 150
ALTS = {
    NAMES[0]: "Eigenvalues of the Koopman model on the unit circle and as rates, coloured by residual",
    NAMES[1]: "Contours of the pseudospectrum with the eigenvalues",
    NAMES[2]: "Leading trusted eigenfunctions over observed variables",
    NAMES[3]: "Modes of the leading trusted eigenvalues",
    NAMES[4]: "Spectral measure of the first observed variable with the frequencies of trusted eigenvalues",
}
PROVES = (
    "What a small residual proves: the eigenvalue lies within it of the spectrum of the true operator if that is normal, as on the "
    "attractor of a conservative system, and in its pseudospectrum of that level otherwise; for the measure that these data sample.",
    "What a large one proves: that this pair is no eigenpair, and its rate and frequency mean nothing; the number may still lie in the "
    "spectrum. Noise, inputs and finite samples add to every residual.",
)


def koopman_section(view: KoopmanView) -> str:
    """The whole section. Raises MissingExtra if matplotlib is absent."""
    stills, words = koopman_pictures(view, dpi=DPI, small=True), captions(view)
    figure = {name: _figure(name, data, words[name]) for name, data in stills.items()}
    sentences = view.spectrum.words(view.limit, most=SAID)
    told = tuple(line for line in sentences[1:] if line not in view.spectrum.notes)
    return "\n".join(
        [
            _list((f"{sentences[0]} They are of the {view.model}, tested on {view.data}.", *noted(view))),
            figure.get(NAMES[0], ""),
            "<h3>Eigenpairs</h3>",
            pair_table(view),
            _list(told),
            *(figure.get(name, "") for name in NAMES[1:]),
            "<h3>How to read it</h3>",
            _list((*PROVES, *(f"No {name.removeprefix('koopman_')}: {why}" for name, why in view.missing))),
        ]
    )


def noted(view: KoopmanView) -> tuple[str, ...]:
    """What the reader must know first: all or none trusted, inputs, excerpts, spurious ones."""
    found = view.spectrum
    rows = rows_of(found)
    words = [verdict(found, int(i), view.limit) for i in rows]
    bad = [i for i, word in zip(rows, words, strict=True) if word == "spurious"]
    lines = []
    if bad:
        first = bad[int(np.argmax(np.abs(found.values[bad])))]
        which = f"{len(bad)} eigenvalues (conjugates once) are" if len(bad) > 1 else "One eigenvalue is"
        lines.append(
            f"{which} spurious: the regression has them, but their functions are no eigenfunctions of the system. The largest is "
            f"{_value(found.values[first])}, with a residual of {number(found.residuals[first], 2)}."
        )
    return (*lines, *view.notes, *found.notes)


def cells(found: KoopmanSpectrum, i: int, limit: float) -> tuple[str, ...]:
    """Number, value, modulus, residual, growth rate, frequency, bound, verdict: what a row of a table holds, as plain text."""
    value, rate, frequency = found.values[i], float(found.growth_rates[i]), float(found.frequencies[i])
    bound = float(found.rate_bounds[i]) if found.count else float("nan")
    return (
        str(i + 1),
        _value(value),
        number(abs(value), 4),
        residual(found, i),
        number(_small(rate, found.dt), 3),
        number(abs(frequency), 4) if frequency else "–",
        "–" if np.isnan(bound) else number(bound, 2),
        verdict(found, i, limit),
    )


def heads(time_unit: str) -> tuple[str, ...]:
    """The heads of the columns of `cells`."""
    unit = "1/time" if time_unit in ("dimensionless", "units of time") else f"1/{time_unit}"
    return ("no.", "eigenvalue λ", "|λ|", "residual", f"growth rate [{unit}]", f"frequency [{unit}]", f"± bound [{unit}]", "verdict")


def residual(found: KoopmanSpectrum, i: int) -> str:
    """`0.031 ± 0.002`; `< 3·10^−12` where it is rounding; `–` if it was not computed."""
    size, error, floor = float(found.residuals[i]), float(found.errors[i]), float(found.floors[i])
    if not found.count or np.isnan(size):
        return "–"
    if size <= floor:
        return f"< {number(floor, 2)}"
    if not np.isfinite(error) or error <= floor:
        return number(size, 2)
    return f"{number(size, 2)} ± {number(error, 1)}"


def pair_table(view: KoopmanView) -> str:
    """The leading eigenpairs, conjugates once."""
    found = view.spectrum
    rows = rows_of(found)
    body = []
    for i in rows[:ROWS]:
        *numbers, word = cells(found, int(i), view.limit)
        plain = "".join(f'<td class="number">{" ± ".join(_tidy(part) for part in cell.split(" ± "))}</td>' for cell in numbers)
        body.append(f'<tr>{plain}<td class="name">{esc(word)}</td></tr>')
    *names, last = heads(view.time_unit)
    head = "".join(f'<th scope="col" class="number">{esc(text)}</th>' for text in names) + f'<th scope="col">{last}</th>'
    more = f" {len(rows) - ROWS:,} more are not shown; spectrum.json of dynsys spectrum holds all." if len(rows) > ROWS else ""
    over = "one step" if found.steps == 1 else f"{found.steps} steps"
    note = (
        f"Smallest residual first. Residual: the relative error of the eigenfunction over {over}, ± one standard error; trusted up to "
        f"{view.limit:g}, spurious above {5 * view.limit:g}, undecided within two standard errors of the limit. Bound: rate and angular "
        "frequency of every number within the residual of λ differ by at most this."
    )
    return table(head, body) + f'<p class="meta">{note}{more}</p>'


def _small(rate: float, dt: float) -> float:
    """Growth rates that are rounding are 0."""
    return 0.0 if abs(rate) * dt < 1e-14 else rate


def _value(value: Any) -> str:
    if value.imag == 0:
        return number(value.real, 4)
    return f"{number(value.real, 4)} ± {number(abs(value.imag), 4)}i"


def _tidy(text: str) -> str:
    """10^k raised, an i after it kept."""
    mantissa, power, rest = text.partition("·10^")
    exponent = rest.removesuffix("i")
    return esc(mantissa) + (f"·10<sup>{esc(exponent)}</sup>{'i' if rest.endswith('i') else ''}" if power else "")


def _list(lines: tuple[str, ...]) -> str:
    return f'<ul class="plain">{"".join(f"<li>{esc(line)}</li>" for line in lines)}</ul>'


def _figure(name: str, data: bytes, caption: str) -> str:
    image = f'<img alt="{esc(ALTS[name])}" src="data:image/png;base64,{base64.b64encode(data).decode("ascii")}">'
    width = int.from_bytes(data[16:20], "big") * 100 // DPI  # of a png: letters are as large in all pictures
    return f'<figure class="still" id="figure-{name}" style="max-width: {width}px">{image}<figcaption>{esc(caption)}</figcaption></figure>'

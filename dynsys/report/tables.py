"""The tables of the report as HTML: scores beside their floors, events, what was chosen, settings and origin."""

import html

import numpy as np

from dynsys.metrics.score import Score
from dynsys.report.content import Histogram, ReportContent, number


def esc(text: object) -> str:
    """A user's text for HTML, in content or attribute."""
    return html.escape(str(text), quote=True)


def score_table(content: ReportContent) -> str:
    """Every score with its value, floor, spread, definition and settings; empty without scores."""
    if not content.scores:
        return ""
    seeds = dict(content.seed_values)
    wide = any(score.spread is not None or score.name in seeds for score in content.scores)
    rows = []
    for score in content.scores:
        keywords = ", ".join(f"{name}={value}" for name, value in score.settings)
        small = f"<small><code>{esc(keywords)}</code></small>" if keywords else ""
        spread = f"<td>{_spread(score, seeds.get(score.name, ()))}</td>" if wide else ""
        rows.append(
            f'<tr><td class="name">{esc(score.name)}</td><td class="number value">{_pretty(score.value)}</td>'
            f'<td class="number">{_pretty(score.floor)}</td>{spread}<td class="words">{esc(score.definition)}{small}</td></tr>'
        )
    head = '<th scope="col">score</th><th scope="col" class="number">value</th><th scope="col" class="number">floor</th>'
    head += ('<th scope="col">spread</th>' if wide else "") + '<th scope="col">definition</th>'
    note = "The floor is the same score between two halves of the true data: a guide to what can be reached "
    note += "(halves are shorter, so a perfect model may get less)."
    if wide:
        note += " Spread: the range over seeds or starts in grey, a dot for each seed where known; coloured: this model; bar: the floor."
    return table(head, rows) + f'<p class="meta">{note}</p>'


def table(head: str, rows: list[str]) -> str:
    """A table of ready rows that scrolls by itself where the page is narrow."""
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _spread(score: Score, seeds: tuple[float, ...]) -> str:
    """The range over seeds or starts (with the median, if every seed is known) and a strip that shows it."""
    values = np.asarray(seeds or score.spread or (), float)
    good = values[np.isfinite(values)]
    if len(values) == 0:
        return ""
    if not len(good):
        return "nowhere finite"
    text = f"{_pretty(good.min())} – {_pretty(good.max())}"
    text = f"{_pretty(np.median(good))} ({text})" if seeds else text
    if len(good) < len(values):
        text += f", {len(values) - len(good)} of {len(values)} not finite"
    value, floor = _finite(score.value), _finite(score.floor)
    low, high = min([*good, *value, *floor]), max([*good, *value, *floor])
    scale = 128 / (high - low if high > low else 1.0)

    def place(at: float) -> str:
        return f"{6 + scale * (at - low):.1f}"

    marks = [
        '<line x1="2" x2="138" y1="8" y2="8"/>',
        f'<line class="range" x1="{place(good.min())}" x2="{place(good.max())}" y1="8" y2="8"/>',
    ]
    marks += [f'<line class="floor" x1="{place(at)}" x2="{place(at)}" y1="2" y2="14"/>' for at in floor]
    marks += [f'<circle cx="{place(at)}" cy="8" r="3.2"/>' for at in seeds if np.isfinite(at)]
    marks += [f'<circle class="kept" cx="{place(at)}" cy="8" r="3.8"/>' for at in value]
    return f'{text}<svg class="strip" width="140" height="16" aria-hidden="true">{"".join(marks)}</svg>'


def _finite(value: object) -> list[float]:
    """The value in a list, or an empty one if it is no finite number."""
    return [float(value)] if isinstance(value, int | float | np.number) and np.isfinite(float(value)) else []


def event_table(events: tuple[Histogram, ...]) -> str:
    """Wasserstein distance, count, mean and standard deviation of the events of both sides; empty without events."""
    if not events:
        return ""
    rows = []
    for event in events:
        cells = [number(event.distance), *_mean_sd(event.true), *_mean_sd(event.made)]
        unit = f" [{esc(event.unit)}]" if event.unit else ""
        numbers = "".join(f'<td class="number">{cell}</td>' for cell in map(tidy, cells))
        rows.append(f'<tr><td class="name">{esc(event.name)}{unit}</td>{numbers}</tr>')
    heads = ("Wasserstein distance", "data: count", "mean", "sd", "reconstruction: count", "mean", "sd")
    head = '<th scope="col">event</th>' + "".join(f'<th scope="col" class="number">{text}</th>' for text in heads)
    return table(head, rows)


def choices(content: ReportContent) -> str:
    """What the preparation chose and why, and the notes on the data (rows that were filled or dropped)."""
    rows = "".join(f'<tr><th scope="row">{esc(what)}</th><td>{esc(why)}</td></tr>' for what, why in content.preparation)
    table = f'<div class="wide"><table><tbody>{rows}</tbody></table></div>' if rows else ""
    notes = "".join(f"<li>{esc(line)}</li>" for line in content.data_notes)
    return table + (f'<h3>Notes on the data</h3><ul class="plain">{notes}</ul>' if notes else "")


def settings(content: ReportContent) -> str:
    """The command, the configuration and the versions."""
    versions = " · ".join(f"{esc(name)}&nbsp;{esc(version)}" for name, version in content.versions)
    took = f" It took {duration(content.seconds)}." if content.seconds is not None else ""
    command = f'<pre class="command" tabindex="0">{esc(content.command)}</pre>'
    toml = f'<pre tabindex="0">{esc(content.settings_toml.strip())}</pre>' if content.settings_toml.strip() else ""
    intro = f"<p>The command that made this report, on {esc(content.created)}.{took}</p>"
    return f'{intro}\n{command}\n{toml}\n<p class="meta">{versions}</p>'


def _mean_sd(values: np.ndarray) -> tuple[str, str, str]:
    good = np.asarray(values, float)
    good = good[np.isfinite(good)]
    return (f"{len(good):,}", number(good.mean()), number(good.std())) if len(good) else ("0", "–", "–")


def _pretty(value: object) -> str:
    return tidy(number(value))


def tidy(text: str) -> str:
    """Escaped, with 10^k as a raised exponent."""
    mantissa, power, exponent = text.partition("·10^")
    return esc(mantissa) + (f"·10<sup>{esc(exponent)}</sup>" if power else "")


def duration(seconds: float) -> str:
    """A time span in words, from seconds."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 1 else f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"

"""What the report of a certificate says in words: the claim, what is wrong, what was simulated, captions. Plain text."""

import numpy as np

from dynsys.dynamics import Discretized
from dynsys.report.certificate_view import CertificateView, Side
from dynsys.report.content import number
from dynsys.report.control_words import many
from dynsys.report.tables import duration
from dynsys.verify.basin import AWAY, CONVERGED, UNDECIDED
from dynsys.verify.certify import Outcome
from dynsys.verify.lyapunov import QuadraticLyapunov
from dynsys.verify.symbolic import SymbolicLyapunov

MOST = 12  # states whose values are written out


def title(view: CertificateView, name: str) -> str:
    """What is certified, and the outcome."""
    return f"{name or plant_name(view)}: {view.proof.outcome.value}"


def lead(view: CertificateView) -> tuple[str, ...]:
    """The claim and what became of it, then its size."""
    proof = view.proof
    if proof.outcome is Outcome.PROVED:
        return (f"Proved: {claim(view)}", _size(view), *_level(view), *_beside(view))
    if proof.counterexample is not None:
        shown = proof.counterexample
        forced = f" under the disturbance {vector(shown.disturbance)}" if len(shown.disturbance) else ""
        return (
            f"False at level {number(proof.level, 5)}: {shown.what} at {point(view, shown.state)}{forced}, where V is "
            f"{number(shown.value, 5)} and the claim is missed by at least {number(shown.excess)}.",
            f"The claim was: {claim(view)}",
            *_beside(view),
        )
    left = f"{len(proof.remaining[0]):,} boxes are"
    return (
        f"Undecided at level {number(proof.level, 5)} ({proof.reason}): {left} left; {percent(proof.volume)} of the volume "
        f"of the search is done.",
        f"The claim is: {claim(view)}",
        *_beside(view),
    )


def claim(view: CertificateView) -> str:
    """What is to be proved, in one sentence."""
    proof = view.proof
    if proof.core > 0:
        falls = f"wherever V is above {number(proof.core)} it {falling(view)}"
        ends = f"stays there and comes to where V ≤ {number(proof.core)}, which it does not leave."
    else:
        falls = f"it {falling(view)}"
        ends = f"stays there and goes to {point(view, np.asarray(view.loop.goal))}."
    forced = ", whatever the disturbance does in its box" if view.loop.low.shape[0] else ""
    return (
        f"on the set where V ≤ {number(proof.level, 5)}, which lies in the domain, V is positive outside the goal, and along the closed "
        f"loop {falls}{forced}; so every trajectory from the set {ends}"
    )


def falling(view: CertificateView) -> str:
    """How fast V decreases by the claim."""
    rate = percent(view.proof.rate)
    return (
        f"decreases at a rate of at least {rate} of V per unit of time" if view.loop.continuous else f"decreases by at least {rate} a step"
    )


def notes(view: CertificateView) -> tuple[str, ...]:
    """What a reader must know first."""
    lines, proof, astray = [], view.proof, view.basin.astray
    if not proof.proved:
        lines.append(proof.outcome.remedy)
    if len(astray) and proof.proved:
        lines.append(
            f"{many(len(astray), 'start')} in the certified set did not arrive within the time of the simulation, the first at "
            f"{point(view, astray[0])}. Either they are slow, or the proof or the simulation is wrong: look at them."
        )
    if np.isfinite(view.worst.largest) and view.worst.largest > 1e-9 and proof.proved:
        lines.append(
            f"A search found V to exceed the claimed decrease by {number(view.worst.largest)} V at {point(view, view.worst.state)}, "
            "though the claim is proved. This must not happen beyond rounding: please report it."
        )
    if not view.bounded:
        lines.append("The domain is not bounded; the simulation and the pictures are of a part of it.")
    return tuple(lines)


def _size(view: CertificateView) -> str:
    share, error = share_of(view)
    region, off = view.basin.region
    box = "domain" if view.bounded else "part of the domain that was simulated"
    return (
        f"The set has {what_volume(len(view.names))} {with_error(*view.main.volume)}. "
        f"That is {with_error(100 * share, 100 * error)} % of the "
        f"region of attraction in the {box}, {with_error(region, off)} by simulation from {len(view.basin.starts):,} starts."
    )


def share_of(view: CertificateView) -> tuple[float, float]:
    """The share of the region of attraction that the set takes, with its standard error: counted, or by volumes where that is sharper.

    The volumes serve a proved set only, which lies in the region of attraction and in the box.
    """
    counted, (size, off), (region, error) = view.basin.covered, view.main.volume, view.basin.region
    if size <= 0 or region <= 0:
        return counted
    share = size / region
    spread = share * float(np.hypot(off / size, error / region))
    return (share, spread) if not counted[1] <= spread else counted


def _level(view: CertificateView) -> tuple[str, ...]:
    good, bad = view.proof.bracket
    if not np.isfinite(bad):
        return ()
    return (f"The search for the largest level proved {number(good, 5)} and did not prove {number(bad, 5)}.",)


def _beside(view: CertificateView) -> tuple[str, ...]:
    if view.plain is None:
        return ()
    size, main = view.plain.volume, view.main.volume
    if not view.plain.proof.proved:
        return ("The plain quadratic of the linearised loop was not proved.",)
    times = f", {number(main[0] / size[0])} times as much" if main[0] > 0 else ""
    return (f"The plain quadratic of the linearised loop certifies {with_error(*size)}; this one {with_error(*main)}{times}.",)


def claim_rows(view: CertificateView) -> tuple[tuple[str, str], ...]:
    """(what, text) of the claim."""
    loop, proof = view.loop, view.proof
    low, high = (np.asarray(side) for side in proof.domain)
    policy = "none" if loop.policy is None else type(loop.policy).__name__
    w = [interval(a, b) for a, b in zip(np.asarray(loop.low), np.asarray(loop.high), strict=True)]
    rows = [
        (
            "loop",
            f"{plant_name(view)}, a {'flow' if loop.continuous else 'map'} of {many(loop.dim, 'state')}; controller: {policy}",
        ),
        ("goal", point(view, np.asarray(loop.goal))),
        ("input at the goal", "" if loop.rest is None or not len(loop.rest) else vector(np.asarray(loop.rest))),
        ("disturbances", " × ".join(w)),
        ("V", kind(view.main)),
        ("domain", " × ".join(interval(a, b) for a, b in zip(low[:MOST], high[:MOST], strict=True)) + (" × …" if len(low) > MOST else "")),
        ("level", number(proof.level, 8)),
        ("decrease", f"V {falling(view)}"),
        ("core", number(proof.core) if proof.core > 0 else ""),
    ]
    return tuple(row for row in rows if row[1])


def proof_rows(view: CertificateView, seconds: float | None) -> tuple[tuple[str, ...], ...]:
    """(what, this proof, plain quadratic's if there is one)."""
    sides = [view.main, *([view.plain] if view.plain is not None else [])]

    def row(what: str, tell: object) -> tuple[str, ...]:
        return (what, *(tell(side) for side in sides))  # pyright: ignore[reportCallIssue]

    rows = [
        row("outcome", lambda side: side.proof.outcome.value),
        row("V", kind),
        row("volume of the set", lambda side: with_error(*side.volume) if side.proof.proved else "–"),
        row("level", lambda side: number(side.proof.level, 6)),
        row("levels proved, not proved", lambda side: ", ".join("–" if np.isnan(z) else number(z, 6) for z in side.proof.bracket)),
        row("boxes bounded", lambda side: f"{side.proof.boxes:,}"),
        row("boxes around the goal", lambda side: f"{side.proof.face_boxes:,}"),
        row("half-width proved from its surface", lambda side: "–" if np.isnan(side.proof.r0) else number(side.proof.r0)),
        row("smallest half-width of a box", lambda side: "–" if np.isnan(side.proof.smallest) else number(side.proof.smallest)),
        row("boxes left", lambda side: f"{len(side.proof.remaining[0]):,}"),
        row("search", lambda side: duration(side.proof.seconds)),
        row("compilation", lambda side: duration(side.proof.compile_seconds)),
    ]
    if seconds is not None:
        rows.append(("everything, training too", duration(seconds), *([""] if view.plain is not None else [])))
    return tuple(rows)


def simulation_rows(view: CertificateView) -> tuple[tuple[str, str], ...]:
    """(what, text) of what was simulated and attacked."""
    found, worst = view.basin, view.worst
    ends = {CONVERGED: "go to the goal", AWAY: "leave", UNDECIDED: "do neither within the time"}
    shares = ", ".join(f"{np.mean(found.codes == code):.1%} {words}" for code, words in ends.items() if np.any(found.codes == code))
    inside = len(found.inner) + int(np.sum(found.values <= found.level))
    what = "(dV/dt + rate V) / V" if view.loop.continuous else "(V(x+) − (1 − rate) V) / V"
    rows = [
        ("starts, uniform in the box", f"{len(found.starts):,}: {shares}"),
        ("region of attraction in the box", f"{what_volume(len(view.names))} {with_error(*found.region)}"),
        ("share of it in the set", f"{with_error(*(100 * z for z in share_of(view)))} %"),
        ("starts in the set that arrive", f"{inside - len(found.astray):,} of {inside:,}"),
        (f"largest {what} that an attack or a sample found", _worst(view)),
        ("states that the attack looked at", f"{worst.tried:,}"),
    ]
    if np.isfinite(worst.outside):
        rows.append(
            (
                "x+ nearest to or beyond the border",
                f"{number(abs(worst.outside))} half-widths {'outside' if worst.outside > 0 else 'inside'}",
            )
        )
    return tuple(rows)


def _worst(view: CertificateView) -> str:
    value = view.worst.largest
    if not np.isfinite(value):
        return "–"
    verdict = "the claim is false there, by plain floats" if value > 0 else "no violation"
    return f"{number(value)} at {point(view, view.worst.state)}: {verdict}"


def captions(view: CertificateView) -> dict[str, str]:
    """What stands below each figure."""
    flat, n = len(view.names) == 2, len(view.names)
    what = "velocity of the flow" if view.loop.continuous else "way of a step"
    slices = (
        "" if flat or n == 1 else " Slices through the goal: all other coordinates are as there, and the arrows are the part in the plane."
    )
    chosen = f" Of {n * (n - 1) // 2} planes those that show most are drawn." if n > 3 else ""
    right = " Right: trajectories from the border of the set and from outside it." if flat else ""
    forced = " Disturbances are random, half of them at their limits." if view.loop.low.shape[0] else ""
    smallest = (
        "" if n == 2 else " The smallest box at each place of two coordinates y of the frame, x = goal + T y, in which the search splits."
    )
    return {
        "region": f"Level sets of V over the region of attraction by simulation of every start of a grid; arrows: direction of the {what}."
        f"{slices}{chosen}{right}{forced}",
        "boxes": f"Where the search had to look closely: every box was bounded as a whole.{smallest} Grey boxes lie outside the set.",
        "decrease": "Left: how far states of the set are from the limit of the claim, relative to V; many are near the border or the goal. "
        "Nothing may lie right of the dashed line. Right: V along trajectories, and the bound that is claimed of those from the set.",
    }


def alts(view: CertificateView) -> dict[str, str]:
    """What each figure shows, for one who can't see it."""
    names = ", ".join(view.names[:MOST])
    share = "" if not view.proof.proved else f" The certified set takes {percent(share_of(view)[0])} of the region of attraction."
    return {
        "region": f"Level sets of V, the set at level {number(view.proof.level, 4)} thick, over the simulated region of attraction, in "
        f"coordinates {names}.{share}",
        "boxes": f"The {len(view.proof.leaves[0]):,} boxes of the proof, coloured by how often they were halved.",
        "decrease": "Histogram of the relative excess over the claimed decrease, and V along trajectories against time, logarithmic. The "
        f"largest excess that was found is {number(view.worst.largest)}.",
    }


def plant_name(view: CertificateView) -> str:
    """The class of the plant; of a flow made a map, that of the flow and the step."""
    plant = view.loop.plant
    if isinstance(plant, Discretized):
        return f"{type(plant.flow).__name__}, a step of {number(plant.dt)}"
    return type(plant).__name__


def kind(side: Side) -> str:
    """The kind of function; of a formula, the formula."""
    if isinstance(side.V, SymbolicLyapunov):
        return f"{side.V.text}, in deviations from the goal"
    name = type(side.V).__name__
    return "quadratic" if isinstance(side.V, QuadraticLyapunov) else name.removesuffix("Lyapunov") or name


def point(view: CertificateView, state: np.ndarray) -> str:
    """A state with the names of its coordinates."""
    shown = ", ".join(f"{name} = {number(value, 4)}" for name, value in zip(view.names[:MOST], state, strict=False))
    return f"({shown}{', …' if len(view.names) > MOST else ''})"


def vector(values: np.ndarray) -> str:
    """Plain numbers in brackets."""
    return f"({', '.join(number(value, 4) for value in values[:MOST])}{', …' if len(values) > MOST else ''})"


def interval(low: float, high: float) -> str:
    """[low, high], or a number if they are equal."""
    return f"[{number(low, 4)}, {number(high, 4)}]"


def with_error(value: float, error: float) -> str:
    """value ± error, without an error of 0."""
    if not (error > 0 and np.isfinite(error)):
        return number(value, 5)
    places = 1 - int(np.floor(np.log10(error)))  # two digits of the error
    return f"{number(round(value, places), max(1, 2 + _digits(value, error)))} ± {number(error, 2)}"


def _digits(value: float, error: float) -> int:
    """How many digits the value has before the first of the error."""
    return int(np.floor(np.log10(abs(value))) - np.floor(np.log10(error))) if value else 0


def what_volume(n: int) -> str:
    """What the volume of n dimensions is called."""
    return {1: "length", 2: "area"}.get(n, "volume" if n == 3 else f"{n}-dimensional volume")


def percent(share: float) -> str:
    """A share in percent."""
    return f"{number(100 * share)} %"

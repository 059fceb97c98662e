"""What the report of a certificate says in words: the claim, what is wrong, what was simulated, captions. Plain text."""

from pathlib import PurePath

import numpy as np

from dynsys.dynamics import Discretized
from dynsys.report.certificate_terms import (
    MOST,
    controller,
    interval,
    kind,
    layers,
    matrix,
    parameters,
    percent,
    plant_name,
    point,
    system_name,
    vector,
    what_volume,
    with_error,
)
from dynsys.report.certificate_view import CertificateView, Side
from dynsys.report.content import number
from dynsys.report.control_words import many
from dynsys.report.tables import duration
from dynsys.verify.basin import AWAY, CONVERGED, UNDECIDED
from dynsys.verify.certify import Outcome
from dynsys.verify.lyapunov import QuadraticLyapunov
from dynsys.verify.network import Network
from dynsys.verify.policy import AbstractPolicy, NeuralPolicy, SaturatedLinear


def title(view: CertificateView, name: str) -> str:
    """What is certified, and the outcome. A system that has a name goes by it, not by that of its file."""
    is_file = PurePath(name).suffix.lower() == ".toml" and bool(system_name(view.loop.plant))
    return f"{plant_name(view) if is_file or not name else name}: {view.proof.outcome.value}"


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
    forced = ", whatever the disturbance does within its limits" if view.loop.low.shape[0] else ""
    return (
        f"on the set where V ≤ {number(proof.level, 5)} in the cube of the proof (see Claim), which lies in the domain, V is positive "
        f"outside the goal, and along the closed loop {falls}{forced}; so every trajectory from the set {ends}"
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
    if len(view.elsewhere) and proof.proved:
        lines.append(
            f"V ≤ {number(proof.level, 5)} outside of the cube of the proof too, as at {point(view, view.elsewhere[0])}: nothing is "
            "claimed there."
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
    volume = f"{what_volume(len(view.names))} {with_error(*view.main.volume)}"
    size = f"The set has {volume}. That is {with_error(100 * share, 100 * error)} % of the"
    if all_arrive(view):
        return f"{size} {simulated(view)}; in the simulation all starts in it arrive, {len(view.basin.starts):,}."
    return (
        f"{size} region of attraction in the {simulated(view)}, {with_error(*view.basin.region)} by simulation from "
        f"{len(view.basin.starts):,} starts."
    )


def simulated(view: CertificateView) -> str:
    """What the starts were drawn from."""
    return "domain" if view.bounded else "part of the domain that was simulated"


def all_arrive(view: CertificateView) -> bool:
    """Whether every start that was drawn from the domain comes to the goal."""
    return bool(np.all(view.basin.codes == CONVERGED))


def share_of(view: CertificateView) -> tuple[float, float]:
    """The share of the region of attraction that the set takes, with its standard error: counted, or by volumes where that is sharper.

    The volumes serve a proved set only, which lies in the region of attraction and in the domain. Where all starts arrive, the region of
    attraction is the domain as far as the simulation tells, without an error.
    """
    counted, (size, off), (region, error) = view.basin.covered, view.main.volume, view.basin.region
    error = 0.0 if all_arrive(view) else error
    if size <= 0 or region <= 0:
        return counted
    share = size / region
    spread = share * float(np.hypot(off / size, error / region))
    return (share, spread) if not counted[1] <= spread else counted


def _level(view: CertificateView) -> tuple[str, ...]:
    return () if not np.isfinite(view.proof.bracket[1]) else (f"The search for the largest level: {bracket(view.main)}.",)


def bracket(side: Side) -> str:
    """The largest level that was proved and the least that was refuted, as far as there are any."""
    told = zip(("proved at", "refuted at"), side.proof.bracket, strict=True)
    why = f": {side.proof.limit}" if side.proof.limit else ""
    return (", ".join(f"{word} {number(z, 6)}" for word, z in told if np.isfinite(z)) or "–") + why


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
    closed = "none" if loop.policy is None else "below"
    w = [interval(a, b) for a, b in zip(np.asarray(loop.low), np.asarray(loop.high), strict=True)]
    rows = [
        ("loop", f"{plant_name(view)}, a {'flow' if loop.continuous else 'map'} of {many(loop.dim, 'state')}; controller: {closed}"),
        ("goal", point(view, np.asarray(loop.goal), 8)),
        ("disturbances", " × ".join(w)),
        ("V", kind(view.main) + (", (x − goal)ᵀ P (x − goal)" if isinstance(view.main.V, QuadraticLyapunov) else "")),
        ("P", matrix(view, view.main.V.P) if isinstance(view.main.V, QuadraticLyapunov) else ""),
        ("domain", " × ".join(interval(a, b) for a, b in zip(low[:MOST], high[:MOST], strict=True)) + (" × …" if len(low) > MOST else "")),
        ("level", number(proof.level, 8)),
        ("set", cube(view)),
        ("T of the cube", matrix(view, proof.frame)),
        ("decrease", f"V {falling(view)}"),
        ("core", number(proof.core) if proof.core > 0 else ""),
    ]
    return tuple(row for row in rows if row[1])


def cube(view: CertificateView) -> str:
    """Of which part of {V <= level} the claim speaks."""
    proved = view.proof.proved
    level, border = number(view.proof.level, 5), "is shown to lie" if proved else "must lie"
    rest = (
        f"As V is quadratic, this is all of V ≤ {level}."  # an ellipsoid, which does not reach the border
        if proved and isinstance(view.main.V, QuadraticLyapunov)
        else f"Where V ≤ {level} outside of the cube, nothing is claimed."
    )
    return f"V ≤ {level} inside the cube of the proof, x = goal + T y with all |y_i| ≤ 1, whose border {border} outside of the set. {rest}"


def loop_rows(view: CertificateView) -> tuple[tuple[str, str], ...]:
    """(what, text) of plant and controller, so that both can be made again: all that fits."""
    loop, policy, rows = view.loop, view.loop.policy, []
    plant = loop.plant.flow if isinstance(loop.plant, Discretized) else loop.plant
    rows.append(("parameters of the plant", ", ".join(f"{name} = {number(value, 8)}" for name, value in parameters(plant))))
    rows.append(("controller", controller(policy)))
    if isinstance(policy, NeuralPolicy | Network):
        rows.append(("network", layers(view, policy if isinstance(policy, Network) else policy.net)))
    if isinstance(policy, NeuralPolicy | SaturatedLinear) and np.any(policy.K):
        rows.append(("gain K", matrix(view, policy.K)))
    if isinstance(policy, AbstractPolicy):
        limits = [interval(a, b, 8) for a, b in zip(np.asarray(policy.low), np.asarray(policy.high), strict=True)]
        rows.append(("goal of the controller", point(view, np.asarray(policy.goal), 8)))
        rows.append(("rest, the input at the goal", vector(np.asarray(policy.rest), 8)))
        rows.append(("limits of u, [low, high]", " × ".join(limits) if np.isfinite([policy.low, policy.high]).any() else "none"))
    elif loop.rest is not None and len(loop.rest):
        rows.append(("input at the goal", vector(np.asarray(loop.rest), 8)))
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
        row("search for the largest level", bracket),
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
    inside = len(found.inner) + int(np.sum(found.values <= found.level))
    what = "(dV/dt + rate V) / V" if view.loop.continuous else "(V(x+) − (1 − rate) V) / V"
    rows = [
        (f"starts, uniform in the {simulated(view)}", f"{len(found.starts):,}: {_ends(view)}"),
        (
            f"region of attraction in the {simulated(view)}",
            "all of it, as far as the starts tell" if all_arrive(view) else f"{what_volume(len(view.names))} {with_error(*found.region)}",
        ),
        ("share of it in the set", f"{with_error(*(100 * z for z in share_of(view)))} %"),
        ("starts in the set that arrive", f"{inside - len(found.astray):,} of {inside:,}"),
        (f"largest {what} that an attack or a sample found", _worst(view)),
        ("states that the attack looked at", f"{worst.tried:,}"),
    ]
    if np.isfinite(worst.outside):
        rows.append(
            (
                "x+ nearest to or beyond the border",
                f"{number(abs(worst.outside))} half-widths of the domain {'outside' if worst.outside > 0 else 'inside'}",
            )
        )
    return tuple(rows)


def _ends(view: CertificateView) -> str:
    """How many of the starts in the domain end where."""
    if all_arrive(view):
        return "all starts in the domain arrive" if view.bounded else "all arrive"
    share = {code: float(np.mean(view.basin.codes == code)) for code in (CONVERGED, AWAY, UNDECIDED)}
    told = [f"{100 * share[code]:.1f} % {words}" for code, words in ((CONVERGED, "go to the goal"), (AWAY, "leave")) if share[code]]
    if share[UNDECIDED]:
        rest = f"the rest, {100 * share[UNDECIDED]:.1f} %," if told else "all"
        told.append(f"{rest} neither arrive nor leave within the simulated time")
    return ", ".join(told)


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
        "Nothing may lie right of the dashed line. Right: V along trajectories; those from the set must stay below the grey bound.",
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

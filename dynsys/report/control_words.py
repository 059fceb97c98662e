"""What the report of a control run says in words: its result, what went wrong, what is known of the task, and captions. Plain text."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Float

from dynsys.control.cost import AbstractCost
from dynsys.control.experience import Episode
from dynsys.control.known import PUBLISHED
from dynsys.control.loop import Controlled
from dynsys.control.reward import LearnedReward
from dynsys.control.task import Bordered, Seen
from dynsys.report.content import number
from dynsys.report.control_figures import SLOW, Published, searches

COLUMNS = 8  # observed components that are drawn
INPUTS = 6  # inputs that are drawn
WEAK = 0.3  # held-out error of a learned reward that is worth a warning
METHODS = {"local-ilqr": "learned locally-linear iLQR"}


@runtime_checkable
class Limited(Protocol):
    """A controller that keeps its inputs (K,) between limits."""

    low: Any
    high: Any


def title(found: Controlled) -> str:
    """The environment and what learned to control it."""
    return f"{found.settings.environment.id}: {method(found)}"


def method(found: Controlled) -> str:
    """The name of the model that is planned on, or of the method that has none."""
    settings = found.settings
    return METHODS.get(settings.method, f"planning on {settings.model.name}")


def used(found: Controlled) -> int:
    """Environment steps that were learned from."""
    return max([found.experience.steps, *(row.steps for row in found.history)])


def published(found: Controlled) -> Published:
    """What others report of this environment; nothing if it was made with options of its own."""
    environment = found.settings.environment
    return () if environment.options.pairs else PUBLISHED.get(environment.id, ())


def lead(found: Controlled) -> tuple[str, ...]:
    """The result in a few sentences."""
    lines = [*_result(found), _learned_from(found)]
    about = {} if found.played is None else found.played.summary()
    if about.get("plan_ms_median") is not None:
        lines.append(
            f"A decision takes {number(about['plan_ms_median'])} ms (median; 95 %: {number(about['plan_ms_95'])} ms), "
            f"{_rate(about['decisions_per_second'])} decisions per second on the machine of this run."
        )
    others = [f"{what} {number(value, 4)}{f' after {steps:,} steps' if steps else ''}" for what, steps, value in published(found)]
    if others:
        lines.append(f"Published mean returns: {'; '.join(others)}.")
    return tuple(lines)


def _result(found: Controlled) -> list[str]:
    if found.played is None or not len(found.played.returns):
        return ["No episode was played with the controller that came out, so there is no return to report."]
    about = found.played.summary()
    if about["standard_error"] is None:
        return [f"One episode was played with the controller: a return of {number(about['mean'], 4)}."]
    spread = f"{number(about['mean'], 4)} ± {number(about['standard_error'])} (standard error)"
    return [f"Mean return over {len(about['returns'])} played episodes: {spread}; the worst is {number(about['worst'], 4)}."]


def _learned_from(found: Controlled) -> str:
    rows = found.history
    if searches(rows):
        return f"It was learned from {used(found):,} environment steps in {many(len(rows), 'iteration')}."
    blind = sum(row.length for row in rows if row.kind == "random")
    inside = f" in {many(len(rows), 'episode')}, {blind:,} of them with random inputs" if rows else ""
    return f"It was learned from {used(found):,} environment steps{inside}."


def warnings(found: Controlled) -> tuple[str, ...]:
    """What the reader must know before trusting the numbers."""
    lines = []
    if not found.status.ok:
        lines.append(f"{found.status.value}: {found.reason} {found.status.remedy}".replace(":  ", ": ").strip())
    reward = learned_reward(found)
    if reward is not None and not reward.error <= WEAK:
        lines.append(
            f"The learned reward errs by {_percent(reward.error)} of the spread of the rewards on held-out steps: plans may aim at the "
            "wrong thing. Collect more steps, or give the environment a known_task() with its cost."
        )
    broken = 0 if found.played is None else sum(not (e.terminated or e.truncated) for e in found.played.episodes)
    if broken:
        lines.append(f"{many(broken, 'played episode')} ended before the task did; the returns are of the part that was played.")
    return tuple(lines)


def learned_reward(found: Controlled) -> LearnedReward | None:
    """The reward that the controller plans with, if it was learned."""
    leaves = jax.tree.leaves(found.controller, is_leaf=lambda leaf: isinstance(leaf, LearnedReward))
    return next((leaf for leaf in leaves if isinstance(leaf, LearnedReward)), None)


def limits_of(found: Controlled) -> tuple[Float[np.ndarray, " K"], Float[np.ndarray, " K"]] | None:
    """The limits of the inputs, (K,) each, if the controller knows them."""
    sizes, controller = sizes_of(found), found.controller
    if sizes is None or not isinstance(controller, Limited) or controller.low is None or controller.high is None:
        return None
    return np.broadcast_to(np.asarray(controller.low, float), sizes[1]), np.broadcast_to(np.asarray(controller.high, float), sizes[1])


def task_rows(found: Controlled) -> tuple[tuple[str, str], ...]:
    """(what, what is known of it) for the table of the task."""
    task, bounds, reward = found.task, limits_of(found), learned_reward(found)
    if reward is not None:
        cost = f"learned from the rewards; errs by {_percent(reward.error)} of their spread on held-out steps"
    else:
        cost = "not known as a function" if task.cost is None else f"known as a function ({_cost_name(task.cost)})"
    angles = "; ".join(f"observations {pair.replace(',', ' and ')} are cosine and sine of an angle" for pair in _pairs(task.angles))
    sizes = sizes_of(found)
    rows = [
        ("goal", task.goal),
        ("cost", cost),
        ("angles", angles or "none are known"),
        ("observations", f"{sizes[0]}" if sizes else ""),
        ("inputs", f"{sizes[1]}{_between(bounds)}" if sizes else ""),
        ("controller", type(found.controller).__name__),
        ("model", _models(found)),
    ]
    return tuple(row for row in rows if row[1])


def sizes_of(found: Controlled) -> tuple[int, int] | None:
    """Observed components and inputs, (N, K), of the first episode; None if nothing was met."""
    met = (*found.experience.episodes, *(() if found.played is None else found.played.episodes))
    return (met[0].observations.shape[1], met[0].inputs.shape[1]) if met else None


def names_of(count: int, angles: str) -> tuple[str, ...]:
    """Names of the observed components that are drawn: their places, and which belong to an angle."""
    parts = {}
    for pair in _pairs(angles):
        for place, what in zip(pair.split(","), ("cos", "sin"), strict=False):
            parts[place.strip()] = f" ({what})"
    return tuple(f"obs {i}{parts.get(str(i), '')}" for i in range(min(count, COLUMNS)))


def chosen(episodes: Sequence[Episode]) -> tuple[tuple[str, Episode], ...]:
    """First, median and worst of the played episodes by return, each with a label; an episode that is two of them stands once."""
    if not episodes:
        return ()
    order = np.argsort([episode.total for episode in episodes], kind="stable")
    roles: dict[int, list[str]] = {}
    for role, at in (("first", 0), ("median", int(order[len(order) // 2])), ("worst", int(order[0]))):
        roles.setdefault(at, []).append(role)
    if len(episodes) == 1:
        roles = {0: ["played"]}
    return tuple((f"{' and '.join(words)}: {number(episodes[i].total, 4)}", episodes[i]) for i, words in roles.items())


def captions(found: Controlled) -> dict[str, str]:
    """What stands below each figure."""
    environment, played = found.settings.environment, found.played
    options = ", ".join(f"{name}={value}" for name, value in environment.options.pairs)
    others = " Horizontal lines: published results, whatever steps they took." if published(found) else ""
    if options and environment.id in PUBLISHED:
        others = f" Published results are left out: they are of the environment without {options}."
    left = (
        "The cost of the plan at every iteration of the search. "
        if searches(found.history)
        else "The return of every collected episode at the environment steps up to its end; one that was cut off is not whole, and its "
        "return is not comparable. Planned episodes are driven by a model of all that came before. "
    )
    late = "" if played is None or not len(played.milliseconds) else _too_late(played.milliseconds)
    return {
        "returns": f"{left}Played episodes start from fresh seeds, and nothing is learned from them.{others}",
        "trajectories": f"Played episodes by their return. Dashed: the limits of the inputs.{_not_drawn(found)}",
        "field": "All observed components of the first played episode, each in units of its largest size.",
        "error": "Root mean square of the one-step forecasts along each episode, before the model had seen it, relative to the forecast "
        "that nothing changes (dashed: no better than that).",
        "timing": f"From observation to input, in every planned episode and in the played ones. Dashed: 20 ms, which 50 Hz allows.{late}",
    }


def alts(found: Controlled) -> dict[str, str]:
    """What each figure shows, for one who can't see it."""
    played, searched = found.played, searches(found.history)
    collected = "Cost of the plan against environment steps" if searched else "Return of every collected episode against environment steps"
    shown = () if played is None else chosen(played.episodes)
    return {
        "returns": f"{collected}, with the returns of the played episodes and published results. {' '.join(_result(found))}",
        "trajectories": "Observations and inputs of played episodes over the steps, with the limits of the inputs. Returns: "
        f"{'; '.join(label for label, _ in shown)}.",
        "field": f"All observed components over the steps of one played episode, {shown[0][0] if shown else ''}, as colours.",
        "error": "One-step error of the model on every planned episode against environment steps, logarithmic.",
        "timing": "Milliseconds that a decision takes: median and 95 % of every planned episode, and a histogram of the played decisions.",
    }


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else number(value)


def _not_drawn(found: Controlled) -> str:
    sizes = sizes_of(found) or (0, 0)
    pairs = ((COLUMNS, sizes[0], "observed components"), (INPUTS, sizes[1], "inputs"))
    return "".join(f" The first {most} of {count} {what} are drawn." for most, count, what in pairs if count > most)


def _too_late(milliseconds: Float[np.ndarray, " D"]) -> str:
    late = int(np.sum(milliseconds > SLOW))
    return f" {late:,} of {len(milliseconds):,} played decisions took longer than that." if late else " No played decision took longer."


def _cost_name(cost: AbstractCost) -> str:
    while isinstance(cost, Seen | Bordered):
        cost = cost.cost
    return type(cost).__name__


def _between(bounds: tuple[np.ndarray, np.ndarray] | None) -> str:
    if bounds is None:
        return ""
    each = [f"[{number(low, 4)}, {number(high, 4)}]" for low, high in zip(*bounds, strict=True)]
    return f", within {each[0] if len(set(each)) == 1 else ' × '.join(each[:INPUTS]) + (' × …' if len(each) > INPUTS else '')}"


def _models(found: Controlled) -> str:
    if not found.models:
        return "none"
    first, count = found.models[0], len(found.models)
    members = f"; {count} members, planned on together" if count > 1 else ""
    return f"{found.settings.model.name}, {many(first.dim, 'state')}{members}"


def _pairs(angles: str) -> list[str]:
    return [pair for pair in angles.split(";") if pair.strip()]


def _percent(share: float) -> str:
    return f"{number(100 * share)} %"


def many(count: int, what: str) -> str:
    """The count and the noun, in the plural if need be."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"

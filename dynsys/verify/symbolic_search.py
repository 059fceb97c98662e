"""Search for a short formula that is a Lyapunov function.

    V = sum_i c_i (x_i + sum_(j>i) a_ij x_j)**2  +  c sin(x_i / 2)**2 ...  +  c x_i**4 ...  +  c (x_i x_j)**2 ...,    all c > 0

The squares are there always, so that every candidate is positive; which of the a_ij and of the other terms a formula has is drawn from
probabilities. The constants of a whole population are fitted at once by the loss of `learn.py`, in one compiled program. Each candidate is
rated by the share of the box that its largest level set fills, less a price a term, and the probabilities move towards the best few alone:
what counts is the best formula found, not the mean. (sin(x / 2)**2 is (1 - cos(x)) / 2.) Source: Petersen et al., ICLR 2021 (risk-seeking
selection).
"""

import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float

from dynsys.errors import InvalidValue
from dynsys.precision import x64
from dynsys.status import Status
from dynsys.verify.attack import Loop, box_of, real, scattered
from dynsys.verify.learn import loss_of
from dynsys.verify.level import Level, largest_level, on_faces
from dynsys.verify.lyapunov import AbstractLyapunov
from dynsys.verify.symbolic import SymbolicLyapunov

PRICE = 0.003  # of a term, as a share of the box
DIGITS = 3


class SymbolicSearch(eqx.Module):
    """The best formula, with its largest level and the volume of its set as far as random states and attacks tell; None with FAILED.

    tried: how many formulas were fitted. share: what the best one of each generation filled of the box (generations,).
    """

    V: SymbolicLyapunov | None
    level: float
    volume: float
    error: float
    tried: int
    share: Float[np.ndarray, " g"]
    status: Status = eqx.field(static=True)


def search_symbolic(
    plant: Any,
    names: Any,
    low: Any,
    high: Any,
    *,
    goal: Any = None,
    policy: Any = None,
    rate: float = 0.0,
    margin: float | None = None,
    generations: int = 4,
    population: int = 32,
    elite: float = 0.2,
    steps: int = 400,
    key: Array | int = 0,
) -> SymbolicSearch:
    """A formula in `names`, one a state, for a map or flow, alone or with a policy, on the box [low, high] around the goal.

    elite: the share of a generation from which the next one learns. steps: of the fit of the constants, which end with 3 digits.
    Raises InvalidValue for names that do not fit the box, counts below 1, or a box without the goal inside.
    """
    names = tuple(names)
    n = len(names)
    if min(generations, population, steps) < 1 or not 0 < elite <= 1:
        raise InvalidValue("search_symbolic: generations, population and steps must be at least 1, and elite in (0, 1].")
    with x64():
        goal = jnp.zeros(n) if goal is None else jnp.asarray(goal, float)
        low, high = box_of("search_symbolic", low, high, goal)
        loop = Loop(plant, policy)  # pyright: ignore[reportCallIssue]
        key = jr.key(key) if isinstance(key, int) else key
        size = n * (n - 1) // 2 + len(_extras(n))
        chance, best, shares = np.full(size, 0.5), (-np.inf, None), []
        for now in jr.split(key, generations):
            drawn, fit = jr.split(now)
            masks = np.asarray(jr.bernoulli(drawn, jnp.asarray(chance)[None, :], (population, size)), float)
            numbers = jnp.asarray([rate, margin if margin is not None else 2 * rate or 0.002, 0.05])
            fitted, share = _fit(loop, goal, low, high, jnp.asarray(masks), numbers, steps, fit)
            worth = np.asarray(share) - PRICE * masks.sum(axis=1)
            order = np.argsort(-worth)
            chosen = masks[order[: max(1, round(elite * population))]]
            chance = np.clip(0.3 * chance + 0.7 * chosen.mean(axis=0), 0.05, 0.95)
            shares.append(float(np.max(np.asarray(share))))
            if worth[order[0]] > best[0]:
                best = float(worth[order[0]]), jax.tree.map(lambda leaf, i=int(order[0]): leaf[i] if eqx.is_array(leaf) else leaf, fitted)
        V = SymbolicLyapunov.of(best[1].text(names), names, goal)  # pyright: ignore[reportOptionalMemberAccess]
        found = largest_level(V, loop, low, high, rate=rate, key=key)
    tried = generations * population
    if not found.level > 0:
        return SymbolicSearch(None, 0.0, 0.0, 0.0, tried, np.array(shares), Status.FAILED)  # pyright: ignore[reportCallIssue]
    return _result(V, found, tried, shares)


def _result(V: SymbolicLyapunov, found: Level, tried: int, shares: list[float]) -> SymbolicSearch:
    return SymbolicSearch(V, found.level, found.volume, found.error, tried, np.array(shares), Status.SUCCESS)  # pyright: ignore[reportCallIssue]


class _Sum(AbstractLyapunov):
    """A formula with all terms, those that it lacks masked: mask (n (n - 1) / 2 + E,)."""

    c: Float[Array, " t"]  # logarithms
    a: Float[Array, " m"]
    mask: Float[Array, " s"]
    goal: Float[Array, " n"]

    @property
    def degree(self) -> int:
        """2."""
        return 2

    def free(self) -> tuple[Any, ...]:
        """All constants."""
        return self.c, self.a

    def value(self, x: Float[Array, " n"]) -> Float[Array, ""]:
        """The sum."""
        d, n = x - self.goal, self.dim
        m = len(self.a)
        forms = [d[i] for i in range(n)]
        for k, (i, j) in enumerate(itertools.combinations(range(n), 2)):
            forms[i] = forms[i] + self.mask[k] * self.a[k] * d[j]
        extras = [self.mask[m + k] * _EXTRA[kind][0](*(d[i] for i in places)) for k, (kind, places) in enumerate(_extras(n))]
        return jnp.dot(jnp.exp(self.c), jnp.stack([form**2 for form in forms] + extras))

    def text(self, names: tuple[str, ...]) -> str:
        """The formula, its constants rounded."""
        n, m = self.dim, len(self.a)
        c = [f"{value:.{DIGITS}g}" for value in np.exp(np.asarray(self.c))]
        forms = list(names)
        for k, (i, j) in enumerate(itertools.combinations(range(n), 2)):
            if self.mask[k] > 0:
                value = float(self.a[k])
                forms[i] += f" {'-' if value < 0 else '+'} {abs(value):.{DIGITS}g}*{names[j]}"
        terms = [f"{c[i]}*({form})**2" if " " in form else f"{c[i]}*{form}**2" for i, form in enumerate(forms)]
        for k, (kind, places) in enumerate(_extras(n)):
            if self.mask[m + k] > 0:
                terms.append(f"{c[n + k]}*" + _EXTRA[kind][1].format(*(names[i] for i in places)))
        return " + ".join(terms)


_EXTRA = {
    "wave": (lambda x: jnp.sin(0.5 * x) ** 2, "sin(0.5*{0})**2"),
    "fourth": (lambda x: x**4, "{0}**4"),
    "product": (lambda x, y: (x * y) ** 2, "({0}*{1})**2"),
}


def _extras(n: int) -> list[tuple[str, tuple[int, ...]]]:
    """The terms that a formula may have beside the squares."""
    single: list[tuple[str, tuple[int, ...]]] = [(kind, (i,)) for kind in ("wave", "fourth") for i in range(n)]
    return single + [("product", pair) for pair in itertools.combinations(range(n), 2)]


@eqx.filter_jit
def _fit(
    loop: Loop, goal: Array, low: Array, high: Array, masks: Array, numbers: Array, steps: int, key: Array
) -> tuple[_Sum, Float[Array, " p"]]:
    """The constants of every formula of a population, and the share of the box that its largest set fills."""
    n = goal.shape[0]
    m, extras = n * (n - 1) // 2, len(_extras(n))
    half = (high - low) / 2
    first = jnp.log(jnp.concatenate([1 / half**2, jnp.stack([_size(kind, [half[i] for i in at]) for kind, at in _extras(n)])]))
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(0.03, steps, 0.05)))
    rate, margin, growth = numbers

    def formula(mask: Array, key: Array) -> tuple[_Sum, Array]:
        V = _Sum(first[: n + extras], jnp.zeros(m), mask, goal)  # pyright: ignore[reportCallIssue]
        spec = eqx.tree_at(lambda tree: tree.free(), jax.tree.map(lambda _: False, V), (True, True))
        free, fixed = eqx.partition(V, spec)

        def update(carry: Any, key: Array) -> tuple[Any, None]:
            free, state = carry
            inner, faces = jr.split(key)
            x, border = scattered(inner, 256, goal, low, high, smallest=1e-3), on_faces(faces, 64, low, high)
            slope = jax.grad(lambda f: loss_of(eqx.combine(f, fixed), loop, x, x[:0], border, low, high, (rate, margin, growth)))(free)
            change, state = optimizer.update(slope, state)
            return (eqx.apply_updates(free, change), state), None

        free, _ = jax.lax.scan(update, (free, optimizer.init(free)), jr.split(key, steps))[0]
        V = eqx.combine(free, fixed)
        return V, _share(V, loop, low, high, rate, key)

    return jax.vmap(formula)(masks, jr.split(key, len(masks)))


def _share(V: AbstractLyapunov, loop: Loop, low: Array, high: Array, rate: Array, key: Array) -> Array:
    x, border = scattered(key, 8000, V.goal, low, high, smallest=1e-3), on_faces(key, 1000, low, high)
    value, infinite = jax.vmap(V.value)(x), jnp.asarray(jnp.inf, low.dtype)
    bad = jax.vmap(lambda y: real(V, loop, y, low, high, infinite, rate))(x) > 0
    level = jnp.minimum(jnp.min(jnp.where(bad, value, jnp.inf)), jnp.min(jax.vmap(V.value)(border)))
    return jnp.mean(value[::2] < level)


def _size(kind: str, half: list[Array]) -> Array:
    """A first factor that makes a term small beside the squares."""
    return 0.1 / {"wave": jnp.asarray(1.0, half[0].dtype), "fourth": half[0] ** 4, "product": half[0] ** 2 * half[-1] ** 2}[kind]

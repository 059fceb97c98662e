"""Symbolic codes: shifts and maps whose words and entropies are known by formula, and plain counting as independent computation."""

import itertools
import math
import time
from collections import Counter

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jaxtyping import config as jaxtyping_config

from dynsys.analysis import symbols
from dynsys.analysis.symbols import Edge, SymbolicCode, symbolic_code
from dynsys.dynamics import AbstractMap, rollout
from dynsys.errors import InvalidValue
from dynsys.models.alrnn import ALRNN

GOLDEN = (1 + math.sqrt(5)) / 2


def chain(P, steps, seed=0):
    """A Markov chain with transition matrix P, and its stationary distribution."""
    draws, sums, labels = np.random.default_rng(seed).random(steps), np.cumsum(P, axis=1), [0]
    for draw in draws[1:]:
        labels.append(int(np.searchsorted(sums[labels[-1]], draw)))
    stationary = np.linalg.matrix_power(P, 200)[0]
    return np.array(labels), stationary


def one_unit(left, right, peak):
    """z -> left z + peak for z < 0, right z + peak for z > 0, as an AL-RNN with one rectified unit."""
    model = ALRNN.init(1, dim=1, n_relu=1, key=jr.key(0))
    values = {"A": jnp.array([left]), "W": jnp.array([[right - left]]), "h": jnp.array([peak])}
    return ALRNN(**values, C=model.C, observation=model.observation, n_relu=1)


def even_shift(blocks):
    """0 and 11 in random order: runs of ones are even."""
    picks = np.random.default_rng(1).integers(0, 2, blocks)
    return np.concatenate([[0], *[[1, 1] if pick else [0] for pick in picks]])


# known shifts


def test_full_shift():
    code = SymbolicCode.of(np.random.default_rng(0).integers(0, 2, 200_000))
    assert code.graph_entropy == pytest.approx(math.log(2), abs=1e-12)
    growth = code.word_growth(12)
    assert growth.words.tolist() == [2**length for length in range(1, 13)]  # 4,096 words of about 49 visits each
    assert growth.reliable == 12
    assert growth.entropy == pytest.approx(math.log(2), abs=1e-12)
    np.testing.assert_allclose(growth.rates, math.log(2), atol=1e-12)
    assert code.forbidden_words(8) == ()
    found = code.block_entropies(8)
    # a fair coin has no first-order statistical error: what is left is of order W / T = 256 / 200,000
    assert found.entropy == pytest.approx(math.log(2), abs=2e-4)


def test_golden_mean_shift():
    labels, _ = chain(np.array([[0.5, 0.5], [1.0, 0.0]]), 50_000)
    code = SymbolicCode.of(labels)
    assert code.graph_entropy == pytest.approx(math.log(GOLDEN), abs=1e-12)
    (forbidden,) = code.forbidden_words(8)
    assert forbidden.word == (1, 1)
    # a third of the time is 1, so chance would show 11 T / 9 times; 1 % for the scatter of the share
    assert forbidden.expected == pytest.approx(50_000 / 9, rel=0.02)
    assert forbidden.luck == 0.0
    growth = code.word_growth(10)
    assert growth.words.tolist() == [2, 3, 5, 8, 13, 21, 34, 55, 89, 144]  # Fibonacci
    assert growth.entropy == pytest.approx(math.log(144 / 89), abs=1e-12)
    assert growth.entropy == pytest.approx(math.log(GOLDEN), abs=1e-4)  # ratios of Fibonacci numbers are near by GOLDEN**-18


def test_even_shift_has_forbidden_words_of_every_odd_run():
    code = SymbolicCode.of(even_shift(100_000))
    words = {one.word for one in code.forbidden_words(9)}
    assert words == {(0, *[1] * run, 0) for run in (1, 3, 5, 7)}
    assert code.graph_entropy == pytest.approx(math.log(2), abs=1e-12)  # every pair occurs: the graph sees no rule
    # W_l = F_{l+3} - 1 (Lind & Marcus, section 4.1): 2, 4, 7, 12, 20 ...; the slope is near ln GOLDEN by GOLDEN**-l
    growth = code.word_growth(12)
    assert growth.words.tolist() == [2, 4, 7, 12, 20, 33, 54, 88, 143, 232, 376, 609]
    assert growth.entropy == pytest.approx(math.log(GOLDEN), abs=3e-3)


@pytest.mark.parametrize("period", [1, 2, 7])
def test_a_periodic_orbit_has_no_entropy(period):
    code = SymbolicCode.of(np.arange(5_000) % period)
    assert code.graph_entropy == 0.0
    assert code.word_growth().words.tolist() == [period] * 12
    assert code.word_growth().entropy == pytest.approx(0.0, abs=1e-12) or period == 1
    assert code.block_entropies().entropy == pytest.approx(0.0, abs=1e-3)  # corrections of W / T
    assert code.n_symbols == period


def test_markov_chain_has_the_entropy_of_the_formula():
    P = np.array([[0.1, 0.6, 0.3], [0.5, 0.25, 0.25], [0.0, 0.2, 0.8]])
    labels, stationary = chain(P, 100_000)
    code = SymbolicCode.of(labels, dt=0.5)
    logs = np.log(np.where(P > 0, P, 1.0))
    truth = -float(stationary @ (P * logs).sum(axis=1))
    for length in (2, 4):  # from two symbols on, more past tells nothing more
        found = code.block_entropies(length)
        assert found.reliable == length
        assert abs(found.entropy - truth) < 4 * found.error
        assert found.error < 0.005
        assert found.per_time == found.entropy / 0.5
    # five standard errors of a share of about 20,000 steps
    np.testing.assert_allclose(code.transition_matrix, P, atol=5 * 0.5 / math.sqrt(20_000))
    np.testing.assert_allclose(code.shares, stationary, atol=0.01)
    assert [one.word for one in code.forbidden_words(2)] == [(2, 0)]


def test_the_stated_error_is_the_scatter():
    P = np.array([[0.1, 0.9], [0.6, 0.4]])
    runs = [SymbolicCode.of(chain(P, 5_000, seed)[0]).block_entropies(2) for seed in range(30)]
    # 30 runs know their scatter to 13 %, 20 stretches each error to 16 %
    assert 0.7 < np.mean([run.error for run in runs]) / np.std([run.entropy for run in runs], ddof=1) < 1.4


# maps


def test_skew_tent_map():
    a = 0.4
    model = one_unit(1 / a, -1 / (1 - a), 1 - a)
    states = rollout(model, jnp.array([0.1234]), 200_000)
    code = symbolic_code(model, states, dt=2.0)
    # the invariant density is uniform, and the symbols are independent: a Bernoulli shift of a and 1 - a
    assert code.codes.tolist() == [[True], [False]]
    np.testing.assert_allclose(code.shares, [0.6, 0.4], atol=0.005)
    assert code.graph_entropy == pytest.approx(math.log(2), abs=1e-12)
    assert code.word_growth(8).entropy == pytest.approx(math.log(2), abs=1e-12)
    found = code.block_entropies(6)
    truth = -a * math.log(a) - (1 - a) * math.log(1 - a)
    assert abs(found.entropy - truth) < 4 * found.error
    assert found.error < 0.002
    assert found.per_time == pytest.approx(truth / 2, abs=0.004)


def test_tent_map_of_golden_slope():
    model = one_unit(GOLDEN, -GOLDEN, (GOLDEN - 1) / 2)
    states = rollout(model, jnp.array([0.1234]), 51_000)[1000:]
    code = symbolic_code(model, states)
    # the critical point has period 3: twice on the left is impossible, nothing else is, and every slope is GOLDEN
    left = int(np.flatnonzero(~code.codes[:, 0])[0])
    assert [one.word for one in code.forbidden_words(7)] == [(left, left)]
    assert code.graph_entropy == pytest.approx(math.log(GOLDEN), abs=1e-12)
    found = code.block_entropies(8)
    assert found.entropy == pytest.approx(math.log(GOLDEN), abs=max(4 * found.error, 1e-3))


@pytest.fixture
def unchecked():
    """Without the run-time checks of annotations, as outside the tests."""
    jaxtyping_config.update("jaxtyping_disable", True)
    yield
    jaxtyping_config.update("jaxtyping_disable", False)


def test_a_model_without_regions_is_refused(unchecked):
    class Smooth(AbstractMap):
        dim: int = 1
        n_obs: int = 1
        n_inputs: int = 0

        def step(self, z, u=None):
            return jnp.sin(z)

        def observe(self, z):
            return z

        def lift(self, x):
            return x

    with pytest.raises(InvalidValue, match="piecewise linear"):
        symbolic_code(Smooth(), np.zeros((5, 1)))


def test_a_diverged_orbit_ends_the_code_with_a_note():
    model = one_unit(2.5, -1.0, 0.0)
    states = np.array([[-1.0], [1.0], [-1.0], [np.inf], [1.0], [1.0], [1.0]])
    code = symbolic_code(model, states)
    assert code.labels.tolist() == [0, 1, 0]
    assert code.counts.tolist() == [2, 1]
    assert code.notes[0].startswith("State 3 of 7 is not finite")
    nothing = symbolic_code(model, states[3:4])
    assert nothing.n_symbols == 0
    assert nothing.edges == ()
    assert nothing.graph_entropy == 0.0
    assert math.isnan(nothing.word_growth().entropy)
    assert math.isnan(nothing.block_entropies().entropy)
    assert nothing.forbidden_words() == ()
    assert nothing.collapsed().labels.size == 0


# counting, against counting by hand


def by_hand(labels, length):
    return Counter(tuple(labels[i : i + length]) for i in range(len(labels) - length + 1))


@pytest.mark.parametrize(("symbols_", "steps"), [(2, 300), (3, 100), (40, 500), (300, 400)])
@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_words_are_counted_right(symbols_, steps, length):
    labels = np.random.default_rng(length).integers(0, symbols_, steps)
    code = SymbolicCode.of(labels)
    words, counts = code.words(length)
    names = [tuple(code.names[word].tolist()) for word in words]
    assert dict(zip(names, counts.tolist(), strict=True)) == by_hand(labels.tolist(), length)
    assert names == sorted(names)


@pytest.mark.parametrize(("symbols_", "steps"), [(2, 60), (3, 150)])
def test_forbidden_words_are_those_of_the_definition(symbols_, steps):
    labels = np.random.default_rng(steps).integers(0, symbols_, steps)
    seen = {length: by_hand(labels.tolist(), length) for length in range(1, 7)}
    wanted = {}
    for length in range(2, 7):
        for word in itertools.product(range(symbols_), repeat=length):
            parts = [word[i:j] for i in range(length) for j in range(i + 1, length + 1) if j - i < length]
            if word not in seen[length] and all(part in seen[len(part)] for part in parts):
                middle = seen[length - 2][word[1:-1]] if length > 2 else steps
                wanted[word] = seen[length - 1][word[:-1]] * seen[length - 1][word[1:]] / middle
    found = {one.word: one.expected for one in SymbolicCode.of(labels).forbidden_words(6)}
    assert len(wanted) > 5
    assert found.keys() == wanted.keys()
    np.testing.assert_allclose([found[word] for word in wanted], list(wanted.values()), rtol=1e-12)


def test_what_chance_explains_is_said():
    labels = (np.random.default_rng(3).random(1000) < 0.01).astype(int)
    (forbidden,) = SymbolicCode.of(labels).forbidden_words(2)
    ones = int(labels.sum())
    assert forbidden.word == (1, 1)
    assert forbidden.expected == pytest.approx(ones**2 / 1000)
    assert forbidden.luck == pytest.approx(math.exp(-(ones**2) / 1000))
    assert forbidden.luck > 0.8


def test_short_samples_are_told_apart_from_long_ones():
    code = SymbolicCode.of(np.random.default_rng(0).integers(0, 2, 1000))
    growth = code.word_growth(12)
    assert 5 <= growth.reliable <= 8  # at length 8 a word is seen 4 times on average, and e**-4 of them never
    assert growth.words[growth.reliable - 1] >= 0.98 * 2**growth.reliable
    truth = 2**10 - growth.words[9]
    assert truth > 300
    assert growth.unseen[9] == pytest.approx(truth, rel=0.3)
    found = code.block_entropies(12)
    assert found.reliable < 6  # (2**5 - 1) / 2,000 nats of bias are over 0.01
    assert found.plain[11] - found.plain[10] < 0.3  # the plain slope falls far below ln 2 = 0.69 at length 12
    assert found.entropy == pytest.approx(math.log(2), abs=0.01)


def test_the_bias_of_block_entropies_is_corrected():
    labels = np.random.default_rng(5).integers(0, 50, 20_000)
    found = SymbolicCode.of(labels).block_entropies(2)
    truth = 2 * math.log(50)
    assert found.plain[1] - truth == pytest.approx(-2499 / 40_000, abs=0.01)  # Miller's first term
    assert abs(found.corrected[1] - truth) < 0.005


@pytest.mark.parametrize("counts", [[1], [1, 1, 2, 3, 4], [5, 2, 2, 9]])
def test_the_correction_is_that_of_the_source(counts):
    # Grassberger's G by recursion: G(1) = -gamma - ln 2, G(2) = 2 - gamma - ln 2, G(2n + 1) = G(2n), G(2n + 2) = G(2n) + 2 / (2n + 1)
    G = {1: -np.euler_gamma - math.log(2), 2: 2 - np.euler_gamma - math.log(2)}
    for n in range(3, 10):
        G[n] = G[n - 1] if n % 2 else G[n - 2] + 2 / (n - 1)
    total = sum(counts)
    labels = np.repeat(np.arange(len(counts)), counts)
    found = SymbolicCode.of(labels).block_entropies(1)
    assert found.corrected[0] == pytest.approx(math.log(total) - sum(n * G[n] for n in counts) / total, abs=1e-12)


def test_transitions_by_hand():
    code = SymbolicCode.of([5, 5, 9, 5, 7, 9, 5])
    assert code.names.tolist() == [5, 7, 9]
    assert code.labels.tolist() == [0, 0, 2, 0, 1, 2, 0]
    assert code.transitions.tolist() == [[1, 1, 1], [0, 0, 1], [2, 0, 0]]
    np.testing.assert_allclose(code.transition_matrix, [[1 / 3, 1 / 3, 1 / 3], [0, 0, 1], [1, 0, 0]])
    assert code.edges[0] == Edge(0, 0, 1, 1 / 3)
    assert [(edge.source, edge.target) for edge in code.edges] == [(0, 0), (0, 1), (0, 2), (1, 2), (2, 0)]
    # loops 0, 0-2, 0-1-2: x**3 = x**2 + x + 1, the tribonacci constant
    assert code.graph_entropy == pytest.approx(math.log(1.8392867552141612), abs=1e-12)
    short = code.collapsed()
    assert short.labels.tolist() == [0, 2, 0, 1, 2, 0]
    assert short.counts.tolist() == [3, 1, 2]
    assert code.mean_stay == pytest.approx(7 / 6)
    assert code.n_above(0.25) == 2
    assert code.n_above(0.0) == 3


def test_a_symbol_that_nothing_follows():
    code = SymbolicCode.of([0, 1, 2])
    np.testing.assert_allclose(code.transition_matrix, [[0, 1, 0], [0, 0, 1], [0, 0, 0]])
    assert code.graph_entropy == 0.0


@pytest.mark.parametrize("dense", [2000, 3])
def test_spectral_radius_of_a_reducible_graph(dense, monkeypatch):
    monkeypatch.setattr(symbols, "_DENSE", dense)  # 3: power iteration
    rng = np.random.default_rng(0)
    labels = np.concatenate([rng.choice([0, 1, 2], 200, p=[0.9, 0.05, 0.05]), rng.integers(3, 12, 500) // 2 * 2 + 1, [20, 21, 22]])
    code = SymbolicCode.of(labels)
    ones = np.zeros((code.n_symbols, code.n_symbols))
    for edge in code.edges:
        ones[edge.source, edge.target] = 1
    assert code.graph_entropy == pytest.approx(math.log(np.abs(np.linalg.eigvals(ones)).max()), abs=1e-8)


def test_many_symbols():
    labels = np.random.default_rng(0).integers(0, 10**9, 4000)
    code = SymbolicCode.of(labels)
    assert code.n_symbols > 3990
    assert len(code.edges) == 3999
    with pytest.raises(InvalidValue, match="use edges"):
        code.transitions  # noqa: B018
    with pytest.raises(InvalidValue, match="smaller longest"):
        code.forbidden_words(2)
    with pytest.raises(InvalidValue, match="1 to 5 symbols"):
        code.words(6)
    assert code.block_entropies().lengths.tolist() == [1, 2, 3, 4, 5]
    assert code.block_entropies().reliable == 0


@pytest.mark.parametrize("labels", [[], [[0, 1]], [0.5, 1.0], ["a", "b"]])
def test_labels_that_are_none(labels):
    with pytest.raises(InvalidValue, match="whole numbers of shape"):
        SymbolicCode.of(labels)


def test_bad_settings_are_named():
    code = SymbolicCode.of([0, 1, 0])
    with pytest.raises(InvalidValue, match="dt must be positive"):
        SymbolicCode.of([0, 1], dt=0.0)
    with pytest.raises(InvalidValue, match="longest must be at least 1"):
        code.word_growth(0)
    with pytest.raises(InvalidValue, match="1 to 3 symbols"):
        code.words(4)


def test_a_million_labels_in_a_fraction_of_a_second():
    labels = np.random.default_rng(0).integers(0, 3, 10**6)

    def once():
        began = time.process_time()
        code = SymbolicCode.of(labels)
        code.word_growth(6)
        code.forbidden_words(6)
        code.collapsed()
        return time.process_time() - began

    assert min(once() for _ in range(3)) < 0.5  # 0.08 s on a quiet machine

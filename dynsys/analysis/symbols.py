"""The region sequence of an orbit as a symbolic code: transitions, forbidden words, entropies.

    N_l(w)  how often the word w of l symbols is seen;  W_l  how many words are seen;  p(w) = N_l(w) / (T - l + 1)
    topological entropy   ln rho(A), A_ij = 1 if ij is seen (of the graph);   ln W_l - ln W_{l-1}, ln W_l / l (of word growth)
    metric entropy        h_l = H_l - H_{l-1},  H_l = -sum p(w) ln p(w);   h <= h_l, and h_l falls to h as l grows

All in nats a step. What a finite sample can't show is said beside what it shows: for each forbidden word how often chance would
have shown it, for each word length whether the sample is long enough.
Sources: Lind & Marcus, An Introduction to Symbolic Dynamics and Coding, 1995 (graphs, forbidden words); Grassberger,
arXiv:physics/0307138, eq. 27 (bias of H); Chao, Scand. J. Stat. 11, 265 (1984) (unseen words); Brenner, Hemmer, Monfared, Durstewitz,
NeurIPS 2024 (regions of an AL-RNN as symbols).
"""

import dataclasses
import math
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Real
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.special import digamma

from dynsys.analysis.piecewise.regions import visited_regions
from dynsys.dynamics import AbstractPiecewiseLinear
from dynsys.errors import InvalidValue
from dynsys.status import Status

MINIMAL_CODES = {"Lorenz": (2, 3), "Rossler": (1, 2)}  # system: (rectified units, regions) that suffice; Brenner et al. 2024
_BITS = 62  # a word is one integer
_DENSE = 2000  # symbols up to which matrices are dense
_CANDIDATES = 10**7  # words that a search for forbidden ones looks up
_BLOCKS = 20  # stretches of time behind an error


@dataclasses.dataclass(frozen=True)
class Edge:
    """A transition: how often it was seen, and its share of all transitions from `source`."""

    source: int
    target: int
    count: int
    probability: float


@dataclasses.dataclass(frozen=True)
class ForbiddenWord:
    """A word that was not seen while all its proper parts were.

    expected: how often it would have been seen by chance, N(w without its end) N(w without its start) / N(w without both). Small
    numbers tell nothing: a word of expected count E stays away by luck with probability of about exp(-E).
    """

    word: tuple[int, ...]
    expected: float

    @property
    def luck(self) -> float:
        """exp(-expected)."""
        return math.exp(-self.expected)


@dataclasses.dataclass(frozen=True)
class WordGrowth:
    """How the number of words grows with their length: lengths 1, 2, ... (L,), words seen (L,), their unseen fellows (L,).

    unseen: estimate (a lower bound, Chao 1984) of how many more words the system has. reliable: the largest length up to which
    there are less than 1 % unseen words at every length; 0 if there are more already at length 1.
    """

    lengths: Int[np.ndarray, " L"]
    words: Int[np.ndarray, " L"]
    unseen: Float[np.ndarray, " L"]
    reliable: int

    @property
    def rates(self) -> Float[np.ndarray, " L"]:
        """ln W_l / l (L,): bounds of the topological entropy from above."""
        return np.log(self.words) / self.lengths

    @property
    def slopes(self) -> Float[np.ndarray, " L"]:
        """ln W_l - ln W_{l-1} (L,), with W_0 = 1: these come near the entropy at much smaller l."""
        return np.diff(np.log(self.words), prepend=0.0)

    @property
    def entropy(self) -> float:
        """The topological entropy: the slope at the largest reliable length, in nats a step; NaN if there is none."""
        return float(self.slopes[self.reliable - 1]) if self.reliable else math.nan


@dataclasses.dataclass(frozen=True)
class BlockEntropies:
    """Entropies of words, in nats: lengths 1, 2, ... (L,), H_l from the shares as they are (L,), and with their bias corrected (L,).

    reliable: the largest length up to which the correction is below 0.01 nats at every length (0: none is). error: standard
    error of `entropy` from 20 stretches of time. dt: time a step, or None.
    """

    lengths: Int[np.ndarray, " L"]
    plain: Float[np.ndarray, " L"]
    corrected: Float[np.ndarray, " L"]
    reliable: int
    error: float
    dt: float | None = None

    @property
    def rates(self) -> Float[np.ndarray, " L"]:
        """h_l = H_l - H_{l-1} (L,), H_0 = 0, corrected: the uncertainty of a symbol after l - 1 known ones."""
        return np.diff(self.corrected, prepend=0.0)

    @property
    def entropy(self) -> float:
        """The metric entropy: h_l at the largest reliable length, in nats a step; NaN if there is none. A bound from above."""
        return max(float(self.rates[self.reliable - 1]), 0.0) if self.reliable else math.nan

    @property
    def per_time(self) -> float:
        """The same in nats per unit of time; NaN without dt."""
        return math.nan if self.dt is None else self.entropy / self.dt


@dataclasses.dataclass(frozen=True, eq=False)
class SymbolicCode:
    """A symbol a step: labels (T,) in 0 ... n-1, counts (n,).

    codes (n, R): the region behind each symbol, None for a sequence that came without a model. names (n,): what the symbols were
    called. dt: time a step, or None. notes: what a reader must know, such as where the orbit diverged.
    """

    labels: Int[np.ndarray, " T"]
    counts: Int[np.ndarray, " n"]
    codes: Bool[np.ndarray, "n R"] | None = None
    names: Int[np.ndarray, " n"] | None = None
    dt: float | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, labels: Any, *, dt: float | None = None) -> "SymbolicCode":
        """The code of a sequence of whole numbers, labels (T,), numbered in their order. Raises InvalidValue for other things."""
        given = np.asarray(labels)
        if given.ndim != 1 or given.size == 0 or given.dtype.kind not in "iub":
            raise InvalidValue(
                f"SymbolicCode.of: labels must be whole numbers of shape (T,), T > 0, got {given.dtype} of shape {given.shape}."
            )
        _check_dt("SymbolicCode.of", dt)
        given = given.astype(np.int64)
        low, span = int(given.min()), int(given.max()) - int(given.min()) + 1
        if span <= 4 * len(given) + 1000:  # counting is faster than sorting
            tally = np.bincount(given - low)
            names = np.flatnonzero(tally)
            renamed = np.zeros(span, np.int64)
            renamed[names] = np.arange(len(names))
            return cls(renamed[given - low], tally[names], names=names + low, dt=dt)
        names, renamed, counts = np.unique(given, return_inverse=True, return_counts=True)
        return cls(renamed, counts, names=names, dt=dt)

    def __repr__(self) -> str:
        return f"SymbolicCode({self.n_symbols} symbols, {len(self.labels)} steps)"

    @property
    def n_symbols(self) -> int:
        """n: how many symbols (regions) are visited."""
        return len(self.counts)

    @property
    def shares(self) -> Float[np.ndarray, " n"]:
        """The share of the time spent in each (n,)."""
        return self.counts / max(len(self.labels), 1)

    def n_above(self, share: float) -> int:
        """How many symbols take at least this share of the time."""
        return int((self.shares >= share).sum())

    def collapsed(self) -> "SymbolicCode":
        """The same code with repeats merged, 0012220 -> 0120: for flows sampled finely, which stay in a region for many steps.

        A step of it has no fixed length, so dt is None; the `mean_stay` of this code is how many steps were merged into one.
        """
        labels = self.labels[np.diff(self.labels, prepend=-1) != 0]
        return dataclasses.replace(self, labels=labels, counts=np.bincount(labels, minlength=self.n_symbols), dt=None)

    @property
    def mean_stay(self) -> float:
        """Steps from one change of symbol to the next, on average."""
        return len(self.labels) / (1 + int(np.count_nonzero(np.diff(self.labels))))

    # transitions

    @cached_property
    def edges(self) -> tuple[Edge, ...]:
        """The transition graph: every pair that was seen, by source and target."""
        if len(self.labels) < 2:
            return ()
        pairs, counts = self._words(2)
        source, target = np.divmod(pairs, self._base)
        leaving = np.bincount(source, weights=counts, minlength=self.n_symbols)[source]
        columns = (source.tolist(), target.tolist(), counts.tolist(), (counts / leaving).tolist())
        return tuple(Edge(*row) for row in zip(*columns, strict=True))

    @property
    def transitions(self) -> Int[np.ndarray, "n n"]:
        """How often j follows i (n, n). Raises InvalidValue for more than 2,000 symbols: use `edges`."""
        if self.n_symbols > _DENSE:
            raise InvalidValue(f"SymbolicCode: a matrix of {self.n_symbols} symbols is too large; use edges, which holds what was seen.")
        matrix = np.zeros((self.n_symbols, self.n_symbols), np.int64)
        for edge in self.edges:
            matrix[edge.source, edge.target] = edge.count
        return matrix

    @property
    def transition_matrix(self) -> Float[np.ndarray, "n n"]:
        """The share of all steps from i that go to j (n, n); a row of zeros for a symbol that nothing follows."""
        counts = self.transitions
        return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

    @property
    def graph_entropy(self) -> float:
        """Topological entropy of the transition graph, ln of the spectral radius of its 0-1 matrix, in nats a step.

        The graph allows every path along its edges, so this bounds the entropy of the system from above, and is it if no longer
        words are forbidden. 0 for a periodic code.
        """
        pairs = np.array([(edge.source, edge.target) for edge in self.edges]).reshape(-1, 2)
        ones = csr_matrix((np.ones(len(pairs)), pairs.T), shape=(self.n_symbols, self.n_symbols))
        return math.log(max(_spectral_radius(ones), 1.0))  # a finite orbit may end before any loop closes: no growth

    # words

    def words(self, length: int) -> tuple[Int[np.ndarray, "W l"], Int[np.ndarray, " W"]]:
        """All words of a length that were seen, (W, length), in lexical order, and how often (W,)."""
        codes, counts = self._words(length)
        return self._spelt(codes, length), counts

    def forbidden_words(self, longest: int = 6) -> tuple[ForbiddenWord, ...]:
        """The minimal forbidden words of 2 to `longest` symbols: not seen, though all their proper parts were; likeliest first.

        "Forbidden" means not seen in T points; look at `expected` before you believe it.
        """
        found, base = [], self._base
        for length in range(2, min(longest, self._longest()) + 1):
            shorter, counts = self._words(length - 1)
            inner, inner_counts = self._words(length - 2) if length > 2 else (np.zeros(1, np.int64), np.array([len(self.labels)]))
            tails = shorter % base ** (length - 2)  # the word without its first symbol
            # a candidate is a seen word and a seen word that begins as it goes on: their overlap is a row of `inner`
            ends = np.searchsorted(shorter // base, tails, side="right")
            starts = np.searchsorted(shorter // base, tails, side="left")
            joined = ends - starts
            if joined.sum() > _CANDIDATES:
                raise InvalidValue(
                    f"SymbolicCode.forbidden_words: {joined.sum():,} words of {length} symbols would have to be looked up; "
                    f"give a smaller longest than {longest}, or merge symbols (n_symbols = {self.n_symbols})."
                )
            first = np.repeat(np.arange(len(shorter)), joined)
            second = np.arange(len(first)) - np.repeat(np.cumsum(joined) - joined, joined) + starts[first]
            candidates = shorter[first] * base + shorter[second] % base
            absent = ~np.isin(candidates, self._words(length)[0], assume_unique=True)
            middle = inner_counts[np.searchsorted(inner, tails[first[absent]])]
            expected = counts[first[absent]] * counts[second[absent]] / middle
            spelt = self._spelt(candidates[absent], length).tolist()
            found += [ForbiddenWord(tuple(word), float(times)) for word, times in zip(spelt, expected, strict=True)]
        return tuple(sorted(found, key=lambda one: (len(one.word), -one.expected)))

    def word_growth(self, longest: int = 12) -> WordGrowth:
        """Numbers of words of 1 to `longest` symbols, and what they say of the topological entropy."""
        lengths = self._lengths(longest)
        counts = [self._words(length)[1] for length in lengths]
        once, twice = (np.array([(count == times).sum() for count in counts]) for times in (1, 2))
        unseen = once * (once - 1) / (2.0 * (twice + 1))
        seen = np.array([len(count) for count in counts], int)
        return WordGrowth(np.array(lengths, int), seen, unseen, _first_run(unseen <= 0.01 * seen))

    def block_entropies(self, longest: int = 12) -> BlockEntropies:
        """Entropies of words of 1 to `longest` symbols, and what they say of the metric entropy."""
        lengths = self._lengths(longest)
        counts = [self._words(length)[1] for length in lengths]
        plain, corrected = np.array([_plain_entropy(c) for c in counts]), np.array([_corrected_entropy(c) for c in counts])
        reliable = _first_run(np.abs(corrected - plain) < 0.01)
        return BlockEntropies(np.array(lengths, int), plain, corrected, reliable, self._entropy_error(reliable), self.dt)

    @property
    def _base(self) -> int:
        return max(self.n_symbols, 2)

    def _longest(self) -> int:
        """The longest word that is one integer and fits into the sequence."""
        return min(int(_BITS / math.log2(self._base)), len(self.labels))

    def _lengths(self, longest: int) -> range:
        if longest < 1:
            raise InvalidValue(f"SymbolicCode: longest must be at least 1, got {longest}. It counts the symbols of a word.")
        return range(1, min(longest, self._longest()) + 1)

    def _sequence(self, length: int) -> Int[np.ndarray, " S"]:
        """The word of `length` symbols that begins at each step, as an integer in base n (T - length + 1,)."""
        if not 1 <= length <= self._longest():
            raise InvalidValue(
                f"SymbolicCode: words of this code can have 1 to {self._longest()} symbols "
                f"({self.n_symbols} symbols, {len(self.labels)} steps), got {length}."
            )
        rows = len(self.labels) - length + 1
        codes = self.labels[:rows].astype(np.int64)
        for i in range(1, length):
            codes = codes * self._base + self.labels[i : i + rows]
        return codes

    def _words(self, length: int) -> tuple[Int[np.ndarray, " W"], Int[np.ndarray, " W"]]:
        """The words that were seen, as increasing integers, and how often."""
        known = self._cache
        if length not in known:
            codes = self._sequence(length)
            if self._base**length <= 4 * len(codes) + 1000:  # counting is faster than sorting
                tally = np.bincount(codes)
                seen = np.flatnonzero(tally)
                known[length] = (seen, tally[seen])
            else:
                known[length] = np.unique(codes, return_counts=True)
        return known[length]

    @cached_property
    def _cache(self) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        return {}

    def _spelt(self, codes: Int[np.ndarray, " W"], length: int) -> Int[np.ndarray, "W l"]:
        powers = self._base ** np.arange(length - 1, -1, -1)
        return codes[:, None] // powers[None, :] % self._base

    def _entropy_error(self, length: int) -> float:
        """Standard error of h_l: of the mean of -ln p(symbol | l - 1 symbols before it) over stretches of time."""
        if length < 1 or len(self.labels) - length + 1 < 2 * _BLOCKS:
            return math.nan
        surprise = -self._log_shares(length)
        if length > 1:
            surprise = surprise + self._log_shares(length - 1)[: len(surprise)]
        means = [block.mean() for block in np.array_split(surprise, _BLOCKS)]
        return float(np.std(means, ddof=1) / math.sqrt(_BLOCKS))

    def _log_shares(self, length: int) -> Float[np.ndarray, " S"]:
        codes, (seen, counts) = self._sequence(length), self._words(length)
        return np.log(counts / len(codes))[np.searchsorted(seen, codes)]


def symbolic_code(model: AbstractPiecewiseLinear, states: Real[Any, "T M"], *, dt: float | None = None) -> SymbolicCode:
    """The regions that an orbit of a piecewise-linear model visits, one symbol each; 0 is the most visited.

    states (T, M): consecutive states; the code ends before the first that is not finite, which a note says. dt: time a step. Raises
    InvalidValue as `visited_regions` does, for states of another shape or a model that is not piecewise linear.
    """
    _check_dt("symbolic_code", dt)
    found, notes = visited_regions(model, states), ()
    if (found.labels < 0).any():
        end = int(np.argmax(found.labels < 0))
        notes = (f"State {end} of {len(found.labels)} is not finite: the code ends before it. {Status.DIVERGED.remedy}",)
        if end == 0:
            return SymbolicCode(found.labels[:0], found.counts[:0], found.codes[:0], dt=dt, notes=notes)
        found = visited_regions(model, np.asarray(states)[:end])
    return SymbolicCode(found.labels, found.counts, found.codes, dt=dt, notes=notes)


def _check_dt(who: str, dt: float | None) -> None:
    if dt is not None and not dt > 0:
        raise InvalidValue(f"{who}: dt must be positive, got dt={dt}: the time of one step.")


def _first_run(enough: Bool[np.ndarray, " L"]) -> int:
    """How many of the first entries are all True."""
    return len(enough) if enough.all() else int(np.argmin(enough))


def _plain_entropy(counts: Int[np.ndarray, " W"]) -> float:
    p = counts / counts.sum()
    return float(-(p * np.log(p)).sum())


def _corrected_entropy(counts: Int[np.ndarray, " W"]) -> float:
    """Grassberger 2003, eq. 27: ln N - sum n G(n) / N, G(n) = psi(n) + (-1)^n (psi((n + 1) / 2) - psi(n / 2)) / 2."""
    distinct, times = np.unique(counts, return_counts=True)  # few
    n = distinct.astype(float)
    g = digamma(n) + np.where(distinct % 2 == 0, 0.5, -0.5) * (digamma((n + 1) / 2) - digamma(n / 2))
    total = counts.sum()
    return float(np.log(total) - (times * n * g).sum() / total)


def _spectral_radius(ones: Any) -> float:
    """Of a sparse 0-1 matrix: the largest over its strongly connected parts, where it is a simple eigenvalue."""
    parts, part_of = connected_components(ones, directed=True, connection="strong")
    largest = 0.0
    for part in range(parts):
        rows = np.flatnonzero(part_of == part)
        block = ones[rows][:, rows]
        if block.nnz <= len(rows):  # a cycle, or a symbol without a loop
            largest = max(largest, float(block.nnz == len(rows)))
        elif len(rows) <= _DENSE:
            largest = max(largest, float(np.abs(np.linalg.eigvals(block.toarray())).max()))
        else:
            largest = max(largest, _perron(block))
    return largest


def _perron(block: Any, iterations: int = 2000) -> float:
    """The Perron root of an irreducible sparse matrix by power iteration on A + 1, between its Collatz-Wielandt bounds."""
    vector = np.ones(block.shape[0])
    low = high = 1.0
    for _ in range(iterations):
        after = block @ vector + vector
        low, high = float((after / vector).min()), float((after / vector).max())
        vector = after / after.sum()
        if high - low < 1e-10 * high:
            break
    return (low + high) / 2 - 1.0

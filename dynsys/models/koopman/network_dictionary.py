"""A dictionary that is a small network: F functions of the variables, random here, trained by `dynsys.models.koopman.dpnet`.

    v[l+1] = act(W[l] v[l] + b[l]),   the last layer is linear: psi = W v + b

Source of the random form: Huang, Zhu, Siew, Neurocomputing 70, 489 (2006).
"""

from itertools import pairwise
from typing import Any

import equinox as eqx
import numpy as np
from array_api_compat import array_namespace
from jaxtyping import Float

from dynsys.errors import InvalidValue, UnknownName
from dynsys.models.base import check_sizes
from dynsys.models.fields import ACTIVATIONS, activate
from dynsys.models.koopman.dictionary import AbstractDictionary, Rows

NEGLIGIBLE = 1e-5  # of the largest variance of the last hidden layer: a direction that is not scaled up to unit variance


class NetworkDictionary(AbstractDictionary):
    """Layers W[l] (after, before), b[l] (after,); the activation is 'tanh', 'softplus' or 'silu'."""

    W: tuple[Float[Any, "_ _"], ...]
    b: tuple[Float[Any, " _"], ...]
    activation: str = eqx.field(static=True, default="tanh")

    def __check_init__(self):
        if self.activation not in ACTIVATIONS:
            raise UnknownName("activation", self.activation, ACTIVATIONS)
        if len(self.W) != len(self.b) or not self.W:
            raise InvalidValue(f"NetworkDictionary: needs one b for each W, got {len(self.W)} and {len(self.b)}.")

    @classmethod
    def learn(
        cls,
        v: Float[np.ndarray, "R V"],
        *,
        features: int = 50,
        hidden: int = 64,
        depth: int = 2,
        activation: str = "tanh",
        rng: np.random.Generator,
    ) -> "NetworkDictionary":
        """Random hidden layers, and a last one that makes the F = `features` functions uncorrelated on v with mean 0 and variance 1.

        `depth` layers of `hidden` units. If the last has fewer independent directions than features, the rest have less variance.
        """
        check_sizes("NetworkDictionary", features=features, hidden=hidden, depth=depth)
        sizes = [v.shape[1], *[hidden] * depth]
        W = [rng.normal(size=(after, before)) / before**0.5 for before, after in pairwise(sizes)]
        b = [rng.uniform(-1.0, 1.0, after) for after in sizes[1:]]
        h = np.asarray(cls((*W, np.eye(hidden)), (*b, np.zeros(hidden)), activation)(v))  # pyright: ignore[reportCallIssue]
        mean = h.mean(axis=0)
        values, vectors = np.linalg.eigh((h - mean[None, :]).T @ (h - mean[None, :]) / len(h))
        size = np.sqrt(np.maximum(values, NEGLIGIBLE * max(values[-1], 1e-300)))
        whiten = (vectors / size[None, :]).T[::-1][:features]
        if features > hidden:
            whiten = np.concatenate([whiten, rng.normal(size=(features - hidden, hidden)) @ whiten / hidden**0.5])
        return cls((*W, whiten), (*b, -whiten @ mean), activation)  # pyright: ignore[reportCallIssue]

    def __call__(self, v: Rows) -> Any:
        """(..., V) -> (..., F)."""
        for W, b in zip(self.W[:-1], self.b[:-1], strict=True):
            v = activate(self.activation, self._affine(W, b, v))
        return self._affine(self.W[-1], self.b[-1], v)

    def _affine(self, W: Any, b: Any, v: Any) -> Any:
        return v @ W.T + array_namespace(v).reshape(b, (1,) * (len(v.shape) - 1) + (-1,))

    def terms(self, variables: tuple[str, ...]) -> tuple[str, ...]:
        """By number."""
        return tuple(f"network function {i + 1}" for i in range(self.b[-1].shape[0]))

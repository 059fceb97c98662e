"""Diagonal Koopman model: encoder and decoder networks around eigenvalues that are the parameters themselves.

    dy/ds = (-r + i w) y + B u,    r = exp(a),    s counts sampling intervals,    x = decode(y)
    one interval:   y[t+1] = l y[t] + g B u[t],   l = exp(-r + i w),   g = (l - 1) / (-r + i w)     (the input is held)

a and w are one number a latent eigenvalue, so |l| < 1 whatever they are: no free run diverges, and none grows. D complex components
stand as real ones, y = (re, im), L = 2 D. A longer or shorter interval is the same with r, w and B as many times as large, so that
irregular samples need nothing more. A free run is powers of l (`dynsys.models.koopman.orbit`), also while it is trained.
Sources: Mondal et al., Efficient dynamics modeling in interactive environments with Koopman theory, ICLR 2024 (arXiv 2306.11941); the
form of |l|: Orvieto et al., ICML 2023.
"""

import dataclasses
import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from array_api_compat import array_namespace
from jaxtyping import Array, Complex, Float

from dynsys.dynamics import AbstractTimed, AnyInput, AnyState
from dynsys.models.base import check_sizes, input_matrix, matvec
from dynsys.models.koopman.network import AbstractAutoencoder, Offsets, Weights, random_networks
from dynsys.models.koopman.orbit import MOST_INPUTS, driven_orbit, free_orbit

RATES = (1e-5, 0.1)  # r of a fresh model, spread evenly in its logarithm: decay within 100,000 to 10 intervals
ANGLES = (0.01, 1.5)  # w likewise: periods of about 600 to 4 intervals


class DiagonalKoopman(AbstractAutoencoder, AbstractTimed):  # pyright: ignore[reportIncompatibleVariableOverride]
    """Encoder, stable complex eigenvalues as parameters, decoder.

    log_rate is a, angle is w, radians a sampling interval; (D,) each.
    """

    encoder_W: Weights
    encoder_b: Offsets
    decoder_W: Weights
    decoder_b: Offsets
    log_rate: Float[Any, " D"]
    angle: Float[Any, " D"]
    B: Float[Any, "L K"]
    activation: str = eqx.field(static=True, default="tanh")
    reconstruction: float = eqx.field(static=True, default=1.0)
    consistency: float = eqx.field(static=True, default=1.0)
    discount: float = eqx.field(static=True, default=1.0)
    reencode: int = eqx.field(static=True, default=0)

    @classmethod
    def init(
        cls,
        n_obs: int,
        n_inputs: int = 0,
        *,
        modes: int | None = None,
        hidden: int = 64,
        depth: int = 2,
        activation: str = "tanh",
        decoder: str = "mlp",
        reconstruction: float = 1.0,
        consistency: float = 1.0,
        discount: float = 1.0,
        reencode: int = 0,
        key: Array,
    ) -> "DiagonalKoopman":
        """Random parameters for N observed components and K inputs.

        modes: D, the complex eigenvalues, by default 8 or N + 1 if that is more. `depth` hidden layers of `hidden` units in the encoder
        and, unless decoder is 'linear', in the decoder. reconstruction, consistency, discount: of the loss. reencode: see
        `dynsys.models.koopman.lifted`. Raises InvalidValue for sizes or weights that can't be, UnknownName for a decoder or an
        activation that is not there.
        """
        modes = max(8, n_obs + 1) if modes is None else modes
        check_sizes(cls.__name__, modes=modes)
        nets, drive, rate, angle = jr.split(key, 4)
        low, high = (jnp.log(jnp.asarray(bounds)) for bounds in zip(RATES, ANGLES, strict=True))
        return cls(
            **random_networks(cls.__name__, n_obs, 2 * modes, hidden=hidden, depth=depth, decoder=decoder, key=nets),
            log_rate=jr.uniform(rate, (modes,), minval=low[0], maxval=high[0]),
            angle=jnp.exp(jr.uniform(angle, (modes,), minval=low[1], maxval=high[1])),
            B=input_matrix(2 * modes, n_inputs, key=drive),
            activation=activation,
            reconstruction=reconstruction,
            consistency=consistency,
            discount=discount,
            reencode=reencode,
        )  # pyright: ignore[reportCallIssue]

    @property
    def n_latent(self) -> int:
        """L = 2 D."""
        return 2 * self.angle.shape[-1]

    @property
    def parallel(self) -> bool:
        """True for an autonomous model that is not encoded anew on the way.

        With inputs an orbit in blocks takes about as long as its steps on two cores, and its gradient two to three times as long as the
        reverse pass of `dynsys.train.forced`.
        """
        return self.reencode == 0 and self.n_inputs == 0

    @property
    def eigenvalues(self) -> Complex[np.ndarray, " D"]:
        """l, (D,); their conjugates are eigenvalues of `matrix` too."""
        return np.exp(-np.exp(np.asarray(self.log_rate, float)) + 1j * np.asarray(self.angle, float))

    @property
    def matrix(self) -> Float[Any, "L L"]:
        """[[Re l, -Im l], [Im l, Re l]], each block diagonal."""
        xp, (re, im) = array_namespace(self.angle), self._multiplier()
        re, im = xp.diag(re), xp.diag(im)
        return xp.concat([xp.concat([re, -im], axis=1), xp.concat([im, re], axis=1)])

    def _multiplier(self) -> tuple[Any, Any]:
        """Real and imaginary part of l."""
        xp = array_namespace(self.angle)
        modulus = xp.exp(-xp.exp(self.log_rate))
        return modulus * xp.cos(self.angle), modulus * xp.sin(self.angle)

    def _held(self) -> Any:
        """g B, (L, K): what an input that is held over the interval adds at its end.

        l - 1 without loss of digits where l is close to 1: Re = (e^-r - 1) cos w - 2 sin(w/2)^2.
        """
        xp = array_namespace(self.angle)
        r, w = xp.exp(self.log_rate), self.angle
        re = xp.expm1(-r) * xp.cos(w) - 2.0 * xp.sin(0.5 * w) ** 2
        im = xp.exp(-r) * xp.sin(w)
        size = r * r + w * w
        real, imaginary = ((w * im - r * re) / size)[:, None], (-(r * im + w * re) / size)[:, None]
        D = self.angle.shape[-1]
        return xp.concat([real * self.B[:D] - imaginary * self.B[D:], imaginary * self.B[:D] + real * self.B[D:]])

    def advance(self, y: Float[Any, " L"], u: AnyInput = None) -> Float[Any, " L"]:
        """l y + g B u in real and imaginary parts, (L,), (K,) -> (L,)."""
        xp, (re, im), D = array_namespace(y), self._multiplier(), self.angle.shape[-1]
        y = xp.concat([re * y[:D] - im * y[D:], im * y[:D] + re * y[D:]])
        return y if u is None or self.n_inputs == 0 else y + matvec(self._held(), u)

    def over(self, z: AnyState, u: AnyInput, gap: Any) -> AnyState:
        """The state `gap` sampling intervals later: a step of the model whose rates are so many times as large."""
        logarithm = math.log(gap) if isinstance(gap, int | float) else array_namespace(gap).log(gap)
        longer = dataclasses.replace(self, log_rate=self.log_rate + logarithm, angle=gap * self.angle, B=gap * self.B)
        return longer.step(z, u)

    def orbit(self, z: Float[Array, " M"], steps: int, inputs: Float[Array, "T K"] | None = None) -> Float[Array, "T M"]:
        """The states after z by powers of the eigenvalues, (M,) -> (steps, M); one by one if it is encoded anew on the way."""
        inputs = inputs if self.n_inputs else None
        if steps == 0 or self.reencode or (inputs is not None and self.n_inputs > MOST_INPUTS):
            return super().orbit(z, steps, inputs)
        re, im = self._multiplier()
        return free_orbit(re, im, z, steps) if inputs is None else driven_orbit(re, im, self._held(), z, inputs)

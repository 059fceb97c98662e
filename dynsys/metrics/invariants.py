"""Numbers that do not depend on the start: the maximal Lyapunov exponent of a reconstructed model.

    lambda_max = lim 1/t ln |delta z(t)| / |delta z(0)|

It compares with the exponent of the true system where one is known; a model without chaos has lambda_max <= 0.
"""

from typing import Any

from jaxtyping import Real

from dynsys.analysis.lyapunov import lyapunov_spectrum
from dynsys.dynamics import AbstractFlow, AbstractMap


def lyapunov_max(
    model: AbstractMap | AbstractFlow,
    z0: Real[Any, " M"],
    *,
    steps: int = 10_000,
    transient: int = 1000,
    dt: float | None = None,
    every: int | None = None,
) -> float:
    """Maximal Lyapunov exponent of a model along the orbit of z0 (M,), per unit of time (per step without dt).

    The keywords are those of `dynsys.analysis.lyapunov.lyapunov_spectrum`, which also gives the standard error. NaN if the orbit
    diverges. Raises InvalidValue for bad settings.
    """
    return lyapunov_spectrum(model, z0, steps=steps, transient=transient, dt=dt, every=every, n_exponents=1).maximal

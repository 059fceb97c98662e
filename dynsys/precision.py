"""Float64 at the door: simulation, analysis and verification run in double precision whatever the caller's setting.

`with x64():` or `@x64()`; nothing is set globally.
"""

from contextlib import AbstractContextManager
from typing import Any

import jax


def x64(enable: bool = True) -> AbstractContextManager[Any]:
    """A context manager (usable as a decorator) within which new JAX arrays are float64."""
    return jax.enable_x64(enable)

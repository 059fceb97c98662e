"""dynsys: from time series to the dynamical system that made them.

The names below are resolved when they are first used, so that `import dynsys` costs next to nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PLACES = {
    "fit": "dynsys.reconstruct",
    "load": "dynsys.reconstruct",
    "Reconstruction": "dynsys.reconstruct",
    "FitSettings": "dynsys.reconstruct",
    "write_report": "dynsys.report.build",
    "TimeSeries": "dynsys_datasets.series",
    "read_series": "dynsys_datasets.series",
    "write_series": "dynsys_datasets.series",
    "load_sample": "dynsys_datasets.samples",
    "sample_names": "dynsys_datasets.samples",
    "load_system": "dynsys.systems",
    "simulate_system": "dynsys.integrate",
    "solve": "dynsys.integrate",
    "AbstractMap": "dynsys.dynamics",
    "AbstractFlow": "dynsys.dynamics",
    "AbstractPiecewiseLinear": "dynsys.dynamics",
    "Discretized": "dynsys.dynamics",
    "rollout": "dynsys.dynamics",
    "lyapunov_spectrum": "dynsys.analysis.lyapunov",
    "Status": "dynsys.status",
    "DynsysError": "dynsys.errors",
}

__all__ = [*_PLACES, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from dynsys.analysis.lyapunov import lyapunov_spectrum as lyapunov_spectrum
    from dynsys.dynamics import (
        AbstractFlow as AbstractFlow,
        AbstractMap as AbstractMap,
        AbstractPiecewiseLinear as AbstractPiecewiseLinear,
        Discretized as Discretized,
        rollout as rollout,
    )
    from dynsys.errors import DynsysError as DynsysError
    from dynsys.integrate import simulate_system as simulate_system, solve as solve
    from dynsys.reconstruct import FitSettings as FitSettings, Reconstruction as Reconstruction, fit as fit, load as load
    from dynsys.report.build import write_report as write_report
    from dynsys.status import Status as Status
    from dynsys.systems import load_system as load_system
    from dynsys_datasets.samples import load_sample as load_sample, sample_names as sample_names
    from dynsys_datasets.series import TimeSeries as TimeSeries, read_series as read_series, write_series as write_series


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'dynsys' has no attribute {name!r}")
    value = getattr(importlib.import_module(_PLACES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})

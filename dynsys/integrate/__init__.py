"""Integrators: `solve` adapts its step to a flow; `solve_delay`, `solve_stochastic` and `solve_field` step through the other kinds;
`ensemble` and `ensemble_adaptive` take thousands of trajectories;
`simulate_system` goes from a name to a time series of any kind.
"""

from dynsys.integrate.delay import DelayMap, solve_delay
from dynsys.integrate.ensemble import ensemble, ensemble_adaptive
from dynsys.integrate.simulate import simulate_system
from dynsys.integrate.solve import Solution, solve
from dynsys.integrate.spectral import FieldMap, solve_field
from dynsys.integrate.stochastic import BrownianPath, brownian_path, solve_stochastic

__all__ = [
    "BrownianPath",
    "DelayMap",
    "FieldMap",
    "Solution",
    "brownian_path",
    "ensemble",
    "ensemble_adaptive",
    "simulate_system",
    "solve",
    "solve_delay",
    "solve_field",
    "solve_stochastic",
]

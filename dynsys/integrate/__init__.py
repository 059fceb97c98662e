"""Integrators: `solve` with a step size that adapts; `simulate_system` from a name to a time series."""

from dynsys.integrate.simulate import simulate_system
from dynsys.integrate.solve import Solution, solve
from dynsys.integrate.spectral import FieldMap, solve_field

__all__ = ["FieldMap", "Solution", "simulate_system", "solve", "solve_field"]

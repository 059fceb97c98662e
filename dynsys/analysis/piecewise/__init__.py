"""Reading a map: regions, fixed points and cycles, manifolds, basins, bifurcations."""

from dynsys.analysis.piecewise.cycle import Cycle, Cycles

__all__ = ["Cycle", "Cycles"]

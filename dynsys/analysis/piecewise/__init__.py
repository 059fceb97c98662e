"""Reading a map: regions, fixed points and cycles, manifolds, basins, bifurcations."""

from dynsys.analysis.piecewise.branches import Branch, Branches, Event
from dynsys.analysis.piecewise.continuation import along, between, follow
from dynsys.analysis.piecewise.cycle import Cycle, Cycles
from dynsys.analysis.piecewise.exhaustive import all_cycles
from dynsys.analysis.piecewise.manifolds import Manifold, grow_manifold
from dynsys.analysis.piecewise.newton import fixed_points
from dynsys.analysis.piecewise.regions import RegionsInBox, VisitedRegions, regions_in_box, visited_regions
from dynsys.analysis.piecewise.search import find_cycles

__all__ = [
    "Branch",
    "Branches",
    "Cycle",
    "Cycles",
    "Event",
    "Manifold",
    "RegionsInBox",
    "VisitedRegions",
    "all_cycles",
    "along",
    "between",
    "find_cycles",
    "fixed_points",
    "follow",
    "grow_manifold",
    "regions_in_box",
    "visited_regions",
]

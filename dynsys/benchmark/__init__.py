"""The benchmark: any model on all systems, one row a task, one table.

build(...)  the series of all systems        benchmark(...)  run every task        table(store, protocol)  read the result
"""

from dynsys.benchmark.dataset import Dataset, build
from dynsys.benchmark.generate import Recipe
from dynsys.benchmark.leaderboard import Table, table
from dynsys.benchmark.protocol import Protocol, load_protocol, protocol_names
from dynsys.benchmark.runner import Ran, benchmark
from dynsys.benchmark.store import Row, Store

__all__ = [
    "Dataset",
    "Protocol",
    "Ran",
    "Recipe",
    "Row",
    "Store",
    "Table",
    "benchmark",
    "build",
    "load_protocol",
    "protocol_names",
    "table",
]

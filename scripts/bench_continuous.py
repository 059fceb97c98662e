"""Continuous time against its rivals: liquid networks beside ncps, neural ODEs beside torchdiffeq, all in one process.

    python scripts/bench_continuous.py

Forward, backward and update from the same weights, losses compared first; see bench_continuous_liquid.py and bench_continuous_ode.py for
the sizes. One JSON row a case.
"""

import argparse
import json

import bench_continuous_liquid
import bench_continuous_ode


def main() -> None:
    """Print the rows of both."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--toy", action="store_true", help="tiny sizes: does it run?")
    asked = parser.parse_args()
    for bench in (bench_continuous_liquid, bench_continuous_ode):
        for row in bench.rows(toy=asked.toy):
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()

"""Write docs/database.md from the files of the database: one section a system, with equations, constants, facts and source.

    python scripts/write_database_page.py [--check]

--check writes nothing and ends with 1 if the page is not what the files say (a test runs it).
"""

import argparse
import sys
from pathlib import Path

from dynsys_datasets.catalogue import names, system
from dynsys_datasets.page import index, page

PAGE = Path(__file__).parents[1] / "docs" / "database.md"
HEAD = """# The database

Every system that comes with dynsys: {count} of them, {kinds}. This page is written by `scripts/write_database_page.py` from the files
themselves; what the entries of a file mean stands in [Systems](systems.md), how the facts are computed too. λ₁ is per unit of time of
the system (a step for a map). The same from the command line: `dynsys show Lorenz`.
"""


def text() -> str:
    """The whole page."""
    records = {name: system(name) for name in names()}
    kinds = [record.kind for record in records.values()]
    words = {"flow": "flows", "map": "maps", "delay": "delay equations", "sde": "stochastic equations", "field": "fields"}
    listed = ", ".join(f"{kinds.count(kind)} {many}" for kind, many in words.items() if kind in kinds)
    sections = [page(record) for record in records.values()]
    return "\n".join([HEAD.format(count=len(records), kinds=listed), index(records), "", *sections])


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        same = PAGE.exists() and PAGE.read_text(encoding="utf-8") == text()
        if not same:
            print("docs/database.md is not what the files say; run python scripts/write_database_page.py", file=sys.stderr)
        return int(not same)
    PAGE.write_text(text(), encoding="utf-8")
    print(f"wrote {PAGE.name}, {len(text()):,} characters")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The page of all systems is what their files say, as far as it does not change with facts that are being recomputed."""

import importlib.util
import re
from pathlib import Path

from dynsys_datasets.catalogue import names, system

ROOT = Path(__file__).parents[2]


def script():
    found = importlib.util.spec_from_file_location("write_database_page", ROOT / "scripts" / "write_database_page.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_the_page_is_what_the_files_say():
    assert (ROOT / "docs" / "database.md").read_text(encoding="utf-8") == script().text()


def test_every_system_has_its_section_and_every_link_its_target():
    text = script().text()
    heads = re.findall(r"^## (\S+)$", text, re.MULTILINE)
    assert tuple(heads) == names()
    assert {target for target in re.findall(r"\]\(#([^)]+)\)", text)} == {name.lower() for name in names()}
    assert all(system(name).file.source in text for name in names())

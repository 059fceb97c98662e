"""Strictness for every test: float64, no silent rank promotion, jaxtyping annotations checked at run time."""

import gc
import os
from pathlib import Path

import pytest

os.environ.setdefault("JAX_PLATFORMS", os.environ.get("DYNSYS_TEST_PLATFORM", "cpu"))

from jaxtyping import install_import_hook

install_import_hook(["dynsys", "dynsys_datasets", "dynsys_envs"], "beartype.beartype")

import jax

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")

MAPS = 20_000  # Linux allows a process 65,530 mappings; a compiled program takes several, and XLA aborts when there are none left


@pytest.fixture(autouse=True, scope="module")
def few_mappings():
    """Drop compiled programs after a file of tests when they have taken a third of the mappings that a process may have."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MAPS:
        jax.clear_caches()
        gc.collect()

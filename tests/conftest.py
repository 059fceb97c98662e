"""Strictness for every test: float64, no silent rank promotion, jaxtyping annotations checked at run time."""

import os

os.environ.setdefault("JAX_PLATFORMS", os.environ.get("DYNSYS_TEST_PLATFORM", "cpu"))

from jaxtyping import install_import_hook

install_import_hook(["dynsys", "dynsys_datasets", "dynsys_envs"], "beartype.beartype")

import jax

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")

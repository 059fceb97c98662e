"""Small instances of every registered model: with random parameters where it is trained, fitted to a short series where it is not."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from dynsys import registry
from dynsys.dynamics import AbstractPiecewiseLinear, AbstractTimed
from dynsys.models.koopman.lifted import AbstractLifted
from dynsys.models.regressed import Regressed


def _kind(cls):
    return tuple(name for name in registry.names("model") if issubclass(registry.lookup("model", name), cls))


REGRESSED = _kind(Regressed)
PIECEWISE = _kind(AbstractPiecewiseLinear)  # all of them have an observation model
TIMED = _kind(AbstractTimed)
LIFTED = _kind(AbstractLifted)  # Koopman models: what they observe of a lifted point need not be that point
TRAINED = tuple(name for name in registry.names("model") if name not in REGRESSED)
LEARNED_LIFTED = tuple(name for name in LIFTED if name not in REGRESSED)
# every kind of model in each variant that it has: (name, inputs, observation); those fitted in closed form have one
CASES = [(name, n_inputs, observation) for name in PIECEWISE for n_inputs in (0, 2) for observation in ("identity", "affine")]
CASES += [(name, n_inputs, "identity") for name in dict.fromkeys((*TIMED, *LEARNED_LIFTED)) for n_inputs in (0, 2)]
CASES += [(name, 0, "identity") for name in REGRESSED]

SMALL = {
    "parrot": {"delays": 2},
    "var": {"delays": 2, "ridge": 1e-9},
    "nvar": {"delays": 2, "stride": 2, "ridge": 1e-9},
    "polynomial-flow-map": {"delays": 2, "degree": 3, "ridge": 1e-9},
    "esn": {"units": 20, "radius": 0.9, "leak": 0.5, "input_scale": 0.5, "ridge": 1e-6, "washout": 5},
    "random-features": {"features": 15, "width": 2.0, "ridge": 1e-6},
    "dmd": {"rank": 3},
    "hankel-dmd": {"delays": 3, "rank": 5},
    "edmd": {"degree": 2, "delays": 2, "ridge": 1e-9},
    "kernel-edmd": {"delays": 2, "width": 2.0, "rank": 6, "ridge": 1e-6},
    "generator-edmd": {"degree": 2, "ridge": 1e-9},
    "koopman-vae": {"length": 10, "latent": 4, "hidden": 5, "steps": 5, "batch": 8, "delays": 2},
    "dpnet": {"features": 4, "hidden": 8, "depth": 1, "steps": 5, "delays": 2},
    "ltc": {"units": 5, "wiring": "low-rank", "rank": 2},
    "conductance-ltc": {"units": 5, "unfoldings": 3, "wiring": "ncp", "outputs": 2},
    "cfc": {"units": 5, "backbone": 0, "wiring": "random"},
    "cfc-mixed": {"units": 5, "backbone": 6, "depth": 2},
    "neural-ode": {"hidden": 6, "depth": 2},
    "koopman-autoencoder": {"latent": 4, "hidden": 6, "depth": 1},
    "koopman-diagonal": {"modes": 3, "hidden": 6, "depth": 1},
}


def waves(points=60, columns=3):
    """Sines of unequal frequency and offset, (points, columns)."""
    t, i = np.arange(points)[:, None], np.arange(columns)[None, :]
    return np.sin((0.3 + 0.1 * i) * t + i) + 0.3 * np.cos(0.05 * t) + 0.5 * i


def fitted(name, n_obs=3, **options):
    """A model that is fitted in closed form, with JAX arrays."""
    model = registry.lookup("model", name).from_series([waves(columns=n_obs)], **(SMALL.get(name, {}) | options))
    return jax.tree.map(jnp.asarray, model)


def make(name, n_inputs=0, observation="identity", n_obs=3, key=0, **options):
    """A model of any kind; if trained, with every parameter away from zero, so that no term is hidden by its start."""
    if name in REGRESSED:
        return fitted(name, n_obs, **options)
    seen = {"observation": observation} if name in PIECEWISE else {}
    model = registry.lookup("model", name).init(n_obs, n_inputs, **seen, key=jr.key(key), **(SMALL.get(name, {}) | options))
    leaves, treedef = jax.tree.flatten(model)
    keys = jr.split(jr.key(key + 1), len(leaves))
    away = [leaf + 0.05 * jr.normal(k, leaf.shape) if eqx.is_inexact_array(leaf) else leaf for leaf, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(treedef, away)


def astype(model, dtype):
    """The model with its real numbers in another precision."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, model)

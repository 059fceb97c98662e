"""Over every registered model: exact Jacobians, one equation on three array libraries, the region's affine map is the step."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from dynsys import registry
from dynsys.dynamics import AbstractPiecewiseLinear, Gapped, rollout
from dynsys.errors import InvalidValue

from .model_cases import CASES, LIFTED, PIECEWISE, REGRESSED, TIMED, TRAINED, astype, make


def states(model, count=20):
    return 2.0 * jr.normal(jr.key(3), (count, model.dim))


def inputs_for(model):
    return jr.normal(jr.key(4), (model.n_inputs,)) if model.n_inputs else None


@pytest.mark.parametrize(("name", "n_inputs", "observation"), CASES)
def test_jacobian_matches_autodiff(name, n_inputs, observation):
    model = make(name, n_inputs, observation)
    u = inputs_for(model)
    for z in states(model):
        # both are sums of at most a few hundred products of order one: rounding stays far below 1e-12
        assert_allclose(model.jacobian(z, u), jax.jacfwd(model.step)(z, u), atol=1e-12)


@pytest.mark.parametrize("name", PIECEWISE)
def test_switching_manifolds_and_frozen_maps_say_what_region_and_affine_say(name):
    model = make(name)
    normals, offsets = model.switching()
    zs = states(model)
    for z, elsewhere in zip(zs, zs[::-1], strict=True):
        region = model.region(z)
        assert np.array_equal(region, normals @ z + offsets > 0)
        assert_allclose(model.frozen(z, region), model.step(z), atol=1e-12)
        J, h = model.affine(region)
        assert_allclose(model.frozen(elsewhere, region), J @ elsewhere + h, atol=1e-12)  # also where it does not hold


@pytest.mark.parametrize(("name", "n_inputs", "observation"), CASES)
def test_step_observe_lift_agree_on_jax_numpy_and_torch(name, n_inputs, observation):
    model = make(name, n_inputs, observation)
    arrays, static = eqx.partition(model, eqx.is_array)
    as_numpy = eqx.combine(jax.tree.map(np.asarray, arrays), static)
    as_torch = eqx.combine(jax.tree.map(lambda a: torch.from_numpy(np.array(a)), arrays), static)
    u = inputs_for(model)
    u_np = None if u is None else np.asarray(u)
    u_torch = None if u is None else torch.from_numpy(np.array(u))
    for z in states(model, 5):
        z_np, z_torch = np.asarray(z), torch.from_numpy(np.array(z))
        expected = model.step(z, u)
        assert isinstance(as_numpy.step(z_np, u_np), np.ndarray)
        assert isinstance(as_torch.step(z_torch, u_torch), torch.Tensor)
        # the same operations in float64; only the order of summation may differ
        assert_allclose(as_numpy.step(z_np, u_np), expected, atol=1e-13)
        assert_allclose(as_torch.step(z_torch, u_torch).numpy(), expected, atol=1e-13)
        x = model.observe(z)
        assert_allclose(as_numpy.observe(z_np), x, atol=1e-13)
        assert_allclose(as_torch.observe(z_torch).numpy(), x, atol=1e-13)
        # the pseudo-inverse is computed by different libraries
        assert_allclose(as_numpy.lift(np.asarray(x)), model.lift(x), atol=1e-11)
        assert_allclose(as_torch.lift(torch.from_numpy(np.array(x))).numpy(), model.lift(x), atol=1e-11)


@pytest.mark.parametrize(("name", "n_inputs", "observation"), [case for case in CASES if case[0] in PIECEWISE])
def test_region_gives_the_affine_map(name, n_inputs, observation):
    model = make(name, n_inputs, observation)
    assert isinstance(model, AbstractPiecewiseLinear)
    for z in states(model):
        J, h = model.affine(model.region(z))
        assert_allclose(J @ z + h, model.step(z), atol=1e-12)
    seen = {tuple(np.asarray(model.region(z)).tolist()) for z in states(model)}
    assert len(seen) > 1  # otherwise one region was all that was tested


@pytest.mark.parametrize("name", PIECEWISE)
@pytest.mark.parametrize("observation", ["identity", "affine"])
def test_lift_and_correct_invert_observe(name, observation):
    model = make(name, observation=observation, dim=7)
    x = jr.normal(jr.key(5), (3,))
    z = states(model, 1)[0]
    assert_allclose(model.observe(model.lift(x)), x, atol=1e-12)
    corrected = model.correct(z, x)
    assert_allclose(model.observe(corrected), x, atol=1e-12)
    # what is not observed stays: the change has no part in the null space of the observation
    B = jax.jacfwd(model.observe)(z)
    null = np.eye(7) - np.linalg.pinv(B) @ B
    assert_allclose(null @ (corrected - z), 0.0, atol=1e-12)


@pytest.mark.parametrize("name", TIMED)
def test_a_timed_map_takes_any_gap(name):
    model = make(name, n_inputs=2)
    gapped = Gapped(model)
    z, u = states(model, 1)[0], inputs_for(model)
    assert_allclose(model.over(z, u, 1.0), model.step(z, u), atol=1e-14)
    assert_allclose(gapped.step(z, jnp.append(u, 2.5)), model.over(z, u, 2.5), atol=1e-14)
    assert_allclose(gapped.step(z), model.step(z), atol=1e-14)
    assert not np.allclose(model.over(z, u, 2.5), model.step(z, u), atol=1e-6)
    # the observation moves continuously: a gap of nothing moves it by nothing
    assert_allclose(model.observe(model.over(z, u, 1e-9)), model.observe(z), atol=1e-6)
    if name in LIFTED:  # an autoencoder decodes what it encoded only as well as it has learned to
        return
    x = jr.normal(jr.key(5), (3,))
    assert_allclose(gapped.observe(gapped.correct(z, x)), x, atol=0)
    assert_allclose(gapped.observe(gapped.lift(x)), x, atol=0)


@pytest.mark.parametrize("name", [name for name in REGRESSED if name not in LIFTED])
def test_correct_shows_the_observation_and_keeps_the_past(name):
    model = make(name)
    x, z = jr.normal(jr.key(5), (3,)), states(model, 1)[0]
    assert_allclose(model.observe(model.lift(x)), x, atol=0)
    corrected = model.correct(z, x)
    assert_allclose(corrected[:3], x, atol=0)
    assert_allclose(model.observe(corrected), x, atol=0)
    kept = slice(3, -1) if name == "parrot" else slice(3, None)  # a parrot looks up its place in the library anew
    assert_allclose(corrected[kept], z[kept], atol=0)


@pytest.mark.parametrize("name", PIECEWISE)
def test_latent_space_smaller_than_the_data(name):
    model = make(name, observation="affine", n_obs=5, dim=2)
    z = states(model, 1)[0]
    assert model.step(z).shape == (2,)
    # B has full column rank, so the least-squares lift of an observation is its state
    assert_allclose(model.lift(model.observe(z)), z, atol=1e-11)
    with pytest.raises(InvalidValue, match="observation='affine'"):
        registry.lookup("model", name).init(5, dim=2, key=jr.key(0))


@pytest.mark.parametrize("name", ["clipped-shallow-plrnn", "clipped-dendritic-plrnn"])
def test_clipped_models_stay_bounded(name):
    model = make(name, dim=4).clamped(0.95)
    model = eqx.tree_at(lambda m: m.h1 if hasattr(m, "h1") else m.h, model, 10.0 * jnp.ones(4))
    far = rollout(model, 1e6 * jnp.ones(4), 2000)
    # |z[t+1]| <= .95 |z[t]| + c with c = |h1| + sum |W1||h2| (or its dendritic form): after 2,000 steps only c/(1-.95) is left
    c = float(jnp.max(jnp.abs(rollout(model, jnp.zeros(4), 1)))) + 200.0
    assert float(jnp.max(jnp.abs(far[-1]))) < c / 0.05


def test_mean_centring_is_invariant_to_a_shift_inside_the_rectifier():
    model = make("mean-centered-plrnn", dim=6)
    z, shift = states(model, 1)[0], 3.7
    assert_allclose(model.step(z + shift) - model.step(z), model.A * shift, atol=1e-12)


def test_alrnn_limits_are_linear_and_plrnn():
    linear = make("alrnn", dim=5, n_relu=0)
    z = states(linear, 2)
    assert_allclose(linear.step(z[0] + z[1]) + linear.step(0 * z[0]), linear.step(z[0]) + linear.step(z[1]), atol=1e-12)
    full = make("alrnn", dim=5, n_relu=5)
    plrnn = registry.lookup("model", "plrnn")(A=full.A, W=full.W, h=full.h, C=full.C, observation=full.observation)
    assert_allclose(full.step(z[0]), plrnn.step(z[0]), atol=1e-15)


@pytest.mark.parametrize("n_relu", [-1, 6])
def test_alrnn_refuses_impossible_counts(n_relu):
    with pytest.raises(InvalidValue, match=r"n_relu must be in \[0, dim\], got n_relu=-?\d with dim=5"):
        registry.lookup("model", "alrnn").init(2, dim=5, n_relu=n_relu, key=jr.key(0))


@pytest.mark.parametrize("name", registry.names("model"))
def test_float32_stays_float32(name):
    model = astype(make(name, n_inputs=1 if name in TRAINED else 0), jnp.float32)
    z, u = jnp.ones(model.dim, jnp.float32), jnp.ones(1, jnp.float32) if model.n_inputs else None
    assert model.step(z, u).dtype == model.jacobian(z, u).dtype == model.observe(z).dtype == jnp.float32

"""Latent ODE: what the recognition network ignores and reads, the bound's terms by hand, and sines with half of the values missing."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from numpy.testing import assert_allclose

from dynsys.errors import InvalidValue
from dynsys.models.latent_ode import LatentODE, fit_latent_ode


def small(n_obs=2):
    return LatentODE.init(n_obs, latent=3, hidden=8, units=8, key=jr.key(0))


def sines(count, points=25, *, missing, seed):
    """Sines of random phase and amplitude at irregular times of their own, (B, T, 1), true and with values missing."""
    rng = np.random.default_rng(seed)
    times = np.sort(rng.uniform(0.0, 4.0, (count, points)), axis=1) + 1e-3 * np.arange(points)
    phase, size = rng.uniform(0, 2 * np.pi, (count, 1)), rng.uniform(0.7, 1.3, (count, 1))
    true = (size * np.sin(0.5 * np.pi * times + phase))[..., None]
    return times, true, np.where(rng.uniform(size=true.shape) < missing, np.nan, true)


def test_encoder_ignores_what_is_missing_and_reads_the_gaps():
    model = small()
    xs, times = np.random.default_rng(0).normal(size=(3, 6, 2)), np.linspace(0.0, 2.0, 6)
    xs[:, 2] = np.nan  # nothing was observed: the sample does not count, but the time does
    kept = np.arange(6) != 2
    mean, size = model.encode(xs, times)
    without = model.encode(xs[:, kept], times[kept])
    assert_allclose(mean, without[0], atol=1e-12)  # two decays in a row are one over the sum of the gaps
    assert_allclose(size, without[1], atol=1e-12)
    assert bool(jnp.all(size > 0))
    moved = model.encode(xs, 2 * times)[0]
    assert not np.allclose(moved, mean, atol=1e-5)
    xs[0, 3, 1] = np.nan
    assert_allclose(model.encode(xs, times)[0][1:], mean[1:], atol=1e-12)
    assert not np.allclose(model.encode(xs, times)[0][0], mean[0], atol=1e-5)


def test_times_of_all_and_times_of_each_agree_and_the_bound_is_its_two_terms():
    model = small()
    xs, times = np.random.default_rng(0).normal(size=(3, 6, 2)), np.linspace(0.0, 2.0, 6)
    xs[0, 1, 0] = np.nan
    shared, each = model.reconstruct(xs, times), model.reconstruct(xs, np.tile(times, (3, 1)))
    assert shared.shape == (3, 6, 2)
    assert_allclose(shared, each, atol=1e-3)  # the tolerance of the solve
    assert_allclose(model.extrapolate(xs, times, np.linspace(1.0, 3.0, 4)).shape, (3, 4, 2))
    mean, size = model.encode(xs, times)
    full, none = (model.elbo(xs, times, weight=w, key=jr.key(5)) for w in (1.0, 0.0))
    # KL of two normal distributions by its textbook form
    kl = np.sum(np.log(1 / size) + (size**2 + mean**2) / 2 - 0.5, axis=1).mean()
    assert_allclose(none - full, kl, rtol=1e-6)
    certain = eqx.tree_at(lambda m: m.encoder.r, model, jnp.concatenate([model.encoder.r[:3], jnp.full(3, -40.0)]))  # sigma = 1e-4
    off = (certain.reconstruct(xs, times) - xs)[np.isfinite(xs)]
    likelihood = np.sum(-0.5 * (off / 0.05) ** 2 - np.log(0.05 * np.sqrt(2 * np.pi))) / 3
    assert_allclose(certain.elbo(xs, times, weight=0.0, key=jr.key(5)), likelihood, rtol=1e-3)  # draws of size 1e-4 against 0.05


@pytest.mark.slow  # 700 updates
def test_sines_with_half_of_the_values_missing():
    times, _, seen = sines(500, missing=0.5, seed=0)
    model = LatentODE.init(1, latent=4, hidden=20, units=16, noise=0.1, key=jr.key(0))
    model = jax.tree.map(lambda a: a.astype(jnp.float32) if eqx.is_inexact_array(a) else a, model)
    fitted = fit_latent_ode(model, seen, times, steps=700, batch=32, anneal=200, key=jr.key(1))
    assert fitted.status.ok
    times, true, seen = sines(60, missing=0.5, seed=1)
    made = fitted.model.reconstruct(seen, times)
    error = np.mean((np.asarray(made) - true) ** 2) / np.var(true)
    unseen = np.isnan(seen)
    assert error < 0.15  # the mean has 1, and a longer training reaches 0.02
    assert np.mean((np.asarray(made) - true)[unseen] ** 2) / np.var(true) < 0.2  # also where nothing was shown
    assert float(jnp.mean(fitted.elbos[-50:])) > float(jnp.mean(fitted.elbos[:50]))


def test_wrong_shapes_are_refused():
    with pytest.raises(InvalidValue, match=r"\(B, T, N\) with N=2"):
        small().encode(np.zeros((3, 6, 1)), np.zeros(6))
    stamps = 1.7e9 + 0.1 * np.arange(6)  # seconds since 1970: all equal in float32
    single = jax.tree.map(lambda a: a.astype(jnp.float32) if eqx.is_inexact_array(a) else a, small())
    with pytest.raises(InvalidValue, match=r"must increase, also in the model's precision \(float32\)"):
        single.encode(np.zeros((3, 6, 2)), stamps)
    with pytest.raises(InvalidValue, match="noise must be positive"):
        LatentODE.init(2, noise=0.0, key=jr.key(0))

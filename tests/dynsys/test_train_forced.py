"""The forced run and its reverse pass: against a plain loop, against autodiff through a scan, and at both ends of forcing."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from numpy.testing import assert_allclose

from dynsys import registry
from dynsys.dynamics import rollout
from dynsys.errors import InvalidValue
from dynsys.train.forced import forced_run
from dynsys.train.forcing import Adaptive, Annealed, Constant, FreeRunning, GeneralizedForcing, SparseForcing, jacobian_growth
from dynsys.train.loss import Loss

from .model_cases import PIECEWISE, TRAINED, make

T, B, N, K = 7, 2, 3, 2
FORCINGS = [SparseForcing(4), SparseForcing(4, complete=True), GeneralizedForcing(Constant(0.3)), FreeRunning()]


def case(name, observation="identity", inputs=True):
    sizes = {"dim": 5} if name in PIECEWISE else {}
    model = make(name, K if inputs else 0, observation, n_obs=N, **sizes)
    xs = jr.normal(jr.key(1), (T, B, N))
    return model, xs, jr.normal(jr.key(2), (T, B, K)) if inputs else None


def literal(model, forcing, strength, xs, us):
    """The definition, one step at a time, differentiated as it stands."""

    def window(x, u):
        states = [model.lift(x[0])]
        for t in range(T - 1):
            z = forcing.apply(model, states[-1], x[t], jnp.asarray(t), strength)
            states.append(model.step(z, None if u is None else u[t]))
        return jnp.stack(states)

    return jax.vmap(window, (1, None if us is None else 1), 1)(xs, us)


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("forcing", FORCINGS, ids=lambda f: type(f).__name__)
def test_states_and_gradients_equal_the_literal_loop(name, forcing):
    model, xs, us = case(name, "affine" if name == "alrnn" else "identity")
    strength = jnp.asarray(0.3)
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def of(run):
        def objective(params):
            whole = eqx.combine(params, static)
            states = run(whole, forcing, strength, xs, us)
            return jnp.sum(jnp.sin(jax.vmap(jax.vmap(whole.observe))(states))), states

        return jax.jit(jax.grad(objective, has_aux=True))(params)

    (ours, states), (autodiff, wanted) = of(forced_run), of(literal)
    assert_allclose(states, wanted, atol=1e-12)  # the same operations in float64
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(autodiff), strict=True):
        assert_allclose(a, b, atol=1e-10, rtol=1e-9)
    assert max(float(jnp.max(jnp.abs(leaf), initial=0.0)) for leaf in jax.tree.leaves(autodiff)) > 0.1


@pytest.mark.parametrize("name", TRAINED)
def test_full_forcing_predicts_one_step_and_none_runs_free(name):
    model, xs, us = case(name)
    full = forced_run(model, GeneralizedForcing(Constant(1.0), complete=True), jnp.asarray(1.0), xs, us)
    for t in range(T - 1):
        one_step = jax.vmap(lambda x, u: model.step(model.lift(x), u))(xs[t], us[t])
        assert_allclose(full[t + 1], one_step, atol=1e-12)
    for forcing in (GeneralizedForcing(Constant(0.0)), FreeRunning()):
        free = forced_run(model, forcing, jnp.asarray(0.0), xs, us)
        for b in range(B):
            assert_allclose(free[1:, b], rollout(model, model.lift(xs[0, b]), T - 1, us[:-1, b]), atol=1e-12)


def test_sparse_forcing_replaces_what_is_observed_at_multiples_of_the_interval():
    model, xs, _ = case("alrnn")
    z = jr.normal(jr.key(9), (5,))
    forced = SparseForcing(4).apply(model, z, xs[0, 0], jnp.asarray(8), jnp.asarray(1.0))
    assert_allclose(forced, jnp.concatenate([xs[0, 0], z[3:]]))
    assert_allclose(SparseForcing(4, complete=True).apply(model, z, xs[0, 0], jnp.asarray(8), jnp.asarray(1.0))[3:], 0.0)
    assert_allclose(SparseForcing(4).apply(model, z, xs[0, 0], jnp.asarray(9), jnp.asarray(1.0)), z)


def linear(J):
    return registry.lookup("model", "alrnn")(
        A=jnp.zeros(len(J)), W=J, h=jnp.zeros(len(J)), C=jnp.zeros((len(J), 0)), observation=case("alrnn")[0].observation, n_relu=0
    )


def test_growth_of_a_linear_map_is_its_norm_and_its_spectral_radius():
    J = np.array([[1.1, 0.9], [0.0, 0.7]])
    states = jr.normal(jr.key(0), (400, 2, 2))
    # the mean of equal matrices is the matrix; the 400th root of |J^400| is the spectral radius up to |c|^(1/400), here below 0.4 %
    assert_allclose(jacobian_growth(linear(J), states, None, "mean"), np.linalg.norm(J, 2), rtol=1e-6)
    assert_allclose(jacobian_growth(linear(J), states, None, "product"), 1.1, rtol=4e-3)


def growth_of(value):
    return lambda _: jnp.asarray(value)


def test_strengths_follow_their_rules():
    rise, fall = Adaptive(start=0.3, floor=0.1), Adaptive(start=0.9, floor=0.1, decay=0.9)
    now = jnp.asarray(0.3)
    assert_allclose(rise.next(now, growth_of(2.0)), 0.5)  # 1 - 1/2 > .3: raised at once
    assert_allclose(fall.next(jnp.asarray(0.9), growth_of(2.0)), 0.9 * 0.9 + 0.1 * 0.5)
    assert_allclose(rise.next(jnp.asarray(0.1), growth_of(0.5)), 0.1)  # contracting: alpha* = 0, kept at the floor
    assert_allclose(rise.next(now, growth_of(jnp.nan)), now)
    assert_allclose(Annealed(start=1.0, decay=0.5, floor=0.3).next(jnp.asarray(0.5), growth_of(1.0)), 0.3)
    assert_allclose(Constant(0.2).next(jnp.asarray(0.2), growth_of(1.0)), 0.2)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Constant(1.5),
        lambda: Annealed(floor=-0.1),
        lambda: Adaptive(estimate="max"),
        lambda: SparseForcing(0),
        lambda: Loss(l2=-1.0),
    ],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(InvalidValue):
        make()


def test_penalties_equal_their_formulas():
    model, xs, us = case("shallow-plrnn")
    plain = Loss()(model, FreeRunning(), jnp.asarray(0.0), xs, xs, us)
    squares = sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array)))
    assert_allclose(Loss(l2=0.1)(model, FreeRunning(), jnp.asarray(0.0), xs, xs, us) - plain, 0.1 * squares, rtol=1e-12)
    last = slice(-2, None)  # 40 % of five units
    wanted = np.sum((model.A[last] - 1) ** 2) + np.sum(model.W1[last] ** 2) + np.sum(model.h1[last] ** 2)
    assert_allclose(Loss(manifold=2.0, manifold_share=0.4).penalty(model), 2.0 * wanted, rtol=1e-12)


def test_loss_is_the_mean_squared_one_step_error():
    model, xs, us = case("plrnn")
    states = literal(model, FORCINGS[2], jnp.asarray(0.3), xs, us)
    wanted = np.mean((np.asarray(states[1:, :, :N]) - np.asarray(xs[1:])) ** 2)
    assert_allclose(Loss()(model, FORCINGS[2], jnp.asarray(0.3), xs, xs, us), wanted, rtol=1e-12)

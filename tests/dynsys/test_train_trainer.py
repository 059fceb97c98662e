"""The training loop: one update by hand, ensembles, skipped updates, bounds, checkpoints, and systems whose equations are known."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from hypothesis import given, strategies as st
from jaxtyping import config as jaxtyping_config
from numpy.testing import assert_allclose, assert_array_equal

from dynsys import registry
from dynsys.dynamics import AbstractFlow, AbstractMap, Discretized
from dynsys.errors import InvalidValue
from dynsys.status import Status
from dynsys.train.forcing import Adaptive, Constant, GeneralizedForcing, SparseForcing
from dynsys.train.loss import Loss
from dynsys.train.trainer import WORST_SCORE, Plan, Scored, Trainer
from dynsys.train.windows import Streamed, Windows

from .fit_cases import driven, orbit, rotation


def shallow(key=0, **sizes):
    return registry.lookup("model", "clipped-shallow-plrnn").init(2, hidden=4, key=jr.key(key), **sizes)


def spiral(points=300):
    return orbit(rotation(0.3, 0.999), points)


def windows_of(*trajectories, length=6, inputs=None):
    return Windows.of(list(trajectories), inputs, length=length, dtype=jnp.float64)


def trained(trainer, scorer=lambda model: Scored(1.0), save=None):
    run = trainer.begin()
    told = list(trainer.run(run, scorer, save))
    return trainer.result(run), run, told


def leaves(model):
    return jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_updates_equal_literal_ones(noise):
    """Three updates of optax with a bounded gradient, the loss written as a loop and differentiated as it stands, in float64.

    Noise is in what forces, not in the targets.
    """
    model, windows, optimizer = shallow(), windows_of(spiral(), length=4), optax.adam(0.05)
    plan = Plan(steps=3, chunk=3, block=1, batch=2, checkpoints=1, clip=0.5, noise=noise)
    key, alpha = jr.key(7), 0.4
    ours, _, told = trained(
        Trainer((model,), windows, forcing=GeneralizedForcing(Constant(alpha)), optimizer=optimizer, plan=plan, key=key)
    )

    def loss(model, xs, forced_by):
        errors = []
        for b in range(2):
            z = forced_by[0, b]  # all states are observed
            for t in range(3):
                z = model.step((1 - alpha) * z + alpha * forced_by[t, b])
                errors.append(z - xs[t + 1, b])
        return jnp.mean(jnp.stack(errors) ** 2)

    literal = jax.jit(jax.value_and_grad(loss))
    losses, state = [], optimizer.init(eqx.filter(model, eqx.is_inexact_array))
    for count in range(3):
        draw, disturb = jr.split(jr.fold_in(jr.fold_in(key, 0), count))
        xs = windows.draw(2, key=draw)[0]
        value, gradient = literal(model, xs, xs + noise * jr.normal(disturb, xs.shape))
        size = np.sqrt(sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(gradient)))
        gradient = jax.tree.map(lambda leaf, size=size: leaf * min(1.0, 0.5 / size), gradient)
        changes, state = optimizer.update(gradient, state)
        model = eqx.apply_updates(model, changes)
        losses.append(float(value))
    assert size > 0  # the bound of .5 acts in some of the updates and not in others, or in all: either way it is the literal one
    for a, b in zip(leaves(ours.last[0]), leaves(model), strict=True):
        assert_allclose(a, b, atol=1e-11)  # Adam divides by the root of small squares, which magnifies rounding
    assert_allclose(ours.history[0].loss, np.mean(losses), rtol=1e-11)
    assert told[-1].step == told[-1].steps == ours.history[-1].step == 3


@pytest.fixture(scope="module")
def ensemble():
    """Three seeds with random windows; scores come from a list, one number a call: checkpoint by checkpoint, seed by seed."""
    plan = Plan(steps=60, chunk=10, block=5, batch=4, checkpoints=3, bound=0.6)
    forcing = GeneralizedForcing(Adaptive(start=0.3, floor=0.1))
    about = {"forcing": forcing, "optimizer": optax.radam(0.01), "plan": plan, "key": jr.key(3)}
    models = tuple(shallow(seed) for seed in (0, 1, 1))
    trainer = Trainer(models, windows_of(spiral(), spiral(50)), **about)
    totals = iter([5.0, np.nan, 3.0, 4.0, np.inf, 7.0, 4.5, np.nan, 1.0])
    scored, saved = [], []

    def scorer(model):
        scored.append(model)
        return Scored(next(totals), (("part", 1.0),))

    result, run, told = trained(trainer, scorer, lambda run: saved.append(run.chunks))
    return models, about, result, run, told, scored, saved


def test_seeds_trained_together_equal_each_alone(ensemble):
    models, about, result, *_ = ensemble
    alone = trained(Trainer(models[:1], windows_of(spiral(), spiral(50)), **about))[0]
    for a, b in zip(leaves(result.last[0]), leaves(alone.last[0]), strict=True):
        assert_allclose(a, b, atol=1e-9)  # a batched product may sum in another order
    # the third seed began where the second did, but drew other windows
    assert float(jnp.max(jnp.abs(result.last[1].W1 - result.last[2].W1))) > 1e-6


def test_the_best_scored_model_of_every_seed_is_kept_and_the_last_one_too(ensemble):
    _, _, result, run, told, scored, saved = ensemble
    assert saved == [2, 4, 6]
    assert len(scored) == 9
    assert result.scores == (4.0, WORST_SCORE, 1.0)
    assert result.kept_at == (40, 20, 60)
    assert result.best == 2
    assert result.status == (Status.SUCCESS, Status.DEAD, Status.SUCCESS)
    for kept, which in zip(result.kept, (3, 1, 8), strict=True):
        for a, b in zip(leaves(kept), leaves(scored[which]), strict=True):
            assert_array_equal(a, b)
    for last, state in zip(result.last, scored[6:], strict=True):
        for a, b in zip(leaves(last), leaves(state), strict=True):
            assert_array_equal(a, b)
    assert [(row.seed, row.step, row.score is None) for row in result.history] == [
        (seed, 10 * chunk, chunk % 2 == 1) for chunk in range(1, 7) for seed in range(3)
    ]
    assert [progress.step for progress in told] == [10, 20, 30, 40, 50, 60]
    assert told[2].best == (5.0, WORST_SCORE, 3.0)
    assert run.chunks == 6


def test_the_bound_keeps_the_diagonal_small_and_the_floor_the_strength(ensemble):
    models, _, result, run, *_ = ensemble
    assert max(float(jnp.max(jnp.abs(model.A))) for model in models) > 0.6  # or the bound had nothing to do
    assert all(float(jnp.max(jnp.abs(model.A))) <= 0.6 for model in result.last)
    assert all(float(jnp.max(jnp.abs(model.A))) <= 0.6 for model in result.kept)
    assert np.all(np.asarray(run.state.strength) >= 0.1)


def test_updates_without_a_finite_loss_are_skipped_and_counted():
    good, bad = spiral(25), np.full((25, 2), np.nan)  # 20 windows each: every window of the second is bad
    plan = Plan(steps=40, chunk=10, block=5, batch=1, checkpoints=1, patience=15)
    trainer = make((shallow(),), windows_of(good, bad), plan=plan)
    result, run, _ = trained(trainer)
    drawn = [trainer.source.draw(1, key=jr.split(jr.fold_in(jr.fold_in(jr.key(0), 0), k))[0])[0] for k in range(40)]
    wrong = sum(bool(jnp.isnan(xs).any()) for xs in drawn)
    assert 0 < wrong < 40
    assert result.history[-1].skipped == wrong
    assert result.status == (Status.SUCCESS,)
    assert all(np.isfinite(leaf).all() for leaf in leaves(result.last[0]))
    assert np.isfinite(result.history[-1].loss)  # the mean over the updates that had one

    trainer.source, saved = windows_of(bad, bad), []
    nothing, run, told = trained(trainer, lambda model: Scored(np.nan), save=lambda run: saved.append(run.status))
    for a, b in zip(leaves(nothing.last[0]), leaves(shallow()), strict=True):
        assert_array_equal(a, b)
    assert [progress.step for progress in told] == [10, 20]  # ended early: 15 in a row
    assert nothing.history[-1].skipped == 20
    assert nothing.status == (run.status,) == (Status.NOT_FINITE_LOSS,)
    assert "learning rate" in nothing.status[0].remedy
    assert saved == [Status.NOT_FINITE_LOSS]
    assert nothing.scores == (WORST_SCORE,)  # never scored


def test_a_stopped_run_says_so(ensemble):
    models, about, *_ = ensemble
    trainer = Trainer(models, windows_of(spiral()), **about)
    result = trainer.result(trainer.begin())
    assert result.status == (Status.STOPPED,) * 3
    assert result.scores == (WORST_SCORE,) * 3


def test_a_driven_linear_system_is_learned():
    """x[t+1] = R x[t] + D u[t] without noise, by one-step prediction: A + W goes to R and C to D."""
    series = driven(800)
    model = registry.lookup("model", "alrnn").init(2, 1, dim=2, n_relu=0, key=jr.key(0))
    windows = windows_of(series.trajectories[0], length=10, inputs=[series.inputs[0]])
    plan = Plan(steps=600, chunk=100, batch=16, checkpoints=1, clip=None)
    optimizer = optax.adam(optax.exponential_decay(0.03, 600, 0.01))
    result = trained(Trainer((model,), windows, forcing=GeneralizedForcing(Constant(1.0)), optimizer=optimizer, plan=plan, key=jr.key(1)))[
        0
    ]
    found = result.last[0]
    losses = [row.loss for row in result.history]
    assert losses[-1] < 1e-6 * losses[0]
    # the loss is the squared error of the matrices times the variance of x (about 1): 1e-6 of it is 1e-3 in an entry
    assert_allclose(jnp.diag(found.A) + found.W, rotation(0.3, 0.9), atol=5e-3)
    assert_allclose(found.C[:, 0], [0.5, 0.1], atol=5e-3)
    assert_allclose(found.h, 0.0, atol=5e-3)


def test_memory_of_a_chunk_does_not_depend_on_the_length_of_the_series():
    """Point 8, for the whole compiled loop."""

    def compiled(points):
        windows = Windows.of([np.zeros((points, 2))], length=10)
        plan = Plan(steps=10, chunk=10, batch=4)
        trainer = Trainer((shallow(),), windows, forcing=SparseForcing(3), optimizer=optax.adam(0.01), plan=plan, key=jr.key(0))
        return trainer.advance.lower(trainer.begin().state, windows, jr.key(0), jnp.asarray(0)).compile()

    memory = [program.compiled.memory_analysis().temp_size_in_bytes for program in (compiled(1_000), compiled(200_000))]
    assert memory[0] == memory[1] < 200_000 * 4


def test_streamed_windows_train(ensemble):
    models, about, *_ = ensemble
    values = spiral(6000)
    source = Streamed([values], length=6, resident=2 * 4096, dtype=jnp.float64)
    result = trained(Trainer(models[:1], source, **about))[0]
    assert result.history[-1].loss < result.history[0].loss


@given(st.integers(1, 500), st.integers(1, 20), st.integers(1, 60))
def test_checkpoints_are_as_many_as_asked_and_the_end_is_one(steps, blocks, count):
    plan = Plan(steps=steps, chunk=5 * blocks, checkpoints=count)
    where = [done for done in range(plan.chunks + 1) if plan.is_checkpoint(done)]
    assert len(where) == min(count, plan.chunks)
    assert where[-1] == plan.chunks == int(np.ceil(steps / (5 * blocks)))
    gaps = np.diff([0, *where])
    assert gaps.max() - gaps.min() <= 1


class Decay(AbstractFlow):
    dim: int = 2
    n_inputs: int = 0

    def field(self, t, z, u=None):
        return -z


class Bare(AbstractMap):
    """A map with one number and no diagonal A."""

    gain: jax.Array
    dim: int = 2
    n_obs: int = 2
    n_inputs: int = 0

    def step(self, z, u=None):
        return self.gain * z

    def observe(self, z):
        return z

    def lift(self, x):
        return x


@pytest.fixture
def unchecked():
    """Without the run-time checks of annotations, as outside the tests."""
    jaxtyping_config.update("jaxtyping_disable", True)
    yield
    jaxtyping_config.update("jaxtyping_disable", False)


def make(models, windows=None, **about):
    windows = windows_of(spiral()) if windows is None else windows
    return Trainer(models, windows, **({"forcing": SparseForcing(3), "optimizer": optax.adam(0.01), "key": jr.key(0)} | about))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda: make((Decay(),)), r"Decay is a flow.*Make it a map first: Discretized\(flow, dt\)"),
        (lambda: make((np.zeros(3),)), "expected a model"),
        (lambda: make(()), "no model given"),
        (lambda: make((shallow(), shallow(dim=3))), "same architecture"),
        (lambda: make((shallow(),), windows_of(np.zeros((20, 3)))), "observes n_obs=2 components, the series has 3 columns"),
        (lambda: make((shallow(),), windows_of(spiral(20), inputs=[np.zeros((20, 1))])), "n_inputs=0, the series has 1 input"),
        (lambda: make((shallow(n_inputs=2),)), "n_inputs=2, the series has 0 input"),
        (lambda: trained(make((Bare(jnp.ones(())),), plan=Plan(steps=5, chunk=5, bound=0.9))), "Bare has no diagonal A. Leave bound out"),
        (lambda: trained(make((Bare(jnp.ones(())),), plan=Plan(steps=5, chunk=5), loss=Loss(manifold=1.0))), "Bare is none"),
        (lambda: Plan(steps=0), "steps must be at least 1, got steps=0"),
        (lambda: Plan(chunk=7, block=5), "chunk must be a multiple of block"),
        (lambda: Plan(noise=-1.0), "noise must not be negative"),
    ],
)
def test_what_cannot_be_trained_is_refused(attempt, words):
    with pytest.raises(InvalidValue, match=words):
        attempt()


def test_a_flow_trains_once_it_is_a_map():
    """dx/dt = -x sampled at .1 is x[t+1] = exp(-.1) x[t]; `gain` as the rate of a flow would need a parameter, so this only runs."""
    decay = orbit(np.eye(2) * np.exp(-0.1), 50, start=(1.0, 2.0))

    class Rate(AbstractFlow):
        rate: jax.Array
        dim: int = 2
        n_inputs: int = 0

        def field(self, t, z, u=None):
            return self.rate * z

    model = Discretized(Rate(jnp.asarray(-0.2)), 0.1)
    plan = Plan(steps=200, chunk=100, checkpoints=1)
    found = trained(make((model,), windows_of(decay), optimizer=optax.adam(optax.exponential_decay(0.05, 200, 0.01)), plan=plan))[0]
    assert_allclose(found.last[0].flow.rate, -1.0, atol=1e-2)

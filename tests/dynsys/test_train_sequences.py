"""Sequence models learn what they must: a class, a value in the past, an integral over irregular gaps; and bad data are refused."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose

from dynsys import registry
from dynsys.errors import DataError, InvalidValue
from dynsys.models.flow_cell import FlowCell
from dynsys.models.sequence import SequenceModel
from dynsys.status import Status
from dynsys.train.sequences import Sequences, evaluate_sequences, fit_sequences, sequence_loss


def model(n_targets=1, n_in=1, cell="gru", last=False, seed=0, units=12):
    a, b = jr.split(jr.key(seed))
    made = (
        FlowCell.init(n_in, units=units, hidden=16, key=a)
        if cell == "flow"
        else registry.lookup("cell", cell).init(n_in, units=units, key=a)
    )
    return SequenceModel.init(made, n_targets, last=last, key=b)


def noise(count=64, length=12, columns=1, seed=0):
    return np.random.default_rng(seed).normal(size=(count, length, columns))


def test_the_loss_is_the_plain_formula():
    made = model(2)
    xs, ys = noise(5), noise(5, columns=2, seed=1)
    data = Sequences.of(xs, ys, dtype=jnp.float64)
    by_hand = np.mean([(np.asarray(made(jnp.asarray(x))) - y) ** 2 for x, y in zip(xs, ys, strict=True)])
    assert_allclose(sequence_loss(made, data), by_hand, rtol=1e-12)
    assert_allclose(evaluate_sequences(made, data), by_hand, rtol=1e-12)
    labels = np.arange(5) % 2
    last = model(2, last=True)
    logits = np.stack([np.asarray(last(jnp.asarray(x))) for x in xs])
    by_hand = np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(5), labels])
    assert_allclose(sequence_loss(last, Sequences.of(xs, labels, dtype=jnp.float64)), by_hand, rtol=1e-12)


def test_regression_of_the_last_input_but_one():
    xs = noise(256)
    ys = np.concatenate([np.zeros((256, 1, 1)), xs[:, :-1]], axis=1)
    train, held = Sequences.of(xs[:200], ys[:200]), Sequences.of(xs[200:], ys[200:])
    told = []
    fitted = fit_sequences([model(seed=s) for s in (0, 1)], train, held, steps=400, learning_rate=0.02, progress=told.append, key=jr.key(0))
    assert fitted.status == (Status.SUCCESS, Status.SUCCESS)
    assert max(fitted.losses) < 0.1  # the input has variance 1; a model without memory can't get below it
    assert tuple(told) == fitted.history
    for seed in (0, 1):
        rows = [row for row in fitted.history if row.seed == seed]
        assert fitted.losses[seed] == min(row.validation for row in rows)  # the best look is the one that is kept
        assert_allclose(evaluate_sequences(fitted.models[seed], held), fitted.losses[seed], rtol=1e-6)
        assert next(row.step for row in rows if row.validation == fitted.losses[seed]) == fitted.kept_at[seed]


def test_the_best_look_is_kept_and_not_the_last():
    """What is learned on x -> x makes x -> -x ever worse, so that the first look at the validation part is the best."""
    xs = noise(64)
    fitted = fit_sequences(model(), Sequences.of(xs, xs), Sequences.of(xs, -xs), steps=50, learning_rate=0.003, key=jr.key(0))
    looks = [row.validation for row in fitted.history]
    assert looks[-1] > looks[0]
    assert fitted.losses[0] == min(looks)
    assert fitted.kept_at[0] == fitted.history[int(np.argmin(looks))].step < 50
    assert_allclose(evaluate_sequences(fitted.models[0], Sequences.of(xs, -xs)), min(looks), rtol=1e-6)


def test_a_flow_integrates_its_input_over_irregular_gaps():
    rng = np.random.default_rng(0)
    xs, gaps = rng.normal(size=(256, 10, 1)), rng.uniform(0.2, 2.0, (256, 10))
    ys = np.cumsum(xs * gaps[:, :, None], axis=1) * 0.2
    data = Sequences.of(xs, ys, gaps)
    with_time = fit_sequences(model(cell="flow"), data, steps=600, learning_rate=0.02, key=jr.key(0)).losses[0]
    without = fit_sequences(model(cell="flow"), Sequences.of(xs, ys), steps=600, learning_rate=0.02, key=jr.key(0)).losses[0]
    assert with_time < 0.1 * without


def test_classification_of_two_frequencies():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    phase = rng.uniform(0, 6, (200, 1)) + np.where(labels[:, None] == 0, 0.4, 0.8) * np.arange(16)[None, :]
    data = Sequences.of(np.sin(phase)[:, :, None], labels)
    fitted = fit_sequences(model(2, last=True), data, steps=300, learning_rate=0.02, key=jr.key(0))
    logits = fitted.models[0].batched(jnp.swapaxes(data.inputs, 0, 1), data.gaps.T)
    assert np.mean(np.argmax(logits, axis=1) == labels) > 0.95


def test_the_same_key_gives_the_same_result_and_a_seed_does_not_depend_on_the_others():
    data = Sequences.of(noise(), noise(seed=1))
    settings = {"steps": 20, "key": jr.key(3)}
    alone = fit_sequences(model(seed=0), data, **settings)
    both = fit_sequences([model(seed=0), model(seed=1)], data, **settings)
    for a, b in zip(jax.tree.leaves(alone.models[0]), jax.tree.leaves(both.models[0]), strict=True):
        assert_allclose(a, b, atol=1e-6)  # one program or the same one in a thread


def test_a_loss_that_is_not_finite_is_a_status():
    data = Sequences.of(noise(), noise(seed=1))
    fitted = fit_sequences(model(), data, steps=200, optimizer=optax.sgd(1e30), clip=1e30, key=jr.key(0))
    assert fitted.status == (Status.NOT_FINITE_LOSS,)


@pytest.mark.parametrize(
    ("inputs", "targets", "gaps", "words"),
    [
        (noise()[0], noise(), None, r"inputs must be \(E, T, I\).*\(12, 1\)"),
        (noise(), noise(count=63), None, r"targets \(64, 12\) or \(64,\).*got gaps \(64, 12\) and targets \(63, 12, 1\)"),
        (noise(), noise(), np.ones((64, 11)), "got gaps"),
        (noise() * np.nan, noise(), None, "NaN or inf"),
        (noise(), noise(), -np.ones((64, 12)), "can't be negative"),
        (noise(), -np.ones(64, int), None, "can't be negative"),
    ],
)
def test_bad_sequences_are_refused(inputs, targets, gaps, words):
    with pytest.raises(DataError, match=words):
        Sequences.of(inputs, targets, gaps)


@pytest.mark.parametrize(
    ("made", "targets", "settings", "words"),
    [
        (lambda: model(n_in=2), noise(), {}, "takes 2 inputs, the sequences have 1"),
        (lambda: model(3), noise(), {}, r"wants targets \(64, 12, 3\) or labels \(64, 12\), got \(64, 12, 1\)"),
        (lambda: model(2, last=True), np.full(64, 2), {}, "a label is 2, but the model tells 2 classes apart"),
        (lambda: model(), noise(), {"steps": 0}, "steps must be at least 1"),
        (lambda: [model(), model(units=13)], noise(), {}, "the same architecture"),
        (lambda: [], noise(), {}, "no model given"),
    ],
)
def test_what_does_not_fit_is_refused(made, targets, settings, words):
    with pytest.raises(InvalidValue, match=words):
        fit_sequences(made(), Sequences.of(noise(), targets), key=jr.key(0), **settings)

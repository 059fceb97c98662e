"""Cells and sequence models in PyTorch: the same sequences to the same numbers, gradients, export for any batch, and back to the bit."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from dynsys import registry
from dynsys.errors import InvalidValue
from dynsys.interop.torch import from_torch, to_torch
from dynsys.models.closed_form_cell import CfC
from dynsys.models.composed import MixedMemory, Stacked
from dynsys.models.flow_cell import FlowCell
from dynsys.models.gated import GRU, LSTM
from dynsys.models.liquid import LTC, ConductanceLTC
from dynsys.models.sequence import SequenceModel
from dynsys.models.wiring import make_wiring

B, T, INPUTS, UNITS = 3, 5, 2, 4
CLOSE = {"rtol": 1e-10, "atol": 1e-12}  # the same operations in float64


def as_numpy(model):
    """The same model, or array, with NumPy arrays."""
    return jax.tree.map(lambda leaf: np.asarray(leaf) if isinstance(leaf, jax.Array) else leaf, model)


def wired(kind):
    return make_wiring(kind, INPUTS, UNITS, None, sparsity=0.5, rank=2, seed=0)


KEY = jr.key(0)
CELLS = {
    "ltc": lambda: LTC.init(wired("full"), unfoldings=3, key=KEY),
    "ltc, sparse": lambda: LTC.init(wired("random"), unfoldings=3, key=KEY),
    "conductance-ltc": lambda: ConductanceLTC.init(wired("random"), unfoldings=3, key=KEY),
    "cfc": lambda: CfC.init(wired("full"), backbone=6, key=KEY),
    "cfc, no-gate": lambda: CfC.init(wired("random"), mode="no-gate", backbone=0, key=KEY),
    "cfc, pure": lambda: CfC.init(wired("full"), mode="pure", backbone=6, depth=2, key=KEY),
    "lstm": lambda: LSTM.init(INPUTS, UNITS, key=KEY),
    "gru": lambda: GRU.init(INPUTS, UNITS, key=KEY),
    "mixed-memory": lambda: MixedMemory.init(CfC.init(wired("full"), backbone=6, key=KEY), key=KEY),
    "stacked": lambda: Stacked(
        (
            GRU.init(INPUTS, UNITS, key=KEY),
            LTC.init(make_wiring("full", UNITS, 3, None, sparsity=0.5, rank=2, seed=0), unfoldings=2, key=KEY),
        )
    ),
    "flow": lambda: FlowCell.init(INPUTS, units=UNITS, hidden=6, key=KEY),
}


def sequences():
    rng = np.random.default_rng(0)
    return rng.normal(size=(B, T, INPUTS)), rng.uniform(0.5, 2.0, (B, T))


def by_hand(cell, xs, gaps):
    """What is read out along one sequence, and the last hidden state, on the library of the arrays."""
    h, read = np.zeros(cell.n_state), []
    for x, gap in zip(xs, gaps, strict=True):
        h = cell.step(h, x, gap)
        read.append(cell.read(h))
    return np.stack(read), h


def test_every_registered_cell_is_tested_here():
    assert {registry.lookup("cell", name) for name in registry.names("cell")} <= {type(make()) for make in CELLS.values()}


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_runs_over_sequences_and_single_steps(name):
    cell = CELLS[name]()
    module, plain = to_torch(cell), as_numpy(cell)
    xs, gaps = sequences()
    expected = [by_hand(plain, *given) for given in zip(xs, gaps, strict=True)]
    read, last = module(xs, gaps)
    assert_allclose(read.detach().numpy(), [read for read, _ in expected], **CLOSE)
    assert_allclose(last.detach().numpy(), [h for _, h in expected], **CLOSE)
    alone, _ = module(xs[0])
    assert_allclose(alone.detach().numpy(), by_hand(plain, xs[0], np.ones(T))[0], **CLOSE)
    first, h = module(xs[:, :2], gaps[:, :2])  # a sequence goes on where it stopped
    rest, _ = module(xs[:, 2:], gaps[:, 2:], h)
    assert_allclose(torch.cat([first, rest], dim=1).detach().numpy(), read.detach().numpy(), **CLOSE)
    stepped = module.step(h, xs[:, 2], gaps[:, 2])
    assert_allclose(module.read(stepped).detach().numpy(), read[:, 2].detach().numpy(), **CLOSE)
    back = jax.tree.leaves(from_torch(module))
    for leaf, original in zip(back, jax.tree.leaves(cell), strict=True):
        assert np.array_equal(leaf, original)


@pytest.mark.parametrize(("name", "last"), [("stacked", False), ("ltc", True)])
def test_a_sequence_model_has_the_targets_and_gradients_of_jax(name, last):
    model = SequenceModel.init(CELLS[name](), 2, last=last, key=jr.key(1))
    module = to_torch(model)
    xs, gaps = sequences()

    @eqx.filter_jit
    @eqx.filter_value_and_grad
    def by_jax(model):
        return jnp.sum((model.batched(jnp.swapaxes(xs, 0, 1), jnp.swapaxes(gaps, 0, 1)) - 0.5) ** 2)

    value, gradient = by_jax(model)
    targets = module(xs, gaps)
    assert targets.shape == ((B, 2) if last else (B, T, 2))
    loss = ((targets - 0.5) ** 2).sum()
    loss.backward()
    assert_allclose(loss.item(), value, rtol=1e-10)
    leaves = jax.tree_util.tree_leaves_with_path(gradient)
    expected = {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves if eqx.is_array(leaf)}
    parameters = dict(module.named_parameters())
    assert set(parameters) == set(expected)
    for name, parameter in parameters.items():
        found = 0.0 if parameter.grad is None else parameter.grad.numpy()
        assert_allclose(found, expected[name], rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("name", [name if name == "stacked" else pytest.param(name, marks=pytest.mark.slow) for name in CELLS])
def test_an_exported_sequence_model_takes_any_batch(name):
    module = to_torch(SequenceModel.init(CELLS[name](), 2, key=jr.key(1)), dtype=torch.float32)
    xs, gaps = (torch.tensor(value, dtype=torch.float32) for value in sequences())
    axis = {0: torch.export.Dim("batch")}
    program = torch.export.export(module, (xs[:2], gaps[:2]), dynamic_shapes=(axis, axis))
    # float32: the padded sums that replace concatenations are exact
    assert_allclose(program.module()(xs, gaps).detach().numpy(), module(xs, gaps).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_what_is_wrong_is_said():
    module = to_torch(CELLS["ltc"]())
    with pytest.raises(InvalidValue, match=r"LTC.forward: xs must have shape \(any, 2\), or a batch axis before it, got \(5, 3\)"):
        module(np.zeros((5, 3)))
    with pytest.raises(InvalidValue, match=r"gaps must have shape \(5\)"):
        module(np.zeros((5, 2)), np.ones(4))
    with pytest.raises(InvalidValue, match=r"h must have shape \(4\)"):
        module(np.zeros((5, 2)), h=np.zeros(3))

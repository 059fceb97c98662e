"""Liquid cells: the equations as written down, the bounds that are proved, gaps, sequences; and ncps with the same weights."""

import dataclasses
import importlib.util
from pathlib import Path

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from dynsys import registry
from dynsys.errors import InvalidValue
from dynsys.models import liquid
from dynsys.models.closed_form_cell import CfC
from dynsys.models.composed import MixedMemory, Stacked
from dynsys.models.gated import GRU, LSTM
from dynsys.models.gates import ACTIVATIONS, softplus
from dynsys.models.liquid import LTC, ConductanceLTC, LiquidFlow
from dynsys.models.sequence import SequenceModel, run_cell
from dynsys.models.wiring import auto_ncp, full, low_rank, random

INPUTS, UNITS = 3, 5
KEY = jr.key(0)


def away(module):
    """The module with every parameter moved, so that no zero hides a term."""
    leaves, treedef = jax.tree.flatten(module)
    keys = jr.split(jr.key(7), len(leaves))
    moved = [leaf + 0.2 * jr.normal(k, leaf.shape) if eqx.is_inexact_array(leaf) else leaf for leaf, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(treedef, moved)


CELLS = {
    "ltc": lambda: LTC.init(auto_ncp(INPUTS, UNITS, 2), unfoldings=3, key=KEY),
    "low-rank ltc": lambda: LTC.init(low_rank(INPUTS, UNITS, rank=2), unfoldings=2, key=KEY),
    "conductance": lambda: ConductanceLTC.init(random(INPUTS, UNITS, 2), unfoldings=2, key=KEY),
    "cfc": lambda: CfC.init(full(INPUTS, UNITS), backbone=6, depth=2, key=KEY),
    "wired cfc": lambda: CfC.init(low_rank(INPUTS, UNITS, rank=2), backbone=0, mode="no-gate", key=KEY),
    "pure cfc": lambda: CfC.init(full(INPUTS, UNITS), backbone=4, mode="pure", activation="silu", key=KEY),
    "gru": lambda: GRU.init(INPUTS, UNITS, key=KEY),
    "lstm": lambda: LSTM.init(INPUTS, UNITS, key=KEY),
    "mixed": lambda: MixedMemory.init(CELLS["conductance"](), key=KEY),
    "stacked": lambda: Stacked((CELLS["cfc"](), LTC.init(full(UNITS, 4), unfoldings=2, key=KEY))),
}


def make(name):
    return away(CELLS[name]())


@eqx.filter_jit
def step(cell, h, x, gap):
    return cell.step(h, x, jnp.asarray(gap, h.dtype))


def with_unfoldings(cell, count):
    return dataclasses.replace(cell, unfoldings=count)


# equations, one number after the other


def logistic(x):
    return 1.0 / (1.0 + np.exp(-x))


@pytest.mark.parametrize("name", ["ltc", "low-rank ltc"])
def test_one_unfolding_of_the_ltc_solves_its_implicit_equation(name):
    cell = with_unfoldings(make(name), 1)
    h, x, gap = np.array(jr.normal(jr.key(1), (UNITS,))), np.array(jr.normal(jr.key(2), (INPUTS,))), 0.7
    R = np.asarray(cell.recurrent[0]) if len(cell.recurrent) == 1 else np.asarray(cell.recurrent[0] @ cell.recurrent[1])
    V, R = np.asarray(cell.V) * np.asarray(cell.masks[0]), R * np.asarray(cell.masks[1])
    new = np.asarray(step(cell, jnp.asarray(h), jnp.asarray(x), gap))
    field = np.asarray(cell.field(jnp.asarray(h), jnp.asarray(x)))
    for j in range(UNITS):
        gate = cell.b[j] + sum(V[i, j] * x[i] for i in range(INPUTS)) + sum(R[i, j] * h[i] for i in range(UNITS))
        f = np.log1p(np.exp(cell.raw_gain[j])) * logistic(gate)
        rate = 1.0 / np.log1p(np.exp(cell.raw_tau[j])) + f
        assert_allclose(new[j] - h[j], gap * (-rate * new[j] + f * cell.A[j]), atol=1e-14)
        assert_allclose(field[j], -rate * h[j] + f * cell.A[j], atol=1e-14)


def test_one_unfolding_of_the_conductance_ltc_balances_its_currents():
    cell = with_unfoldings(make("conductance"), 1)
    h, x, gap = np.array(jr.normal(jr.key(1), (UNITS,))), np.array(jr.normal(jr.key(2), (INPUTS,))), 0.7
    new = np.asarray(step(cell, jnp.asarray(h), jnp.asarray(x), gap))
    field = np.asarray(cell.field(jnp.asarray(h), jnp.asarray(x)))
    soft = lambda value: np.log1p(np.exp(value))  # noqa: E731

    def current(j, at):
        total = soft(cell.raw_leak[j]) * (cell.e[j] - at)
        for i in range(UNITS):
            s = logistic(cell.gamma[i, j] * (h[i] - cell.mu[i, j]))
            total += cell.mask[i, j] * soft(cell.raw_w[i, j]) * s * (cell.E[i, j] - at)
        for i in range(INPUTS):
            s = logistic(cell.gamma_in[i, j] * (x[i] * cell.scale[i] + cell.shift[i] - cell.mu_in[i, j]))
            total += cell.mask_in[i, j] * soft(cell.raw_w_in[i, j]) * s * (cell.E_in[i, j] - at)
        return total

    for j in range(UNITS):
        c = soft(cell.raw_c[j])
        # the solver divides by the conductance + 1e-8: a current of 1e-8 times a state of order one is left over
        assert_allclose(c * (new[j] - h[j]) / gap, current(j, new[j]), atol=1e-7)
        assert_allclose(c * field[j], current(j, h[j]), atol=1e-13)
    assert_allclose(cell.read(jnp.asarray(h)), h[:2] * cell.out_scale + cell.out_shift, atol=1e-15)


@pytest.mark.parametrize("mode", ["default", "no-gate", "pure"])
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_cfc_is_its_formula(mode, depth):
    cell = away(CfC.init(full(INPUTS, UNITS), backbone=4 if depth else 0, depth=max(depth, 1), mode=mode, activation="tanh", key=KEY))
    h, x, gap = np.array(jr.normal(jr.key(1), (UNITS,))), np.array(jr.normal(jr.key(2), (INPUTS,))), 1.7
    z = np.asarray(cell.V).T @ x + np.asarray(cell.recurrent[0]).T @ h + np.asarray(cell.c)
    assert len(cell.layers) == depth
    for W, bias in zip(cell.layers, cell.biases, strict=True):
        z = np.asarray(W).T @ np.tanh(z) + np.asarray(bias)
    if mode == "pure":
        A, w = (np.asarray(part) for part in cell.asymptote)
        wanted = A - A * np.exp(-gap * (abs(w) + abs(z))) * z
    else:
        a, b, p, q = np.split(z, 4)
        s = logistic(p * gap + q)
        wanted = np.tanh(a) * (1.0 if mode == "no-gate" else 1.0 - s) + s * np.tanh(b)
    assert_allclose(step(cell, jnp.asarray(h), jnp.asarray(x), gap), wanted, atol=1e-14)


def test_gates_at_extremes():
    x = jnp.asarray([-1e4, -3.0, 0.0, 3.0, 1e4])
    assert_allclose(softplus(x), np.logaddexp(x, 0.0), atol=1e-15)
    assert_allclose(jax.vmap(jax.grad(softplus))(x), [0.0, logistic(-3.0), 0.5, logistic(3.0), 1.0], atol=1e-15)
    assert_allclose(ACTIVATIONS["silu"](x), [0.0, -3.0 * logistic(-3.0), 0.0, 3.0 * logistic(3.0), 1e4], atol=1e-12)
    assert_allclose(ACTIVATIONS["lecun-tanh"](x)[3], 1.7159 * np.tanh(1.998), atol=1e-14)


# what the paper proves


@pytest.mark.parametrize("name", ["ltc", "low-rank ltc"])
@pytest.mark.parametrize("size", [1.0, 1e3, 1e12])
def test_theorems_of_the_ltc_hold_under_huge_inputs(name, size):
    cell = make(name)
    low, high = np.minimum(0.0, cell.A), np.maximum(0.0, cell.A)
    tau, gain = softplus(cell.raw_tau), softplus(cell.raw_gain)
    h, reached = jnp.zeros(UNITS), np.zeros((2, UNITS))
    for i in range(40):
        x = size * jr.normal(jr.key(i), (INPUTS,))
        gap = [1e-3, 1.0, 1e6][i % 3]
        found = cell.time_constants(h, x)
        # theorem 1 and theorem 2; the slack is rounding
        assert (found >= tau / (1.0 + tau * gain) - 1e-12).all()
        assert (found <= tau + 1e-12).all()
        h = step(cell, h, x, gap)
        assert (h >= low - 1e-12).all()
        assert (h <= high + 1e-12).all()
        reached = np.maximum(reached, [found / tau, (tau / (1.0 + tau * gain)) / found])
    if size > 1.0 and name == "low-rank ltc":  # all its neurons hear inputs: large ones take the time constants to both bounds
        assert (reached > 0.99).all()


@pytest.mark.parametrize("size", [1.0, 1e12])
def test_conductance_states_stay_among_their_potentials(size):
    cell = make("conductance")
    potentials = jnp.concatenate([cell.E * cell.mask, cell.E_in * cell.mask_in, cell.e[None], jnp.zeros((1, UNITS))])
    low, high = potentials.min(axis=0), potentials.max(axis=0)  # with 0, to which the 1e-8 beside the conductances pulls
    h = jnp.zeros(UNITS)
    for i in range(30):
        h = step(cell, h, size * jr.normal(jr.key(i), (INPUTS,)), [1e-3, 1.0, 1e6][i % 3])
        assert ((h >= low - 1e-12) & (h <= high + 1e-12)).all()
    assert float(jnp.abs(h).max()) > 0.1


# gaps


@pytest.mark.parametrize("name", ["low-rank ltc", "conductance"])
def test_the_fused_solver_converges_to_the_flow_at_order_one(name):
    cell, x, h = make(name), jr.normal(jr.key(2), (INPUTS,)), jr.normal(jr.key(1), (UNITS,))
    flow = LiquidFlow(cell)
    assert (flow.dim, flow.n_inputs) == (UNITS, INPUTS)
    term = diffrax.ODETerm(lambda t, z, u: flow.field(t, z, u))
    control = diffrax.PIDController(rtol=1e-10, atol=1e-10)
    true = diffrax.diffeqsolve(term, diffrax.Tsit5(), 0.0, 1.5, 0.01, h, x, stepsize_controller=control).ys[-1]
    fine = [with_unfoldings(cell, count) for count in (80, 160, 320)]
    errors = [float(jnp.linalg.norm(many.step(h, x, 1.5) - true)) for many in fine]
    # the next term of an error of order one changes the slope by 0.06 at 80 unfoldings, and half as much at 160
    assert_allclose(np.log2(np.divide(errors[:-1], errors[1:])), 1.0, atol=0.1)
    halves = [jnp.linalg.norm(many.step(many.step(h, x, 0.75), x, 0.75) - many.step(h, x, 1.5)) for many in fine]
    assert_allclose(np.log2(np.divide(halves[:-1], halves[1:])), 1.0, atol=0.1)


@pytest.mark.parametrize("name", [name for name in CELLS if name != "lstm"])
def test_the_gap_matters(name):
    cell = make(name)
    h, x = jr.normal(jr.key(1), (cell.n_state,)), jr.normal(jr.key(2), (INPUTS,))
    assert float(jnp.abs(step(cell, h, x, 0.5) - step(cell, h, x, 2.0)).max()) > 1e-3


@pytest.mark.parametrize("name", ["ltc", "low-rank ltc", "conductance"])
def test_no_time_changes_nothing(name):
    cell = make(name)
    h, x = jr.normal(jr.key(1), (cell.n_state,)), jr.normal(jr.key(2), (INPUTS,))
    assert_allclose(step(cell, h, x, 0.0), h, rtol=1e-6)  # two samples at one time: a gap of 0 is allowed in sequences
    states = run_cell(cell, x[None, None], jnp.zeros(1, h.dtype), h[None])
    assert_allclose(states[0, 0], h, rtol=1e-6)


# sequences


@pytest.mark.parametrize("name", CELLS)
def test_run_cell_is_the_loop_in_values_and_gradients(name):
    cell = make(name)
    xs, gaps = jr.normal(jr.key(1), (3, 2, INPUTS)), jr.uniform(jr.key(2), (3, 2), minval=0.3, maxval=2.0)
    h0, weights = jr.normal(jr.key(3), (2, cell.n_state)), jr.normal(jr.key(4), (3, 2, cell.n_state))

    def loop(cell, xs, gaps, h0):
        found, h = [], h0
        for x, gap in zip(xs, gaps, strict=True):
            h = jax.vmap(cell.step)(h, x, gap)
            found.append(h)
        return jnp.stack(found)

    def value(run, parts):
        return jnp.sum(jnp.sin(run(*parts)) * weights)

    parts = cell, xs, gaps, h0
    wanted, gradient = eqx.filter_jit(eqx.filter_value_and_grad(lambda parts: value(loop, parts)))(parts)
    # a function compiled first and differentiated from outside: nothing of the forward pass may leak into the reverse pass
    found, other = eqx.filter_value_and_grad(eqx.filter_jit(lambda parts: value(run_cell, parts)))(parts)
    # the same sums of at most a few hundred terms of order one in another order
    assert_allclose(found, wanted, rtol=0, atol=1e-12)
    assert jax.tree.structure(other) == jax.tree.structure(gradient)
    for a, b in zip(jax.tree.leaves(other), jax.tree.leaves(gradient), strict=True):
        assert_allclose(a, b, rtol=0, atol=1e-12)


def test_the_written_out_batch_is_the_step(monkeypatch):
    cell = make("conductance").prepared()
    h, x = jr.normal(jr.key(1), (4, UNITS)), jr.normal(jr.key(2), (4, INPUTS))
    drives, gaps = jax.vmap(cell.drive)(x), jnp.asarray([0.1, 1.0, 2.0, 3.0])
    wanted = jnp.stack([cell.step(*parts) for parts in zip(h, x, gaps, strict=True)])
    assert_allclose(cell.advance_all(h, drives, gaps), wanted, atol=1e-14)
    monkeypatch.setattr(liquid, "UNROLLED", 4)
    assert_allclose(cell.advance_all(h, drives, gaps), wanted, atol=1e-14)


def test_run_cell_refuses_other_sizes():
    with pytest.raises(InvalidValue, match=r"this GRU takes 3 inputs and 5 hidden numbers, got xs \(2, 1, 4\)"):
        run_cell(make("gru"), jnp.zeros((2, 1, 4)), jnp.ones(2), jnp.zeros((1, 5)))
    with pytest.raises(InvalidValue, match=r"gaps must be \(T,\) or \(T, B\), one for every input, got gaps \(3,\) with xs \(2, 1, 3\)"):
        run_cell(make("gru"), jnp.zeros((2, 1, 3)), jnp.ones(3), jnp.zeros((1, 5)))


@pytest.mark.parametrize("last", [False, True])
def test_sequence_models_read_every_step_or_the_last(last):
    model = SequenceModel.init(make("ltc"), 4, last=last, key=KEY)
    xs, gaps = jr.normal(jr.key(1), (3, 2, INPUTS)), jnp.asarray([0.5, 1.0, 2.0])
    found = model.batched(xs, gaps)
    h, rows = jnp.zeros(UNITS), []
    for x, gap in zip(xs[:, 1], gaps, strict=True):
        h = model.cell.step(h, x, gap)
        rows.append(model.W @ model.cell.read(h) + model.b)
    assert_allclose(found[..., 1, :], rows[-1] if last else jnp.stack(rows), atol=1e-14)
    assert_allclose(model(xs[:, 1], gaps), found[..., 1, :], atol=1e-14)
    assert_allclose(model(xs[:, 1]), model(xs[:, 1], jnp.ones(3)), atol=0)


@pytest.mark.parametrize("name", ["ltc", "conductance", "wired cfc"])
def test_masks_stay_and_what_they_cut_is_not_trained(name):
    model = SequenceModel.init(make(name), 1, key=KEY)
    xs = jr.normal(jr.key(1), (3, 2, INPUTS))
    trained, fixed = eqx.partition(model, eqx.is_inexact_array)
    assert all(leaf.dtype == jnp.int32 for leaf in jax.tree.leaves(fixed))
    assert len(jax.tree.leaves(fixed)) == 2
    gradient = eqx.filter_jit(eqx.filter_grad(lambda model: jnp.mean(model.batched(xs) ** 2)))(model)
    optimizer = optax.adam(0.1)
    change, _ = optimizer.update(gradient, optimizer.init(trained))
    after = eqx.apply_updates(model, change)
    for a, b in zip(jax.tree.leaves(fixed), jax.tree.leaves(eqx.filter(after, eqx.is_inexact_array, inverse=True)), strict=True):
        assert_array_equal(a, b)
    cell, slope = model.cell, gradient.cell
    if name == "conductance":
        cases = [(cell.mask, getattr(slope, field)) for field in ("raw_w", "mu", "gamma", "E")]
        cases += [(cell.mask_in, getattr(slope, field)) for field in ("raw_w_in", "mu_in", "gamma_in", "E_in")]
    else:
        cases = [(cell.masks[0], slope.V)] + ([] if name == "wired cfc" else [(cell.masks[1], slope.recurrent[0])])
    for mask, by in cases:
        assert (np.asarray(by)[np.asarray(mask) == 0] == 0.0).all()
        assert (np.asarray(by)[np.asarray(mask) == 1] != 0.0).any()


def test_a_cut_synapse_carries_nothing():
    cell = make("wired cfc")
    by_state = jax.jacfwd(lambda h: step(cell, h, jnp.ones(INPUTS), 1.0))(jr.normal(jr.key(1), (UNITS,)))
    mask = np.asarray(cell.masks[1])[:, :UNITS]
    assert_array_equal(np.asarray(by_state).T != 0.0, mask == 1)  # a no-gate step depends on h through its synapses alone


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (lambda: CfC.init(full(2, 3), mode="gated", key=KEY), "mode must be one of default, no-gate, pure, got mode='gated'"),
        (lambda: CfC.init(full(2, 3), activation="gelu", key=KEY), "activation='gelu'"),
        (lambda: CfC.init(random(2, 3), key=KEY), "Set backbone=0"),
        (lambda: CfC.init(full(2, 3), backbone=-1, key=KEY), "backbone must be a whole number of at least 1, got backbone=-1"),
        (lambda: CfC.init(low_rank(2, 3, rank=1, sparsity=0.0), key=KEY), "Set backbone=0"),
        (lambda: LTC.init(full(2, 3), unfoldings=0, key=KEY), "unfoldings must be a whole number of at least 1"),
        (lambda: MixedMemory(LSTM.init(2, 4, key=KEY), GRU.init(2, 3, key=KEY)), "got 2 and 4 for 2 and 3"),
        (lambda: Stacked(()), "at least one cell"),
        (lambda: Stacked((GRU.init(2, 3, key=KEY), GRU.init(2, 3, key=KEY))), "cell 1 takes 2 inputs, but cell 0 reads out 3"),
    ],
)
def test_cells_that_do_not_fit_are_refused(work, words):
    with pytest.raises(InvalidValue, match=words):
        work()


@pytest.mark.parametrize("name", ["ltc", "conductance-ltc", "cfc", "cfc-mixed"])
def test_maps_take_wirings_by_name(name):
    options = {"units": 9, "wiring": "ncp", "outputs": 3} | ({"backbone": 0} if "cfc" in name else {})
    model = registry.lookup("model", name).init(2, 1, key=KEY, **options)
    assert (model.n_obs, model.n_inputs, model.dim) == (2, 1, 2 + (18 if name == "cfc-mixed" else 9))
    assert model.U.shape == (2, 3)
    assert [leaf.dtype for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array, inverse=True))] == [jnp.int32] * 2


# other implementations, same weights


def numbers(tensor):
    return jnp.asarray(tensor.detach().numpy())


def in_torch(values):
    return torch.tensor(np.array(values))


def test_gru_and_lstm_are_those_of_torch():
    torch.manual_seed(0)
    gru, lstm = torch.nn.GRUCell(INPUTS + 1, UNITS).double(), torch.nn.LSTMCell(INPUTS, UNITS).double()
    x, h, c, gap = (jr.normal(jr.key(i), (size,)) for i, size in enumerate((INPUTS, UNITS, UNITS, 1)))
    W, R, b, d = (numbers(p) for p in (gru.weight_ih, gru.weight_hh, gru.bias_ih, gru.bias_hh))
    bias = b + d.at[2 * UNITS :].set(0.0)
    ours = GRU(V=W[:, :INPUTS].T, by_gap=W[:, INPUTS], R=R.T, b=bias, d=d[2 * UNITS :])
    wanted = gru(in_torch(jnp.concatenate([x, gap])), in_torch(h))
    assert_allclose(ours.step(h, x, gap[0]), wanted.detach().numpy(), atol=1e-14)
    W, R, b, d = (numbers(p) for p in (lstm.weight_ih, lstm.weight_hh, lstm.bias_ih, lstm.bias_hh))
    i, f, g, o = (slice(k * UNITS, (k + 1) * UNITS) for k in range(4))
    order = lambda rows: jnp.concatenate([rows[part] for part in (g, i, f, o)])  # noqa: E731
    bias = order(b + d).at[2 * UNITS : 3 * UNITS].add(-1.0)  # our forget gate adds 1
    y, memory = lstm(in_torch(x), (in_torch(h), in_torch(c)))
    found = LSTM(V=order(W).T, R=order(R).T, b=bias).step(jnp.concatenate([h, c]), x, 1.0)
    assert_allclose(found, torch.cat([y, memory]).detach().numpy(), atol=1e-14)


@pytest.fixture(scope="module")
def bench():
    """The script that copies weights from ncps, for its benchmark."""
    pytest.importorskip("ncps")
    path = Path(__file__).parents[2] / "scripts" / "bench_continuous_liquid.py"
    spec = importlib.util.spec_from_file_location("bench_continuous_liquid", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compared(net, cell, length=6):
    """Outputs and last state of ncps and of ours on one sequence with gaps agree to 1e-5, as the copied weights must (float64: 1e-10)."""
    xs, gaps = jr.normal(jr.key(1), (length, 1, INPUTS)), jr.uniform(jr.key(2), (length, 1), minval=0.2, maxval=2.0)
    start = torch.zeros(1, net.state_size, dtype=torch.float64)  # its own zeros would be float32
    start = (start, start) if net.use_mixed else start
    wanted, last = net.double()(in_torch(xs.swapaxes(0, 1)), start, timespans=in_torch(gaps.swapaxes(0, 1)))
    hs = run_cell(cell, xs, gaps, jnp.zeros((1, cell.n_state)))
    last = torch.cat(last, dim=1) if isinstance(last, tuple) else last
    assert_allclose(hs[-1], last.detach().numpy(), atol=1e-10)
    assert_allclose(jax.vmap(cell.read)(hs[:, 0]), wanted[0].detach().numpy(), atol=1e-10)


def moved(net):
    """The network of ncps with every trained parameter moved (positive ones kept so), in float64."""
    torch.manual_seed(1)
    with torch.no_grad():
        for p in net.double().parameters():
            if p.requires_grad:
                p.mul_(1.0 + 0.2 * torch.rand_like(p)).add_(0.1 * torch.rand_like(p))
    return net


def with_memory(net, cell, mixed):
    if not mixed:
        return cell
    p = {name: numbers(value) for name, value in net.lstm.state_dict().items()}
    return MixedMemory(LSTM(V=p["input_map.weight"].T, R=p["recurrent_map.weight"].T, b=p["input_map.bias"]), cell)


@pytest.mark.parametrize(("implicit", "mixed", "wired"), [(True, False, True), (False, False, False), (True, True, False)])
def test_conductance_ltc_is_that_of_ncps(bench, implicit, mixed, wired):
    from ncps.torch import LTC as Theirs
    from ncps.wirings import AutoNCP, FullyConnected

    wiring = AutoNCP(7, 2, seed=3) if wired else FullyConnected(UNITS)
    net = moved(Theirs(INPUTS, wiring, mixed_memory=mixed, implicit_param_constraints=implicit, ode_unfolds=4))
    compared(net, with_memory(net, bench.conductance_from(net.rnn_cell), mixed))


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("mode", ["default", "no_gate", "pure"])
def test_cfc_is_that_of_ncps(bench, mode, mixed):
    from ncps.torch import CfC as Theirs

    net = moved(Theirs(INPUTS, UNITS, mixed_memory=mixed, mode=mode, backbone_units=7, backbone_layers=2))
    compared(net, with_memory(net, bench.cfc_from(net.rnn_cell), mixed))


def test_a_stack_of_cfc_is_the_wired_cfc_of_ncps(bench):
    from ncps.torch import CfC as Theirs
    from ncps.wirings import AutoNCP

    net = moved(Theirs(INPUTS, AutoNCP(9, 2, seed=3)))
    compared(net, Stacked(tuple(bench.cfc_from(layer) for layer in net.rnn_cell._layers)))

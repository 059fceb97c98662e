"""Every registered model as a PyTorch module: the same numbers, gradients and free runs, exported for any batch, and back to the bit."""

import copy
import io
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from dynsys.dynamics import Discretized, Gapped
from dynsys.errors import InvalidValue, MissingExtra
from dynsys.interop.torch import from_torch, to_torch
from dynsys.systems import load_system

from .model_cases import CASES, TIMED, make, waves

# the same operations in float64 on numbers of order one; only the order of summation and the SVD behind pinv differ
CLOSE = {"rtol": 1e-10, "atol": 1e-10}
BATCH, STEPS = 3, 4
EACH = tuple({case[0]: case for case in CASES}.values())  # every model once, in its variant with most arrays
TRAINABLE = tuple(case for case in EACH if case[0] != "persistence")


def tensor(array):
    return None if array is None else torch.tensor(np.asarray(array))


def as_numpy(model):
    """The same model, or array, with NumPy arrays."""
    return jax.tree.map(lambda leaf: np.asarray(leaf) if isinstance(leaf, jax.Array) else leaf, model)


def numbers(found):
    return found.detach().numpy()


def states(model, count=BATCH):
    return jr.normal(jr.key(3), (count, model.dim))


def inputs_for(model, *shape):
    return jr.normal(jr.key(4), (*shape, model.n_inputs)) if model.n_inputs else None


def contexts(model, count=BATCH):
    """(B, L, N) with L = memory + 1, stretches of the series that the fitted models know."""
    series = waves(columns=model.n_obs)
    return np.stack([series[7 * b : 7 * b + model.memory + 1] for b in range(count)])


def start(model, context):
    """The argument x0 of a free run after contexts (..., L, N)."""
    return context if model.memory else context[..., 0, :]


def free_run(model, context, steps, inputs=None):
    """The same free run without PyTorch, one trajectory: (L, N) -> (steps, N), on the library of the arrays."""
    z, made = model.lift(context[0]), []
    for t in range(len(context) - 1 + steps):
        z = model.step(z, None if inputs is None else inputs[t])
        if t + 1 < len(context):
            z = model.correct(z, context[t + 1])
        else:
            made.append(model.observe(z))
    return made


@pytest.mark.parametrize(("name", "n_inputs", "observation"), CASES)
def test_the_numbers_are_those_of_the_model(name, n_inputs, observation):
    model = make(name, n_inputs, observation)
    module, model = to_torch(model), as_numpy(model)  # that JAX gives the same is tested in test_models and with the gradients below
    z, u = as_numpy(states(model)), as_numpy(inputs_for(model, BATCH))
    driven = [None] * BATCH if u is None else u
    expected = [model.step(*given) for given in zip(z, driven, strict=True)]
    assert_allclose(numbers(module(tensor(z), tensor(u))), expected, **CLOSE)
    assert_allclose(numbers(module.step(z[0], driven[0])), expected[0], **CLOSE)
    x = [model.observe(row) for row in z]
    assert_allclose(numbers(module.observe(tensor(z))), x, **CLOSE)
    assert_allclose(numbers(module.lift(x)), [model.lift(row) for row in x], **CLOSE)
    assert_allclose(numbers(module.lift(x[0])), model.lift(x[0]), **CLOSE)


def arrays_of(model):
    """The arrays of a model by dotted name."""
    leaves = jax.tree_util.tree_leaves_with_path(model)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves if eqx.is_array(leaf)}


@pytest.mark.parametrize(("name", "n_inputs", "observation"), CASES)
def test_parameters_have_the_names_of_the_fields_and_come_back_to_the_bit(name, n_inputs, observation):
    model = make(name, n_inputs, observation)
    module = to_torch(model)
    named = arrays_of(model)
    real = {name for name, leaf in named.items() if jnp.issubdtype(leaf.dtype, jnp.inexact)}
    assert {name for name, _ in module.named_parameters()} == real
    assert {name for name, _ in module.named_buffers()} == set(named) - real
    back = from_torch(module)
    assert jax.tree.structure(back) == jax.tree.structure(model)
    for leaf, expected in zip(jax.tree.leaves(back), jax.tree.leaves(model), strict=True):
        assert type(leaf) is type(expected)
        if eqx.is_array(leaf):
            assert leaf.dtype == expected.dtype
            assert np.asarray(leaf).tobytes() == np.asarray(expected).tobytes()
        else:
            assert leaf == expected


@pytest.mark.parametrize(("name", "n_inputs", "observation"), EACH)
def test_free_runs_with_and_without_a_batch(name, n_inputs, observation):
    model = make(name, n_inputs, observation)
    module = to_torch(model)
    context, u = contexts(model), as_numpy(inputs_for(model, BATCH, model.memory + STEPS))
    expected = np.stack([free_run(as_numpy(model), context[b], STEPS, None if u is None else u[b]) for b in range(BATCH)])
    x0 = start(model, context)
    made = module.rollout(tensor(x0), STEPS, tensor(u))
    assert made.shape == (BATCH, STEPS, model.n_obs)
    # a short run of a map whose expansion a step is of order one
    assert_allclose(numbers(made), expected, rtol=1e-8, atol=1e-8)
    alone = module.rollout(x0[1], STEPS, None if u is None else u[1])
    assert_allclose(numbers(alone), expected[1], rtol=1e-8, atol=1e-8)
    if u is not None:  # one input for all
        shared = module.rollout(tensor(x0), STEPS, tensor(u[1]))
        assert_allclose(numbers(shared)[1], expected[1], rtol=1e-8, atol=1e-8)


def loss_of(made):
    return ((made - 0.3) ** 2).sum()


@pytest.mark.parametrize(("name", "n_inputs", "observation"), TRAINABLE)
def test_gradients_are_slopes(name, n_inputs, observation):
    model = make(name, n_inputs, observation)
    module = to_torch(model)
    context, u = contexts(model, 1)[0], as_numpy(inputs_for(model, model.memory + 2))
    loss_of(module.rollout(start(model, context), 2, u)).backward()
    rng = np.random.default_rng(0)
    leaves, structure = jax.tree.flatten(as_numpy(model))
    # along one direction through all parameters; those at zero gradient count too
    way = [rng.normal(size=np.shape(leaf)) if np.asarray(leaf).dtype.kind == "f" else None for leaf in leaves]

    def loss(h):
        moved = [leaf if d is None else np.asarray(leaf + h * d) for leaf, d in zip(leaves, way, strict=True)]
        return loss_of(np.stack(free_run(jax.tree.unflatten(structure, moved), context, 2, u)))

    ways = dict(zip(paths_of(model), way, strict=True))
    slope = sum(float((p.grad.numpy() * ways[key]).sum()) for key, p in module.named_parameters() if p.grad is not None)
    # a central difference: h^2 = 1e-12 from curvature and 1e-16 / h = 1e-10 from rounding, on sums of order up to a hundred
    assert_allclose(slope, (loss(1e-6) - loss(-1e-6)) / 2e-6, rtol=1e-6, atol=1e-6)
    assert abs(slope) > 1e-4


def paths_of(model):
    """The dotted names of all leaves."""
    return [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in jax.tree_util.tree_leaves_with_path(model)]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "n_inputs", "observation"), TRAINABLE)
def test_gradients_are_those_of_jax(name, n_inputs, observation):
    model = make(name, n_inputs, observation)
    module = to_torch(model)
    context, u = contexts(model, 1)[0], inputs_for(model, model.memory + 2)
    loss = ((module.rollout(tensor(start(model, context)), 2, tensor(u)) - 0.3) ** 2).sum()
    loss.backward()

    @eqx.filter_jit
    @eqx.filter_value_and_grad
    def by_jax(model):
        return sum(jnp.sum((x - 0.3) ** 2) for x in free_run(model, jnp.asarray(context), 2, u))

    value, gradient = by_jax(model)
    assert_allclose(loss.item(), value, rtol=1e-9)
    expected, found = arrays_of(gradient), dict(module.named_parameters())
    assert set(expected) == set(found)
    assert any(np.abs(value).max() > 1e-6 for value in expected.values() if value.size)
    for key, value in expected.items():
        grad = found[key].grad
        assert_allclose(0.0 if grad is None else grad.numpy(), value, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("name", "n_inputs", "observation"), EACH)
def test_an_exported_program_takes_any_batch(name, n_inputs, observation):
    model = make(name, n_inputs, observation)
    module = to_torch(model)

    def arguments(count):
        given = (states(model, count), inputs_for(model, count))
        return tuple(tensor(value) for value in given if value is not None)

    axes = tuple({0: torch.export.Dim("batch")} for _ in arguments(2))
    program = torch.export.export(module, arguments(2), dynamic_shapes=axes)
    assert set(program.state_dict) >= {name for name, _ in module.named_parameters()}
    assert_allclose(numbers(program.module()(*arguments(5))), numbers(module(*arguments(5))), **CLOSE)


def test_an_exported_program_is_stored_and_runs_without_dynsys(tmp_path):
    module = to_torch(make("alrnn", observation="affine"))
    z = torch.ones(module.dim, dtype=torch.float64)
    torch.export.save(torch.export.export(module, (z,)), tmp_path / "alrnn.pt2")
    code = f"""
import sys, torch
z = torch.export.load({str(tmp_path / "alrnn.pt2")!r}).module()(torch.ones({module.dim}, dtype=torch.float64))
torch.save(z.detach(), {str(tmp_path / "z.pt")!r})
assert not any(name.split(".")[0] in ("dynsys", "jax") for name in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, timeout=120)
    assert_allclose(torch.load(tmp_path / "z.pt", weights_only=True).numpy(), numbers(module(z)), **CLOSE)


@pytest.mark.parametrize("name", TIMED)
def test_timed_models_take_gaps(name):
    model = make(name, n_inputs=2)
    module = to_torch(model)
    z, u, gap = states(model), inputs_for(model, BATCH), jnp.array([0.5, 1.0, 2.5])
    expected = [model.over(*given) for given in zip(z, u, gap, strict=True)]
    assert_allclose(numbers(module.over(tensor(z), tensor(u), tensor(gap))), expected, **CLOSE)
    assert_allclose(numbers(module(tensor(z), tensor(u), 0.5))[0], expected[0], **CLOSE)
    gapped = Gapped(model)
    context = contexts(gapped)
    inputs = np.asarray(jr.normal(jr.key(5), (BATCH, gapped.memory + STEPS, 2)))
    gaps = np.asarray(jr.uniform(jr.key(6), (BATCH, gapped.memory + STEPS), minval=0.5, maxval=2.0))
    both = np.concatenate([inputs, gaps[..., None]], axis=-1)
    made = module.rollout(tensor(start(model, context)), STEPS, tensor(inputs), tensor(gaps))
    for b in range(BATCH):
        assert_allclose(numbers(made)[b], free_run(as_numpy(gapped), context[b], STEPS, both[b]), rtol=1e-8, atol=1e-8)


def test_gaps_of_a_discretized_flow_are_times():
    flow = load_system("Lorenz")
    module = to_torch(Discretized(flow, dt=0.01, substeps=4))
    z = flow.start
    # RK4 with h = 0.0025: a local error of about (10 h)^5 = 1e-8 of states of order ten
    assert_allclose(numbers(module.over(z, None, 2.0)), numbers(module.step(module.step(z))), rtol=0, atol=1e-5)
    with pytest.raises(InvalidValue, match=r"gap must have shape \(\)"):
        module.over(z, None, torch.ones(1, 2, dtype=torch.float64))


@pytest.mark.parametrize("name", [case[0] for case in EACH])
def test_a_module_moves_to_another_precision_and_device(name):
    model = make(name)
    module = to_torch(model, dtype=torch.float32)
    context = tensor(start(model, contexts(model))).float()
    made = module.rollout(context, 2)
    assert made.dtype == torch.float32
    again = module.to(torch.float64).rollout(context.double(), 2)
    assert_allclose(numbers(made), numbers(again), rtol=2e-4, atol=2e-4)  # rounding of float32, 1e-7, grown by sums of a few hundred
    elsewhere = module.to("meta").rollout(context.double().to("meta"), 2)  # a tensor made on the wrong device would be refused
    assert elsewhere.device.type == "meta"
    assert elsewhere.shape == made.shape


def test_a_module_is_trained_by_torch_and_goes_on_in_jax():
    model = make("alrnn", dim=8)
    module = to_torch(model)
    x = torch.randn((64, 3), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    goal = 0.9 * x.roll(1, dims=1)  # a turn of space, which an AL-RNN can be
    optimizer = torch.optim.Adam(module.parameters(), lr=2e-2)
    losses = []
    for _ in range(100):
        optimizer.zero_grad()
        loss = ((module.rollout(x, 1)[:, 0] - goal) ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.01 * losses[0]
    trained = from_torch(module)
    assert not np.array_equal(trained.W, model.W)
    made = trained.observe(trained.step(trained.lift(jnp.asarray(x[0].numpy()))))
    assert_allclose(made, numbers(module.rollout(x[0], 1))[0], **CLOSE)
    held = np.asarray(trained.W).copy()
    with torch.no_grad():
        module.W.zero_()
    assert np.array_equal(trained.W, held)  # a copy, not a view of the tensor


@pytest.mark.parametrize("name", ["dendritic-plrnn", "esn"])
def test_modules_are_copied_stored_and_loaded(name):
    model = make(name)
    module = to_torch(model)
    z = tensor(states(model))
    twin = copy.deepcopy(module)
    with torch.no_grad():
        next(module.parameters()).add_(1.0)
    assert not np.allclose(numbers(twin(z)), numbers(module(z)))
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    assert_allclose(numbers(torch.load(file, weights_only=False)(z)), numbers(module(z)), **CLOSE)
    twin.load_state_dict(module.state_dict())
    assert_allclose(numbers(twin(z)), numbers(module(z)), **CLOSE)
    doubled = torch.func.functional_call(module, {key: 0 * value for key, value in module.named_parameters()}, (z,))
    assert not np.allclose(numbers(doubled), numbers(module(z)))


def test_fitted_models_keep_numpy_arrays():
    from dynsys.models.autoregressive import VAR

    model = VAR.from_series([waves()], delays=2, ridge=1e-9)
    back = from_torch(to_torch(model))
    assert isinstance(back.W, np.ndarray)
    assert np.array_equal(back.W, model.W)


def test_a_name_that_torch_has_itself_gets_an_underscore():
    module = to_torch(load_system("Lorenz"))
    assert {name for name, _ in module.named_parameters()} == {"parameters_.beta", "parameters_.rho", "parameters_.sigma"}
    assert from_torch(module).parameters.keys() == {"beta", "rho", "sigma"}


def test_what_is_wrong_is_said():
    module = to_torch(make("alrnn", n_inputs=2, dim=5))
    z = torch.ones(5, dtype=torch.float64)
    with pytest.raises(InvalidValue, match=r"ALRNN.step: z must have shape \(5\), or a batch axis before it, got \(4,\)"):
        module.step(z[:4])
    with pytest.raises(InvalidValue, match=r"u must have shape \(2\)"):
        module.step(z, z)
    with pytest.raises(InvalidValue, match=r"z is torch.float32, the parameters are torch.float64.*module.to\(torch.float32\)"):
        module.step(z.float())
    with pytest.raises(InvalidValue, match=r"one length B, got \[2, 3\]"):
        module.step(z.expand(3, 5), z[:2].expand(2, 2))
    with pytest.raises(InvalidValue, match="one sampling interval only"):
        module.over(z, None, 2.0)
    with pytest.raises(InvalidValue, match="n must be a whole number of at least 1, got n=0"):
        module.rollout(z[:3], 0)
    with pytest.raises(InvalidValue, match=r"inputs must have shape \(4, 2\)"):
        module.rollout(z[:3], 4, torch.ones(3, 2, dtype=torch.float64))
    with pytest.raises(InvalidValue, match=r"x0 must have shape \(any, 3\)"):
        to_torch(make("esn")).rollout(z[:3], 4)
    with pytest.raises(InvalidValue, match=r"to_torch: wants a map.*got IdentityObservation"):
        to_torch(make("alrnn").observation)
    with pytest.raises(InvalidValue, match=r"to_torch: wants a map.*delay equation"):
        to_torch(load_system("MackeyGlass"))
    with pytest.raises(InvalidValue, match=r"from_torch: wants a module that to_torch made, got Linear. Pass what to_torch returned"):
        from_torch(torch.nn.Linear(2, 2))
    with pytest.raises(InvalidValue, match=r"got DataParallel. Pass its .module"):
        from_torch(torch.nn.DataParallel(module))


def test_without_torch_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtra, match=r"to_torch needs torch, which is not installed.*pip install 'dynsys\[torch\]'"):
        to_torch(make("alrnn"))


def test_importing_the_door_loads_no_torch():
    code = "import sys, dynsys.interop.torch; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0

"""Flows in PyTorch: torchdiffeq and diffrax solve the same equations to the same numbers, with inputs and with both kinds of gradient."""

import sys

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import torch
from jaxtyping import Float
from numpy.testing import assert_allclose

from dynsys import registry
from dynsys.dynamics import AbstractFlow, runge_kutta_4
from dynsys.errors import DynsysError, InvalidValue, MissingExtra
from dynsys.integrate import solve
from dynsys.interop.torch import from_torch, to_torch
from dynsys.models.base import matvec
from dynsys.models.fields import HamiltonianField, MLPField, SecondOrderField
from dynsys.models.liquid import LTC, LiquidFlow
from dynsys.models.universal import Known, Universal
from dynsys.models.wiring import make_wiring
from dynsys.systems import load_system

# chaos of several kinds and sizes: polynomial, trigonometric, exponential, hyperchaotic, a ring of many states, driven in time
SYSTEMS = ("Lorenz", "Lorenz96", "Duffing", "Rossler", "Chua", "Halvorsen", "Thomas", "HenonHeiles", "HyperRossler", "DoublePendulum")


def as_numpy(model):
    """The same model, or array, with NumPy arrays."""
    return jax.tree.map(lambda leaf: np.asarray(leaf) if isinstance(leaf, jax.Array) else leaf, model)


class Linear(AbstractFlow):
    """dz/dt = A z + C u."""

    A: Float[object, "M M"]
    C: Float[object, "M K"]

    @property
    def dim(self):
        return self.A.shape[0]

    @property
    def n_inputs(self):
        return self.C.shape[1]

    def field(self, t, z, u=None):
        return matvec(self.A, z) if u is None else matvec(self.A, z) + matvec(self.C, u)


def linear():
    return Linear(A=jnp.array([[-0.5, 2.0], [-2.0, -0.5]]), C=jnp.array([[1.0], [0.5]]))


def expm(matrix, t):
    """exp(A t) of the matrix above: a damped rotation."""
    return np.exp(-0.5 * t) * np.array([[np.cos(2 * t), np.sin(2 * t)], [-np.sin(2 * t), np.cos(2 * t)]])


@pytest.mark.parametrize("name", [*SYSTEMS[:3], *(pytest.param(name, marks=pytest.mark.slow) for name in SYSTEMS[3:])])
def test_torchdiffeq_agrees_with_diffrax(name):
    flow = load_system(name)
    times = np.linspace(0.0, 10 * flow.dt, 6)
    expected = solve(flow, flow.start, times, rtol=1e-10, atol=1e-10)
    assert expected.ok
    made = to_torch(flow).solve(flow.start, times, rtol=1e-10, atol=1e-10)
    assert made.dtype == torch.float64
    assert np.abs(np.asarray(expected.states)[-1] - flow.start).max() > 1e-3  # it has gone somewhere
    scale = max(1.0, float(np.abs(expected.states).max()))
    assert_allclose(made.detach().numpy(), expected.states, rtol=0, atol=1e-6 * scale)


def test_parameters_of_a_system_have_gradients():
    module = to_torch(load_system("Lorenz"))
    x, y, z = 1.5, -2.0, 20.0
    rates = module.field(0.0, [x, y, z])  # sigma (y - x), x (rho - z) - y, x y - beta z
    (rates * torch.tensor([1.0, 10.0, 100.0])).sum().backward()
    found = {name: parameter.grad.item() for name, parameter in module.named_parameters()}
    assert found == pytest.approx({"parameters_.sigma": y - x, "parameters_.rho": 10 * x, "parameters_.beta": -100 * z}, rel=1e-12)


def test_a_damped_rotation_is_solved_in_a_batch():
    flow, times = linear(), np.linspace(0.0, 2.0, 5)
    x0 = np.array([[1.0, 0.0], [0.0, 2.0], [-1.0, 1.0]])
    made = to_torch(flow).solve(x0, times).detach().numpy()
    assert made.shape == (3, 5, 2)
    for k, t in enumerate(times):
        assert_allclose(made[:, k], x0 @ expm(flow.A, t).T, atol=1e-6)  # rtol 1e-7 a step


def held(A, C, x0, times, inputs):
    """The states at `times` in closed form, on PyTorch: each interval is exp(A t) z + A^-1 (exp(A t) - 1) C u."""
    states = [x0]
    for k in range(len(times) - 1):
        grown = torch.linalg.matrix_exp(A * float(times[k + 1] - times[k]))
        drive = torch.linalg.solve(A, (grown - torch.eye(2, dtype=A.dtype)) @ C @ inputs[..., k, :, None])[..., 0]
        states.append((grown @ states[-1][..., None])[..., 0] + drive)
    return torch.stack(states, dim=-2)


@pytest.mark.parametrize("adjoint", [False, True])
def test_gradients_direct_and_adjoint(adjoint):
    flow, times = linear(), np.array([0.0, 0.5, 1.0])
    module = to_torch(flow)
    given = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in ([1.0, -1.0], [[1.0], [-2.0]])]
    (module.solve(given[0], times, inputs=given[1], rtol=1e-9, atol=1e-10, adjoint=adjoint) ** 2).sum().backward()
    exact = [value.detach().clone().requires_grad_() for value in (module.A, module.C, *given)]
    (held(*exact[:3], times, exact[3]) ** 2).sum().backward()
    for found, expected in zip((module.A, module.C, *given), exact, strict=True):
        # 1e-9 a step; the adjoint solves its own equation to the same tolerance
        assert_allclose(found.grad.numpy(), expected.grad.numpy(), atol=1e-6)


def test_inputs_of_a_batch_are_held_between_the_times():
    flow, times = linear(), np.array([0.0, 0.3, 1.0])
    module = to_torch(flow)
    inputs = torch.randn((4, 2, 1), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x0 = torch.tensor([1.0, 0.5], dtype=torch.float64)
    made = module.solve(x0, times, inputs=inputs, rtol=1e-9, atol=1e-10)
    expected = held(module.A, module.C, x0.expand(4, 2), times, inputs)
    assert made.shape == (4, 3, 2)
    assert_allclose(made.detach().numpy(), expected.detach().numpy(), atol=1e-7)


@pytest.mark.parametrize("method", ["rk4", "midpoint", "bosh3"])
def test_methods_and_options_of_torchdiffeq_pass_through(method):
    options = {"step_size": 0.001} if method != "bosh3" else None
    made = to_torch(linear()).solve([1.0, 0.0], [0.0, 1.0], method=method, options=options)
    # midpoint: error about h^2; bosh3 looks up the last time on a curve through a whole step, of lower order than the step
    assert_allclose(made[-1].detach().numpy(), expm(None, 1.0) @ [1.0, 0.0], atol=1e-4)


def test_the_field_of_every_kind_of_flow_takes_a_batch_and_is_exported():
    for name in ("Lorenz", "Lorenz96", "Duffing", "Henon", "GeometricBrownianMotion"):
        flow = load_system(name)
        module = to_torch(flow)
        z = np.stack([flow.start, flow.start + 0.1, flow.start - 0.1])
        if isinstance(flow, AbstractFlow):
            expected = np.stack([flow.field(0.3, row) for row in z])
            arguments = (torch.tensor(0.3, dtype=torch.float64), torch.tensor(z))
        else:
            expected, arguments = np.stack([flow.step(row) for row in z]), (torch.tensor(z),)
        assert_allclose(module(*arguments).detach().numpy(), expected, rtol=1e-12, atol=1e-12)
        program = torch.export.export(module, arguments)
        assert_allclose(program.module()(*arguments).detach().numpy(), expected, rtol=1e-12, atol=1e-12)


KEY = jr.key(0)
FLOWS = {
    "mlp": lambda: MLPField.init(3, hidden=6, scale=1.0, key=KEY),
    "softplus": lambda: MLPField.init(3, hidden=6, scale=1.0, activation="softplus", key=KEY),
    "second-order": lambda: SecondOrderField.init(4, hidden=6, scale=1.0, key=KEY),
    "hamiltonian": lambda: HamiltonianField.init(4, hidden=6, scale=1.0, activation="silu", key=KEY),
    "liquid": lambda: LiquidFlow(LTC.init(make_wiring("full", 2, 4, None, sparsity=0.5, rank=2, seed=0), key=KEY)),
    "known": lambda: Known.of("Lorenz", scale=10.0, dt=0.01, train=("rho",)),
    "universal": lambda: Universal.init(Known.of("Lorenz", scale=10.0, dt=0.01), dim=4, hidden=6, scale=1.0, key=KEY),
}


@pytest.mark.parametrize("name", FLOWS)
def test_flows_with_networks_are_solved_exported_and_come_back(name):
    flow = FLOWS[name]()
    module, plain = to_torch(flow), as_numpy(flow)
    z, u = 0.3 * np.ones(flow.dim), (np.ones(flow.n_inputs) if flow.n_inputs else None)
    inputs = None if u is None else u[None]
    made = module.solve(z, [0.0, 0.5], inputs=inputs, rtol=1e-10, atol=1e-10)[-1].detach().numpy()
    fine = z
    for k in range(50):  # RK4 with steps of 0.01: an error far below 1e-6 for fields of order one
        fine = runge_kutta_4(plain, 0.01 * k, fine, u, 0.01)
    assert np.abs(fine - z).max() > 1e-3
    assert_allclose(made, fine, atol=1e-6)
    arguments = tuple(torch.tensor(value) for value in (0.3, np.stack([z, 2 * z]), u) if value is not None)
    axes = (None, {0: torch.export.Dim("batch")}, None)[: len(arguments)]
    program = torch.export.export(module, (arguments[0].double(), *arguments[1:]), dynamic_shapes=axes)
    batch = np.stack([z, 2 * z, -z])
    found = program.module()(arguments[0].double(), torch.tensor(batch), *arguments[2:]).detach().numpy()
    assert_allclose(found, [plain.field(0.3, row, u) for row in batch], rtol=1e-10, atol=1e-12)
    for leaf, expected in zip(jax.tree.leaves(from_torch(module)), jax.tree.leaves(flow), strict=True):
        assert np.asarray(leaf).tobytes() == np.asarray(expected).tobytes()


def test_every_registered_flow_is_tested_here():
    assert {registry.lookup("flow", name) for name in registry.names("flow")} <= {type(make()) for make in FLOWS.values()}


def test_what_is_wrong_is_said():
    module = to_torch(linear())
    with pytest.raises(InvalidValue, match=r"Linear.solve: x0 must have shape \(2\)"):
        module.solve([1.0], [0.0, 1.0])
    with pytest.raises(InvalidValue, match=r"times must have shape \(T,\) with T >= 2 and increase"):
        module.solve([1.0, 0.0], [0.0, 1.0, 1.0])
    with pytest.raises(InvalidValue, match=r"inputs must have shape \(1, 1\)"):
        module.solve([1.0, 0.0], [0.0, 1.0], inputs=np.ones((2, 1)))
    with pytest.raises(DynsysError, match=r"torchdiffeq gave up \(underflow in dt.*dynsys.integrate.solve"):
        to_torch(load_system("Lorenz")).solve([1e200, 1e200, 1e200], [0.0, 1.0])


def test_without_torchdiffeq_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    with pytest.raises(MissingExtra, match=r"solve needs torchdiffeq, which is not installed.*pip install 'dynsys\[torch\]'"):
        to_torch(linear()).solve([1.0, 0.0], [0.0, 1.0])

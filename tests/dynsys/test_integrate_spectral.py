"""ETDRK4 against closed forms: soliton, Cole-Hopf, plane waves, Rossby waves; its order; dealiasing; failures are values."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from dynsys.analysis.lyapunov import lyapunov_spectrum
from dynsys.dynamics import rollout
from dynsys.errors import InvalidValue
from dynsys.integrate.spectral import FieldMap, _phi_blocks, _phi_contour, solve_field
from dynsys.status import Status
from dynsys.systems import load_system
from dynsys_datasets.catalogue import names

FILE = """
name = "{name}"
kind = "field"
source = "A closed form."
about = "For a test."
state = {state}
[parameters]
L = "{length}"
a = 1
[sizes]
n = {n}
[grid]
{grid}
{linear}
[equations]
{equations}
[start]
{start}
[time]
dt = 0.1
"""


def made(tmp_path, equations, linear="", *, n=64, length="2*pi", two=False):
    """A field from the text of its parts; states are the names on the left of `equations`."""
    states = [line.split("=")[0].strip() for line in equations.strip().splitlines()]
    grid = "\n".join(f'{axis} = {{points = "n", length = "L"}}' for axis in ("x", "y")[: 1 + two])
    text = FILE.format(
        name="Made",
        state=str(states).replace("'", '"'),
        length=length,
        n=n,
        grid=grid,
        linear=f"[linear]\n{linear}" if linear else "",
        equations=equations,
        start="\n".join(f"{state} = 0" for state in states),
    )
    path = tmp_path / "made.toml"
    path.write_text(text)
    return load_system(path)


def grid(flow):
    """The coordinates x, or x and y, on the grid of a flow with one length."""
    n = flow.record.file.indices()["x"]
    x = np.arange(n) * float(flow.parameters["L"]) / n
    return x if len(flow.record.file.grid) == 1 else np.meshgrid(x, x, indexing="ij")


def orders(flow, z0, exact, t, counts, **keywords):
    errors = [np.abs(np.asarray(solve_field(flow, z0, [0.0, t], dt=t / k, **keywords).states)[-1] - exact).max() for k in counts]
    return np.log2(np.divide(errors[:-1], errors[1:])), errors


def test_soliton_of_korteweg_de_vries_at_order_four(tmp_path):
    flow = made(tmp_path, 'u = "-3*diff(u**2, x)"', 'u = "-diff(u, x, 3)"', n=192, length="24")
    x = grid(flow)

    def soliton(t):  # speed 4; the periodic images are e^-24 away
        return 2 / np.cosh((x - 4 * t) % 24 - 12) ** 2

    found, errors = orders(flow, soliton(0.0), soliton(0.5), 0.5, (100, 200, 400))
    assert_allclose(found, 4.0, atol=0.15)
    assert errors[-1] < 1e-7


def test_burgers_by_the_transformation_of_cole_and_hopf():
    flow = load_system("Burgers", nu=0.05)
    x, k = grid(flow), 2 * np.pi

    def exact(t):  # u = -2 nu phi_x / phi with the heat solution phi = 2 + exp(-nu k^2 t) cos(k x)
        wave = np.exp(-0.05 * k**2 * t)
        return 0.1 * k * wave * np.sin(k * x) / (2 + wave * np.cos(k * x))

    times = np.linspace(0.0, 0.5, 6)
    solution = solve_field(flow, exact(0.0), times, dt=0.005)
    assert solution.ok
    assert_allclose(solution.states, np.stack([exact(t) for t in times]), atol=1e-9)
    found, _ = orders(flow, exact(0.0), exact(0.5), 0.5, (8, 16, 32))
    assert_allclose(found, 4.0, atol=0.3)


def test_a_rossby_wave_is_exact_with_its_nonlinear_term():
    flow = load_system("QuasiGeostrophic", n=32, force=0.0, beta=3.0, mu=0.1, nu=0.01)
    x, y = grid(flow)

    def exact(t):  # one wave does not act on itself; it runs west with beta k / (k^2 + l^2)
        return (np.exp(-(0.1 + 0.13) * t) * np.cos(2 * x + 3 * y + 3.0 * 2 / 13 * t)).ravel()

    times = np.array([0.0, 1.0, 2.0])
    # the linear part is exact whatever the step; the nonlinear term is rounding
    assert_allclose(solve_field(flow, exact(0.0), times, dt=1.0).states, np.stack([exact(t) for t in times]), atol=1e-12)


def test_a_plane_wave_of_ginzburg_and_landau_at_order_four():
    flow = load_system("ComplexGinzburgLandau", n=32, L=20.0)
    q, b, c = 2 * np.pi / 20, 2.0, -2.0
    x = grid(flow)

    def exact(t):
        wave = np.sqrt(1 - q**2) * np.exp(1j * (q * x - (c * (1 - q**2) + b * q**2) * t))
        return np.concatenate([wave.real, wave.imag])

    found, errors = orders(flow, exact(0.0), exact(2.0), 2.0, (20, 40, 80))
    assert_allclose(found, 4.0, atol=0.25)
    assert errors[-1] < 1e-5


@pytest.mark.parametrize("two", [False, True])
def test_linear_fields_are_exact_to_rounding(tmp_path, two):
    """Diffusion, transport and a rotation between two states: exp(t L) in one long step."""
    other = " + 0.3*diff({0}, y)" if two else ""
    linear = f'u = "0.1*diff(u, x, 2) + diff(u, x) - 2*v{other.format("u")}"\nv = "0.1*diff(v, x, 2) + diff(v, x) + 2*u{other.format("v")}"'
    flow = made(tmp_path, 'u = "0"\nv = "0"', linear, n=16, two=two)
    x, y = grid(flow) if two else (grid(flow), 0.0)

    def exact(t):
        wave = np.exp(-0.1 * 9 * t) * np.exp(1j * (3 * (x + t) + 2 * (y + 0.3 * t) * two + 2 * t))
        return np.concatenate([wave.real.ravel(), wave.imag.ravel()])

    assert_allclose(solve_field(flow, exact(0.0), [0.0, 5.0]).states[1], exact(5.0), atol=1e-13)


def test_phi_functions():
    x = np.array([0, 1e-9, -1e-3, 0.5, 1, -1, 1j, -1j, np.exp(0.4j), 2.0, -3 + 40j, -50, -1e4], dtype=complex)
    found = [np.asarray(part) for part in _phi_contour(jnp.asarray(x))]
    series = [sum(x**k / math.factorial(k + order) for k in range(30)) for order in range(4)]
    direct = [np.exp(x)]
    for before in (1.0, 1.0, 0.5):
        with np.errstate(all="ignore"):
            direct.append((direct[-1] - before) / x)
    for computed, small, large in zip(found, series, direct, strict=True):
        assert_allclose(computed, np.where(np.abs(x) < 3, small, large), rtol=1e-13, atol=1e-15)
    blocks = _phi_blocks(jnp.asarray(x[:-1])[None, None])
    for computed, expected in zip(blocks, found, strict=True):
        assert_allclose(computed[0, 0], expected[:-1], rtol=1e-12, atol=1e-13)


def test_two_high_waves_leave_no_alias(tmp_path):
    flow = made(tmp_path, 'u = "u**2"', n=64)
    z0 = np.cos(20 * grid(flow))  # its square holds wave 40, which a grid of 64 takes for wave 24

    def wave(k, **keywords):
        z = np.asarray(solve_field(flow, z0, [0.0, 1e-3], **keywords).states)[1]
        return np.abs(np.fft.rfft(z))[k] / 32

    assert wave(24, dealias=False) == pytest.approx(5e-4, rel=0.01)
    assert wave(24) < 1e-15
    assert wave(0) == pytest.approx(1e-3, rel=0.01)  # the mean, 1/2, counts twice here: it is no alias and stays
    assert wave(20, dealias=0.5) == pytest.approx(1.0)  # above half of the highest: N does not see it
    assert wave(0, dealias=0.5) < 1e-15


def test_turbulence_conserves_energy_and_enstrophy_without_force_and_friction():
    flow = load_system("QuasiGeostrophic", n=32, force=0.0, mu=0.0, nu=0.0)
    x, y = grid(flow)
    z0 = (np.cos(3 * x + 1) * np.sin(2 * y) + 2 * np.cos(x - 2 * y) + np.sin(4 * x + 3 * y)).ravel()
    states = np.asarray(solve_field(flow, z0, np.linspace(0.0, 2.0, 5), dt=0.01).states).reshape(5, 32, 32)
    k = np.fft.fftfreq(32, 1 / 32)
    square = k[:, None] ** 2 + k[None, :] ** 2
    waves = np.abs(np.fft.fft2(states)) ** 2
    energy = (waves / np.where(square > 0, square, 1)).sum((1, 2))
    # both are invariants of the truncated equations; what is left is the error of the step, dt^4
    assert_allclose(energy, energy[0], rtol=1e-6)
    assert_allclose(waves.sum((1, 2)), waves.sum((1, 2))[0], rtol=1e-6)
    assert np.abs(states[-1] - states[0]).max() > 1  # and it moved


def test_the_laminar_state_of_kolmogorovs_flow_is_an_equilibrium():
    flow = load_system("KolmogorovFlow", n=32, Re=10.0)
    z0 = (-10 / 4 * np.cos(4 * grid(flow)[1])).ravel()
    assert_allclose(solve_field(flow, z0, [0.0, 1.0]).states[1], z0, atol=1e-12)


@pytest.mark.parametrize("n", [15, 16])
def test_unstable_waves_of_a_real_field_do_not_grow_out_of_rounding(tmp_path, n):
    flow = made(tmp_path, 'u = "-u**3"', 'u = "2*u + laplacian(u)"', n=n, two=True)
    z0 = 0.3 + 0.1 * np.random.default_rng(0).normal(size=n * n)
    # 2000 steps without a way through real space: an antisymmetric part of the wave k = 1 would grow as e^100
    assert_allclose(solve_field(flow, z0, [0.0, 100.0], dt=0.05).states[1], np.sqrt(2.0), atol=1e-10)


def test_kuramoto_sivashinsky_has_its_published_exponents():
    flow = load_system("KuramotoSivashinsky", n=32)
    start = np.asarray(solve_field(flow, flow.start, np.arange(0.0, 301.0, 10.0)).states)[-1]
    spectrum = lyapunov_spectrum(
        FieldMap.init(flow, 0.5, step=0.25).prepared(), start, steps=8000, transient=100, dt=0.5, every=4, n_exponents=8
    )
    # Ding, Chate, Cvitanovic, Siminos, Takeuchi 2016 (Phys. Rev. Lett. 117, 024101): 0.048, three of 0 and -0.003, with the
    # mean of u, which is conserved here, one more 0; then -0.189, -0.256, -0.290. Over 4000 units 0.048 comes with +-0.004.
    assert abs(spectrum.exponents[0] - 0.048) < 0.012
    assert_allclose(spectrum.exponents[1:5], 0.0, atol=0.012)
    assert_allclose(spectrum.exponents[5:], [-0.189, -0.256, -0.290], atol=0.02)


@pytest.mark.parametrize("name", names("field"))
def test_every_field_runs_and_its_own_step_is_accurate(name):
    flow = load_system(name, n=32)  # coarse: the test is of the file, not of the physics
    times, fine, step = np.arange(3) * flow.dt, flow.start, flow.record.file.time.step
    coarse = solve_field(flow, fine, times)
    assert coarse.ok
    for _ in range(2):  # half the interval and half the step: the same compiled program
        half = solve_field(flow, fine, times / 2, dt=step / 2)
        fine = half.states[-1]
    assert int(half.steps) == int(coarse.steps)
    scale = np.abs(fine).max()
    assert np.abs(np.asarray(coarse.states[-1] - fine)).max() < 2e-3 * scale
    assert np.abs(np.asarray(fine - flow.start)).max() > 1e-3 * scale


def test_batches_over_starts_parameters_and_inputs_equal_single_runs():
    flow = load_system("Burgers", n=16, m=2)
    times, rng = np.arange(4) * 0.05, np.random.default_rng(0)
    z0, inputs = rng.normal(size=(3, 16)), rng.normal(size=(3, 3, 2))
    sweep = flow.sweep(nu=[0.02, 0.05, 0.1], L=[1.0, 2.0, 3.0])
    many = solve_field(sweep, z0, times, inputs=inputs, batched_flow=True)
    assert many.states.shape == (3, 4, 16)
    assert many.statuses == (Status.SUCCESS,) * 3
    for k, (nu, length) in enumerate([(0.02, 1.0), (0.05, 2.0), (0.1, 3.0)]):
        one = solve_field(load_system("Burgers", n=16, m=2, nu=nu, L=length), z0[k], times, inputs=inputs[k])
        assert_allclose(many.states[k], one.states, atol=1e-13)


def test_inputs_push_the_mean_as_their_bumps_say():
    flow = load_system("Burgers", n=32, m=2)
    inputs = np.array([[1.0, 0.0], [0.0, -2.0], [0.5, 0.5]])
    states = solve_field(flow, np.zeros(32), np.arange(4) * 0.1, inputs=inputs).states
    area = np.exp((np.cos(2 * np.pi * np.arange(32) / 32) - 1) / 0.2).mean()
    assert_allclose(np.asarray(states).mean(1), 0.1 * area * np.array([0, 1, -1, 0]), atol=1e-14)


def test_a_lane_that_blows_up_is_a_status_and_leaves_the_others_alone():
    flow = load_system("Burgers", n=16).sweep(nu=[0.05, -0.2])
    solution = solve_field(flow, load_system("Burgers", n=16).start, np.arange(20) * 0.5, batched_flow=True)
    assert solution.statuses == (Status.SUCCESS, Status.DIVERGED)
    assert np.isfinite(np.asarray(solution.states[0])).all()
    lost = np.isnan(np.asarray(solution.states[1])).all(1)
    assert not lost[0]
    assert lost[-1]
    assert (np.diff(lost.astype(int)) >= 0).all()
    assert int(solution.steps[1]) < int(solution.steps[0])


def test_a_field_as_a_map_and_its_derivatives():
    flow = load_system("KuramotoSivashinsky", n=16)
    plain = FieldMap.init(flow, 0.5, step=0.25)
    states = solve_field(flow, flow.start, np.arange(4) * 0.5, dt=0.25).states
    assert_allclose(rollout(plain.prepared(), jnp.asarray(flow.start), 3), states[1:], atol=1e-12)
    assert_allclose(plain.step(flow.start), states[1], atol=1e-12)
    assert (plain.dim, plain.n_obs, plain.n_inputs) == (16, 16, 0)

    def last(length):
        return solve_field(load_system("KuramotoSivashinsky", n=16, L=length), flow.start, [0.0, 2.0], dt=0.25).states[1, 3]

    slope = (last(22.0 + 1e-5) - last(22.0 - 1e-5)) / 2e-5
    assert_allclose(jax.grad(last)(22.0), slope, rtol=1e-6)


@pytest.mark.parametrize(
    "linear", ['u = "u*diff(u, x)"', 'u = "1"', 'u = "t*u"', 'u = "cos(x)*u"', 'u = "abs(u)"', 'u = "diff(u, x, 2) + 0.001*u**2"']
)
def test_a_linear_part_that_is_not_linear_is_refused(tmp_path, linear):
    flow = made(tmp_path, 'u = "0"', linear, n=16)
    with pytest.raises(InvalidValue, match=r"Made: the table \[linear\] holds something that is not linear with constant coefficients"):
        solve_field(flow, np.ones(16), [0.0, 1.0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"times": [0.0, 1.0, 3.0]}, "equally spaced, but intervals run from 1 to 2"),
        ({"times": [0.0]}, "T >= 2"),
        ({"z0": np.zeros(15)}, "M=16"),
        ({"z0": np.full(16, np.nan)}, "finite"),
        ({"dt": -1.0}, "longest step must be positive, got -1"),
        ({"dealias": 1.5}, r"fraction in \(0, 1\]"),
        ({"bound": 0.0}, "bound must be positive"),
        ({"flow": load_system("Lorenz"), "z0": np.zeros(3)}, "got Lorenz of kind 'flow'; use dynsys.integrate.solve"),
    ],
)
def test_wrong_arguments(change, message):
    arguments = {"flow": load_system("Burgers", n=16), "z0": np.zeros(16), "times": [0.0, 1.0]} | change
    with pytest.raises(InvalidValue, match=message):
        solve_field(**arguments)


def test_wrong_interval_of_a_map():
    with pytest.raises(InvalidValue, match="dt must be positive"):
        FieldMap.init(load_system("Burgers"), 0.0)

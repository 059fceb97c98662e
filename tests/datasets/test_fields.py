"""What the language has for fields: coordinates, the inverse Laplacian, symbols, lengths that are parameters, starts by place."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from dynsys_datasets.catalogue import SystemRecord, names, path_of, system
from dynsys_datasets.errors import DataError, InvalidValue
from dynsys_datasets.schema import read_file

TEXT = """
name = "Square"
kind = "field"
source = "A test."
about = "Two states on a rectangle."
state = ["v", "w"]
[parameters]
width = 3
b = 0.5
[sizes]
n = 16
[grid]
x = {points = "n", length = "width"}
y = {points = 10, length = "2*pi"}
[define]
flow = "diff(v, y, 2)"
[linear]
v = "b*laplacian(v) - 2*diff(w, x)"
w = "w + flow"
[equations]
v = "sin(y)*invlaplacian(w)"
w = "cos(2*pi*x/width)"
[start]
v = "cos(2*pi*x/width)*(1 + sin(y))"
w = "2*b"
[time]
dt = 0.1
step = 0.05
"""


def read(tmp_path, text=TEXT):
    path = tmp_path / "square.toml"
    path.write_text(text)
    return SystemRecord(read_file(path))


def places(width=3.0, n=16):
    return np.meshgrid(np.arange(n) * width / n, np.arange(10) * 2 * np.pi / 10, indexing="ij")


def test_axes_are_coordinates_and_starts_may_name_them(tmp_path):
    record = read(tmp_path)
    x, y = places()
    v, w = record.start.reshape(2, 16, 10)
    assert_allclose(v, np.cos(2 * np.pi * x / 3) * (1 + np.sin(y)), atol=1e-15)
    assert_allclose(w, 1.0)
    assert record.file.time.step == 0.05
    finer = record.resized(n=32)
    assert finer.dim == 640
    assert_allclose(finer.start.reshape(2, 32, 10)[:, ::2], [v, w], atol=1e-15)


@pytest.mark.parametrize("width", [3.0, 1.7])
def test_operators_by_hand_on_three_libraries(tmp_path, width):
    record = read(tmp_path)
    parameters = record.parameters | {"width": width}
    x, y = places(width)
    k = 2 * np.pi / width
    w = 0.7 + np.sin(2 * k * x) * np.cos(3 * y)  # the mean does not count for the inverse
    z = np.concatenate([np.cos(k * x + y).ravel(), w.ravel()])
    inverse = -np.sin(2 * k * x) * np.cos(3 * y) / (4 * k**2 + 9)
    expected = np.concatenate([(np.sin(y) * inverse).ravel(), np.cos(k * x).ravel()])
    assert_allclose(record.nonlinear(0.0, z, None, parameters), expected, atol=1e-13)
    assert_allclose(jax.jit(lambda z: record.nonlinear(0.0, z, None, parameters))(jnp.asarray(z)), expected, atol=1e-13)
    assert_allclose(record.nonlinear(0.0, torch.from_numpy(z), None, parameters).numpy(), expected, atol=1e-13)
    straight = -0.5 * (k**2 + 1) * np.cos(k * x + y) - 4 * k * np.cos(2 * k * x) * np.cos(3 * y)
    linear = np.concatenate([straight.ravel(), (w - np.cos(k * x + y)).ravel()])
    assert_allclose(record.linear(0.0, z, None, parameters), linear, atol=1e-11)
    assert_allclose(record.field(0.0, z, None, parameters), expected + linear, atol=1e-11)


@pytest.mark.parametrize("xp", [np, jnp])
def test_the_symbol_of_a_linear_part(tmp_path, xp):
    record = read(tmp_path)
    symbol = np.asarray(record.linear_program.symbol(xp, record.parameters))
    assert symbol.shape == (2, 2, 16, 10)
    k, m = 2 * np.pi / 3 * np.fft.fftfreq(16, 1 / 16)[:, None], np.fft.fftfreq(10, 1 / 10)[None, :]
    signed = np.where(np.arange(16)[:, None] == 8, 0, k)  # no odd derivative of the highest wave
    zero = np.zeros((16, 10))
    expected = [[-0.5 * (k**2 + m**2), -2j * signed + zero], [-(m**2) + zero, 1 + zero]]
    assert_allclose(symbol, np.array(expected), atol=1e-12)


def test_the_derivative_by_a_length(tmp_path):
    record = read(tmp_path)
    z = jnp.asarray(np.random.default_rng(0).normal(size=record.dim))

    def total(width):
        return jnp.sum(z * record.field(0.0, z, None, record.parameters | {"width": width}))

    assert_allclose(jax.grad(total)(3.0), (total(3.0 + 1e-6) - total(3.0 - 1e-6)) / 2e-6, rtol=1e-6)


def test_starts_of_a_family_by_its_index():
    network = system("ChialvoNetwork", n=5)
    assert_allclose(network.start[:5], 0.5 + 0.4 * np.sin(2.1 * np.arange(5) + 1))


def test_latex_has_both_parts(tmp_path):
    text = read(tmp_path).latex()
    assert r"\nabla^{-2}" in text
    assert r"\dot{w} &= w + \mathrm{flow} + \cos" in text
    assert system("KuramotoSivashinsky").latex().count(r"\partial_{x}") == 3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('length = "width"', 'length = "hight"', "length is 'hight'; wanted a positive number, or the name of a parameter"),
        ('length = "width"', "length = -1", "must be positive"),
        ("width = 3", "width = -3", "length is 'width'; wanted a positive number"),
        ('points = "n"', 'points = "m"', "wanted a whole number"),
        ('w = "2*b"', 'w = "v"', r"\[start\]: 'v' names 'v'; a start is made of numbers"),
        ('w = "2*b"', 'w = "t"', "t in 't'"),
        ('w = "2*b"', 'w = "c"', "unknown name 'c'"),
        ("step = 0.05", "step = 0.2", "lies between 0 and dt = 0.1, got 0.2"),
        ("step = 0.05", "step = 0", "lies between 0"),
        ("invlaplacian(w)", "invlaplacian(w, x)", r"must be written invlaplacian\(expression\)"),
    ],
)
def test_bad_fields(tmp_path, old, new, message):
    assert TEXT.count(old) == 1
    with pytest.raises(DataError, match=message):
        read(tmp_path, TEXT.replace(old, new))


def test_a_system_without_linear_part_says_so():
    with pytest.raises(InvalidValue, match=r"Lorenz: there is no table \[linear\]"):
        system("Lorenz").linear(0.0, np.zeros(3))


@pytest.mark.parametrize("name", names("field"))
def test_shipped_fields(name):
    record = system(name)
    assert path_of(name).stat().st_size < 60_000
    assert record.file.time.step is not None
    assert np.isfinite(record.start).all()
    assert record.start.std() > 0.1  # not a flat state, from which nothing would happen
    assert np.isfinite(record.field(0.0, record.start)).all()
    assert record.resized(n=32).dim < record.dim

"""System files: what a file may say, and one clear error for each thing that it may not."""

import dataclasses
import pickle
import tomllib

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from numpy.testing import assert_allclose

from dynsys_datasets.catalogue import SystemRecord
from dynsys_datasets.errors import DataError, InvalidValue, UnknownName
from dynsys_datasets.schema import from_table, read_file

GOOD = """
name = "Test"
kind = "flow"
source = "Someone (2000). A paper."
about = "A test."
state = ["x", "y[i]"]
inputs = ["u"]

[sizes]
n = 3

[index]
i = "0..n-1"

[parameters]
a = "8/3"
k = [1, 2, "1/2"]

[define]
r = "a*x"

[equations]
x = "-r + u"
"y[i]" = "k[i]*y[i+1]"

[start]
x = 1
y = [0.1, 0.2, 0.3]

[wraps]
x = "2*pi"

[time]
dt = 0.1
period = 2
unit = "s"

[[computed]]
name = "mean"
value = [1.0, 2.0]
error = [0.1, 0.1]
script = "s.py"
version = "1"
"""


def read(text):
    return from_table(tomllib.loads(text), "test.toml")


def test_a_good_file_is_read_whole():
    record = SystemRecord(read(GOOD))
    assert (record.name, record.kind, record.dim, record.n_inputs) == ("Test", "flow", 4, 1)
    assert record.state_names == ("x", "y[0]", "y[1]", "y[2]")
    assert record.parameters["a"] == 8 / 3
    assert record.file.parameters[0].text == "8/3"
    assert_allclose(record.start, [1, 0.1, 0.2, 0.3])
    assert (record.dt, record.period, record.file.time.unit) == (0.1, 2.0, "s")
    assert record.fact("mean").value == (1.0, 2.0)
    assert record.fact("nothing") is None
    assert_allclose(record.field(0.0, np.array([3.0, 1, 2, 3]), np.array([0.5])), [-7.5, 2, 6, 0.5])


def test_records_are_equal_by_content_and_survive_pickling():
    one, other = SystemRecord(read(GOOD)), SystemRecord(read(GOOD))
    changed = SystemRecord(read(GOOD.replace('"8/3"', '"7/3"')))
    assert one == other
    assert hash(one) == hash(other)
    assert one != changed
    copy = pickle.loads(pickle.dumps(one))  # noqa: S301 - our own bytes
    assert copy == one
    assert_allclose(copy.field(0.0, copy.start), one.field(0.0, one.start))


def test_a_file_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        read(GOOD).name = "Other"  # pyright: ignore[reportAttributeAccessIssue]


def test_wrap_brings_angles_home_and_leaves_the_rest():
    record = SystemRecord(read(GOOD))
    z = np.array([[7.0, 7, 7, 7], [-4.0, -4, -4, -4]])
    assert_allclose(record.wrap(z), [[7 - 2 * np.pi, 7, 7, 7], [-4 + 2 * np.pi, -4, -4, -4]])


def test_sizes_can_be_changed_and_starts_are_interpolated():
    text = GOOD.replace('k = [1, 2, "1/2"]', "").replace("k[i]*y", "y")
    record = SystemRecord(read(text)).resized(n=6)
    assert record.dim == 7
    assert_allclose(record.start, [1, 0.1, 0.15, 0.2, 0.25, 0.3, 0.2])
    with pytest.raises(UnknownName, match="Did you mean 'n'"):
        record.resized(N=6)
    with pytest.raises(InvalidValue, match="at least 1"):
        record.resized(n=0)


def test_a_vector_parameter_keeps_a_family_at_its_size():
    with pytest.raises(DataError, match="the index has 6 values, 'k' has 3"):
        SystemRecord(read(GOOD)).resized(n=6)


BAD = [
    ('name = "Test"', "", "the key 'name' is missing"),
    ('name = "Test"', 'name = ""', "name is ''; wanted a text"),
    ('name = "Test"', "name = 3", "name is 3; wanted a text"),
    ('source = "Someone (2000). A paper."', "", "the key 'source' is missing"),
    ('about = "A test."', 'abuot = "A test."', "unknown key 'abuot'.*Did you mean 'about'"),
    ('kind = "flow"', 'kind = "flwo"', "Did you mean 'flow'"),
    ('kind = "flow"', 'kind = "sde"', r"needs a table \[diffusion\]"),
    ('kind = "flow"', 'kind = "field"', r"needs a table \[grid\]"),
    ("[time]", '[diffusion]\nx = "1"\n[time]', "'diffusion' belongs to kind = 'sde'"),
    ("[time]", "[grid]\nq = {points = 8, length = 1}\n[time]", "'grid' belongs to kind = 'field'"),
    ('state = ["x", "y[i]"]', "state = []", "state is empty"),
    ('state = ["x", "y[i]"]', 'state = "x"', "wanted a list of names"),
    ('state = ["x", "y[i]"]', 'state = ["x", "x"]', "'x' stands in state twice"),
    ('state = ["x", "y[i]"]', 'state = ["x", 3]', "state holds 3"),
    ('state = ["x", "y[i]"]', 'state = ["x", "y[q]"]', "has no index 'q'"),
    ('state = ["x", "y[i]"]', 'state = ["x", "y[i,i]"]', "names an index twice"),
    ('state = ["x", "y[i]"]', 'state = ["x", "y["]', "is no name"),
    ('state = ["x", "y[i]"]', 'state = ["x", "sin"]', "belongs to the language"),
    ('state = ["x", "y[i]"]', 'state = ["x", "_y"]', "is no name"),
    ('state = ["x", "y[i]"]', 'state = ["x", "y__y"]', "can't be a name"),
    ('inputs = ["u"]', 'inputs = ["x"]', "stands in inputs and in state too"),
    ('a = "8/3"', 'a = ""', "parameters.a has no value"),
    ('a = "8/3"', "a = []", "parameters.a has no value"),
    ('a = "8/3"', "a = true", "got True; wanted a number"),
    ('a = "8/3"', "a = nan", "not a finite number"),
    ('a = "8/3"', 'a = "b"', "no names"),
    ('a = "8/3"', "a = 1979-05-27", "wanted a number"),
    ('a = "8/3"', "a = [[1, 2], [3]]", "same length"),
    ('a = "8/3"', 'n = "8/3"', "stands in sizes and in parameters too"),
    ('a = "8/3"', 't = "8/3"', "belongs to the language"),
    ("n = 3", "n = 0", "sizes.n is 0"),
    ("n = 3", "n = 2.5", "sizes.n is 2.5"),
    ("n = 3", "n = true", "sizes.n is True"),
    ("n = 3", "n = 100000000", "sizes.n is 100000000"),
    ('i = "0..n-1"', 'i = "1..n"', r'wanted "0\.\.n-1"'),
    ('i = "0..n-1"', 'i = "0..m-1"', r"known: n"),
    ('i = "0..n-1"', "i = 3", r'wanted "0\.\.n-1"'),
    ('x = "-r + u"', "", "state 'x' has no equation"),
    ('x = "-r + u"', 'x = "-r + u"\nw = "1"', "'w', which is not in state"),
    ('x = "-r + u"', 'x = ["-r"]', "wanted an equation as text"),
    ('x = "-r + u"', 'x = "-R + u"', "unknown name 'R'.*Did you mean 'r'"),
    ('r = "a*x"', 'r = "s"\ns = "r"', "circular definition r -> s -> r"),
    ('r = "a*x"', 'a = "x"', "stands in define and in parameters too"),
    ("x = 1\ny", "y", r"\[start\] has no value for x"),
    ("y = [0.1, 0.2, 0.3]", "y = [0.1, 0.2]", "has shape"),
    ("y = [0.1, 0.2, 0.3]", 'y = "x"', "names 'x'; a start is made of numbers"),
    ("y = [0.1, 0.2, 0.3]", "y = 1\nw = 1", "start.w is not in state"),
    ("dt = 0.1", "", "the key 'dt' is missing"),
    ("dt = 0.1", "dt = 0", "must be positive"),
    ("dt = 0.1", "dt = -1", "must be positive"),
    ("dt = 0.1", "dt = 0.1\nstep = 3", "time.step belongs to kind = 'field'"),
    ("period = 2", "period = 0", "must be positive"),
    ('x = "2*pi"', "x = 0", "period of an angle"),
    ('x = "2*pi"', 'q = "2*pi"', "wraps.q is not in state"),
    ('script = "s.py"', "", "the key 'script' is missing"),
    ("error = [0.1, 0.1]", "error = 0.1", "same shape"),
    ("error = [0.1, 0.1]", 'error = "x"', "no names"),
    ("[[computed]]", "[computed]", "wanted entries"),
    ("[parameters]", "[paramters]", "Did you mean 'parameters'"),
    ('kind = "flow"', 'kind = "flow"\ncalculus = "ito"', "'calculus' belongs to kind = 'sde'"),
]


@pytest.mark.parametrize(("old", "new", "message"), BAD)
def test_bad_files(old, new, message):
    assert GOOD.count(old) >= 1
    with pytest.raises(DataError, match=message) as caught:
        SystemRecord(read(GOOD.replace(old, new, 1)))
    assert str(caught.value).startswith("test.toml")


def test_unreadable_files(tmp_path):
    with pytest.raises(DataError, match="can't be read"):
        read_file(tmp_path / "nothing.toml")
    with pytest.raises(DataError, match="can't be read"):
        read_file(tmp_path)
    (tmp_path / "a.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"a\.toml: is no TOML file"):
        read_file(tmp_path / "a.toml")
    (tmp_path / "a.toml").write_text("name = ")
    with pytest.raises(DataError, match=r"a\.toml: is no TOML file"):
        read_file(tmp_path / "a.toml")
    (tmp_path / "a.toml").write_text("x = " + "[" * 100_000)
    with pytest.raises(DataError, match="is no TOML file"):
        read_file(tmp_path / "a.toml")
    (tmp_path / "a.toml").write_text("#" * 300_000)
    with pytest.raises(DataError, match="at most 200000"):
        read_file(tmp_path / "a.toml")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = list(tomllib.loads(GOOD))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(KEYS), values)
def test_any_value_of_any_key_is_read_or_a_data_error(key, value):
    table = tomllib.loads(GOOD) | {key: value}
    try:
        SystemRecord(from_table(table, "test.toml"))
    except DataError as error:
        assert str(error).startswith("test.toml")  # noqa: PT017 - either outcome is right


# ---- the kinds of the full database, which the format carries already


def test_a_delay_equation():
    text = """
name = "MackeyGlass"
kind = "delay"
source = "Mackey, M. C., Glass, L. (1977). Science 197, 287-289."
about = "Production of blood cells with a delay."
state = ["x"]
[parameters]
beta = 0.2
gamma = 0.1
tau = 17
n = 10
[equations]
x = "beta*delay(x, tau)/(1 + delay(x, tau)**n) - gamma*x"
[start]
x = 0.9
[time]
dt = 0.1
"""
    record = SystemRecord(read(text))
    assert record.lags() == (17.0,)
    found = record.field(0.0, np.array([0.5]), delayed=np.array([[1.2]]))
    assert_allclose(found, [0.2 * 1.2 / (1 + 1.2**10) - 0.05], rtol=1e-14)


def test_a_stochastic_equation():
    text = """
name = "StochasticLorenz"
kind = "sde"
calculus = "stratonovich"
source = "Test."
about = "Lorenz with multiplicative noise."
state = ["x", "y", "z"]
[parameters]
eta = 0.3
[equations]
x = "10*(y - x)"
y = "x*(28 - z) - y"
z = "x*y - 8/3*z"
[diffusion]
x = "eta*x"
y = "eta"
z = "0"
[start]
x = 1
y = 1
z = 20
[time]
dt = 0.01
"""
    record = SystemRecord(read(text))
    assert record.file.calculus == "stratonovich"
    assert_allclose(record.diffusion(0.0, np.array([2.0, 1.0, 1.0])), [0.6, 0.3, 0.0])
    with pytest.raises(DataError, match="state 'z' has no equation"):
        SystemRecord(read(text.replace('z = "0"\n', "")))


def test_a_field_with_a_linear_part():
    text = """
name = "KuramotoSivashinsky"
kind = "field"
source = "Kuramoto, Y. (1978); Sivashinsky, G. (1977)."
about = "Flame fronts."
state = ["v"]
[grid]
x = {points = 64, length = "22"}
[linear]
v = "-diff(v, x, 2) - diff(v, x, 4)"
[equations]
v = "-v*diff(v, x)"
[start]
v = 0.1
[time]
dt = 0.1
"""
    record = SystemRecord(read(text))
    assert record.dim == 64
    k = 2 * np.pi / 22
    x = np.arange(64) * 22 / 64
    v = np.cos(k * x)
    expected = v * k * np.sin(k * x) + (k**2 - k**4) * v
    # rounding, amplified by the highest wave number to the fourth: (2 pi 32 / 22)^4 = 7e3
    assert_allclose(record.field(0.0, v), expected, atol=1e-11)

"""Model files: what is written is read back to the last bit, and whatever else the file holds is refused in words."""

import io
import json
import shutil

import h5py
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from jaxtyping import config as jaxtyping_config
from numpy.testing import assert_array_equal

import dynsys
from dynsys import registry
from dynsys.errors import DataError, DynsysError
from dynsys.models.store import read_model, write_model

from .fit_cases import TINY, circle
from .model_cases import LEARNED_LIFTED, PIECEWISE, REGRESSED, TIMED, astype, fitted, make

CASES = [(name, observation) for name in PIECEWISE for observation in registry.names("observation")]
CASES += [(name, "identity") for name in dict.fromkeys((*TIMED, *LEARNED_LIFTED, *REGRESSED))]


def random_model(name, observation="identity", n_inputs=1, dtype=jnp.float64):
    if name in REGRESSED:
        return astype(fitted(name), dtype)
    if name in TIMED or name in LEARNED_LIFTED:
        return astype(make(name, n_inputs), dtype)
    sizes = {"hidden": 5} if "shallow" in name else {"bases": 3} if "dendritic" in name else {}
    model = registry.lookup("model", name).init(3, n_inputs, dim=4, observation=observation, key=jr.key(0), **sizes)
    return jax.tree.map(lambda a: (a + jnp.pi).astype(dtype), model)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize(("name", "observation"), CASES)
def test_every_model_comes_back_to_the_last_bit(name, observation, dtype):
    model = random_model(name, observation, dtype=dtype)
    with h5py.File(io.BytesIO(), "w") as file:
        write_model(file.create_group("model"), model)
        back = read_model(file["model"], "memory")
    assert type(back) is type(model)
    assert jax.tree.structure(back) == jax.tree.structure(model)
    for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(model), strict=True):
        assert a.dtype == b.dtype
        assert a.dtype in (dtype, jnp.int32)  # a parrot holds row numbers too
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_a_class_that_is_not_registered_is_not_written():
    class Other(registry.lookup("model", "plrnn")):
        pass

    model = random_model("plrnn")
    other = Other(**{name: getattr(model, name) for name in ("A", "W", "h", "C", "observation")})
    with h5py.File(io.BytesIO(), "w") as file, pytest.raises(DataError, match=r"Other is not registered.*entry points"):
        write_model(file.create_group("model"), other)


# whole files


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A model file of a tiny fit, with two seeds and scores."""
    found = dynsys.fit(circle(200), seeds=1, steps=10, set=TINY, progress=False)
    return found.save(tmp_path_factory.mktemp("good") / "model.h5")


def replace(group, name, data):
    del group[name]
    group[name] = data


def text(file, name, change):
    """Change the JSON of a dataset of text."""
    found = json.loads(bytes(file[name][()]))
    changed = change(found)
    replace(file, name, np.frombuffer(json.dumps(found if changed is None else changed).encode(), np.uint8))


def attribute(group, name, value):
    group.attrs[name] = np.bytes_(value.encode()) if isinstance(value, str) else value


def huge(group, name, shape=(10**6, 10**6)):
    del group[name]
    group.create_dataset(name, shape=shape, dtype="f8", chunks=(1000,) * len(shape))


def out(name, value):
    return lambda f: text(f, "about", lambda about: about["outcome"].update({name: value}))


BAD = {
    "wrong format": (lambda f: attribute(f, "format", "other-7"), "not a model file of this version of dynsys .*other-7"),
    "no format": (lambda f: f.attrs.pop("format"), "not a model file of this version"),
    "class not registered": (
        lambda f: attribute(f["model"], "class", '["model", "resnet"]'),
        "'resnet', which is not registered here; known: plrnn",
    ),
    "module path": (lambda f: attribute(f["model"], "class", '["model", "os:system"]'), "'os:system', which is not registered"),
    "other kind": (lambda f: attribute(f["model"], "class", '["metric", "d_h"]'), "'d_h', which is not registered"),
    "unhashable class": (lambda f: attribute(f["model"], "class", "[[1], {}]"), "."),
    "class is garbage": (lambda f: attribute(f["model"], "class", "{nonsense"), "not a model file of dynsys"),
    "class is a number": (lambda f: attribute(f["model"], "class", 7), "not a model file of dynsys"),
    "text of variable length": (lambda f: f["model"].attrs.__setitem__("class", '["model", "plrnn"]'), "is no text of fixed length"),
    "no class": (lambda f: f["model"].attrs.pop("class"), "not a model file of dynsys"),
    "fields are a list": (lambda f: attribute(f["model"], "fields", "[1, 2]"), "not a model file of dynsys"),
    "deep fields": (lambda f: attribute(f["model"], "fields", "[" * 10_000), "."),
    "an observation as model": (lambda f: (f.move("model", "x"), f.copy("x/observation", "model")), "IdentityObservation, not a model"),
    "a model as observation": (lambda f: (f.__delitem__("last/observation"), f.copy("model", "last/observation")), "."),
    "no model": (lambda f: f.__delitem__("model"), "can't be read as a model file"),
    "model is an array": (lambda f: replace(f, "model", np.zeros(3)), "."),
    "absurd size": (
        lambda f: huge(f["model"], "W1"),
        r"'W1' claims shape \(1000000, 1000000\) \(8,000,000,000,000 bytes\), the file holds 0",
    ),
    "absurd rank": (lambda f: huge(f["model"], "W1", (10**5,) * 5), "'W1' claims shape"),
    "absurd text": (lambda f: huge(f, "about", (2**40,)), "claims a text of 1,099,511,627,776 characters"),
    "missing array": (lambda f: f["model"].__delitem__("W2"), "has .*W2.*the file has .*It is damaged"),
    "extra array": (lambda f: f["model"].create_dataset("W9", data=np.zeros(2)), "W9"),
    "extra field": (lambda f: attribute(f["model"], "fields", '{"n": 1}'), "It is damaged"),
    "other shape": (lambda f: replace(f["model"], "W1", np.zeros((2, 7), np.float32)), "don't fit together"),
    "other rank": (lambda f: replace(f["model"], "W1", np.zeros(8, np.float32)), "don't fit together"),
    "scalar": (lambda f: replace(f["model"], "A", np.float32(0.5)), "don't fit together"),
    "broadcast": (lambda f: replace(f["model"], "h1", np.zeros(1, np.float32)), "don't fit together"),
    "NaN": (lambda f: f["model/A"].write_direct(np.array([np.nan, 0.5], np.float32)), "'A' holds NaN or inf"),
    "inf in last": (lambda f: f["last/W1"].__setitem__((0, 0), np.inf), "'W1' holds NaN or inf"),
    "strings": (lambda f: replace(f["model"], "A", np.array([b"a", b"b"])), "'A' holds .*not numbers"),
    "objects": (lambda f: replace(f["model"], "A", ["variable", "text"]), "'A' .*"),
    "complex": (lambda f: replace(f["model"], "A", np.zeros(2, complex)), "'A' holds complex128, not numbers"),
    "whole numbers": (lambda f: replace(f["model"], "A", np.zeros(2, int)), "are no floats"),
    "soft link": (lambda f: (f["model"].__delitem__("A"), f["model"].__setitem__("A", h5py.SoftLink("/last/A"))), "'A' is a link"),
    "external link": (
        lambda f: (f["model"].__delitem__("A"), f["model"].__setitem__("A", h5py.ExternalLink("/etc/x.h5", "/"))),
        "'A' is a link",
    ),
    "a loop": (lambda f: f["model"].__setitem__("loop", f["model"]), "."),
    "about is garbage": (lambda f: replace(f, "about", np.frombuffer(b"{oh", np.uint8)), "can't be read as a model file"),
    "about is no text": (lambda f: replace(f, "about", np.frombuffer(b"\xff\xfe", np.uint8)), "can't be read as a model file"),
    "about is a group": (lambda f: (f.__delitem__("about"), f.create_group("about")), "can't be read as a model file"),
    "about is a list": (lambda f: text(f, "about", lambda about: [1, 2]), "can't be read as a model file"),
    "no start": (lambda f: text(f, "about", lambda about: about.pop("start") and None), "can't be read as a model file"),
    "short start": (lambda f: text(f, "about", lambda about: about.update(start=[1.0])), "start of a free run must be 2 finite numbers"),
    "start of words": (lambda f: text(f, "about", lambda about: about.update(start=["a", "b"])), "can't be read as a model file"),
    "NaN start": (lambda f: text(f, "about", lambda about: about.update(start=[float("nan"), 0.0])), "2 finite numbers"),
    "seed that is not there": (out("best", 5), "seed 5 of 1 was kept"),
    "seed -1": (out("best", -1), "seed -1 of 1"),
    "seed of words": (out("best", "x"), "can't be read as a model file"),
    "unknown status": (out("status", ["happy"]), "can't be read as a model file"),
    "unequal seeds": (out("kept_at", []), "It is damaged"),
    "unknown outcome": (out("mood", "good"), "can't be read as a model file"),
    "scores of words": (lambda f: text(f, "about", lambda about: about.update(scores=["x"])), "."),
    "preparation of 3 columns": (
        lambda f: text(f, "preparation", lambda p: p.update({name: [*p[name], p[name][-1]] for name in ("mean", "scale", "names")})),
        "observes 2 columns and takes 0 inputs, its preparation makes 3",
    ),
    "zero scale": (lambda f: text(f, "preparation", lambda p: p.update(scale=[0.0, 1.0])), "scales and dt must be positive"),
    "settings are garbage": (lambda f: replace(f, "settings", np.frombuffer(b"[x", np.uint8)), "not valid TOML"),
    "unknown setting": (lambda f: replace(f, "settings", np.frombuffer(b"[training]\nstep = 3", np.uint8)), "training.step"),
}


@pytest.fixture
def unchecked():
    """Without the run-time checks of annotations: the checks of the reader itself must find what is wrong."""
    jaxtyping_config.update("jaxtyping_disable", True)
    yield
    jaxtyping_config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_in_words(good, tmp_path, case):
    change, words = BAD[case]
    path = tmp_path / "bad.h5"
    shutil.copy(good, path)
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(DataError, match=words) as caught:
        dynsys.load(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "can't be read as a model file"),
        (b"just text\n", "can't be read as a model file"),
        (None, "can't be read as a model file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(200), "can't be read as a model file"),
    ],
)
def test_files_that_are_no_hdf5_or_cut(good, tmp_path, content, words):
    (tmp_path / "bad.h5").write_bytes(good.read_bytes()[:3000] if content is None else content)
    with pytest.raises(DataError, match=words):
        dynsys.load(tmp_path / "bad.h5")


def test_places_without_a_model(tmp_path):
    with pytest.raises(DataError, match=r"absent: there is no model here \(found: nothing\). Give a run folder"):
        dynsys.load(tmp_path / "absent")
    (tmp_path / "data.csv").write_text("1")
    with pytest.raises(DataError, match=r"model.h5: there is no model here \(found: data.csv\)"):
        dynsys.load(tmp_path)


def only_ours(path) -> None:
    """Loading gives our error, or a model that runs."""
    try:
        found = dynsys.load(path)
    except DynsysError:
        return
    assert found.simulate(3).trajectories[0].shape[0] == 3
    repr(found.status)


@pytest.mark.usefixtures("unchecked")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300), st.booleans())
def test_random_bytes_raise_only_our_errors(tmp_path, content, signed):
    path = tmp_path / "random.h5"
    path.write_bytes((b"\x89HDF\r\n\x1a\n" if signed else b"") + content)
    only_ours(path)


@pytest.mark.usefixtures("unchecked")
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8))
def test_mutated_files_raise_only_our_errors(good, tmp_path, changes):
    content = bytearray(good.read_bytes())
    for where, value in changes:
        content[int(where * len(content))] = value
    path = tmp_path / "mutated.h5"
    path.write_bytes(content)
    only_ours(path)


@pytest.mark.usefixtures("unchecked")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["about", "preparation", "settings"]),
    where=st.floats(0, 1, exclude_max=True),
    new=st.sampled_from(["0", "-1", "null", '"', "[", "}", "1e999", "NaN", "é", ""]),
    length=st.integers(0, 6),
)
def test_mutated_texts_raise_only_our_errors(good, tmp_path, name, where, new, length):
    path = tmp_path / "mutated.h5"
    shutil.copy(good, path)
    with h5py.File(path, "r+") as file:
        content = bytes(file[name][()]).decode()
        at = int(where * len(content))
        replace(file, name, np.frombuffer((content[:at] + new + content[at + length :]).encode(), np.uint8))
    only_ours(path)


def test_loaded_models_are_those_saved(good):
    found = dynsys.load(good)
    with h5py.File(good) as file:
        for name in ("A", "W1", "W2", "h1", "h2"):
            assert_array_equal(getattr(found.model, name), file["model"][name][()])
            assert_array_equal(getattr(found.last, name), file["last"][name][()])


def _list_group(file):
    """The first list of arrays in the file."""
    found = []
    file.visititems(lambda name, item: found.append(name) if "items" in item.attrs else None)
    return file[found[0]]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda group: group.__delitem__("1"), r"claims 3 items and holds \['0', '2'\]"),
        (lambda group: group.move("2", "7"), r"claims 3 items and holds \['0', '1', '7'\]"),
        (lambda group: group.attrs.__setitem__("items", 2), r"claims 2 items and holds \['0', '1', '2'\]"),
        (lambda group: group.attrs.__setitem__("items", "three"), "claims three items"),
        (lambda group: (group.__delitem__("1"), group.__setitem__("1", h5py.SoftLink("/model"))), "link to elsewhere"),
        (lambda group: (group.__delitem__("1"), group.create_dataset("1", data=np.ones(3))), "don't fit together"),
    ],
)
def test_a_damaged_list_is_refused(damage, words):
    model = make("neural-ode", hidden=6, depth=2)
    with h5py.File(io.BytesIO(), "w") as file:
        write_model(file.create_group("model"), model)
        damage(_list_group(file))
        with pytest.raises(DataError, match=words):
            read_model(file["model"], "memory")

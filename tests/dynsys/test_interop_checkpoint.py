"""AL-RNN checkpoints of PyTorch: what they hold is the published equation, and nothing else is read, least of all code."""

import os
import pickle

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from dynsys.dynamics import rollout
from dynsys.errors import DataError, InvalidValue, UnknownName
from dynsys.interop.torch import load_alrnn_state_dict, to_torch
from dynsys.models.store import read_model, write_model

M, P, N = 6, 2, 3


def tensors(dtype=torch.float32):
    made = torch.Generator().manual_seed(0)
    shapes = {"A": (M,), "W": (M, M), "h": (M,), "B": (N, M)}
    return {name: 0.5 * torch.randn(shape, generator=made, dtype=dtype) for name, shape in shapes.items()}


@pytest.fixture
def store(tmp_path):
    """store(object) -> the path of a file that torch.save wrote."""

    def save(found):
        torch.save(found, tmp_path / "model.pt")
        return tmp_path / "model.pt"

    return save


def published_run(tensors, x0, steps):
    """The free run as the paper has it (eq. 5), unit by unit in plain Python; it begins at x B with the first N replaced by x."""
    A, W, h, B = (tensors[name].tolist() for name in ("A", "W", "h", "B"))
    z = [*x0, *(sum(x0[n] * B[n][i] for n in range(N)) for i in range(N, M))]
    made = []
    for _ in range(steps):
        phi = [*z[: M - P], *(max(value, 0.0) for value in z[M - P :])]
        z = [A[i] * z[i] + sum(W[i][j] * phi[j] for j in range(M)) + h[i] for i in range(M)]
        made.append(z[:N])
    return np.array(made)


@pytest.mark.parametrize("prefix", ["", "module.", "rnn.", "module.rnn.latent."])
def test_a_checkpoint_runs_as_published(store, prefix):
    found = tensors(torch.float64)
    path = store({prefix + name: value for name, value in found.items()})
    model = load_alrnn_state_dict(path, n_relu=P, n_obs=N)
    x0 = [0.4, -0.7, 0.9]
    states = rollout(model, model.lift(jnp.array(x0)), 8)
    assert_allclose(jax.vmap(model.observe)(states), published_run(found, x0, 8), rtol=1e-12, atol=1e-12)
    made = to_torch(model).rollout(x0, 8).detach().numpy()
    assert_allclose(made, published_run(found, x0, 8), rtol=1e-12, atol=1e-12)


def test_numbers_keep_their_precision_and_go_into_a_model_file(store, tmp_path):
    for dtype, expected in ((torch.float64, jnp.float64), (torch.float32, jnp.float32), (torch.bfloat16, jnp.float32)):
        found = tensors(dtype)
        model = load_alrnn_state_dict(str(store(found)), n_relu=P)
        assert {leaf.dtype for leaf in jax.tree.leaves(model)} == {jnp.dtype(expected)}
        assert_array_equal(model.W, found["W"].double().numpy())  # also its diagonal
    with h5py.File(tmp_path / "model.h5", "w") as file:
        write_model(file.create_group("model"), model)
        assert_array_equal(read_model(file["model"], "model.h5").observation.B, model.observation.B)


def test_parameters_and_module_dictionaries_are_read(store):
    module = torch.nn.Module()
    for name, value in tensors().items():
        module.register_parameter(name, torch.nn.Parameter(value))
    model = load_alrnn_state_dict(store(module.state_dict()), n_relu=P)  # an OrderedDict with metadata
    assert model.n_relu == P
    assert (model.dim, model.n_obs, model.n_inputs) == (M, N, 0)


def test_what_B_means_can_be_said(store):
    path = store(tensors(torch.float64))
    z = jnp.arange(1.0, M + 1.0)
    affine = load_alrnn_state_dict(path, n_relu=P, observation="affine")
    assert_allclose(affine.observe(z), tensors(torch.float64)["B"].numpy() @ z, rtol=1e-12)
    identity = load_alrnn_state_dict(path, n_relu=P, observation="identity")
    assert_array_equal(identity.lift(z[:N]), [1.0, 2.0, 3.0, 0.0, 0.0, 0.0])
    with pytest.raises(UnknownName, match=r"unknown meaning of B 'afine'.*Did you mean 'affine'"):
        load_alrnn_state_dict(path, n_relu=P, observation="afine")
    with pytest.raises(InvalidValue, match=r"n_obs=2, but B has shape \(3, 6\)"):
        load_alrnn_state_dict(path, n_relu=P, n_obs=2)


def test_without_B_the_first_units_are_observed(store):
    path = store({name: value for name, value in tensors().items() if name != "B"})
    model = load_alrnn_state_dict(path, n_relu=P, n_obs=2)
    assert_array_equal(model.observe(jnp.arange(6.0)), [0.0, 1.0])
    with pytest.raises(InvalidValue, match="holds no B, so n_obs must be given"):
        load_alrnn_state_dict(path, n_relu=P)
    with pytest.raises(InvalidValue, match="n_obs must be at most dim, got n_obs=7 with dim=6"):
        load_alrnn_state_dict(path, n_relu=P, n_obs=7)
    with pytest.raises(InvalidValue, match="got n_obs=True"):
        load_alrnn_state_dict(path, n_relu=P, n_obs=True)
    with pytest.raises(InvalidValue, match="needs B, which the file has not"):
        load_alrnn_state_dict(path, n_relu=P, n_obs=2, observation="affine")
    with pytest.raises(InvalidValue, match=r"n_relu must be in \[0, dim\], got n_relu=7"):
        load_alrnn_state_dict(path, n_relu=7, n_obs=2)


WRONG = {
    "a name is missing": (lambda t: t.pop("h"), r"model.pt: wants a state dictionary with A \(M,\).*got \['A', 'B', 'W'\]: h missing"),
    "a name too many": (lambda t: t.update(C=t["h"]), "C unknown"),
    "other names": (lambda t: (t.pop("A"), t.update(weight=t["W"])), "A missing and weight unknown"),
    "two models": (lambda t: t.update({"other.A": t["A"]}), r"holds A more than once, under \['A', 'B', 'W', 'h', 'other.A'\]"),
    "A is a matrix": (lambda t: t.update(A=t["W"]), r"with one M, got A \(6, 6\), W \(6, 6\), h \(6,\), B \(3, 6\)"),
    "W is not square": (lambda t: t.update(W=t["B"]), r"W \(3, 6\)"),
    "h is short": (lambda t: t.update(h=t["h"][:4]), r"h \(4,\)"),
    "B is turned": (lambda t: t.update(B=t["B"].T), r"B \(6, 3\)"),
    "B is empty": (lambda t: t.update(B=t["B"][:0]), r"B \(0, 6\)"),
    "A is empty": (lambda t: t.update(A=t["A"][:0]), r"A \(0,\)"),
    "NaN": (lambda t: t["W"].fill_(float("nan")), "W holds NaN or inf"),
    "inf": (lambda t: t["B"][0].fill_(float("inf")), "B holds NaN or inf"),
    "whole numbers": (lambda t: t.update(A=torch.ones(M, dtype=torch.int64)), "dense tensor of real numbers, got a tensor of torch.int64"),
    "complex numbers": (lambda t: t.update(A=t["A"].to(torch.complex64)), "got a tensor of torch.complex64"),
    "sparse": (lambda t: t.update(W=t["W"].to_sparse()), "torch.sparse_coo"),
    "a list": (lambda t: t.update(h=[0.0] * M), "h must be a dense tensor of real numbers, got a list"),
    "a dictionary inside": (lambda t: t.update(h={}), "got a dict"),
    "more claimed than held": (lambda t: t.update(W=torch.zeros(1).expand(M, M)), r"W claims shape \(6, 6\), the file holds fewer numbers"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_alrnn_is_refused(store, case):
    change, message = WRONG[case]
    found = tensors()
    change(found)
    with pytest.raises(DataError, match=message):
        load_alrnn_state_dict(store(found), n_relu=P)


def test_what_is_no_dictionary_is_refused(store, tmp_path):
    with pytest.raises(DataError, match=r"wants a state dictionary.*got a list"):
        load_alrnn_state_dict(store([torch.ones(2)]), n_relu=P)
    with pytest.raises(DataError, match=r"without running code.*Save model.state_dict\(\)") as refused:
        load_alrnn_state_dict(store(torch.nn.Linear(2, 2)), n_relu=P)
    assert "\x1b" not in str(refused.value)  # PyTorch writes its reason in bold
    with pytest.raises(DataError, match="got a Tensor"):
        load_alrnn_state_dict(store(torch.ones(2)), n_relu=P)
    with pytest.raises(DataError, match=r"model.pt: wants.*got \['0', '1'\]: A, W, h missing and 0, 1 unknown"):
        load_alrnn_state_dict(store({0: torch.ones(2), 1: torch.ones(2)}), n_relu=P)
    nested = store({"epoch": 3, "state_dict": tensors()})
    with pytest.raises(DataError, match=r"got \['epoch', 'state_dict'\].*If the dictionary lies inside another one, save it alone"):
        load_alrnn_state_dict(nested, n_relu=P)
    with pytest.raises(DataError, match=r"nothing.pt: there is no such file"):
        load_alrnn_state_dict(tmp_path / "nothing.pt", n_relu=P)
    with pytest.raises(DataError, match="there is no such file"):
        load_alrnn_state_dict(tmp_path, n_relu=P)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 half an archive", b"\x80\x02}q\x00.", bytes(range(256))])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"model.pt: "):
        load_alrnn_state_dict(path, n_relu=P)


def test_a_damaged_checkpoint_is_refused_at_every_length(store, tmp_path):
    whole = store(tensors()).read_bytes()
    cut = tmp_path / "cut.pt"
    for length in range(0, len(whole) - 1, max(1, len(whole) // 40)):
        cut.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"cut.pt: is no file of tensors"):
            load_alrnn_state_dict(cut, n_relu=P)


class Malicious:
    """An object whose unpickling makes a file."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


@pytest.mark.parametrize("how", ["inside", "whole", "archive of old", "bare pickle"])
def test_code_in_a_checkpoint_is_not_run(tmp_path, how):
    marker, path = tmp_path / "marker", tmp_path / "evil.pt"
    evil = {**tensors(), "h": Malicious(marker)}
    if how == "inside":
        torch.save(evil, path)
    elif how == "whole":
        torch.save(Malicious(marker), path)
    elif how == "archive of old":
        torch.save(evil, path, _use_new_zipfile_serialization=False)
    else:
        path.write_bytes(pickle.dumps({"A": Malicious(marker)}))
    with pytest.raises(DataError, match=r"evil.pt: is no file of tensors that can be read without running code.*Nothing of it was run"):
        load_alrnn_state_dict(path, n_relu=P)
    assert not marker.exists()
    if how != "bare pickle":  # the trap works: a reader that trusts the file runs it
        torch.load(path, weights_only=False)
        assert marker.exists()

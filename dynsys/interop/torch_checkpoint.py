"""Public AL-RNN checkpoints: a state dictionary with A (M,), W (M, M), h (M,) and perhaps B (N, M) becomes a model of dynsys.

    z[t+1] = A z[t] + W phi(z[t]) + h,    phi rectifies the last P units;    x[t] = z[t][:N]

The diagonal of W is read as it is: training does not keep it at zero. In the authors' models the first N units are the
observation, and B starts a run: z[0] = (x, (B^T x)[N:]).
Source: Brenner, Hemmer, Monfared, Durstewitz, NeurIPS 2024, eq. 5, and the models published with it.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from dynsys.errors import DataError, InvalidValue, UnknownName, require
from dynsys.models.alrnn import ALRNN
from dynsys.models.observation import AbstractObservation, AffineObservation, IdentityObservation, LearnedLift
from dynsys.precision import x64

if TYPE_CHECKING:
    import torch
else:
    torch = require("torch", extra="torch", who="dynsys.interop.torch")

NAMES = ("A", "W", "h", "B")
SHAPES = "A (M,), W (M, M), h (M,) and perhaps B (N, M)"
OBSERVATIONS = ("learned-lift", "affine", "identity")


def read_alrnn(path: Path, n_relu: int, n_obs: int | None, observation: str | None) -> ALRNN:
    """The model of a checkpoint; see `dynsys.interop.torch.load_alrnn_state_dict`."""
    if observation is not None and observation not in OBSERVATIONS:
        raise UnknownName("meaning of B", observation, OBSERVATIONS)
    arrays = _checked(path.name, _by_letter(path.name, _read(path)))
    dim = arrays["A"].shape[0]
    with x64():  # a float64 checkpoint stays float64
        A, W, h = (jnp.asarray(arrays[name]) for name in ("A", "W", "h"))
        return ALRNN(  # pyright: ignore[reportCallIssue]
            A=A, W=W, h=h, C=jnp.zeros((dim, 0), A.dtype), observation=_seen(path.name, arrays, n_obs, observation), n_relu=n_relu
        )


def _read(path: Path) -> dict[Any, Any]:
    """What the file holds, if that is a dictionary and can be read without running code."""
    if not path.is_file():
        raise DataError(f"{path}: there is no such file. Give the path of a checkpoint that torch.save wrote.")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds: damaged archives, pickles with code, other formats
        reason = re.sub(r"\x1b\[[\d;]*m", "", str(error)).strip().splitlines() or [type(error).__name__]
        raise DataError(
            f"{path.name}: is no file of tensors that can be read without running code ({reason[0][:200]}). "
            "Nothing of it was run. Save model.state_dict() with torch.save, not the model itself."
        ) from None
    if not isinstance(found, dict):
        raise DataError(f"{path.name}: wants a state dictionary with {SHAPES}, got a {type(found).__name__}. Save model.state_dict().")
    return found


def _by_letter(where: str, found: dict[Any, Any]) -> dict[str, Any]:
    """The entries by the last part of their names: 'module.rnn.A' is A."""
    by_letter: dict[str, Any] = {}
    for name, value in found.items():
        letter = str(name).rsplit(".", 1)[-1]
        if letter in by_letter:
            raise DataError(f"{where}: holds {letter} more than once, under {sorted(map(str, found))}. Keep the entries of one model.")
        by_letter[letter] = value
    extra, missing = sorted(set(by_letter) - set(NAMES)), [name for name in NAMES[:3] if name not in by_letter]
    if extra or missing:
        wrong = " and ".join(f"{', '.join(names)} {how}" for names, how in ((missing, "missing"), (extra, "unknown")) if names)
        raise DataError(
            f"{where}: wants a state dictionary with {SHAPES}, got {sorted(map(str, found))}: {wrong}. "
            "If the dictionary lies inside another one, save it alone."
        )
    return by_letter


def _checked(where: str, found: dict[str, Any]) -> dict[str, np.ndarray]:
    """The tensors as NumPy arrays of one real type, once their kinds, shapes and numbers are those of an AL-RNN."""
    for name, value in found.items():
        if not isinstance(value, torch.Tensor) or value.layout != torch.strided or not value.dtype.is_floating_point:
            shown = f"a tensor of {value.dtype}, {value.layout}" if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"
            raise DataError(f"{where}: {name} must be a dense tensor of real numbers, got {shown}.")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise DataError(f"{where}: {name} claims shape {tuple(value.shape)}, the file holds fewer numbers. It is damaged.")
    shapes = {name: tuple(value.shape) for name, value in found.items()}
    dim = shapes["A"][0] if len(shapes["A"]) == 1 else 0
    rows = shapes["B"][0] if len(shapes.get("B", ())) == 2 else 0
    wanted = {"A": (dim,), "W": (dim, dim), "h": (dim,), "B": (rows, dim)}
    if dim == 0 or any(shape != wanted[name] for name, shape in shapes.items()) or ("B" in shapes and rows == 0):
        shown = ", ".join(f"{name} {shapes[name]}" for name in NAMES if name in shapes)
        raise DataError(f"{where}: wants {SHAPES} with one M, got {shown}.")
    double = any(value.dtype == torch.float64 for value in found.values())
    arrays = {name: value.detach().to(torch.float64 if double else torch.float32).numpy().copy() for name, value in found.items()}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise DataError(f"{where}: {name} holds NaN or inf; this model can't be run. Take an earlier checkpoint.")
    return arrays


def _seen(where: str, arrays: dict[str, np.ndarray], n_obs: int | None, kind: str | None) -> AbstractObservation:
    """How the model is observed; N comes from B, or from n_obs where there is no B."""
    dim, B = arrays["A"].shape[0], arrays.get("B")
    kind = kind or ("identity" if B is None else "learned-lift")
    if B is None and kind != "identity":
        raise InvalidValue(f"{where}: observation={kind!r} needs B, which the file has not. Use observation='identity' with n_obs.")
    if B is not None and n_obs is not None and n_obs != B.shape[0]:
        raise InvalidValue(f"{where}: n_obs={n_obs}, but B has shape {B.shape}: {B.shape[0]} observed components. Leave n_obs out.")
    if B is None and n_obs is None:
        raise InvalidValue(f"{where}: holds no B, so n_obs must be given: how many of the first of {dim} units are observed.")
    rows: Any = B.shape[0] if B is not None else n_obs
    if kind == "identity" and (isinstance(rows, bool) or not isinstance(rows, int) or rows < 1):
        raise InvalidValue(f"{where}: n_obs must be a whole number of at least 1, got n_obs={rows!r}.")
    if kind == "identity":
        return IdentityObservation(n_obs=rows, dim=dim)  # pyright: ignore[reportCallIssue]
    if kind == "affine":
        return AffineObservation(B=jnp.asarray(B), b=jnp.zeros(len(B), B.dtype))  # pyright: ignore
    return LearnedLift(B=jnp.asarray(B))  # pyright: ignore[reportCallIssue]

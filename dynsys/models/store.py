"""A model in an HDF5 group: arrays by name, everything else as JSON; no pickle.

The class is a registered name, never a module named in the file, and no array is read whose claimed size the file does not
hold. `write_model` and `read_model` are inverse to each other to the last bit.
"""

import contextlib
import dataclasses
import json
import typing
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import jaxtyped

from dynsys import registry
from dynsys.dynamics import AbstractMap
from dynsys.errors import DataError, DynsysError, UnknownName
from dynsys.precision import x64

Module = typing.TypeVar("Module", bound=eqx.Module)
LARGEST = 2**32  # bytes of one array
UNLIMITED = ("low", "high")  # limits may be infinite: there is none
_PLAIN = (bool, int, float, str, type(None))
_KINDS = ("model", "observation", "cell", "flow", "dictionary", "controller", "cost", "part", "policy", "lyapunov")


def write_model(group: Any, model: AbstractMap) -> None:
    """Write a registered model into an empty HDF5 group. Raises DataError for a model whose class is not registered."""
    _write(group, model)


def write_module(group: Any, module: eqx.Module) -> None:
    """Write any registered module, such as a controller, into an empty HDF5 group; raises as `write_model`."""
    _write(group, module)


def read_module(group: Any, where: str, kind: type[Module]) -> Module:
    """The module of an HDF5 group that `write_module` wrote; raises as `read_model`, and DataError if it is no `kind`."""
    with x64():
        found = _read(group, where)
    if not isinstance(found, kind):
        raise DataError(f"{where}: holds a {type(found).__name__}, not a {kind.__name__.removeprefix('Abstract').lower()}.")
    return found


def read_model(group: Any, where: str) -> AbstractMap:
    """The model of an HDF5 group; `where` (the file's name) begins every message.

    Raises DataError for a class that is not registered, arrays that are missing, too large, not finite or do not fit together.
    """
    with x64():  # or float64 parameters would come back as float32
        model = _read(group, where)
        if not isinstance(model, AbstractMap):
            raise DataError(f"{where}: holds a {type(model).__name__}, not a model. Was it written by dynsys?")
        _check_shapes(model, where)
    return model


def _check_shapes(model: AbstractMap, where: str) -> None:
    try:
        state, drive = (jax.ShapeDtypeStruct((size,), jnp.float32) for size in (model.dim, model.n_inputs))
        z = jax.eval_shape(model.step, state, drive)
        x = jax.eval_shape(model.observe, z)
    except DynsysError:
        raise
    except Exception as error:
        raise DataError(f"{where}: the arrays of this {type(model).__name__} don't fit together ({str(error).splitlines()[0]}).") from None
    if z.shape != (model.dim,) or x.shape != (model.n_obs,):
        raise DataError(f"{where}: the arrays of this {type(model).__name__} don't fit: a step gives {z.shape}, not ({model.dim},).")


def write_text(group: Any, name: str, text: str) -> None:
    """Store a text as an attribute of fixed length."""
    group.attrs[name] = np.bytes_(text.encode())


def read_text(group: Any, name: str) -> str:
    """The text that `write_text` stored. Raises KeyError if there is none, ValueError if it is of another kind.

    Texts of variable length are not read: they lie in a heap in which the HDF5 library can loop for ever if it is damaged.
    """
    if group.attrs.get_id(name).dtype.kind != "S":
        raise ValueError(f"attribute {name!r} is no text of fixed length")
    return bytes(group.attrs[name]).decode()


def _write(group: Any, module: eqx.Module) -> None:
    write_text(group, "class", json.dumps(_registered(module)))
    plain = {}
    for field in dataclasses.fields(module):  # pyright: ignore[reportArgumentType]
        value = getattr(module, field.name)
        if isinstance(value, eqx.Module):
            _write(group.create_group(field.name), value)
        elif _is_plain(value):
            plain[field.name] = value
        elif isinstance(value, tuple):
            _write_tuple(group.create_group(field.name), value, f"{type(module).__name__}.{field.name}")
        elif eqx.is_array_like(value):
            group.create_dataset(field.name, data=np.asarray(value))
        else:
            raise DataError(f"{type(module).__name__}: field {field.name!r} holds a {type(value).__name__}, which can't be stored.")
    write_text(group, "fields", json.dumps(plain))


def _is_plain(value: Any) -> bool:
    """Whether JSON holds it: a text, a number, or tuples of such, which it calls lists."""
    return isinstance(value, _PLAIN) or (isinstance(value, tuple) and all(map(_is_plain, value)))


def _write_tuple(group: Any, items: tuple[Any, ...], name: str) -> None:
    """Modules and arrays of a tuple, under their numbers."""
    group.attrs["items"] = len(items)
    for i, item in enumerate(items):
        if isinstance(item, eqx.Module):
            _write(group.create_group(str(i)), item)
        elif eqx.is_array_like(item):
            group.create_dataset(str(i), data=np.asarray(item))
        else:
            raise DataError(f"{name}[{i}] holds a {type(item).__name__}, which can't be stored.")


def _registered(module: eqx.Module) -> tuple[str, str]:
    for kind in _KINDS:
        with contextlib.suppress(UnknownName):
            return kind, registry.name_of(kind, type(module))
    raise DataError(
        f"{type(module).__name__} is not registered, so a model file can't name it. "
        "Add it to the entry points 'dynsys.models' (see docs/extend)."
    )


def _check_own(group: Any, key: str, where: str) -> None:
    import h5py

    if not isinstance(group.get(key, getlink=True), h5py.HardLink):
        raise DataError(f"{where}: {key!r} is a link to elsewhere; a model file holds its own arrays. It is damaged.")


def _member(item: Any, name: str, where: str) -> Any:
    """An array, a module or a tuple of them."""
    import h5py

    if not isinstance(item, h5py.Group):
        return _array(item, name, where)
    if "items" not in item.attrs:
        return _read(item, where)
    if sorted(item) != sorted(str(i) for i in range(len(item))) or np.asarray(item.attrs["items"]).tolist() != len(item):
        raise DataError(f"{where}: the list {name!r} claims {item.attrs['items']} items and holds {sorted(item)}. It is damaged.")
    for key in map(str, range(len(item))):
        _check_own(item, key, where)
    return tuple(_member(item[str(i)], f"{name}[{i}]", where) for i in range(len(item)))


def _read(group: Any, where: str) -> Any:
    try:
        kind, name = json.loads(read_text(group, "class"))
        values = {name: _tupled(value) for name, value in dict(json.loads(read_text(group, "fields"))).items()}
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"{where}: not a model file of dynsys ({error}). Model files are written by Reconstruction.save.") from None
    if kind not in _KINDS or name not in registry.names(kind):
        raise DataError(
            f"{where}: names the {kind} {name!r}, which is not registered here; known: {', '.join(registry.names('model'))}. "
            "Install the package that brings it."
        )
    cls = registry.lookup(kind, name)
    known = {field.name for field in dataclasses.fields(cls)}
    for key in group:
        _check_own(group, key, where)
        values[key] = _member(group[key], key, where)
    if set(values) != known:
        raise DataError(f"{where}: a {name} has {sorted(known)}, the file has {sorted(values)}. It is damaged.")
    with jaxtyped("context"):  # the sizes M, H, K ... of one model are the same in all its arrays
        wrong = [field.name for field in dataclasses.fields(cls) if not _fits(values[field.name], field.type)]
    if wrong:
        shapes = ", ".join(f"{name} {np.shape(value)}" for name, value in sorted(values.items()) if eqx.is_array(value))
        raise DataError(
            f"{where}: the arrays of this {name} don't fit together, or are no floats: {shapes}; see {wrong[0]!r}. It is damaged."
        )
    try:
        return cls(**values)
    except Exception as error:  # what the class itself refuses
        raise DataError(f"{where}: a {name} can't be made of these arrays ({str(error).splitlines()[0]}).") from None


def _tupled(value: Any) -> Any:
    """JSON has lists for tuples."""
    return tuple(map(_tupled, value)) if isinstance(value, list) else value


def _fits(value: Any, hint: Any) -> bool:
    if typing.get_origin(hint) is tuple:
        inner = typing.get_args(hint)
        hints = [inner[0]] * len(value) if inner[-1] is Ellipsis else list(inner)
        return isinstance(value, tuple) and len(hints) == len(value) and all(map(_fits, value, hints))
    return isinstance(value, hint) and not (hint is int and isinstance(value, bool))


def _array(dataset: Any, name: str, where: str) -> Any:
    size = int(np.prod(dataset.shape, dtype=object)) * dataset.dtype.itemsize
    if size > LARGEST or size > max(dataset.id.get_storage_size(), 64):
        raise DataError(
            f"{where}: array {name!r} claims shape {dataset.shape} ({size:,} bytes), "
            f"the file holds {dataset.id.get_storage_size():,}. It is damaged."
        )
    if dataset.dtype.kind not in "fiub":
        raise DataError(f"{where}: array {name!r} holds {dataset.dtype}, not numbers.")
    values = dataset[()]
    unlimited = name in UNLIMITED and not np.any(np.isnan(values))
    if not np.all(np.isfinite(values)) and not unlimited:
        raise DataError(f"{where}: array {name!r} holds NaN or inf; this model can't be run. Train it again.")
    return jnp.asarray(values)

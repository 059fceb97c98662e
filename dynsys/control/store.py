"""A controller as one HDF5 file: its class by its registered name, its arrays, no pickle. `load_controller` is the inverse."""

from pathlib import Path
from typing import Any

from dynsys.control.controller import AbstractController
from dynsys.errors import DataError
from dynsys.models.store import read_module, read_text, write_module, write_text
from dynsys_datasets.files import replacing

CONTROLLER_FILE = "controller.h5"
FORMAT = "dynsys-controller-1"


def save_controller(controller: AbstractController, path: str | Path) -> Path:
    """Write a controller to one file, whole or not at all.

    Raises DataError for one that holds what no file can, such as a Python function in its cost: use a registered cost, or register
    your own (entry point dynsys.costs).
    """
    import h5py

    path = Path(path)
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        write_text(file, "format", FORMAT)
        write_module(file.create_group("controller"), controller)
    return path


def check_storable(module: Any) -> None:
    """Raise DataError, as `save_controller` would, for a module that no file can hold: before hours of work, not after them."""
    import h5py

    with h5py.File("check", "w", driver="core", backing_store=False) as file:
        write_module(file.create_group("module"), module)


def load_controller(path: str | Path) -> AbstractController:
    """Read a controller from its file or from a run folder of dynsys control.

    Raises DataError if there is none, or it is damaged or names what is not registered here.
    """
    import h5py

    path = Path(path)
    path = path / CONTROLLER_FILE if path.is_dir() else path
    if not path.is_file():
        raise DataError(f"{path}: there is no controller here. Give a run folder of dynsys control, or a file that save_controller wrote.")
    try:
        with h5py.File(path, "r") as file:
            found = read_text(file, "format") if "format" in file.attrs else "none"
            if found != FORMAT:
                raise DataError(f"{path}: not a controller of this version of dynsys (format {found!r}, wanted {FORMAT!r}).")
            controller: Any = read_module(file["controller"], str(path), AbstractController)
    except DataError:
        raise
    except Exception as error:  # h5py raises many kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: can't be read as a controller ({reason}). Is it complete?") from None
    return controller

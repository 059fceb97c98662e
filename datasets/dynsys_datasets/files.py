"""Atomic writes: a reader sees the old file or the whole new one, never a part."""

import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dynsys_datasets.errors import DataError


def check_target(path: str | os.PathLike[str]) -> None:
    """DataError if `path` is a folder, or if its folder is absent or may not be written to."""
    path = Path(path)
    if path.is_dir():
        raise DataError(f"{path}: is a folder; give the name of a file.")
    if not path.parent.is_dir():
        raise DataError(f"{path}: there is no folder {str(path.parent)!r}. Make it first.")
    try:
        with tempfile.TemporaryFile(dir=path.parent):  # rights alone do not tell: some folders take no files from anybody
            pass
    except OSError as error:
        reason = error.strerror or error
        raise DataError(
            f"{path}: the folder {str(path.parent)!r} takes no files ({reason}). Check its rights, or write elsewhere."
        ) from None


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path to write to that becomes `path` when the block ends well, and vanishes when it does not.

    Raises DataError as `check_target` does, or if the disk refuses.
    """
    path = Path(path)
    check_target(path)
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(6)}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(f"{path}: can't be written ({error.strerror or error}). Check the folder's rights and the free space.") from error
    finally:
        temporary.unlink(missing_ok=True)

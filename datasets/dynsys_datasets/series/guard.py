"""What stands between a user and the exceptions of file libraries: every one becomes a DataError that names the file."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from dynsys_datasets.errors import DataError, DynsysError

# deflate can't pack better than 1032 : 1, so a larger claim is a damaged or hostile header
BEST_PACKING = 1100
HARMLESS_BYTES = 64_000_000


@contextlib.contextmanager
def reading(path: str | os.PathLike, kind: str) -> Iterator[None]:
    """Turn whatever a file library raises on bad bytes into a DataError; wrap only the library's own calls.

    Damaged files make these libraries raise nearly anything (struct.error, KeyError, RecursionError, MemoryError, ...),
    so every Exception counts; errors of our own pass unchanged.
    """
    try:
        yield
    except DynsysError:
        raise
    except PermissionError:
        raise DataError(f"{path}: no permission to read this file. Change its rights or copy it.") from None
    except FileNotFoundError:
        raise DataError(f"{path}: the file is not there any more. It was moved or deleted after it was opened.") from None
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        name = Path(path).name
        raise DataError(
            f"{name}: can't be read as {kind} ({type(error).__name__}: {reason}). "
            "It is truncated, damaged or of another kind: save or copy it again, and check that its extension fits."
        ) from error


def refuse_absurd(where: str, what: str, claimed: int, size: int) -> None:
    """DataError if a header claims more bytes than a file of `size` bytes can hold, before any memory is taken."""
    if claimed > HARMLESS_BYTES and claimed > BEST_PACKING * max(size, 1):
        raise DataError(
            f"{where}: {what} claims {claimed:,} bytes in a file of {size:,} bytes. The file is truncated or damaged; save it again."
        )

"""The errors of dynsys (defined in `dynsys_datasets.errors`, the lowest layer)."""

from dynsys_datasets.errors import (
    DataError as DataError,
    DynsysError as DynsysError,
    InvalidValue as InvalidValue,
    MissingExtra as MissingExtra,
    UnknownName as UnknownName,
    did_you_mean as did_you_mean,
    require as require,
)

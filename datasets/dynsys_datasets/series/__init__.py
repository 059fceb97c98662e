"""Time-series files: read a recording from csv, npy, npz, HDF5, Parquet, MATLAB or netCDF; write csv and HDF5."""

from dynsys_datasets.series.lazy import LazyArray
from dynsys_datasets.series.read import open_formats, read_series
from dynsys_datasets.series.timeseries import TimeSeries
from dynsys_datasets.series.write import check_writable, write_series

__all__ = ["LazyArray", "TimeSeries", "check_writable", "open_formats", "read_series", "write_series"]

"""Small real recordings that ship with the package, each with its source and licence in the .txt file of its name."""

from pathlib import Path

import numpy as np

from dynsys_datasets.errors import UnknownName
from dynsys_datasets.series import TimeSeries, read_series

_FOLDER = Path(__file__).parent


def load_sample(name: str) -> TimeSeries:
    """A recording by name: "ecg" (T = 108,000), "sunspots" (T = 309) or "elnino" (T = 732); UnknownName for others."""
    if name not in _SAMPLES:
        raise UnknownName("sample", name, _SAMPLES)
    return _SAMPLES[name]()


def sample_names() -> tuple[str, ...]:
    """The names that `load_sample` knows."""
    return tuple(_SAMPLES)


def _ecg() -> TimeSeries:
    """MIT-BIH record 208, lead MLII: dt = 1/360 s, millivolt."""
    raw = read_series(_FOLDER / "ecg_mitbih208.npz", dataset="millivolt")
    # the recorder's steps of 0.005 mV, without the rounding error of float32
    return TimeSeries(
        np.rint(raw.trajectories[0][:] * 200) / 200,
        dt=1 / 360,
        names=("MLII",),
        units="mV",
        time_unit="s",
        source="MIT-BIH Arrhythmia Database, record 208, lead MLII (Moody & Mark, IEEE Eng Med Biol 20(3):45-50, 2001; "
        "Goldberger et al., Circulation 101(23):e215-e220, 2000), PhysioNet, ODC-By 1.0",
    )


def _sunspots() -> TimeSeries:
    """Yearly mean sunspot numbers (version 1), 1700-2008: dt = 1 year."""
    return read_series(_FOLDER / "sunspots_yearly.csv", time="YEAR").replace(
        names=("sunspots",),
        time_unit="years",
        source="Yearly sunspot numbers 1700-2008, version 1 (NOAA NGDC, SILSO), via statsmodels, public domain",
    )


def _elnino() -> TimeSeries:
    """Monthly sea surface temperature, region Nino 1+2, 1950-2010; the table year x month unrolled: dt = 1/12 year."""
    table = read_series(_FOLDER / "elnino_sst_monthly.csv", time="YEAR")
    values = table.trajectories[0][:]
    return TimeSeries(
        values.reshape(-1),
        dt=1 / 12,
        names=("sst",),
        units="°C",
        time_unit="years",
        source="Monthly sea surface temperature, region Nino 1+2, 1950-2010 (NOAA CPC), via statsmodels, public domain",
    )


_SAMPLES = {"ecg": _ecg, "sunspots": _sunspots, "elnino": _elnino}

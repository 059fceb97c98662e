"""A content that does not fit together is refused with the reason."""

import numpy as np
import pytest

from dynsys.errors import InvalidValue
from dynsys.report import Histogram, History, Spectrum
from dynsys.report.content import number

from . import report_cases as cases


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dt": 0.0}, "dt must be positive, got dt=0.0"),
        ({"made": np.zeros((10, 2))}, r"made must have shape \(10, 3\)"),
        ({"true": np.zeros(10)}, r"true must have shape \(10, 3\)"),
        ({"made": np.zeros((0, 3))}, "made has no rows"),
        ({"overlay_made": np.zeros((10, 3))}, "equal length, got 200 and 10"),
        ({"delay": 0}, "delay must be at least 1 sample"),
        ({"true": np.array([[1.0, np.nan, 2.0]] * 5)}, "column 'b' of true holds no finite number"),
        ({"names": ("a", "b")}, "must have shape"),
        ({"spectrum": Spectrum(frequencies=np.ones(4), true=np.ones((4, 2)), made=np.ones((4, 2)))}, "spectrum has 2 columns"),
    ],
)
def test_content_that_does_not_fit_is_refused(changes, message):
    with pytest.raises(InvalidValue, match=message):
        cases.content(3, **changes)


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(InvalidValue, match=r"History: loss must have shape \(3,\)"):
        History(seed=0, steps=np.arange(3), loss=np.zeros(2), alpha=np.zeros(3), scores=np.zeros(3))
    with pytest.raises(InvalidValue, match=r"Spectrum: made must have shape \(4, 2\)"):
        Spectrum(frequencies=np.ones(4), true=np.ones((4, 2)), made=np.ones((5, 2)))
    with pytest.raises(InvalidValue, match="Histogram: true must have shape"):
        Histogram(name="x", unit=None, true=np.ones((2, 2)), made=np.ones(2))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.20751, "0.208"),
        (-1.5, "−1.5"),
        (123456.0, "123456"),
        (2.34e-5, "2.34·10^−5"),
        (1e9, "1·10^9"),
        (None, "–"),
        (float("nan"), "not finite"),
        (float("inf"), "∞"),
        (np.float32(0.5), "0.5"),
        (3, "3"),
    ],
)
def test_numbers_are_printed_with_three_digits(value, text):
    assert number(value) == text

"""What a picture leaves out and what it must keep: ends, extremes, gaps, shapes; projections against independent computations."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dynsys.report import views

from . import report_cases as cases


@pytest.mark.parametrize(("count", "limit"), [(10, 20), (20, 20), (1001, 100), (54_321, 2_000), (7, 4)])
def test_thinned_series_keeps_ends_and_extremes(count, limit):
    values = np.random.default_rng(count).standard_normal(count)
    rows = views.thin_series(values, limit)
    assert len(rows) <= max(limit, 4)
    assert {0, count - 1, values.argmin(), values.argmax()} <= set(rows.tolist())
    assert np.all(np.diff(rows) > 0)


def test_thinned_series_keeps_a_single_spike_and_a_dead_end():
    values = np.zeros(100_000)
    values[31_415] = 1.0
    values[60_000:] = np.nan
    values[:5] = np.inf
    rows = views.thin_series(values, 1000)
    assert 31_415 in rows
    kept = values[rows]
    late = rows >= 60_000
    assert late.any()
    assert np.all(np.isnan(kept[late]))  # the gap is drawn as a gap
    assert np.isfinite(kept[~late][1:]).all()


def test_thinning_by_place_keeps_the_left_end_of_a_logarithmic_axis():
    frequency = np.arange(1.0, 100_001.0)
    values = np.random.default_rng(0).standard_normal(100_000)
    even, by_place = views.thin_series(values, 1000), views.thin_series(values, 1000, at=np.log(frequency))
    # 499 stretches over log(1e5) = 11.5 give 100 a factor of ten; the first two decades hold only 99 points, and keep most
    assert np.sum(frequency[by_place] < 100) > 70
    assert np.sum(frequency[even] < 100) < 10
    assert len(by_place) <= 1000


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("lines", [True, False])
@pytest.mark.parametrize(("count", "limit"), [(150_000, 20_000), (20_001, 20_000), (5_000, 600)])
def test_thinned_orbit_keeps_ends_extremes_and_neighbours(count, limit, dim, lines):
    values = np.random.default_rng(1).standard_normal((count, dim))
    drawn = views.thin_orbit(values, limit, lines=lines)
    assert len(drawn) <= limit
    assert len(drawn) > 0.8 * limit
    assert_array_equal(drawn[0], values[0])
    assert_array_equal(drawn[-1], values[-1])
    assert_array_equal(np.nanmin(drawn, axis=0), values.min(axis=0))
    assert_array_equal(np.nanmax(drawn, axis=0), values.max(axis=0))
    if lines:  # what is joined by a line was neighbours in the orbit
        place = {row.tobytes(): i for i, row in enumerate(values)}
        at = np.array([place.get(row.tobytes(), -1) for row in drawn])
        both = (at[1:] >= 0) & (at[:-1] >= 0)
        assert_array_equal(np.diff(at)[both], 1)


def test_thinned_orbit_of_a_run_that_died():
    values = np.random.default_rng(1).standard_normal((50_000, 3))
    values[100:] = np.nan
    drawn = views.thin_orbit(values, 5_000)
    assert len(drawn) <= 5_000
    assert_array_equal(np.nanmax(drawn, axis=0), np.nanmax(values, axis=0))
    assert len(views.thin_orbit(np.full((50_000, 3), np.nan), 5_000)) <= 5_000


def test_flow_is_drawn_with_lines_and_map_with_dots():
    time = np.arange(1000.0) * 0.1
    assert views.smooth(np.stack([np.sin(time), np.cos(time)], axis=1))
    x = np.empty((1000, 2))
    x[0] = 0.1
    for i in range(999):  # Henon's map
        x[i + 1] = 1 - 1.4 * x[i, 0] ** 2 + x[i, 1], 0.3 * x[i, 0]
    assert not views.smooth(x)


def test_decorrelation_lag_of_an_autoregressive_process():
    rng, x = np.random.default_rng(0), np.zeros(200_000)
    for i in range(1, len(x)):
        x[i] = 0.95 * x[i - 1] + rng.standard_normal()
    # autocorrelation 0.95**k falls below 1/e at k = 1/-log(0.95) = 19.5; its standard error at this length is about 0.01, one lag 0.018
    assert abs(views.decorrelation_lag(x) - 20) <= 2
    assert views.decorrelation_lag(np.zeros(50)) >= 1


def test_one_variable_is_drawn_in_delay_coordinates():
    values = np.arange(100.0)[:, None] % 17
    view = views.project(cases.content(1, true=values, made=values, overlay_true=values, overlay_made=values, delay=4))
    assert_array_equal(view.true, np.stack([values[8:, 0], values[4:-4, 0], values[:-8, 0]], axis=1))
    assert view.labels == ("a(t) [mV]", "a(t − τ) [mV]", "a(t − 2τ) [mV]")
    assert "τ = 4 samples (0.2 s)" in view.notes[0]


def test_five_variables_of_a_three_dimensional_orbit_are_shown_whole():
    rng = np.random.default_rng(0)
    base = rng.standard_normal((500, 3))
    true = base @ rng.standard_normal((3, 5)) + 7.0
    view = views.project(cases.content(5, true=true, made=true[::-1].copy()))
    scaled = (true - true.mean(0)) / true.std(0)
    # three components carry everything, so distances are kept exactly, up to the rounding of an eigendecomposition
    assert_allclose(np.linalg.norm(view.true[1:] - view.true[:-1], axis=1), np.linalg.norm(np.diff(scaled, axis=0), axis=1), rtol=1e-9)
    assert_allclose(view.made, view.true[::-1], atol=1e-12)
    assert "100%" in view.notes[0]
    variances = np.linalg.svd(scaled, compute_uv=False)[:3] ** 2 / 499
    assert_allclose(np.var(view.true, axis=0, ddof=1), variances, rtol=1e-9)


def test_points_outside_the_box_are_counted_and_do_not_widen_it():
    true = np.random.default_rng(0).uniform(0.0, 1.0, (400, 3))
    made = true.copy()
    made[10] = 1e30
    made[20] = np.nan
    made[30, 1] = np.inf
    made[40, 2] = 1.4  # still within half of the range
    view = views.project(cases.content(3, true=true, made=made))
    assert any(note.startswith("3 of 400 points") for note in view.notes)
    assert np.all(view.high < 1.6)
    assert view.high[2] > 1.4
    assert np.isnan(view.made[10]).all()


def test_forecast_error_is_the_distance_in_standard_deviations():
    true = np.random.default_rng(0).standard_normal((400, 3)) * np.array([1.0, 10.0, 100.0])[None, :]
    made = true[:50] + true.std(axis=0)[None, :]  # one standard deviation off in each
    made[7] = np.nan
    made[8] = 1e300
    error = views.forecast_error(cases.content(3, true=true, overlay_true=true[:50], overlay_made=made))
    assert_allclose(np.delete(error, [7, 8]), 1.0, rtol=1e-12)
    assert np.isnan(error[[7, 8]]).all()


def test_histogram_has_area_one_and_common_edges():
    rng = np.random.default_rng(0)
    edges, true, made = views.histogram(rng.normal(0, 1, 1000), rng.normal(0.1, 1, 400))
    assert_allclose(np.sum(true * np.diff(edges)), 1.0, rtol=1e-12)  # all true values are inside
    assert 0.97 <= np.sum(made * np.diff(edges)) <= 1.0  # all but the outermost one per cent
    for empty in (np.zeros(0), np.full(3, np.nan)):
        assert all(len(part) == 0 for part in views.histogram(empty, empty))
        assert np.all(views.histogram(np.ones(5), empty)[2] == 0)

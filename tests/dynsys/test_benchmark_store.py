"""Results: what is written is read back, once a key, and a file that is none is refused with words."""

import math

import numpy as np
import pytest

from dynsys.benchmark.leaderboard import table
from dynsys.benchmark.store import Row, Store
from dynsys.errors import DataError, UnknownName


def row(model="esn", system="Lorenz", seed=0, smape=10.0, status="success", protocol="forecast-2023", **more):
    scores = (("smape", smape), ("vpt", 1.0)) if status != "failed" else ()
    return Row(protocol, system, model, seed, status, scores=scores, seconds=0.5, versions=(("jax", "1"),), **more)


def test_rows_and_pictures_are_read_back(tmp_path):
    store = Store(tmp_path / "r.sqlite")
    written = row(smape=math.inf, reason="", memory_mb=12.5, fit_seconds=0.25, attempts=2)
    picture = np.arange(12.0).reshape(4, 3)
    store.add(written, picture, 2 * picture)
    assert Store(tmp_path / "r.sqlite").rows() == [written]
    np.testing.assert_array_equal(store.picture("forecast-2023", "Lorenz", "esn"), picture)
    np.testing.assert_array_equal(store.picture("forecast-2023", "Lorenz"), 2 * picture)
    assert store.picture("forecast-2023", "Rossler") is None


def test_a_key_is_there_once_and_the_last_row_counts(tmp_path):
    store = Store(tmp_path / "r.sqlite")
    store.add(row(smape=1.0))
    store.add(row(smape=2.0))
    store.add(row(seed=1, status="failed", reason="ValueError: no"))
    assert [found.score("smape") for found in store.rows() if found.seed == 0] == [2.0]
    assert len(store.finished()) == 2
    assert len(store.finished(failed_too=False)) == 1


def test_a_file_that_is_no_database_is_refused(tmp_path):
    path = tmp_path / "r.sqlite"
    path.write_bytes(b"no database at all, but long enough to be looked at as one" * 20)
    with pytest.raises(DataError, match=r"r\.sqlite.*Is it a results file"):
        Store(path)
    with pytest.raises(DataError, match="there are no results"):
        Store(tmp_path / "other.sqlite", must_exist=True)


def test_the_table_takes_medians_over_seeds_then_over_systems_and_failures_count_as_worst(tmp_path):
    store = Store(tmp_path / "r.sqlite")
    for system, values in {"A": (1.0, 2.0, 9.0), "B": (4.0, 4.0, 4.0), "C": (6.0, 7.0, 8.0)}.items():
        for seed, value in enumerate(values):
            store.add(row("good", system, seed, value))
    for system in "ABC":
        store.add(row("bad", system, 0, status="failed", reason="x") if system != "A" else row("bad", "A", 0, 3.0))
    found = table(store, "forecast-2023")
    assert [place.model for place in found.places] == ["good", "bad"]
    good, bad = found.places
    assert good.median == 4.0  # of 2, 4, 7
    assert (good.lower, good.upper) == (3.0, 5.5)
    assert bad.median == 200.0  # of 3, 200, 200: a failed task has the worst sMAPE
    assert bad.failed == pytest.approx(2 / 3)
    assert good.rank == pytest.approx(1.0)
    assert bad.rank == pytest.approx(2.0)
    np.testing.assert_array_equal(found.values[0], [2.0, 4.0, 7.0])
    assert table(store, "forecast-2023", "vpt").places[0].median == 1.0
    with pytest.raises(UnknownName, match="Did you mean 'smape'"):
        table(store, "forecast-2023", "smap")
    with pytest.raises(DataError, match="no rows of the protocol"):
        table(store, "reconstruct")


def test_a_system_without_a_lyapunov_time_is_left_out_of_the_scores_that_need_one(tmp_path):
    store = Store(tmp_path / "r.sqlite")
    for model, vpt in {"good": 3.0, "bad": 1.0}.items():
        for system in ("A", "B", "Regular"):
            value = math.nan if system == "Regular" else vpt
            store.add(Row("forecast-2023", system, model, 0, "success", scores=(("smape", 10.0), ("vpt", value))))
    store.add(Row("forecast-2023", "Regular", "bad", 0, "failed", "x"))  # the others know that it has no Lyapunov time
    store.add(Row("forecast-2023", "B", "bad", 0, "failed", "x"))  # here its failure counts
    found = table(store, "forecast-2023", "vpt")
    assert [(place.model, place.median, place.systems) for place in found.places] == [("good", 3.0, 2), ("bad", 0.5, 2)]
    np.testing.assert_array_equal(found.values, [[3.0, 3.0, np.nan], [1.0, 0.0, np.nan]])
    assert [place.systems for place in table(store, "forecast-2023").places] == [3, 3]
    error = {"A": (("d_stsp", 1.0), ("lyapunov_error", math.nan)), "Regular": (("d_stsp", 1.0), ("lyapunov", 0.1))}
    for system, scores in error.items():
        store.add(Row("reconstruct", system, "esn", 0, "success", scores=scores))
    only = table(store, "reconstruct", "lyapunov_error").places[0]
    assert (only.median, only.systems) == (math.inf, 1)  # a model without an exponent of its own has the worst error


def test_a_table_of_systems_that_all_lack_the_score_is_empty_but_there(tmp_path):
    store = Store(tmp_path / "r.sqlite")
    store.add(Row("forecast-2023", "Regular", "esn", 0, "success", scores=(("smape", 1.0), ("vpt", math.nan))))
    place = table(store, "forecast-2023", "vpt").places[0]
    assert math.isnan(place.median)
    assert math.isnan(place.rank)
    assert place.systems == 0

"""Scores with their definitions: every choice is stored, JSON gives back what it got, floors are what they say."""

import dataclasses
import inspect
import json
import math

import jax.random as jr
import numpy as np
import pytest
from hypothesis import given, strategies as st

from dynsys.errors import DataError, InvalidValue, UnknownName
from dynsys.metrics import Score, definition, floor_of, power_spectrum_distance, score_between, state_space_divergence_binned
from dynsys.registry import lookup, names

NUMBERS = st.floats(allow_nan=False) | st.integers(-(2**40), 2**40)
SETTINGS = st.lists(st.tuples(st.text(), NUMBERS | st.booleans() | st.none() | st.tuples(NUMBERS, NUMBERS))).map(tuple)


@given(
    value=st.floats(allow_nan=False),
    floor=st.none() | st.floats(allow_nan=False),
    words=st.text(),
    settings=SETTINGS,
    spread=st.none() | st.tuples(st.floats(allow_nan=False), st.floats(allow_nan=False)),
)
def test_json_round_trip(value, floor, words, settings, spread):
    score = Score("d_h", value, floor, words, settings, spread)
    text = score.to_json()
    json.loads(text, parse_constant=pytest.fail)  # strict JSON: no Infinity, no NaN
    assert Score.from_json(text) == score


def test_nan_survives_json():
    score = Score("lyapunov_max", math.nan, None, "", ())
    assert math.isnan(Score.from_json(score.to_json()).value)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"name": "x", "value": "seven", "floor": null, "definition": "", "settings": [], "spread": null}']
)
def test_what_is_no_score_is_refused(text):
    with pytest.raises(DataError, match=r"not a score.*Score\.to_json"):
        Score.from_json(text)


@pytest.mark.parametrize("name", names("metric"))
def test_every_registered_metric_has_a_definition_and_visible_choices(name):
    metric = lookup("metric", name)
    assert len(definition(metric)) > 40
    parameters = list(inspect.signature(metric).parameters.values())
    assert all(p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in parameters)
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters if p.default is not p.empty)  # what has a default is a keyword


def test_a_score_holds_all_that_it_depends_on():
    true, made = np.random.default_rng(0).normal(size=(2, 1000, 2))
    score = score_between("d_stsp_binned", true, made[:700], bins=10)
    assert score.settings == (("bins", 10), ("pad", 0.1), ("smoothing", 1e-5), ("n_true", 1000), ("n_made", 700), ("n_floor", 500))
    assert score.value == state_space_divergence_binned(true, made[:700], bins=10)
    assert score.floor == state_space_divergence_binned(true[:500], true[500:], bins=10)
    assert "KL(true || made)" in score.definition
    assert dataclasses.replace(score, spread=(0.1, 0.2)).spread == (0.1, 0.2)
    assert Score.from_json(score.to_json()) == score
    with pytest.raises(InvalidValue, match=r"unknown settings \['bin'\]"):
        score_between("d_stsp_binned", true, made, bin=10)
    with pytest.raises(UnknownName, match="Did you mean 'd_stsp_binned'"):
        score_between("d_stsp_bined", true, made)


def test_a_random_key_is_stored_as_numbers():
    true, made = np.random.default_rng(1).normal(size=(2, 200, 2))
    score = score_between("d_stsp_gmm", true, made, key=jr.key(7))
    assert dict(score.settings)["key"] == (0, 7)
    assert Score.from_json(score.to_json()) == score
    assert score_between("smape", true, made).floor is None
    with pytest.raises(InvalidValue, match=r"missing settings \['key'\]"):
        score_between("d_stsp_gmm", true, made)


def test_floor_is_the_score_between_halves():
    x = np.random.default_rng(2).normal(size=(1001, 2)).cumsum(axis=0)
    assert floor_of("d_h", x, smoothing=3.0) == power_spectrum_distance(x[:500], x[500:1000], smoothing=3.0)
    assert floor_of(power_spectrum_distance, x, length=900) == power_spectrum_distance(x[:500], x[500:1000])
    with pytest.raises(InvalidValue, match="at least 4 points"):
        floor_of("d_h", x[:3])

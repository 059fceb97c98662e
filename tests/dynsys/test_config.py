"""Settings: TOML and back, `--set`, and what is said about names and values that can't be."""

import contextlib
import dataclasses

import pytest
from hypothesis import given, settings, strategies as st

from dynsys.config import Options, from_toml, read_config, to_toml, with_settings
from dynsys.errors import DynsysError, InvalidValue, UnknownName
from dynsys.prepare.preparation import PreparationConfig
from dynsys.reconstruct.settings import FitSettings, ModelSettings, SelectionSettings, SplitSettings, TrainingSettings


def changed() -> FitSettings:
    """Every section away from its defaults, None where the default is a number and numbers where it is None."""
    return FitSettings(
        model=ModelSettings("alrnn", Options((("dim", 7), ("n_relu", 2), ("observation", "affine")))),
        training=TrainingSettings(steps=7, window=12, clip=None, alpha=0.25, forcing="sparse", complete=True, precision="float64"),
        selection=SelectionSettings(bins=9, veto=1e300),
        split=SplitSettings(0.0, 0.3),
        preparation=PreparationConfig(detrend="gaussian", detrend_width=0.5, downsample=2, delay=3),
    )


@pytest.mark.parametrize("config", [FitSettings(), changed()], ids=["defaults", "changed"])
def test_toml_gives_equal_settings(config):
    text = to_toml(config)
    assert from_toml(FitSettings, text) == config
    assert to_toml(from_toml(FitSettings, text)) == text


def test_none_is_written_only_where_it_is_not_the_default():
    text = to_toml(changed())
    assert 'clip = "none"' in text
    assert "window" not in to_toml(FitSettings())
    assert from_toml(FitSettings, '[training]\nclip = "none"').training.clip is None


@settings(max_examples=50, deadline=None)
@given(
    rate=st.none() | st.floats(1e-300, 1e300),
    names=st.dictionaries(
        st.text(min_size=1, max_size=5), st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=5), max_size=3
    ),
)
def test_any_number_and_option_survives(rate, names):
    config = FitSettings(model=ModelSettings(options=Options(tuple(names.items()))), training=TrainingSettings(learning_rate=rate))
    assert from_toml(FitSettings, to_toml(config)) == config


@pytest.mark.parametrize(
    ("assignment", "section", "name", "value"),
    [
        ("training.steps=5", "training", "steps", 5),
        ("training.steps=2e3", "training", "steps", 2000),
        (" training.learning_rate = 1 ", "training", "learning_rate", 1.0),
        ("training.clip=none", "training", "clip", None),
        ("training.complete=true", "training", "complete", True),
        ("training.forcing=free", "training", "forcing", "free"),
        ('training.optimizer="adam"', "training", "optimizer", "adam"),
        ("split.test=0", "split", "test", 0.0),
        ("preparation.detrend=none", "preparation", "detrend", "none"),
    ],
)
def test_set_changes_one_value(assignment, section, name, value):
    found = getattr(getattr(with_settings(FitSettings(), [assignment]), section), name)
    assert found == value
    assert type(found) is type(value)
    others = dataclasses.asdict(with_settings(FitSettings(), [assignment]))
    others[section][name] = dataclasses.asdict(FitSettings())[section][name]
    assert others == dataclasses.asdict(FitSettings())


def test_options_of_a_model_stand_beside_its_name():
    config = with_settings(FitSettings(), ["model.dim=20", "model.options.n_relu=2", "model.dim=21", "model.observation=affine"])
    assert dict(config.model.options.pairs) == {"dim": 21, "n_relu": 2, "observation": "affine"}
    assert config.model.options.with_option("dim", 3).get("dim") == 3
    assert config.model.options.get("hidden") is None


def test_values_are_checked_together():
    # each alone is refused, both together are a setting
    with pytest.raises(InvalidValue, match="detrend_width"):
        with_settings(FitSettings(), ["preparation.detrend=gaussian"])
    assert with_settings(FitSettings(), ["preparation.detrend=gaussian", "preparation.detrend_width=2"]).preparation.detrend_width == 2.0


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("training.stepps=5", r"unknown setting 'stepps'.*Did you mean 'steps'\?"),
        ("trainig.steps=5", r"unknown setting 'trainig'.*Did you mean 'training'\?"),
        ("steps", "expected section.name=value"),
        ("=5", "expected section.name=value"),
        ("training=5", "'training' is a section; set one of its names, such as training.steps"),
        ("training.steps.more=5", "'steps' is a single value, it has no 'more'"),
        ("training.steps=abc", "training.steps=abc: expected a whole number, got 'abc'"),
        ("training.steps=1.5", "expected a whole number, got 1.5"),
        ("training.steps=true", "expected a whole number, got True"),
        ("training.steps=1e400", "expected a whole number, got inf"),
        ("training.steps=", "expected a whole number, got ''"),
        ("training.steps=0", "training.steps must be at least 1, got 0"),
        ("training.complete=yes", "expected true or false, got 'yes'"),
        ("training.complete=1", "expected true or false, got 1"),
        ("training.learning_rate=-1", "training.learning_rate must be positive"),
        ("training.learning_rate=inf", "training.learning_rate must be positive and finite, got inf"),
        ("training.noise=nan", "expected a number, got nan"),
        ("training.l2=-1", "training.l2 must be 0 or more"),
        ("training.forcing=sparce", "expected one of 'generalised', 'adaptive', 'annealed', 'sparse', 'free' or none, got 'sparce'"),
        ("training.window=1", "training.window must be at least 2, got 1"),
        ("training.interval=0", "training.interval must be at least 1, got 0"),
        ("selection.steps=3", "steps=3"),
        ("split.test=0.95", "leave something to train on"),
        ("split.test=-0.1", "shares must lie in"),
        ("model.options=3", "'options' is a section"),
        ("model.options.a.b=3", "expected one name and a number"),
        ("model.dim=[1,2]", "expected one name and a number, a truth value or a word"),
        ("model.dim.x=1", "unknown setting 'dim'"),
        ("preparation.embedding=delayed", r"unknown embedding 'delayed'.*Did you mean 'delay'\?"),
    ],
)
def test_wrong_assignments_say_what_is_wrong(assignment, words):
    with pytest.raises((InvalidValue, UnknownName), match=words):
        with_settings(FitSettings(), [assignment])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[training", "my.toml: not valid TOML"),
        ("[trainin]\nsteps = 3", r"my.toml: 'trainin'; known: .*Did you mean 'training'\?"),
        ("[training]\nstep = 3", r"'training.step'; known: .*Did you mean 'training.steps'\?"),
        ("training = 3", "my.toml: training must be a table, got 3"),
        ("[training]\nsteps = 'many'", "my.toml: training.steps: expected a whole number, got 'many'"),
        ("[training]\nsteps = [1]", "expected a whole number"),
        ("[model]\noptions = 3", "my.toml: model.options must be a table, got 3"),
        ("[model.options]\ndim = [1, 2]", "my.toml: model.options.dim: expected a number, a truth value or a word"),
        ("[model.options.dim]\nx = 1", "my.toml: model.options.dim: expected a number, a truth value or a word"),
    ],
)
def test_wrong_files_say_where(text, words):
    with pytest.raises((InvalidValue, UnknownName), match=words):
        from_toml(FitSettings, text, where="my.toml")


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(InvalidValue, match=r"absent.toml: can't be read as a settings file"):
        read_config(FitSettings, tmp_path / "absent.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidValue, match=r"binary.toml: can't be read as a settings file"):
        read_config(FitSettings, tmp_path / "binary.toml")


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40))
def test_any_text_gives_settings_or_our_error(text):
    for attempt in (lambda: from_toml(FitSettings, text), lambda: with_settings(FitSettings(), [text])):
        with contextlib.suppress(DynsysError):
            attempt()

"""Protocols and models of the benchmark: what a model sees, and what a text names."""

import numpy as np
import pytest

from dynsys.benchmark.dataset import Series, resolve_systems
from dynsys.benchmark.entry import Entry, parse_entry, split_entries
from dynsys.benchmark.protocol import DataSettings, Protocol, load_protocol, protocol_names
from dynsys.errors import InvalidValue, UnknownName


def series(points=1200):
    t = np.arange(points) * 0.1
    values = np.stack([t % (2 * np.pi), np.cos(t), t], axis=1)
    return Series("Made", ("phase", "x", "y"), 0.1, 100, 0.9, (2 * np.pi, 0.0, 0.0), {"series": values})


@pytest.mark.parametrize("name", protocol_names())
def test_every_protocol_of_the_package_can_be_read(name):
    found = load_protocol(name)
    assert found.name == name
    assert resolve_systems(found.systems)
    assert found.about.endswith(".")


def test_the_forecast_protocols_share_their_test_part_whatever_they_train_on():
    whole = load_protocol("forecast-2023")
    train, test = whole.parts(series(), 0)
    short_train, short_test = load_protocol("forecast-100").parts(series(), 0)
    assert train.shape == (1000, 3)
    assert short_train.shape == (100, 3)
    np.testing.assert_array_equal(test, short_test)
    np.testing.assert_array_equal(train[-100:], short_train)
    np.testing.assert_array_equal(test[:, 2], series().arrays["series"][1000:, 2])


def test_angles_are_shown_as_their_sine_and_one_component_is_no_angle():
    train, _ = load_protocol("forecast-2023").parts(series(), 0)
    np.testing.assert_allclose(train[:, 0], np.sin(np.arange(1000) * 0.1), atol=1e-12)
    one, _ = load_protocol("forecast-one").parts(series(), 0)
    np.testing.assert_array_equal(one[:, 0], train[:, 1])


def test_noise_has_its_size_depends_on_the_seed_and_leaves_the_test_part_clean():
    protocol = load_protocol("forecast-noise-10")
    clean, test = load_protocol("forecast-2023").parts(series(), 0)
    noisy, same = protocol.parts(series(), 0)
    np.testing.assert_array_equal(test, same)
    # the standard deviation of 1,000 draws is known to 1 / sqrt(2000) = 2.2 %; five of those
    np.testing.assert_allclose((noisy - clean).std(axis=0) / clean.std(axis=0), 0.1, rtol=0.11)
    np.testing.assert_array_equal(noisy, protocol.parts(series(), 0)[0])
    assert not np.array_equal(noisy, protocol.parts(series(), 1)[0])


def test_a_data_set_that_is_too_short_is_named():
    with pytest.raises(InvalidValue, match=r"needs 1000 \+ 200 points.*has 900"):
        load_protocol("forecast-2023").parts(series(900), 0)


def test_a_users_protocol_is_read_and_a_wrong_one_refused(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('about = "Mine."\nkind = "forecast"\nsystems = "Lorenz"\n[data]\ntrain = 50\ntest = 10\n')
    assert load_protocol(path) == Protocol("Mine.", "forecast", systems="Lorenz", data=DataSettings(train=50, test=10), name="mine")
    path.write_text('about = "Mine."\nkind = "forecast"\ntrain = 50\n')
    with pytest.raises(UnknownName, match="train"):
        load_protocol(path)
    path.write_text('about = "Mine."\nkind = "foretell"\n')
    with pytest.raises(InvalidValue, match="forecast"):
        load_protocol(path)
    with pytest.raises(UnknownName, match="Did you mean 'forecast-2023'"):
        load_protocol("forecast-2032")


def test_entries_are_split_and_read():
    assert split_entries("alrnn[n_relu=5,dim=8], esn ,nvar") == ("alrnn[n_relu=5,dim=8]", "esn", "nvar")
    found = parse_entry("alrnn[ n_relu = 5, training.steps=300]")
    assert found == Entry("alrnn[n_relu=5,training.steps=300]", "alrnn", (("n_relu", 5),), ("training.steps=300",))
    with pytest.raises(UnknownName, match="Did you mean 'alrnn'"):
        parse_entry("alrn")
    for wrong in ("alrnn[n_relu=5", "alrnn[5]", "alrnn[=5]"):
        with pytest.raises(InvalidValue):
            parse_entry(wrong)


def test_systems_are_named_singly_by_file_or_by_collection():
    assert resolve_systems("Lorenz,Rossler") == ("Lorenz", "Rossler")
    assert len(resolve_systems("chaos")) == 135
    assert resolve_systems(["Lorenz", "chaos"])[0] == "Lorenz"
    assert len(resolve_systems(["Lorenz", "chaos"])) == 135
    with pytest.raises(UnknownName, match="Did you mean 'Lorenz'"):
        resolve_systems("Lorens")
    with pytest.raises(InvalidValue, match="nothing was named"):
        resolve_systems(",")

"""The scan over P: a masked model is the AL-RNN of its P, a member of the scan is the seed of `fit`, and the knee is where it should be."""

import csv
import json
import os

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from rich.console import Console

import dynsys
from dynsys.commands import _print_scan
from dynsys.errors import DataError, InvalidValue
from dynsys.models.alrnn import ALRNN, MaskedALRNN
from dynsys.reconstruct.scan import Scan, ScanRow, allowance, knee, load_scan, scan_relu
from dynsys.train.ensemble import side_by_side
from dynsys.train.forcing import SparseForcing
from dynsys.train.loss import Loss
from dynsys.train.trainer import Plan, Scored, Trainer
from dynsys.train.windows import Windows
from dynsys_datasets.series import write_series

from .fit_cases import TINY, circle
from .model_cases import make

SET = (*TINY[1:], "model.dim=6", "training.learning_rate=0.02", "training.interval=3", "training.precision=float64")
LONG = [*SET, "training.chunk=50"]
ABOUT = {"values": (2, 0, 1), "seeds": 2, "steps": 200, "set": LONG, "progress": False}  # as long as it takes for some to live


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The folder of a small scan, and what the call returned."""
    folder = tmp_path_factory.mktemp("scan") / "runs"
    return folder, scan_relu(circle(), out=folder, **ABOUT)


# the masked model


@pytest.mark.parametrize("n_relu", [0, 2, 5])
@pytest.mark.parametrize("n_inputs", [0, 2])
def test_a_masked_model_is_the_alrnn_of_its_p(n_relu, n_inputs):
    model = make("alrnn", n_inputs, dim=5, n_relu=n_relu)
    masked = MaskedALRNN.of(model)
    u = jnp.array([0.3, -0.7]) if n_inputs else None
    for z in jr.normal(jr.key(2), (10, 5)):
        assert_array_equal(masked.step(z, u), model.step(z, u))
        region = masked.region(z)
        assert_array_equal(region[5 - n_relu :], model.region(z))
        assert not region[: 5 - n_relu].any()
        for a, b in zip(masked.affine(region), model.affine(model.region(z)), strict=True):
            assert_array_equal(a, b)
        other = jr.normal(jr.key(3), (5,))
        assert_array_equal(masked.frozen(other, region), model.frozen(other, model.region(z)))
        normals, offsets = masked.switching()
        assert_array_equal(normals @ z + offsets > 0, region)
        # the same map, differentiated: zero where a rectified unit is off
        assert_allclose(jax.jacfwd(masked.step)(z), model.jacobian(z), atol=1e-15)
    fixed = masked.fixed()
    assert fixed.n_relu == n_relu
    assert all(map(np.array_equal, jax.tree.leaves(fixed), jax.tree.leaves(model)))


def test_a_masked_model_runs_on_numpy_too():
    masked = MaskedALRNN.of(make("alrnn", dim=5, n_relu=2))
    z = np.array([0.5, -1.0, 2.0, -0.5, 0.7])
    assert isinstance(jax.tree.map(np.asarray, masked).step(z), np.ndarray)
    assert_allclose(jax.tree.map(np.asarray, masked).step(z), masked.step(jnp.asarray(z)), atol=1e-15)


MODELS = [ALRNN.init(3, dim=6, n_relu=P, key=jr.key(seed)) for P in (0, 2) for seed in (0, 1)]


def trained(models, streams=None, engine="threads"):
    """Twenty updates with every kind of term that looks at the model."""
    series = np.random.default_rng(0).normal(size=(300, 3)).cumsum(axis=0) / 10
    trainer = Trainer(
        models,
        Windows.of([series], length=12, dtype=jnp.float64),
        forcing=SparseForcing(5),
        optimizer=optax.radam(1e-2),
        loss=Loss(l2=1e-3, manifold=1e-2),
        plan=Plan(steps=20, chunk=10, checkpoints=1, noise=0.1, bound=0.95),
        streams=streams,
        key=jr.key(3),
    )
    if engine == "vmap":
        trainer.advance = side_by_side(trainer._one_seed, len(models))
    run = trainer.begin()
    list(trainer.run(run, lambda model: Scored(1.0)))
    return trainer.result(run).last


@pytest.fixture(scope="module")
def alone():
    """Every P of MODELS trained for itself, as an ordinary AL-RNN."""
    return [model for i in (0, 2) for model in trained(tuple(MODELS[i : i + 2]))]


@pytest.mark.parametrize("engine", ["threads", "vmap"])
def test_members_of_every_p_train_as_alone(alone, engine):
    together = trained(tuple(map(MaskedALRNN.of, MODELS)), (0, 1) * 2, engine)
    for member, single, start in zip(together, alone, MODELS, strict=True):
        # twenty updates of one order of rounding against another: 1e-16 times a few per update
        assert_allclose(member.W, single.W, atol=1e-12)
        assert_allclose(member.A, single.A, atol=1e-12)
        assert float(jnp.abs(single.W - start.W).max()) > 0.01
    assert float(jnp.abs(together[0].W - together[2].W).max()) > 1e-3  # P matters
    # the same start as another stream's would show in nothing but the windows drawn
    twin = trained(tuple(map(MaskedALRNN.of, MODELS)), (0, 0) * 2, engine)
    assert_allclose(twin[0].W, together[0].W, atol=1e-15)
    assert float(jnp.abs(twin[1].W - together[1].W).max()) > 1e-3


# the scan


def test_a_row_is_the_fit_of_its_p(place):
    folder, scan = place
    assert [row.n_relu for row in scan.rows] == [0, 1, 2]
    about = {"model": "alrnn", "seeds": 2, "steps": 200, "set": [*LONG, "model.n_relu=2"], "progress": False}
    alone = dynsys.fit(circle(), **about)
    mine = scan.at(2)
    assert isinstance(mine.model, ALRNN)
    assert mine.model.n_relu == 2
    assert_allclose(mine.model.W, alone.model.W, atol=1e-10)
    assert_allclose(scan.rows[2].scores, alone.outcome.scores, rtol=1e-6)
    assert max(scan.rows[2].scores) < 1e6
    assert mine.outcome.kept_at == alone.outcome.kept_at
    assert mine.settings == alone.settings
    assert mine.outcome.choices == alone.outcome.choices
    assert_allclose([row.loss for row in mine.history], [row.loss for row in alone.history], rtol=1e-8)
    assert [(row.seed, row.step) for row in mine.history] == [(row.seed, row.step) for row in alone.history]
    assert [score.name for score in mine.scores] == [score.name for score in alone.scores]
    for one, other in zip(mine.scores, alone.scores, strict=True):
        assert one.value == pytest.approx(other.value, rel=1e-4, abs=1e-6)
    # and the folder of that P is the run folder of that fit
    again = dynsys.fit(circle(), out=folder / "P-02", **about)
    assert_array_equal(again.model.W, mine.model.W)


def test_the_run_folder_is_read_again(place):
    folder, scan = place
    assert {path.name for path in folder.iterdir()} == {
        *("P-00", "P-01", "P-02", "scan.json", "config.toml", "history.csv", "checkpoint.h5", ".fingerprint")
    }
    told = json.loads((folder / "scan.json").read_text())
    assert told["knee"] == scan.knee
    assert told["rows"][1]["scores"] == list(scan.rows[1].scores)
    read = load_scan(folder)
    assert read.rows == scan.rows
    assert read.words == scan.words
    for P in (0, 1, 2):
        assert_array_equal(read.at(P).model.W, scan.at(P).model.W)
        assert_array_equal(dynsys.load(folder / f"P-{P:02d}").simulate(20).trajectories[0], scan.at(P).simulate(20).trajectories[0])
    with open(folder / "history.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 * 4  # members times chunks
    assert (read.rows[0].regions, read.rows[0].main_regions) in ((1, 1), (0, 0))  # a linear map has one region, or left all bounds
    assert all(row.regions <= 2**row.n_relu for row in read.rows)
    with pytest.raises(InvalidValue, match="P=7 was not scanned"):
        read.at(7)


class Killed(BaseException):
    pass


def test_a_killed_scan_goes_on_to_the_bit(place, tmp_path, monkeypatch):
    """Killed in the training, and while the folders are written."""
    folder, scan = place

    def stop(told):
        if told.step == 150:
            raise Killed  # the last checkpoint was at 100

    with pytest.raises(Killed):
        scan_relu(circle(), out=tmp_path / "runs", **{**ABOUT, "progress": stop})
    assert not (tmp_path / "runs" / "scan.json").exists()
    replace = os.replace

    def die(source, target):
        if str(target).endswith("P-01/model.h5"):
            raise Killed
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die)
        steps = []
        with pytest.raises(Killed):
            scan_relu(circle(), out=tmp_path / "runs", **{**ABOUT, "progress": lambda told: steps.append(told.step)})
    assert steps == [150, 200]
    assert (tmp_path / "runs" / "P-00" / "model.h5").exists()
    again = scan_relu(circle(), out=tmp_path / "runs", **ABOUT)
    assert again.rows == scan.rows
    for P in (0, 1, 2):
        assert_array_equal(again.at(P).model.W, scan.at(P).model.W)
    assert (tmp_path / "runs" / "history.csv").read_text() == (folder / "history.csv").read_text()


def test_a_finished_scan_is_not_trained_again(place, monkeypatch):
    folder, scan = place
    monkeypatch.setattr("dynsys.reconstruct.scan.make_trainer", lambda *_: pytest.fail("trained again"))
    assert scan_relu(circle(), out=folder, **ABOUT).rows == scan.rows
    with pytest.raises(DataError, match="of a run with other settings or data"):
        scan_relu(circle(), out=folder, **{**ABOUT, "values": (0, 1)})


def test_overwrite_leaves_no_folder_of_another_scan(tmp_path):
    old = tmp_path / "runs" / "P-07"
    old.mkdir(parents=True)
    (old / "model.h5").write_bytes(b"old")
    (tmp_path / "runs" / "mine.txt").write_text("kept")
    short = {**ABOUT, "values": (1,), "seeds": 1, "steps": 20}
    with pytest.raises(DataError, match="other files"):
        scan_relu(circle(), out=tmp_path / "runs", **short)
    scan_relu(circle(), out=tmp_path / "runs", overwrite=True, **short)
    assert not old.exists()
    assert (tmp_path / "runs" / "mine.txt").exists()


# the knee


def rows(**scores):
    return [ScanRow(int(P[1:]), tuple(values), 1, 1) for P, values in scores.items()]


def test_the_knee_is_where_the_curve_has_turned():
    curve = rows(P0=[9.0, 9.5, 9.1], P1=[8.0, 8.1, 8.7], P2=[1.4, 1.45, 3.0], P3=[1.2, 1.3, 1.3], P5=[1.0, 1.02, 1.1], P10=[0.6, 0.65, 2.0])
    # the drop is 9.0 - 0.6: a tenth of it above 0.6 is 1.44
    assert allowance(curve) == pytest.approx(0.84)
    assert knee(curve) == 2
    assert knee(curve[:-1]) == 2  # a longer scan moves it only by what it gains
    longer = [*curve, *rows(P50=[0.6, 0.6, 0.7], P90=[0.58, 0.6, 0.7])]
    assert knee(longer) == 2


def test_below_the_scatter_of_seeds_the_smaller_p_is_as_good():
    flat = rows(P0=[1.0, 1.4, 1.5], P1=[0.9, 1.3, 1.5], P2=[1.05, 1.3, 2.0])
    assert allowance(flat) == pytest.approx(0.4)
    assert knee(flat) == 0


def test_dead_models_neither_count_nor_are_chosen():
    curve = rows(P0=[1e6, 1e6], P1=[6.0, 1e6], P2=[2.0, 2.2], P4=[1.9, 2.1])
    assert allowance(curve) == pytest.approx(0.41)  # the drop of those alive, not of a million
    assert knee(curve) == 2
    assert knee(rows(P0=[1e6, 1e6])) is None
    assert knee(rows(P0=[3.0])) == 0


# what is refused


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"values": ()}, "values must be whole numbers"),
        ({"values": (1.5,)}, "values must be whole numbers"),
        ({"values": (-1, 2)}, "values must be whole numbers"),
        ({"values": (3, 7)}, r"n_relu must be in \[0, dim\], got n_relu=7 with dim=6"),
        ({"set": [*SET, "model.n_relu=2"]}, "model.n_relu is what is scanned"),
        ({"set": ["model.name=plrnn"]}, "P counts the rectified units of an alrnn"),
    ],
)
def test_what_can_not_be_scanned(about, message, tmp_path, unchecked):
    with pytest.raises(InvalidValue, match=message):
        scan_relu(circle(), out=tmp_path / "runs", **{**ABOUT, **about})
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def unchecked():
    """Without the run-time checks of annotations, as outside the tests."""
    from jaxtyping import config

    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


@pytest.mark.parametrize(
    ("text", "message"), [(None, "there is no finished scan"), ("{", "can't be read as a scan"), ('{"format": "x"}', "format 'x'")]
)
def test_folders_that_hold_no_scan(text, message, tmp_path):
    if text is not None:
        (tmp_path / "scan.json").write_text(text)
    with pytest.raises(DataError, match=message):
        load_scan(tmp_path)


# the command


COMMAND = ["--values", "0,2", "--seeds", "1", "--steps", "20", *(part for change in SET for part in ("--set", change))]


def test_the_command_prints_a_table_and_writes_the_folder(run, tmp_path):
    write_series(circle(300), tmp_path / "circle.csv")
    code, out, err = run("scan", "P", tmp_path / "circle.csv", "--out", tmp_path / "runs", *COMMAND)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    head = next(i for i, line in enumerate(lines) if line.split()[:3] == ["P", "best", "median"])
    assert [line.split()[0] for line in lines[head + 1 : head + 3]] == ["0", "2"]
    assert lines[-2].startswith(("Knee at P", "No knee"))
    assert lines[-1] == f"run folder: {tmp_path / 'runs'}"
    assert load_scan(tmp_path / "runs").rows[1].n_relu == 2


def test_the_table_says_what_died_and_what_diverged(capsys):
    rows = (ScanRow(0, (1e6, 1e6), 0, 0), ScanRow(2, (1.25, 1e6), 3, 2))
    assert ScanRow(1, (1.0, 3.0, 1e6), 1, 1).median == 3.0
    assert ScanRow(1, (1.0, 3.0), 1, 1).median == 2.0
    _print_scan(Console(width=100), Scan(rows, ()))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["0", "dead", "dead", "dead,", "dead", "diverged", "–"]
    assert lines[2].split() == ["2", "<", "1.25", "dead", "1.25,", "dead", "3", "2"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["Q", "x.csv"], "unknown quantity to scan 'Q'; known: P"),
        (["P", "{p}/absent.csv"], "absent.csv"),
        (["P", "sample:ecg", "--values", "1,two"], "expected whole numbers by commas"),
        (["P", "sample:ecg", "--set", "model.n_relu=3"], "model.n_relu is what is scanned"),
    ],
)
def test_wrong_uses_are_one_line(run, tmp_path, words, message):
    code, _, err = run("scan", *(word.format(p=tmp_path) for word in words), "--out", tmp_path / "runs")
    assert code == 2
    assert err.startswith("dynsys: ")
    assert err.count("\n") == 1
    assert message in err

"""The unforced Duffing oscillator: the eigenfunction of eigenvalue zero is constant on each basin, and so tells them apart."""

import numpy as np

from dynsys.models.koopman.candidate import Candidate
from dynsys.models.koopman.dictionary import RadialBasis
from dynsys.models.koopman.edmd import EDMD


def after(z, time, step=0.05):
    """x'' = -x'/2 + x - x^3 (Williams, Kevrekidis, Rowley 2015, sec. 4.2), from states (S, 2), by RK4."""

    def field(z):
        return np.stack([z[:, 1], -0.5 * z[:, 1] + z[:, 0] - z[:, 0] ** 3], axis=1)

    for _ in range(round(time / step)):
        a = field(z)
        b = field(z + step / 2 * a)
        c = field(z + step / 2 * b)
        z = z + step / 6 * (a + 2 * b + 2 * c + field(z + step * c))
    return z


def test_the_second_eigenfunction_separates_the_basins():
    rng = np.random.default_rng(0)
    starts = rng.uniform(-2, 2, (15_000, 2))
    runs = list(np.stack([starts, after(starts, 3.0)], axis=1))
    mean, scale = np.concatenate(runs).mean(axis=0), np.concatenate(runs).std(axis=0)
    centres = RadialBasis.learn((starts - mean) / scale, features=1200, shape="inverse-multiquadric", rng=rng)
    model = EDMD.from_series(runs, dictionary=centres, ridge=1e-13)
    values, vectors = np.linalg.eig(model.A.T)
    near_one = np.argsort(np.abs(values - 1.0))[:2]  # the constant, and the one that we want
    assert np.abs(np.log(values[near_one]) / 3.0).max() < 0.01  # rates; the next one is about -0.25

    def phi(z):
        return np.real(Candidate(model.dictionary).lift((z - model.mean) / model.scale) @ vectors[:, near_one])

    wells = phi(np.array([[1.0, 0.0], [-1.0, 0.0]]))
    k = int(np.argmax(np.abs(wells[0] - wells[1]) / np.abs(wells).max(axis=0)))  # the one that is not constant
    asked = rng.uniform(-2, 2, (10_000, 2))
    said = (phi(asked)[:, k] > wells[:, k].mean()) == (wells[0, k] > wells[1, k])
    assert np.mean(said == (after(asked, 60.0)[:, 0] > 0)) > 0.99

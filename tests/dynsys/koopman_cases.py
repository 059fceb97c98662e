"""Systems with a known Koopman operator, and small helpers for spectra."""

import numpy as np


def near(found, wanted):
    """The largest distance of a wanted eigenvalue to the nearest one found."""
    return float(np.abs(np.asarray(wanted)[:, None] - np.asarray(found)[None, :]).min(axis=1).max())


def linear_system(seed=0):
    """A (4, 4) with eigenvalues 0.99, 0.9 and 0.95 exp(+-0.3 i) in a random basis, and the eigenvalues."""
    turn = 0.95 * np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
    block = np.zeros((4, 4))
    block[0, 0], block[1, 1], block[2:, 2:] = 0.99, 0.9, turn
    basis = np.random.default_rng(seed).normal(size=(4, 4))
    return basis @ block @ np.linalg.inv(basis), np.array([0.99, 0.9, 0.95 * np.exp(0.3j), 0.95 * np.exp(-0.3j)])


def runs_of(step, starts, steps):
    """Trajectories [(steps + 1, N), ...] of x[t+1] = step(x[t]) from starts (S, N)."""
    path = [np.asarray(starts, float)]
    for _ in range(steps):
        path.append(step(path[-1]))
    return list(np.stack(path, axis=1))


def linear_runs(count=8, steps=40, noise=0.0, seed=0, **system):
    """Trajectories of `linear_system`, with its matrix and eigenvalues."""
    A, values = linear_system(**system)
    rng = np.random.default_rng(seed)
    runs = runs_of(lambda x: x @ A.T, rng.normal(size=(count, 4)), steps)
    return [x + noise * rng.normal(size=x.shape) for x in runs], A, values


def slow_manifold(mu=0.9, lam=0.5):
    """x1' = mu x1, x2' = lam x2 + (mu^2 - lam) x1^2: linear on (x1, x2, x1^2) with eigenvalues mu, lam, mu^2.

    Source: Brunton, Brunton, Proctor, Kutz, PLoS ONE 11, e0150171 (2016), in discrete time.
    """
    return lambda x: np.stack([mu * x[..., 0], lam * x[..., 1] + (mu**2 - lam) * x[..., 0] ** 2], axis=-1)

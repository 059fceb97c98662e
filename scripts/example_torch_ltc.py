#!/usr/bin/env python
"""Train a liquid network of dynsys inside a plain PyTorch loop, on samples at irregular times, and take it back to JAX.

    python scripts/example_torch_ltc.py [--steps 150] [--units 16]

The task: from the values of a damped oscillation at irregular times, say its present rate of change. The loop below is PyTorch
throughout: DataLoader, torch.optim, clip_grad_norm_. At its default size it runs in seconds.
"""

import argparse

import jax.random as jr
import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

from dynsys.interop.torch import from_torch, to_torch
from dynsys.models.liquid import LTC
from dynsys.models.sequence import SequenceModel
from dynsys.models.wiring import full


def oscillations(count: int, length: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Values (count, length, 1), gaps before each (count, length) and rates of change (count, length, 1) of sines of random speed."""
    rng = np.random.default_rng(seed)
    gaps = rng.uniform(0.3, 1.7, (count, length))
    speed, phase = rng.uniform(0.3, 0.8, (count, 1)), rng.uniform(0, 2 * np.pi, (count, 1))
    angle = speed * np.cumsum(gaps, axis=1) + phase
    made = np.sin(angle)[..., None], gaps, (speed * np.cos(angle))[..., None]
    values, times, rates = (torch.tensor(array, dtype=torch.float32) for array in made)
    return values, times, rates


def main() -> None:
    """Train, report the error beside that of always saying the mean, and show that the JAX model is the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=150, help="updates of the optimiser")
    parser.add_argument("--units", type=int, default=16, help="neurons of the liquid network")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)  # tensors this small gain nothing from threads

    keys = jr.split(jr.key(0))
    cell = LTC.init(full(1, options.units), unfoldings=3, key=keys[0])
    net = to_torch(SequenceModel.init(cell, 1, key=keys[1]), dtype=torch.float32)  # from here on an ordinary nn.Module
    print(net)

    loader = DataLoader(TensorDataset(*oscillations(256, 20, seed=1)), batch_size=32, shuffle=True)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    done = 0
    while done < options.steps:
        for values, gaps, rates in loader:
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(net(values, gaps), rates)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            done += 1
            if done % 50 == 0 or done == 1:
                print(f"step {done:4d}   loss {loss.item():.4f}")
            if done == options.steps:
                break

    values, gaps, rates = oscillations(64, 20, seed=2)
    with torch.no_grad():
        made = net(values, gaps)
    error = torch.nn.functional.mse_loss(made, rates).item()
    print(f"test error {error:.4f}, of the mean {rates.var().item():.4f}")

    model = from_torch(net)  # the same network for JAX: model(xs, gaps)
    difference = np.abs(np.asarray(model(values[0].numpy(), gaps[0].numpy())) - made[0].numpy()).max()
    print(f"largest difference between PyTorch and JAX {difference:.1e}")


if __name__ == "__main__":
    main()

"""Liquid networks as dynamical models, z = (x, h): registered as 'ltc', 'conductance-ltc', 'cfc' and 'cfc-mixed'.

The network reads its own output and the external inputs (`dynsys.models.recurrent`); wirings are those of `dynsys.models.wiring`.
"""

import abc
from typing import Any

import jax.random as jr
from jaxtyping import Array, Float

from dynsys.models.base import check_sizes
from dynsys.models.cell import AbstractCell
from dynsys.models.closed_form_cell import CfC
from dynsys.models.composed import MixedMemory
from dynsys.models.liquid import LTC, ConductanceLTC
from dynsys.models.recurrent import AbstractCellMap, readout
from dynsys.models.wiring import make_wiring


class LiquidMap(AbstractCellMap):
    """A map of a liquid cell; the subclasses say which."""

    cell: AbstractCell
    U: Float[Any, "N O"]
    b: Float[Any, " N"]


class LTCMap(LiquidMap):
    """A liquid time-constant network that runs freely."""

    @classmethod
    def init(
        cls,
        n_obs: int,
        n_inputs: int = 0,
        *,
        units: int = 32,
        unfoldings: int = 6,
        wiring: str = "full",
        outputs: int | None = None,
        sparsity: float = 0.5,
        rank: int = 4,
        seed: int = 0,
        key: Array,
    ) -> "LTCMap":
        """`units` neurons, of which `outputs` are read (all; of a policy a third); `sparsity`, `rank`, `seed` are the wiring's."""
        check_sizes(cls.__name__, n_obs=n_obs, units=units)
        keys = jr.split(key)
        wired = make_wiring(wiring, n_obs + n_inputs, units, outputs, sparsity=sparsity, rank=rank, seed=seed)
        cell = LTC.init(wired, unfoldings=unfoldings, key=keys[0])
        return cls(cell, *readout(n_obs, cell.n_out, key=keys[1]))  # pyright: ignore[reportCallIssue]


class ConductanceLTCMap(LiquidMap):
    """A conductance LTC that runs freely."""

    @classmethod
    def init(
        cls,
        n_obs: int,
        n_inputs: int = 0,
        *,
        units: int = 32,
        unfoldings: int = 6,
        wiring: str = "full",
        outputs: int | None = None,
        sparsity: float = 0.5,
        seed: int = 0,
        key: Array,
    ) -> "ConductanceLTCMap":
        """As `LTCMap.init`; its synapses have no rank."""
        check_sizes(cls.__name__, n_obs=n_obs, units=units)
        keys = jr.split(key)
        wired = make_wiring(wiring, n_obs + n_inputs, units, outputs, sparsity=sparsity, rank=units, seed=seed)
        cell = ConductanceLTC.init(wired, unfoldings=unfoldings, key=keys[0])
        return cls(cell, *readout(n_obs, cell.n_out, key=keys[1]))  # pyright: ignore[reportCallIssue]


class AbstractCfCMap(LiquidMap):
    """What both forms of the closed-form network share."""

    @classmethod
    def init(
        cls,
        n_obs: int,
        n_inputs: int = 0,
        *,
        units: int = 32,
        mode: str = "default",
        backbone: int = 128,
        depth: int = 1,
        activation: str = "lecun-tanh",
        wiring: str = "full",
        outputs: int | None = None,
        sparsity: float = 0.5,
        rank: int = 4,
        seed: int = 0,
        key: Array,
    ) -> "AbstractCfCMap":
        """`units` hidden numbers, a `backbone` of so many units in `depth` layers (0 units: none; any wiring but 'full' needs that)."""
        check_sizes(cls.__name__, n_obs=n_obs, units=units)
        keys = jr.split(key, 3)
        wired = make_wiring(wiring, n_obs + n_inputs, units, outputs, sparsity=sparsity, rank=rank, seed=seed)
        cell = CfC.init(wired, mode=mode, backbone=backbone, depth=depth, activation=activation, key=keys[0])
        return cls(cls.whole(cell, key=keys[2]), *readout(n_obs, cell.n_out, key=keys[1]))  # pyright: ignore[reportCallIssue]

    @classmethod
    @abc.abstractmethod
    def whole(cls, cell: CfC, *, key: Array) -> AbstractCell:
        """The cell of the map, made of a CfC."""


class CfCMap(AbstractCfCMap):
    """A closed-form continuous-time network that runs freely."""

    @classmethod
    def whole(cls, cell: CfC, *, key: Array) -> AbstractCell:
        """The CfC itself."""
        return cell


class CfCMixedMap(AbstractCfCMap):
    """A closed-form continuous-time network with the memory of an LSTM that runs freely."""

    @classmethod
    def whole(cls, cell: CfC, *, key: Array) -> AbstractCell:
        """The CfC behind an LSTM."""
        return MixedMemory.init(cell, key=key)

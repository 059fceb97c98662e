"""Wirings: which neuron is connected to which, and with which sign.

    full          every input and every neuron to every neuron
    random        a fraction `sparsity` of the synapses is left out, at random
    ncp           neural circuit policy: sensory -> inter -> command (recurrent) -> motor
    low-rank      a recurrent matrix W(r, s) = W1 W2 * M: rank r before the mask M, which leaves out a fraction s

Rows are sources, columns are targets; entries are -1 (inhibits), 0 (no synapse) and 1 (excites). The neurons that are read out come
first. Sources: Lechner, Hasani, Amini, Henzinger, Rus, Grosu, Nature Machine Intelligence 2, 642 (2020), "design principles" (ncp);
Tumma, Lechner, Loo, Hasani, Rus, arXiv:2310.03915, section 3 (low-rank).
"""

import dataclasses

import numpy as np
from jaxtyping import Int

from dynsys.errors import InvalidValue
from dynsys.models.base import check_sizes


@dataclasses.dataclass(frozen=True)
class Wiring:
    """Synapses from I inputs, (I, S), and among S neurons, (S, S); the first `n_out` neurons are read out.

    `rank` is that of the recurrent matrix before the mask, None if it is not limited. `layers` names the neurons of each kind.
    """

    sensory: Int[np.ndarray, "I S"]
    recurrent: Int[np.ndarray, "S S"]
    n_out: int
    rank: int | None = None
    layers: dict[str, range] = dataclasses.field(default_factory=dict)

    @property
    def n_in(self) -> int:
        """I, the number of inputs."""
        return self.sensory.shape[0]

    @property
    def units(self) -> int:
        """S, the number of neurons."""
        return self.recurrent.shape[0]

    @property
    def complete(self) -> bool:
        """Whether no synapse is left out."""
        return bool(np.all(self.sensory) and np.all(self.recurrent))

    @property
    def synapses(self) -> int:
        """How many synapses there are, those of the inputs included."""
        return int(np.count_nonzero(self.sensory) + np.count_nonzero(self.recurrent))


def full(n_in: int, units: int, n_out: int | None = None, *, seed: int = 0) -> Wiring:
    """Every synapse there can be; two in three excite, as in the other dense wirings."""
    return random(n_in, units, n_out, sparsity=0.0, seed=seed)


def random(n_in: int, units: int, n_out: int | None = None, *, sparsity: float = 0.5, seed: int = 0) -> Wiring:
    """Exactly round((1 - sparsity) n) of the n synapses from inputs, and of those among neurons, at random places."""
    n_out = _check(n_in, units, n_out, sparsity)
    rng = np.random.default_rng(seed)
    return Wiring(_scattered(rng, (n_in, units), sparsity), _scattered(rng, (units, units), sparsity), n_out)


def low_rank(n_in: int, units: int, n_out: int | None = None, *, rank: int = 4, sparsity: float = 0.5, seed: int = 0) -> Wiring:
    """All inputs to all neurons; among neurons a matrix of rank `rank`, of which a mask keeps round((1 - sparsity) S S) entries."""
    n_out = _check(n_in, units, n_out, sparsity)
    if not 1 <= rank <= units:
        raise InvalidValue(f"low_rank: rank must be from 1 to the number of neurons, got rank={rank} with units={units}.")
    rng = np.random.default_rng(seed)
    return Wiring(_scattered(rng, (n_in, units), 0.0), _scattered(rng, (units, units), sparsity), n_out, rank)


def ncp(
    n_in: int,
    inter: int,
    command: int,
    motor: int,
    *,
    sensory_fanout: int,
    inter_fanout: int,
    recurrent_command: int,
    motor_fanin: int,
    seed: int = 0,
) -> Wiring:
    """A neural circuit policy; the motor neurons are read out.

    Each input goes to `sensory_fanout` inter neurons, each inter neuron to `inter_fanout` command neurons, `recurrent_command`
    different synapses lie among command neurons, and each motor neuron hears `motor_fanin` command neurons. A neuron that these
    draws leave without a source, and a command neuron left without a motor neuron, gets as many as the others have on average.
    """
    check_sizes("ncp", n_in=n_in, inter=inter, command=command, motor=motor)
    limits = {
        "sensory_fanout": (sensory_fanout, 1, inter),
        "inter_fanout": (inter_fanout, 1, command),
        "recurrent_command": (recurrent_command, 0, command**2),
        "motor_fanin": (motor_fanin, 1, command),
    }
    for name, (value, least, most) in limits.items():
        if not least <= value <= most:
            raise InvalidValue(f"ncp: {name} must be from {least} to {most} with these layers, got {name}={value}.")
    units = motor + command + inter
    layers = {"motor": range(motor), "command": range(motor, motor + command), "inter": range(motor + command, units)}
    rng = np.random.default_rng(seed)
    signs = lambda size: rng.choice(np.asarray([-1, 1], np.int32), size)  # noqa: E731
    sensory, recurrent = np.zeros((n_in, units), np.int32), np.zeros((units, units), np.int32)
    block = {name: slice(neurons.start, neurons.stop) for name, neurons in layers.items()}
    sensory[:, block["inter"]] = _fans(rng, n_in, inter, sensory_fanout)
    recurrent[block["inter"], block["command"]] = _fans(rng, inter, command, inter_fanout)
    recurrent[block["command"], block["motor"]] = _fans(rng, motor, command, motor_fanin).T
    loops = np.zeros(command * command, np.int32)
    loops[rng.choice(command * command, recurrent_command, replace=False)] = 1
    recurrent[block["command"], block["command"]] = loops.reshape(command, command)
    return Wiring(sensory * signs(sensory.shape), recurrent * signs(recurrent.shape), motor, layers=layers)


def auto_ncp(n_in: int, units: int, n_out: int, *, sparsity: float = 0.5, seed: int = 0) -> Wiring:
    """A neural circuit policy of `units` neurons with `n_out` motor neurons; two in five of the others are command neurons.

    A neuron is connected to about a fraction 1 - sparsity of the next layer.
    """
    _check(n_in, units, n_out, sparsity)
    if n_out > units - 2:
        raise InvalidValue(
            f"auto_ncp: n_out must leave room for an inter and a command neuron, got n_out={n_out} with units={units}. Take more units."
        )
    command = max(1, round(0.4 * (units - n_out)))
    inter = units - n_out - command
    part = lambda count: max(1, round((1.0 - sparsity) * count))  # noqa: E731
    return ncp(
        n_in,
        inter,
        command,
        n_out,
        sensory_fanout=part(inter),
        inter_fanout=part(command),
        recurrent_command=min(part(2 * command), command**2),
        motor_fanin=part(command),
        seed=seed,
    )


def make_wiring(name: str, n_in: int, units: int, n_out: int | None, *, sparsity: float, rank: int, seed: int) -> Wiring:
    """The wiring called 'full', 'random', 'ncp' or 'low-rank'; a policy without `n_out` reads out a third of its neurons."""
    if name == "full":
        return full(n_in, units, n_out, seed=seed)
    if name == "random":
        return random(n_in, units, n_out, sparsity=sparsity, seed=seed)
    if name == "ncp":
        return auto_ncp(n_in, units, max(1, units // 3) if n_out is None else n_out, sparsity=sparsity, seed=seed)
    if name == "low-rank":
        return low_rank(n_in, units, n_out, rank=rank, sparsity=sparsity, seed=seed)
    raise InvalidValue(f"wiring must be 'full', 'random', 'ncp' or 'low-rank', got wiring={name!r}.")


def _check(n_in: int, units: int, n_out: int | None, sparsity: float) -> int:
    n_out = units if n_out is None else n_out
    check_sizes("wiring", n_in=n_in, units=units, n_out=n_out)
    if n_out > units:
        raise InvalidValue(f"wiring: n_out counts the neurons that are read out, got n_out={n_out} with units={units}.")
    if not 0.0 <= sparsity < 1.0:
        raise InvalidValue(f"wiring: sparsity is the fraction of synapses left out, in [0, 1), got sparsity={sparsity}.")
    return n_out


def _scattered(rng: np.random.Generator, shape: tuple[int, int], sparsity: float) -> Int[np.ndarray, "_ _"]:
    """Signs at exactly round((1 - sparsity) n) places, two in three of them positive on average; zeros elsewhere."""
    size = shape[0] * shape[1]
    places = rng.choice(size, round((1.0 - sparsity) * size), replace=False)
    signs = np.zeros(size, np.int32)
    signs[places] = rng.choice([-1, 1, 1], places.size)
    return signs.reshape(shape)


def _fans(rng: np.random.Generator, sources: int, targets: int, fanout: int) -> Int[np.ndarray, "_ _"]:
    """Ones: each source (row) to `fanout` targets; a target without any source then gets the average number of them, at least 1."""
    found = np.zeros((sources, targets), np.int32)
    for row in found:
        row[rng.choice(targets, fanout, replace=False)] = 1
    mean = min(max(sources * fanout // targets, 1), sources)
    for column in found.T:
        if not column.any():
            column[rng.choice(sources, mean, replace=False)] = 1
    return found

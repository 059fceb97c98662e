"""Models in PyTorch and back: `to_torch(model)` is an nn.Module with the same equations, `from_torch(module)` the model again.

    a map      step, observe, lift, rollout; forward is step              dynsys.interop.torch_maps
    a flow     field, solve (by torchdiffeq); forward is field            dynsys.interop.torch_flows
    a cell     step, read; forward runs over a sequence                   dynsys.interop.torch_cells
    a sequence model    forward maps a sequence to its targets            dynsys.interop.torch_cells

Nothing is written per model: the equations of dynsys take their functions from the array that they get, so the same lines run on
tensors. `load_alrnn_state_dict` reads public AL-RNN checkpoints. PyTorch is imported when a function here is called.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import equinox as eqx

from dynsys.dynamics import AbstractFlow, AbstractMap
from dynsys.errors import InvalidValue, require
from dynsys.models.alrnn import ALRNN
from dynsys.models.cell import AbstractCell

if TYPE_CHECKING:
    from dynsys.interop.torch_cells import TorchCell
    from dynsys.interop.torch_flows import TorchFlow
    from dynsys.interop.torch_maps import TorchMap
    from dynsys.interop.torch_module import TorchModule


@overload
def to_torch(model: AbstractMap, *, dtype: Any = None, device: Any = None) -> "TorchMap": ...
@overload
def to_torch(model: AbstractFlow, *, dtype: Any = None, device: Any = None) -> "TorchFlow": ...
@overload
def to_torch(model: AbstractCell, *, dtype: Any = None, device: Any = None) -> "TorchCell": ...
@overload
def to_torch(model: eqx.Module, *, dtype: Any = None, device: Any = None) -> "TorchModule": ...
def to_torch(model: eqx.Module, *, dtype: Any = None, device: Any = None) -> "TorchModule":
    """A PyTorch module with the equations and the numbers of a model, a flow or a cell of dynsys.

    Real and complex arrays become parameters, whole numbers and truth values become buffers, under their names in the model:
    'W', 'observation.B', 'layers.0.W'. They are copies. dtype: torch.float32, say; None keeps the precision, also float64.
    device: where to put them. Raises InvalidValue for anything else, MissingExtra (extra 'torch') without PyTorch.
    """
    require("torch", extra="torch", who="dynsys.interop.torch.to_torch")
    from dynsys.interop.torch_cells import TorchCell, TorchSequence
    from dynsys.interop.torch_flows import TorchFlow
    from dynsys.interop.torch_maps import TorchMap
    from dynsys.models.sequence import SequenceModel

    kinds: Any = (
        (AbstractMap, TorchMap),
        (AbstractFlow, TorchFlow),
        (AbstractCell, TorchCell),
        (SequenceModel, TorchSequence),
    )
    for noun, kind in kinds:
        if isinstance(model, noun):
            return kind(model).to(device=device, dtype=dtype)
    raise InvalidValue(
        f"to_torch: wants a map, a flow, a cell or a sequence model of dynsys, got {type(model).__name__}. "
        "For a reconstruction pass its model; the state of a delay equation is no vector, so it has no module."
    )


def from_torch(module: Any) -> Any:
    """The model, flow or cell of a module that `to_torch` made, with the parameters that it has now, copied.

    Raises InvalidValue for any other module: pass the inner one of a wrapper such as DataParallel.
    """
    torch: Any = require("torch", extra="torch", who="dynsys.interop.torch.from_torch")
    from dynsys.interop.torch_module import TorchModule

    if not isinstance(module, TorchModule):
        children = module.named_children() if isinstance(module, torch.nn.Module) else ()
        inner = [name for name, part in children if isinstance(part, TorchModule)]
        hint = f" Pass its .{inner[0]}." if inner else " Pass what to_torch returned."
        raise InvalidValue(f"from_torch: wants a module that to_torch made, got {type(module).__name__}.{hint}")
    return module.to_model()


def load_alrnn_state_dict(path: str | Path, *, n_relu: int, n_obs: int | None = None, observation: str | None = None) -> ALRNN:
    """The AL-RNN of a PyTorch checkpoint: a state dictionary with A (M,), W (M, M), h (M,) and perhaps B (N, M).

        z[t+1] = A z[t] + W phi(z[t]) + h,    phi rectifies the last `n_relu` units;    x[t] = z[t][:N]

    n_relu: P; the file does not hold it. n_obs: N; only needed without B. Prefixes of the names ('module.', 'rnn.') are ignored.
    observation: what B is. 'learned-lift', the default, as in the authors' published models: a run starts at (x, (B^T x)[N:]).
    'affine': x = B z. 'identity': B is left out, which is the default where there is none.

    The file is read without running code (`weights_only`). Raises DataError for a file that holds anything but such tensors:
    names, shapes and numbers are checked; InvalidValue for n_relu and n_obs that do not fit; MissingExtra without PyTorch.
    Source of the equation: Brenner, Hemmer, Monfared, Durstewitz, NeurIPS 2024, eq. 5.
    """
    require("torch", extra="torch", who="dynsys.interop.torch.load_alrnn_state_dict")
    from dynsys.interop.torch_checkpoint import read_alrnn

    return read_alrnn(Path(path), n_relu, n_obs, observation)

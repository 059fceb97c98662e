"""How the report of a certificate names plant, controller, V, states and numbers. Plain text."""

from typing import Any

import numpy as np

from dynsys.dynamics import Discretized
from dynsys.report.certificate_view import CertificateView, Side
from dynsys.report.content import number
from dynsys.systems import SystemFlow, SystemMap
from dynsys.verify.lyapunov import QuadraticLyapunov
from dynsys.verify.network import Network
from dynsys.verify.policy import NeuralPolicy, SaturatedLinear
from dynsys.verify.symbolic import SymbolicLyapunov

MOST = 12  # states whose values are written out
ENTRIES = 64  # of a matrix that is written out


def plant_name(view: CertificateView) -> str:
    """The name of a system, the class of any other plant; of a flow made a map, that of the flow and the step."""
    plant = view.loop.plant
    if isinstance(plant, Discretized):
        return f"{system_name(plant.flow) or type(plant.flow).__name__}, a step of {number(plant.dt)}"
    return system_name(plant) or type(plant).__name__


def system_name(plant: Any) -> str:
    """The name in the record of a system; of a flow made a map, of the flow; "" without one."""
    plant = plant.flow if isinstance(plant, Discretized) else plant
    return plant.record.name if isinstance(plant, SystemFlow | SystemMap) else ""


def parameters(plant: Any) -> list[tuple[str, float]]:
    """The parameters of a system of the database, or the numbers among the fields of any other plant."""
    own = plant.parameters if isinstance(plant, SystemFlow | SystemMap) else vars(plant)
    return [(name, float(value)) for name, value in own.items() if np.ndim(value) == 0 and _is_number(value)]


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool | str) and np.asarray(value).dtype.kind in "iuf"


def controller(policy: Any) -> str:
    """The formula of a controller, or the class of one that is not known here."""
    if isinstance(policy, SaturatedLinear):
        return "u = clip(rest − K (x − goal), low, high)"
    if isinstance(policy, NeuralPolicy):
        linear = " − K (x − goal)" if np.any(policy.K) else ""
        return f"u = clip(net(x) − net(goal) + rest{linear}, low, high)"
    return "u = net(x)" if isinstance(policy, Network) else "none" if policy is None else type(policy).__name__


def layers(view: CertificateView, net: Network) -> str:
    """The sizes of the layers, and where the numbers are."""
    sizes = " → ".join(str(size) for size in (net.W[0].shape[1], *(len(W) for W in net.W)))
    kept = "; its numbers are in the certificate file" if view.proof.proved else ""
    return f"layers of {sizes}, {net.activation} between them{kept}"


def kind(side: Side) -> str:
    """The kind of function; of a formula, the formula."""
    if isinstance(side.V, SymbolicLyapunov):
        return f"{side.V.text}, in deviations from the goal"
    name = type(side.V).__name__
    return "quadratic" if isinstance(side.V, QuadraticLyapunov) else name.removesuffix("Lyapunov") or name


def matrix(view: CertificateView, values: Any) -> str:
    """The rows of a matrix, rounded; of a large one its size. A proof that failed leaves no certificate file."""
    values, kept = np.asarray(values), view.proof.proved
    if values.size > ENTRIES:
        return f"{' × '.join(str(size) for size in values.shape)}{', in the certificate file' if kept else ''}"
    rows = "; ".join(", ".join(number(value, 5) for value in row) for row in values)
    return f"[{rows}] (rounded{'; in full in the certificate file' if kept else ''})"


def point(view: CertificateView, state: np.ndarray, digits: int = 4) -> str:
    """A state with the names of its coordinates."""
    shown = ", ".join(f"{name} = {number(value, digits)}" for name, value in zip(view.names[:MOST], state, strict=False))
    return f"({shown}{', …' if len(view.names) > MOST else ''})"


def vector(values: np.ndarray, digits: int = 4) -> str:
    """Plain numbers in brackets."""
    return f"({', '.join(number(value, digits) for value in values[:MOST])}{', …' if len(values) > MOST else ''})"


def interval(low: float, high: float, digits: int = 4) -> str:
    """[low, high]."""
    return f"[{number(low, digits)}, {number(high, digits)}]"


def with_error(value: float, error: float) -> str:
    """value ± error, without an error of 0."""
    if not (error > 0 and np.isfinite(error)):
        return number(value, 5)
    places = 1 - int(np.floor(np.log10(error)))  # two digits of the error
    return f"{number(round(value, places), max(1, 2 + _digits(value, error)))} ± {number(error, 2)}"


def _digits(value: float, error: float) -> int:
    """How many digits the value has before the first of the error."""
    return int(np.floor(np.log10(abs(value))) - np.floor(np.log10(error))) if value else 0


def what_volume(n: int) -> str:
    """What the volume of n dimensions is called."""
    return {1: "length", 2: "area"}.get(n, "volume" if n == 3 else f"{n}-dimensional volume")


def percent(share: float) -> str:
    """A share in percent."""
    return f"{number(100 * share)} %"

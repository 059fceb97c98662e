"""Linear-quadratic regulators: finite and infinite horizon, time-varying, discrete and continuous; the best linear feedback u = -K x.

    discrete     x[t+1] = A x[t] + B u[t],   J = sum_t x'Qx + u'Ru + 2 x'Nu  (+ x'Q_T x at the end)
    continuous   dx/dt = A x + B u,          J = int x'Qx + u'Ru + 2 x'Nu dt

The cost-to-go is x'Px, with P from the Riccati recursion or equation. Sources: Anderson & Moore, Optimal Control (1990), secs. 2 and 3;
Bertsekas, Dynamic Programming and Optimal Control I, 4th ed. (2017), sec. 3.1.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from dynsys.dynamics import AbstractFlow, AbstractMap
from dynsys.errors import InvalidValue
from dynsys.precision import x64


class LQR(eqx.Module):
    """Gains and cost-to-go of a stationary regulator: u = -K x, K (K, M); P (M, M); eigenvalues of the closed loop (M,)."""

    K: Float[np.ndarray, "K M"]
    P: Float[np.ndarray, "M M"]
    eigenvalues: Complex[np.ndarray, " M"]


class TimeVaryingLQR(eqx.Module):
    """Gains K (T, K, M) and costs-to-go P (T + 1, M, M): u[t] = -K[t] x[t]."""

    K: Float[Array, "T K M"]
    P: Float[Array, "S M M"]


def lqr(A: Any, B: Any, Q: Any, R: Any, N: Any = None, *, continuous: bool = False) -> LQR:
    """The regulator of an infinite horizon, for constant A (M, M), B (M, K), Q (M, M), R (K, K), N (M, K).

    Raises InvalidValue for shapes that do not fit, R that is not positive definite, or if no stabilising gain exists, with the
    eigenvalue that no input reaches.
    """
    from scipy.linalg import LinAlgError, solve_continuous_are, solve_discrete_are

    A, B, Q, R, N = _checked(A, B, Q, R, N)
    stuck = unreachable(A, B, continuous=continuous)
    if len(stuck):
        raise InvalidValue(
            f"lqr: no gain stabilises this system: its mode with eigenvalue {complex(stuck[0]):.4g} is not stable and no input reaches it. "
            "Add an input that does, or leave that state out."
        )
    try:
        P = (solve_continuous_are if continuous else solve_discrete_are)(A, B, Q, R, s=N)
    except (LinAlgError, ValueError) as error:
        raise InvalidValue(
            f"lqr: the Riccati equation has no stabilising solution ({error}). Is Q at least positive semidefinite, and does it see every "
            "mode on the border of stability?"
        ) from None
    K = np.linalg.solve(R, B.T @ P + N.T) if continuous else np.linalg.solve(R + B.T @ P @ B, B.T @ P @ A + N.T)
    return LQR(K, P, np.linalg.eigvals(A - B @ K).astype(complex))  # pyright: ignore[reportCallIssue]


def unreachable(A: Any, B: Any, *, continuous: bool = False, tolerance: float = 1e-9) -> Complex[np.ndarray, " S"]:
    """Eigenvalues of A that are not stable and that no input moves (Hautus test), (S,)."""
    A, B = np.asarray(A, float), np.asarray(B, float)
    found = []
    for value in np.linalg.eigvals(A):
        unstable = value.real >= -tolerance if continuous else abs(value) >= 1 - tolerance
        pencil = np.concatenate([value * np.eye(len(A)) - A, B], axis=1)
        scale = max(1.0, float(np.abs(pencil).max()))
        if unstable and np.linalg.svd(pencil, compute_uv=False)[-1] < tolerance * scale:
            found.append(value)
    return np.array(found, complex)


def lqr_of(system: AbstractMap | AbstractFlow, z: Any, u: Any, Q: Any, R: Any, N: Any = None) -> LQR:
    """The regulator of a map or a flow linearised at the equilibrium (z, u), for deviations from it; in float64.

    Raises InvalidValue if it is no equilibrium, and as `lqr`.
    """
    with x64():
        z, u = jnp.asarray(z, float), jnp.asarray(u, float)
        if isinstance(system, AbstractFlow):
            off = system.field(0.0, z, u)
            A, B = jax.jacfwd(lambda x: system.field(0.0, x, u))(z), jax.jacfwd(lambda v: system.field(0.0, z, v))(u)
        else:
            off = system.step(z, u) - z
            A, B = jax.jacfwd(lambda x: system.step(x, u))(z), jax.jacfwd(lambda v: system.step(z, v))(u)
    miss = float(np.max(np.abs(off)))
    if not miss <= 1e-6 * max(1.0, float(np.max(np.abs(z)))):
        raise InvalidValue(
            f"lqr_of: (z, u) is no equilibrium: the state moves by {miss:.2g} there. Give one, such as a fixed point of the model."
        )
    return lqr(A, B, Q, R, N, continuous=isinstance(system, AbstractFlow))


def time_varying_lqr(
    A: Float[Any, "T M M"], B: Float[Any, "T M K"], Q: Float[Any, "T M M"], R: Float[Any, "T K K"], final: Float[Any, "M M"]
) -> TimeVaryingLQR:
    """The regulator of a finite horizon; all matrices may change with t, and `final` weighs x[T]."""

    def back(P: Array, now: Any) -> tuple[Array, tuple[Array, Array]]:
        A, B, Q, R = now
        K = jnp.linalg.solve(R + B.T @ P @ B, B.T @ P @ A)
        left = A - B @ K
        P = Q + K.T @ R @ K + left.T @ P @ left  # the form of Joseph: symmetric and positive whatever the rounding
        return P, (K, P)

    A, B, Q, R, final = (jnp.asarray(x) for x in (A, B, Q, R, final))
    _, (K, P) = jax.lax.scan(back, final, (A, B, Q, R), reverse=True)
    return TimeVaryingLQR(K, jnp.concatenate([P, final[None]]))  # pyright: ignore[reportCallIssue]


def finite_lqr(A: Any, B: Any, Q: Any, R: Any, final: Any, steps: int) -> TimeVaryingLQR:
    """The regulator of `steps` steps of a constant system."""
    A, B, Q, R, _ = _checked(A, B, Q, R, None)
    with x64():
        repeat = (jnp.broadcast_to(x, (steps, *x.shape)) for x in (A, B, Q, R))
        return time_varying_lqr(*repeat, jnp.asarray(final, float))  # pyright: ignore[reportCallIssue]


def continuous_lqr(A: Any, B: Any, Q: Any, R: Any, final: Any, times: Any, substeps: int = 20) -> TimeVaryingLQR:
    """The regulator of a finite horizon in continuous time: gains and costs-to-go at `times` (T + 1,), by the Riccati ODE backwards (RK4).

    -dP/dt = A'P + PA - PB R^-1 B'P + Q, P(times[-1]) = final. K has one row fewer than P: the last gain is that of `final`.
    """
    A, B, Q, R, _ = _checked(A, B, Q, R, None)
    with x64():
        A, B, Q, final = (jnp.asarray(x, float) for x in (A, B, Q, final))
        weight = jnp.asarray(B @ np.linalg.solve(R, np.asarray(B).T))
        clock = jnp.asarray(times, float)

        def rate(P: Array) -> Array:
            return A.T @ P + P @ A - P @ weight @ P + Q

        def back(P: Array, span: Array) -> tuple[Array, Array]:
            h = span / substeps

            def one(P: Array, _: None) -> tuple[Array, None]:
                a = rate(P)
                b = rate(P + h / 2 * a)
                c = rate(P + h / 2 * b)
                return P + h / 6 * (a + 2 * b + 2 * c + rate(P + h * c)), None

            P = jax.lax.scan(one, P, None, length=substeps)[0]
            return P, P

        _, P = jax.lax.scan(back, final, jnp.diff(clock), reverse=True)
        P = jnp.concatenate([P, final[None]])
        K = jnp.linalg.solve(jnp.asarray(R)[None], jnp.einsum("mk,tmn->tkn", B, P[:-1]))
        return TimeVaryingLQR(K, P)  # pyright: ignore[reportCallIssue]


def _checked(A: Any, B: Any, Q: Any, R: Any, N: Any) -> tuple[np.ndarray, ...]:
    A, B, Q, R = (np.asarray(x, float) for x in (A, B, Q, R))
    N = np.zeros(B.shape) if N is None else np.asarray(N, float)
    m, k = (A.shape[0], B.shape[1]) if A.ndim == B.ndim == 2 else (0, 0)
    if not m or [x.shape for x in (A, B, Q, R, N)] != [(m, m), (m, k), (m, m), (k, k), (m, k)]:
        shapes = ", ".join(f"{name} {x.shape}" for name, x in zip("ABQRN", (A, B, Q, R, N), strict=True))
        raise InvalidValue(f"lqr: wants A (M, M), B (M, K), Q (M, M), R (K, K), N (M, K); got {shapes}.")
    if not all(np.isfinite(x).all() for x in (A, B, Q, R, N)):
        raise InvalidValue("lqr: a matrix holds NaN or inf.")
    if np.linalg.eigvalsh((R + R.T) / 2)[0] <= 0:
        raise InvalidValue("lqr: R must be positive definite: every input costs something. Its smallest eigenvalue is not above 0.")
    return A, B, Q, R, N

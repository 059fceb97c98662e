"""The forced run of a model along a batch, with a hand-made reverse pass: the hot loop of training.

    z[0] = lift(x[0]),   z[t+1] = step(force(z[t], x[t]), u[t])

Reverse mode through `lax.scan` adds a gradient the size of all parameters at every time step. Here the scan backwards in
time carries only the adjoint of the state; the parameters' gradient then is summed over all T*B points, a block of BLOCK
points in one product. It is the same sum in another order, for any model, without a line of code per model. A free run of a model
whose orbits are faster than their steps (`parallel`) is that orbit instead.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from dynsys.dynamics import AbstractMap
from dynsys.train.forcing import AbstractForcing, FreeRunning

BLOCK = 128  # points (time steps times windows) in one product: 8 steps of 16 windows stay in the cache of one core
Drive = tuple[Array, Array, Array, Array | None]  # strength (), t (T-1,), x (T-1, B, N), u (T-1, B, K)


def forced_run(
    model: AbstractMap,
    forcing: AbstractForcing,
    strength: Float[Array, ""],
    xs: Float[Array, "T B N"],
    us: Float[Array, "T B K"] | None = None,
) -> Float[Array, "T B M"]:
    """States z[0..T-1] of a batch of windows under teacher forcing; differentiable by the model's parameters.

    The series, the inputs and the strength get no gradient.
    """
    model = model.prepared()
    if model.parallel and isinstance(forcing, FreeRunning):
        return _free_run(model, xs, us)
    params, static = eqx.partition(model, eqx.is_inexact_array)
    steps = xs.shape[0] - 1

    def advance(params, z, t, x, u, strength):
        whole = eqx.combine(params, static)
        return whole.step(forcing.apply(whole, z, x, t, strength), u)

    batch_axes = (None, 0, None, 0, None if us is None else 0, None)
    batched = jax.vmap(advance, batch_axes)

    @jax.custom_vjp
    def run(params, z, drive: Drive):
        return forward(params, z, drive)[0]

    def forward(params, z, drive: Drive):
        strength, ts, xs, us = drive

        def body(z, step):
            t, x, u = step
            z = batched(params, z, t, x, u, strength)
            return z, z

        zs = jax.lax.scan(body, z, (ts, xs, us))[1]
        return zs, (params, z, zs, drive)

    def backward(kept, cotangents):
        params, z0, zs, (strength, ts, xs, us) = kept
        before = jnp.concatenate([z0[None], zs[:-1]])

        def body(adjoint, step):
            z, cotangent, t, x, u = step
            adjoint = adjoint + cotangent
            pull = jax.vjp(lambda z: batched(params, z, t, x, u, strength), z)[1]
            return pull(adjoint)[0], adjoint

        first, adjoints = jax.lax.scan(body, jnp.zeros_like(z0), (before, cotangents, ts, xs, us), reverse=True)
        ts = jnp.broadcast_to(ts[:, None], before.shape[:2])
        return parameter_gradient(params, adjoints, (before, ts, xs, us), strength), first, None

    def parameter_gradient(params, adjoints, points, strength):
        steps, batch = adjoints.shape[:2]
        length = -(-steps // -(-steps * batch // BLOCK))  # steps in a block: blocks as equal as can be
        blocks = _blocks(adjoints, length, mode="constant"), jax.tree.map(lambda rows: _blocks(rows, length, mode="edge"), points)
        everywhere = jax.vmap(advance, (None, 0, 0, 0, None if us is None else 0, None))

        def add(total, block):
            adjoint, (z, t, x, u) = jax.tree.map(lambda rows: rows.reshape(-1, *rows.shape[2:]), block)
            pull = jax.vjp(lambda params: everywhere(_turned(params), z, t, x, u, strength), params)[1]
            return jax.tree.map(jnp.add, total, pull(adjoint)[0]), None

        return jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), blocks)[0]

    run.defvjp(forward, backward)
    start = jax.vmap(model.lift)(xs[0])
    ts = jnp.arange(steps)
    zs = run(params, start, (strength, ts, xs[:-1], None if us is None else us[:-1]))
    return jnp.concatenate([start[None], zs])


def _free_run(model: AbstractMap, xs: Float[Array, "T B N"], us: Float[Array, "T B K"] | None) -> Float[Array, "T B M"]:
    start, steps = jax.vmap(model.lift)(xs[0]), xs.shape[0] - 1
    us = None if us is None else us[:-1]
    zs = jax.vmap(lambda z, u: model.orbit(z, steps, u), (0, None if us is None else 1), 1)(start, us)
    return jnp.concatenate([start[None], zs])


def _blocks(rows: Array, length: int, mode: str) -> Array:
    """(T, ...) -> (blocks, length, ...), the last block filled up."""
    rows = jnp.pad(rows, [(0, -len(rows) % length)] + [(0, 0)] * (rows.ndim - 1), mode=mode)
    return rows.reshape(-1, length, *rows.shape[1:])


def _turned(params: PyTree) -> PyTree:
    """The same parameters; the gradient of a tall matrix is formed as z^T g, not g^T z.

    XLA's CPU product takes 0.13 ms for the one and 0.7 ms for the other (784 points, H = 512, M = 16); the barrier keeps it
    from turning the product back.
    """
    tall = lambda leaf: leaf.ndim == 2 and leaf.shape[0] > leaf.shape[1]  # noqa: E731
    return jax.tree.map(lambda leaf: jax.lax.optimization_barrier(leaf.T).T if tall(leaf) else leaf, params)

"""Kernel → Kernel: `repeat` (scan), `minibatches`, `population` (vmap), `shard` (jit + mesh).

They know nothing of RLHF. A learner, a population of learners and a sharded population have
the same type, so what is tested on one holds for all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from rlhf_jax.mesh import spread
from rlhf_jax.types import Array, Kernel, Key, Metrics, State


def repeat(kernel: Kernel, n: int) -> Kernel:
    """`n` steps on one batch in one call. Metrics gain a leading axis [n].

    Each step must draw what differs between steps from its state.
    """

    def step(state: State, batch: Any) -> tuple[State, Metrics]:
        return jax.lax.scan(lambda s, _: kernel.step(s, batch), state, length=n)

    return Kernel(kernel.init, step)


def minibatches(
    kernel: Kernel, size: int, position: Callable[[State], tuple[Key, Array]], steps: int
) -> Kernel:
    """`steps` steps in one call on slices of a whole dataset: (data, filled). Metrics gain [steps].

    `data` is a pytree with leading axis [N]; its first `filled` rows (int32) count. Step k
    takes the k-th slice of `size` rows of this epoch's permutation; an epoch is
    filled // size steps. `position` reads (key, step) from the state: the permutation is
    drawn from fold_in(fold_in(key, filled), epoch), so it differs between epochs, keys, seeds
    and fillings. Start from step 0 when `filled` changes, else a pass begins in mid-epoch.
    """

    def step(state: State, batch: tuple[Any, Array]) -> tuple[State, Metrics]:
        data, filled = batch
        n = jax.tree.leaves(data)[0].shape[0]
        per_epoch = jnp.maximum(filled // size, 1)

        def deal(state: State) -> Array:
            key, k = position(state)
            key = jax.random.fold_in(jax.random.fold_in(key, filled), k // per_epoch)
            order = jax.random.uniform(key, (n,))
            return jnp.argsort(jnp.where(jnp.arange(n) < filled, order, 2.0))

        def one(carry: tuple[State, Array], i: Array) -> tuple[tuple[State, Array], Metrics]:
            state, order = carry
            _, k = position(state)
            # In turn (`map`) the table is sorted once an epoch; under vmap XLA sorts every step.
            anew = (k % per_epoch == 0) & (i > 0)
            order = jax.lax.cond(anew, deal, lambda _: order, state)
            rows = jax.lax.dynamic_slice(order, ((k % per_epoch) * size,), (size,))
            state, metrics = kernel.step(state, spread(jax.tree.map(lambda x: x[rows], data)))
            return (state, order), metrics

        (state, _), metrics = jax.lax.scan(one, (state, deal(state)), jnp.arange(steps))
        return state, metrics

    return Kernel(kernel.init, step)


def population(kernel: Kernel, *, by: str = "vmap", batch_axes: Any = 0) -> Kernel:
    """Every argument and result gains a leading axis of seeds, hyper-parameters or people.

    `by` says how one device runs its members: "vmap" at once, "map" in turn (lax.map), which
    is faster and smaller where one member already fills the machine, as on a CPU.
    `batch_axes` is a prefix of the batch: None where all members share a leaf.
    """

    def step(state: State, batch: Any) -> tuple[State, Metrics]:
        if by == "vmap":
            return jax.vmap(kernel.step, in_axes=(0, batch_axes))(state, batch)
        split, join = _split(batch, batch_axes)
        return jax.lax.map(lambda sb: kernel.step(sb[0], join(sb[1])), (state, split))

    return Kernel(lambda *args: jax.vmap(kernel.init)(*args), step)


def _split(batch: Any, axes: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """The leaves of `batch` that carry the population axis, and how to put them back."""
    leaves, tree = jax.tree.flatten(batch)
    which = [a is not None for a in broadcast_prefix(axes, batch)]
    carried = [x for x, w in zip(leaves, which, strict=True) if w]

    def join(mine: list[Any]) -> Any:
        it = iter(mine)
        return jax.tree.unflatten(
            tree, [next(it) if w else x for x, w in zip(leaves, which, strict=True)]
        )

    return carried, join


def broadcast_prefix(prefix: Any, tree: Any) -> list[Any]:
    """One entry of `prefix` for every leaf of `tree`."""
    none = lambda x: x is None
    out: list[Any] = []
    jax.tree.map(
        lambda p, sub: out.extend([p] * len(jax.tree.leaves(sub))), prefix, tree, is_leaf=none
    )
    return out


def shard(kernel: Kernel, mesh: Mesh, *, batch_axes: Any = 0) -> Kernel:
    """A population kernel, compiled, its members laid over the mesh axis 'seed'.

    Members never communicate, so 'seed' is manual; 'data' is left to the compiler, which
    follows `mesh.spread`. The state is donated.
    """

    def step(state: State, batch: Any) -> tuple[State, Metrics]:
        axes = broadcast_prefix(batch_axes, batch)
        specs = [P() if a is None else P("seed") for a in axes]
        mapped = jax.shard_map(
            kernel.step,
            mesh=mesh,
            in_specs=(P("seed"), jax.tree.unflatten(jax.tree.structure(batch), specs)),
            out_specs=P("seed"),
            axis_names={"seed"},
            check_vma=False,
        )
        return mapped(state, batch)

    # Said, so that a state lies as it did at its start: after a resume no program is another.
    over = NamedSharding(mesh, P("seed"))
    compiled = jax.jit(step, donate_argnums=0, out_shardings=over)
    start = jax.jit(kernel.init, out_shardings=over)

    def run(state: State, batch: Any) -> tuple[State, Metrics]:
        with jax.set_mesh(mesh):
            return compiled(state, batch)

    return Kernel(start, run)

"""Which devices hold what: a ('seed', 'data') mesh, and the one constraint kernels state.

Seeds are independent, so 'seed' carries no communication; 'data' splits a batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import jax
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P

T = TypeVar("T")


def population_mesh(seeds: int, devices: Sequence[jax.Device]) -> Mesh:
    """As many devices along 'seed' as divide `seeds`, the rest along 'data'."""
    along_seed = math.gcd(seeds, len(devices))
    return jax.make_mesh(
        (along_seed, len(devices) // along_seed),
        ("seed", "data"),
        axis_types=(AxisType.Auto, AxisType.Auto),
        devices=devices,
    )


def spread(tree: T) -> T:
    """Lays the leading axis of every leaf over the mesh axis 'data'.

    The identity without a mesh, or where the axis does not divide the leaf.
    """
    mesh = jax.sharding.get_abstract_mesh()
    n = mesh.shape.get("data", 1)
    if n == 1:
        return tree

    def one(x: jax.Array) -> jax.Array:
        if x.ndim == 0 or x.shape[0] % n:
            return x
        spec = P("data", *[P.UNCONSTRAINED] * (x.ndim - 1))
        return jax.lax.with_sharding_constraint(x, spec)

    return jax.tree.map(one, tree)

"""What the beginning of a string promises: the mean over the known strings that begin so."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.types import Array

NOWHERE, ROOT = 0, 1


class Tree(NamedTuple):
    """The tree of all prefixes of some strings: node 0 is nowhere, node 1 the empty prefix."""

    child: np.ndarray
    """[nodes, V] int32, 0 where no string goes on so"""
    mean: np.ndarray
    """[nodes] float32, over the strings that begin so"""


def tree(tokens: np.ndarray, real: np.ndarray, values: np.ndarray, symbols: int) -> Tree:
    """tokens [N, T] int, real [N, T] bool (a beginning of each row), values [N] → `Tree`.

    Nodes are the prefixes themselves, so no two are ever taken for each other.
    """
    at = np.full(len(tokens), ROOT)
    edges, means, nodes = [], [np.zeros(1), values.mean(keepdims=True)], ROOT + 1
    for t in range(tokens.shape[1]):
        here = real[:, t]
        edge, which = np.unique(at[here] * symbols + tokens[here, t], return_inverse=True)
        at[here] = nodes + which
        edges.append(edge)
        means.append(np.bincount(which, values[here]) / np.bincount(which))
        nodes += len(edge)
    child = np.full(nodes * symbols, NOWHERE, np.int32)
    child[np.concatenate(edges)] = np.arange(ROOT + 1, nodes)
    return Tree(child.reshape(nodes, symbols), np.concatenate(means).astype(np.float32))


def promises(tree: Tree, tokens: Array, mask: Array, otherwise: Array) -> Array:
    """[T] int, [T] bool → [T]: the mean of the strings that begin with tokens[:t + 1].

    `otherwise` where none does, and behind the first token that is not real.
    """
    child, mean = jnp.asarray(tree.child), jnp.asarray(tree.mean)

    def walk(node: Array, x: tuple[Array, Array]) -> tuple[Array, Array]:
        token, real = x
        node = jnp.where(real, child[node, token], NOWHERE)
        return node, node

    _, nodes = jax.lax.scan(walk, jnp.asarray(ROOT, jnp.int32), (tokens, mask))
    return jnp.where(nodes > NOWHERE, mean[nodes], otherwise)

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

    edges: np.ndarray
    """[E] int32, ascending: node · V + symbol; the i-th leads to node i + 2"""
    mean: np.ndarray
    """[E + 2] float32, over the strings that begin so"""
    symbols: int
    """V"""


def tree(tokens: np.ndarray, real: np.ndarray, values: np.ndarray, symbols: int) -> Tree:
    """tokens [N, T] int, real [N, T] bool (a beginning of each row), values [N] → `Tree`."""
    at = np.full(len(tokens), ROOT)
    edges, means, nodes = [], [np.zeros(1), values.mean(keepdims=True)], ROOT + 1
    for t in range(tokens.shape[1]):
        here = real[:, t]
        edge, which = np.unique(at[here] * symbols + tokens[here, t], return_inverse=True)
        at[here] = nodes + which
        edges.append(edge)
        means.append(np.bincount(which, values[here]) / np.bincount(which))
        nodes += len(edge)
    # Ascending, because nodes are numbered as their edges are found.
    return Tree(
        np.concatenate(edges).astype(np.int32), np.concatenate(means).astype(np.float32), symbols
    )


def promises(tree: Tree, tokens: Array, mask: Array, otherwise: Array | float) -> Array:
    """[T] int, [T] bool → [T]: the mean of the strings that begin with tokens[:t + 1].

    `otherwise` where none does, and behind the first token that is not real. Nodes are
    prefixes themselves, so that none is ever taken for another.
    """
    edges, mean = jnp.asarray(tree.edges), jnp.asarray(tree.mean)

    def walk(node: Array, x: tuple[Array, Array]) -> tuple[Array, Array]:
        token, real = x
        edge = node * tree.symbols + token
        i = jnp.searchsorted(edges, edge)
        # Behind the last edge an index reads one that is smaller, so not equal.
        node = jnp.where(real & (edges[i] == edge), i + ROOT + 1, NOWHERE)
        return node, node

    _, nodes = jax.lax.scan(walk, jnp.asarray(ROOT, jnp.int32), (tokens, mask))
    return jnp.where(nodes > NOWHERE, mean[nodes], otherwise)

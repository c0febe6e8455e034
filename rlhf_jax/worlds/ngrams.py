"""A reward model of character n-grams, fitted to all the ratings, that plays the person.

People rated some thousand words; a model of them has an opinion on every string, so that gold
is known and smooth where a policy goes astray, and a proxy can be held against it (Gao,
Schulman & Hilton 2022, arXiv 2210.10760). With G(x) the set of n-grams (n ≤ 5) of the string
x between its boundary marks,

    u(x) = b + Σ_{g ∈ G(x)} w_g / √|G(x)|,    b the mean rating of all words,
    w = argmin Σ_i (ȳ_i − u(x_i))² + λ ‖w‖²,

which is kernel ridge regression with the cosine |G ∩ G'| / √(|G| |G'|) of two sets. A set, so
that repeating an n-gram adds nothing; √|G|, so that |u − b| ≤ ‖w‖ on every string, while good
stems side by side still beat each of them: the best strings are no words and worth more than
any, so there is something to over-optimise. Of what was tried it also predicts unseen words
best. Share of their variance that is explained, five folds, λ the best for each, by divisor:
0.737 (√|G|), 0.731 (none), 0.721 (|G|); by the longest n: 0.609 (3), 0.718 (4), 0.737 (5),
0.738 (6). Leaving out one word at a time, exactly: 0.766, correlation 0.875; what is there to
be explained, given the noise of a mean of ten ratings: 0.963.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, cg

from rlhf_jax.types import Array
from rlhf_jax.worlds import lexicon
from rlhf_jax.worlds.spelling import BOS, EOS, PAD, encode

LONGEST = 5
BITS = 5
"""Of a symbol in the number of an n-gram: LONGEST × BITS must stay below 31."""
PENALTIES = (0.025, 0.05, 0.1)
FOLDS = 5


class Model(NamedTuple):
    """What every n-gram of the rated words is worth."""

    codes: np.ndarray
    """[M] int32, ascending: the n-grams; `grams` says how they are numbered"""
    weights: np.ndarray
    """[M] float32; an n-gram that is not there is worth 0"""
    intercept: np.float32
    facts: dict[str, Any]


def grams(tokens: Array, mask: Array) -> Array:
    """[T], [T] → [T, LONGEST] int32: the n-gram of each length that ends on each token.

    Its number is Σ_i s_i 32^(n−1−i) over its symbols s, BOS first among them; 0 where there is
    none, where it already stood in the string, and for EOS alone, which says nothing. So the
    numbers above 0 in rows 0…t are the set of n-grams of tokens[:t + 1].
    """
    s = jnp.concatenate([jnp.full((1,), BOS, jnp.int32), jnp.where(mask, tokens, PAD)])
    # PAD is 0: n-grams of one length are numbered apart from those of every other.
    code = jnp.where(s == EOS, PAD, s)
    of_each_length = [code]
    for n in range(1, LONGEST):
        first = jnp.concatenate([jnp.zeros((n,), jnp.int32), s[:-n]])[: len(s)]
        shorter = s if n == 1 else of_each_length[-1]
        there = (first > PAD) & (shorter > PAD)
        of_each_length.append(jnp.where(there, shorter + (first << (BITS * n)), PAD))
    codes = jnp.stack(of_each_length, axis=1)[1:]
    earlier = np.tri(tokens.shape[-1], k=-1, dtype=bool)[:, :, None]
    again = jnp.any((codes[:, None] == codes[None]) & earlier, axis=1)
    return jnp.where(again, PAD, codes)


def values(model: Model, tokens: Array, mask: Array) -> Array:
    """[T], [T] → [T] float32: u(tokens[:t + 1]), the prefix as it stands.

    Behind the end it stays what it was.
    """
    codes = grams(tokens, mask)
    at = jnp.clip(jnp.searchsorted(model.codes, codes), 0, len(model.codes) - 1)
    known = jnp.asarray(model.codes)[at] == codes
    worth = jnp.cumsum(jnp.sum(jnp.where(known, jnp.asarray(model.weights)[at], 0.0), axis=1))
    size = jnp.cumsum(jnp.sum(codes > PAD, axis=1)).astype(jnp.float32)
    return model.intercept + worth / jnp.sqrt(jnp.maximum(size, 1.0))


def ridge(x: sparse.csr_matrix, y: np.ndarray, penalty: float, tolerance: float) -> np.ndarray:
    """argmin_w ‖y − x w‖² + λ ‖w‖² = xᵀ (x xᵀ + λ)⁻¹ y, by conjugate gradients, float64.

    There are fewer words than n-grams, and too many of either for a factorisation.
    """
    kernel = LinearOperator((len(y), len(y)), lambda v: x @ (x.T @ v) + penalty * v)
    weights: np.ndarray = x.T @ cg(kernel, y, rtol=tolerance)[0]
    return weights


def unseen(x: sparse.csr_matrix, y: np.ndarray, penalty: float) -> np.ndarray:
    """[N]: each row's value according to the other folds."""
    fold = np.random.default_rng(0).permutation(len(y)) % FOLDS
    out = np.zeros(len(y))
    for k in range(FOLDS):
        mean = y[fold != k].mean()
        w = ridge(x[fold != k], y[fold != k] - mean, penalty, 1e-3)
        out[fold == k] = mean + x[fold == k] @ w
    return out


@functools.cache
def fitted() -> Model:
    """The model of all rated words, λ chosen by cross-validation. No chance in it."""
    words, ratings, _ = lexicon.read()
    tokens = encode(words, max(map(len, words)) + 1)
    found = np.asarray(jax.jit(jax.vmap(grams))(tokens, tokens != PAD)).reshape(len(words), -1)
    row, _ = np.nonzero(found)
    codes, column = np.unique(found[found > PAD], return_inverse=True)
    size = np.bincount(row)
    x = sparse.csr_matrix((1 / np.sqrt(size[row]), (row, column)))
    y = ratings.astype(np.float64).mean(axis=1)
    share = lambda guess: 1 - np.mean(np.square(y - guess)) / y.var()
    guesses = {penalty: unseen(x, y, penalty) for penalty in PENALTIES}
    penalty = max(PENALTIES, key=lambda p: share(guesses[p]))
    w = ridge(x, y - y.mean(), penalty, 1e-8)
    facts = {
        "gold": "a ridge regression of the mean ratings of all rated words on their character "
        f"n-grams (n ≤ {LONGEST}) plays the person; it has a value for every string",
        "gold_ngrams": len(codes),
        "gold_penalty": penalty,
        "gold_r2_in_sample": round(float(share(y.mean() + x @ w)), 4),
        "gold_r2_unseen_words": round(float(share(guesses[penalty])), 4),
        "gold_correlation_unseen_words": round(float(np.corrcoef(guesses[penalty], y)[0, 1]), 4),
    }
    return Model(codes.astype(np.int32), w.astype(np.float32), np.float32(y.mean()), facts)

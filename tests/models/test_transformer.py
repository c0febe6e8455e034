"""The transformer against its equations, written out in numpy."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import LANGUAGE, sharp

from rlhf_jax.config import Model
from rlhf_jax.models import heads
from rlhf_jax.models.transformer import (
    Attention,
    RMSNorm,
    SwiGLU,
    Transformer,
    empty_cache,
)
from rlhf_jax.models.transformer import attend as plain_attend
from rlhf_jax.models.transformer import rope as plain_rope

attend, rope = jax.jit(plain_attend), jax.jit(plain_rope)

SHAPE = Model(width=16, layers=2, heads=2, kv_heads=1, mlp=32)
RNG = np.random.default_rng(0)


def normal(*shape: int) -> jax.Array:
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def trunk(shape: Model = SHAPE, vocabulary: int = 7) -> tuple[Transformer, dict]:
    module = Transformer(shape, vocabulary)
    one = jnp.zeros((1, 1), jnp.int32)
    params = jax.jit(module.init)(jax.random.key(0), one, one, one == 0)["params"]
    return module, sharp(nn.meta.unbox(params))


def test_smollm2_135m_has_its_published_number_of_parameters():
    # Embedding 49152·576 = 28,311,552, tied. A layer: q and o 2·576², k and v 2·576·192,
    # SwiGLU 3·576·1536, two norms of 576: 3,540,096. Thirty of them and a last norm.
    shape = Model(width=576, layers=30, heads=9, kv_heads=3, mlp=1536, rope_theta=100_000.0)
    language = LANGUAGE._replace(
        symbols=tuple(map(str, range(49_152))), actions=np.ones(49_152, bool)
    )
    params = jax.eval_shape(heads.policy(shape, language).init, jax.random.key(0))
    count = sum(np.prod(x.shape, dtype=int) for x in jax.tree.leaves(params))
    assert count == 49_152 * 576 + 30 * 3_540_096 + 576 == 134_515_008


def test_every_parameter_names_each_of_its_axes():
    one = jnp.zeros((1, 1), jnp.int32)
    init = lambda: Transformer(SHAPE, 7).init(jax.random.key(0), one, one, one == 0)
    boxed = jax.tree.leaves(
        jax.eval_shape(init), is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned)
    )
    for box in boxed:
        assert isinstance(box, nn.LogicallyPartitioned)
        assert len(box.names) == box.value.ndim
        assert None not in box.names


# --- RoPE


def test_rope_turns_the_pair_i_and_i_plus_half_by_position_times_its_frequency():
    # D = 4, θ = 100: pair (0, 2) turns by p, pair (1, 3) by p · 100^(−1/2) = p / 10.
    p = 3.0
    x = jnp.asarray([1.0, 1.0, 0.0, 0.0]).reshape(1, 1, 1, 4)
    turned = rope(x, jnp.full((1, 1), 3), 100.0).reshape(4)
    np.testing.assert_allclose(
        turned, [np.cos(p), np.cos(p / 10), np.sin(p), np.sin(p / 10)], atol=1e-6
    )


def test_rope_at_position_zero_is_the_identity_and_elsewhere_keeps_lengths():
    x = normal(2, 5, 3, 8)
    np.testing.assert_array_equal(rope(x, jnp.zeros((2, 5), jnp.int32), 1e4), x)
    turned = rope(x, jnp.arange(10).reshape(2, 5), 1e4)
    np.testing.assert_allclose(
        jnp.linalg.norm(turned, axis=-1), jnp.linalg.norm(x, axis=-1), rtol=1e-5
    )


@pytest.mark.parametrize("theta", [10.0, 1e4, 1e5])
def test_rope_scores_depend_on_the_difference_of_positions_only(theta):
    q, k = normal(1, 1, 1, 8), normal(1, 1, 1, 8)

    def score(m: int, n: int) -> float:
        at = lambda i: jnp.full((1, 1), i)
        return float(jnp.sum(rope(q, at(m), theta) * rope(k, at(n), theta)))

    for m, n in ((0, 0), (5, 2), (2, 5), (9, 0)):
        assert score(m + 7, n + 7) == pytest.approx(score(m, n), abs=1e-4)
    assert abs(score(5, 2) - score(2, 5)) > 1e-3  # and it does depend on it


# --- attention


def test_attention_without_preference_is_the_mean_of_what_is_allowed():
    v = normal(1, 4, 2, 3)
    allowed = jnp.asarray([[[True, False, True, True]]])
    y = attend(jnp.zeros((1, 1, 2, 3)), normal(1, 4, 2, 3), v, allowed)
    np.testing.assert_allclose(y[0, 0], np.asarray(v)[0, [0, 2, 3]].mean(0), atol=1e-6)


def test_attention_divides_scores_by_the_root_of_the_head_width():
    # D = 4: q·k = 2 ln 3 for the first key and 0 for the second; /√4 leaves odds of 3 : 1.
    q = jnp.zeros((1, 1, 1, 4)).at[..., 0].set(2 * jnp.log(3.0))
    k = jnp.zeros((1, 2, 1, 4)).at[0, 0, 0, 0].set(1.0)
    v = jnp.asarray([[1.0, 0, 0, 0], [0, 1.0, 0, 0]]).reshape(1, 2, 1, 4)
    y = attend(q, k, v, jnp.ones((1, 1, 2), bool))
    np.testing.assert_allclose(y.reshape(4), [0.75, 0.25, 0, 0], atol=1e-6)


def test_grouped_attention_equals_full_attention_on_repeated_keys_and_values():
    q, k, v = normal(2, 3, 6, 4), normal(2, 5, 2, 4), normal(2, 5, 2, 4)
    allowed = jnp.asarray(RNG.random((2, 3, 5)) < 0.7).at[:, :, 0].set(True)
    many = lambda x: jnp.repeat(x, 3, axis=2)  # query heads 0, 1, 2 share the first
    np.testing.assert_allclose(
        attend(q, k, v, allowed), attend(q, many(k), many(v), allowed), atol=1e-6
    )


def test_attention_module_equals_sums_over_complex_rotations():
    # RoPE as multiplication by e^{i p ω} of z_i = x_i + i x_{i+D/2}; then
    # y_t = Σ_{s ≤ t} softmax_s(Re⟨q_t, k_s⟩ / √D) v_s, query head h reading key head h // 2.
    shape = Model(width=16, layers=1, heads=4, kv_heads=2, mlp=8, rope_theta=50.0)
    n, d = 5, 4
    x, positions = normal(1, n, 16), jnp.arange(n)[None]
    causal = jnp.tril(jnp.ones((n, n), bool))[None]
    module = Attention(shape)
    init, apply = jax.jit(module.init), jax.jit(module.apply)
    params = sharp(nn.meta.unbox(init(jax.random.key(1), x, positions, causal, None)["params"]))
    got, _ = apply({"params": params}, x, positions, causal, None)

    w = {name: np.asarray(params[name]["w"], np.float64) for name in "qkvo"}
    xs = np.asarray(x[0], np.float64)
    split = lambda name: (xs @ w[name]).reshape(n, -1, d)
    turn = lambda z: (
        z * np.exp(1j * np.arange(n)[:, None, None] * 50.0 ** (-np.arange(d // 2) / (d // 2)))
    )
    q, k = (turn(split(m)[..., :2] + 1j * split(m)[..., 2:]) for m in "qk")
    v, y = split("v"), np.zeros((n, 4, d))
    for h in range(4):
        for t in range(n):
            e = [np.exp((q[t, h] @ k[s, h // 2].conj()).real / np.sqrt(d)) for s in range(t + 1)]
            y[t, h] = np.asarray(e) @ v[: t + 1, h // 2] / np.sum(e)
    np.testing.assert_allclose(got[0], y.reshape(n, 16) @ w["o"], atol=2e-5)


# --- the other parts


def test_rms_norm_divides_by_the_root_mean_square():
    # mean(3², 4²) = 12.5
    module, x = RMSNorm(0.0), jnp.asarray([[3.0, 4.0]])
    params = {"params": {"scale": jnp.asarray([1.0, 10.0])}}
    np.testing.assert_allclose(
        module.apply(params, x), [[3 / np.sqrt(12.5), 40 / np.sqrt(12.5)]], rtol=1e-6
    )


def test_rms_norm_epsilon_stands_inside_the_root():
    x = jnp.full((1, 4), 1.0)
    params = {"params": {"scale": jnp.ones(4)}}
    np.testing.assert_allclose(RMSNorm(3.0).apply(params, x), np.full((1, 4), 0.5), rtol=1e-6)
    assert not RMSNorm(1e-5).apply(params, 0 * x).any()


def test_swiglu_gates_the_upward_projection():
    # (x W_gate · σ(x W_gate)) ⊙ (x W_up) W_down
    x = normal(2, 3, 16)
    module = SwiGLU(SHAPE)
    params = nn.meta.unbox(jax.jit(module.init)(jax.random.key(2), x)["params"])
    gate, up, down = (np.asarray(params[n]["w"], np.float64) for n in ("gate", "up", "down"))
    xs = np.asarray(x, np.float64)
    expected = ((xs @ gate) / (1 + np.exp(-xs @ gate)) * (xs @ up)) @ down
    got = jax.jit(module.apply)({"params": params}, x)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_a_layer_adds_attention_and_then_the_mlp_each_on_a_normed_input():
    # With W_o = W_down = 0 every layer is the identity: what is left is norm(embed[x]).
    module, params = trunk()
    for i in range(SHAPE.layers):
        for block, name in ((f"attention_{i}", "o"), (f"mlp_{i}", "down")):
            params[block][name]["w"] = jnp.zeros_like(params[block][name]["w"])
    tokens = jnp.asarray([[1, 5, 2]])
    x, table, _ = jax.jit(module.apply)({"params": params}, tokens, jnp.arange(3)[None], tokens > 0)
    e = np.asarray(table)[[1, 5, 2]]
    expected = e / np.sqrt((e * e).mean(-1, keepdims=True) + SHAPE.norm_eps)
    np.testing.assert_allclose(x[0], expected, atol=1e-5)


# --- what a position sees


@pytest.fixture(scope="module")
def run():
    module, params = trunk()
    apply = jax.jit(module.apply)

    def hidden(tokens, mask=None, cache=None, start=0):
        mask = np.ones(np.shape(tokens), bool) if mask is None else mask
        where = start + np.maximum(np.cumsum(mask, axis=1) - 1, 0)
        x, _, cache = apply({"params": params}, tokens, where, mask, cache)
        return np.asarray(x), cache

    return hidden


def test_no_position_sees_a_later_token(run):
    tokens = RNG.integers(0, 7, (1, 6))
    before, _ = run(tokens)
    for j in range(6):
        changed = tokens.copy()
        changed[0, j] = (changed[0, j] + 1) % 7
        moved = np.abs(run(changed)[0] - before)[0].max(-1)
        assert not moved[:j].any(), "an earlier position changed"
        assert (moved[j:] > 1e-4).all(), "the token itself or a later position is blind to it"


def test_left_padding_changes_nothing(run):
    tokens = RNG.integers(0, 7, (2, 4))
    alone, _ = run(tokens)
    for fill in (0, 3):
        padded = np.concatenate([np.full((2, 3), fill), tokens], axis=1)
        mask = np.arange(7)[None] >= np.full((2, 1), 3)
        np.testing.assert_allclose(run(padded, mask)[0][:, 3:], alone, atol=1e-5)


@pytest.mark.parametrize("chunks", [(1,) * 6, (4, 1, 1), (2, 4)])
def test_cached_decoding_equals_the_full_pass(run, chunks):
    tokens = RNG.integers(0, 7, (2, 6))
    full, _ = run(tokens)
    cache, at, out = empty_cache(SHAPE, 2, 6), 0, []
    for n in chunks:
        x, cache = run(tokens[:, at : at + n], cache=cache, start=at)
        out.append(x)
        at += n
    np.testing.assert_allclose(np.concatenate(out, axis=1), full, atol=1e-4)
    assert int(cache.filled) == 6
    assert np.asarray(cache.mask).all()


def test_the_cache_keeps_one_entry_a_key_head():
    cache = empty_cache(Model(width=32, layers=3, heads=4, kv_heads=2), 5, 7)
    assert [k.shape for k in cache.keys] == [(5, 7, 2, 8)] * 3


def test_collapsed_matmuls_give_each_row_of_a_batch_its_own_result(run):
    tokens = RNG.integers(0, 7, (3, 6))
    together, _ = run(tokens)
    for i in range(3):
        np.testing.assert_allclose(run(tokens[i : i + 1])[0][0], together[i], atol=1e-5)

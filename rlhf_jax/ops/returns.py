"""Returns and advantages of one episode."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from rlhf_jax.types import Array


def generalised_advantage(
    rewards: Array, values: Array, mask: Array, discount: Array, lam: Array, bootstrap: Array
) -> Array:
    """[T] advantages; Schulman et al. 2016 (arXiv 1506.02438), eq. 11–16.

    δ_t = r_t + γ V_{t+1} − V_t,  Â_t = Σ_l (γλ)^l δ_{t+l}, over the masked prefix.

    Args:
      rewards, values: [T] float32, of s_t.
      mask: [T] bool, true on a prefix.
      bootstrap: V(s_T) after the last masked step: 0 where the episode ended (EOS),
        the value of the next state where time ran out.
    """
    values = jnp.where(mask, values, 0.0)
    rewards = jnp.where(mask, rewards, 0.0)
    following = jnp.concatenate([values[1:], jnp.zeros((1,), values.dtype)])
    is_last = mask & ~jnp.concatenate([mask[1:], jnp.zeros((1,), bool)])
    following = jnp.where(is_last, bootstrap, following)
    delta = jnp.where(mask, rewards + discount * following - values, 0.0)

    def backward(carry: Array, d: Array) -> tuple[Array, Array]:
        carry = d + discount * lam * carry
        return carry, carry

    _, advantages = jax.lax.scan(backward, jnp.zeros((), delta.dtype), delta, reverse=True)
    return jnp.where(mask, advantages, 0.0)

"""Smooth functions to their minimum, inside a compiled program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from rlhf_jax.types import Array


def minimise(loss: Callable[[Any], Array], start: Any, steps: int, tolerance: float = 1e-5) -> Any:
    """L-BFGS with a zoom line search from the pytree `start` (Liu & Nocedal 1989).

    Ends after `steps`, or where no entry of the gradient exceeds `tolerance`: beyond the accuracy
    of float32 every line search would run to its end for nothing. A vmapped fit takes as long as
    its hardest member.
    """
    solver = optax.lbfgs(linesearch=optax.scale_by_zoom_linesearch(max_linesearch_steps=20))
    evaluate = optax.value_and_grad_from_state(loss)

    def goes_on(carry: tuple[Any, Any, Array, Array]) -> Array:
        return (carry[2] < steps) & (carry[3] > tolerance)

    def body(carry: tuple[Any, Any, Array, Array]) -> tuple[Any, Any, Array, Array]:
        at, state, count, _ = carry
        value, grad = evaluate(at, state=state)
        move, state = solver.update(grad, state, at, value=value, grad=grad, value_fn=loss)
        return optax.apply_updates(at, move), state, count + 1, optax.tree.norm(grad, ord=jnp.inf)

    first = (start, solver.init(start), jnp.zeros((), jnp.int32), jnp.asarray(jnp.inf))
    return jax.lax.while_loop(goes_on, body, first)[0]

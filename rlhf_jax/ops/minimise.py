"""Smooth functions to their minimum, inside a compiled program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax

from rlhf_jax.types import Array


def minimise(loss: Callable[[Any], Array], start: Any, steps: int) -> Any:
    """`steps` of L-BFGS with a zoom line search from the pytree `start` (Liu & Nocedal 1989).

    No stopping rule: at the minimum of float32 further steps change nothing, so that a vmapped
    fit takes as long as its hardest member.
    """
    solver = optax.lbfgs(linesearch=optax.scale_by_zoom_linesearch(max_linesearch_steps=20))
    evaluate = optax.value_and_grad_from_state(loss)

    def body(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], None]:
        at, state = carry
        value, grad = evaluate(at, state=state)
        move, state = solver.update(grad, state, at, value=value, grad=grad, value_fn=loss)
        return (optax.apply_updates(at, move), state), None

    return jax.lax.scan(body, (start, solver.init(start)), length=steps)[0][0]

"""Which argument convinces? Reward models of real people's comparisons, on debates never seen.

    python scripts/convincing.py ../shared/data          # UKPConvArg1, about a minute on 2 cores

A reward is linear in features of an argument's text and fitted by Davidson's likelihood, ties
included. Each debate is held out in turn; the ridge weight is chosen by holding out a second
debate among the rest. Accuracy is over pairs with a strict majority for one side, ½ where the
rewards are level. Intervals are 95 % by resampling debates, paired between models.

Reliability: every argument gets its own reward, every worker a probability c_w of answering by
it; else they answer from one distribution g that all share:

    P(y | d, w) = c_w Davidson(y | d) + (1 − c_w) g(y),      logit c_w ~ Normal(m, s²)

with rewards, ν, c, g and m fitted jointly (MAP), s = 1.5 fixed, rewards shrunk lightly. c_w is
compared with the data's own MACE competence, which the fit never sees.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import jax
    import numpy as np

    from rlhf_jax.data.rows import Comparison

RIDGES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
BUCKETS = 2048


class Pairs(NamedTuple):
    """Labels of P pairs among N arguments of G debates."""

    texts: list[str]
    group: np.ndarray
    """[N] debate of an argument"""
    a: np.ndarray
    """[P] argument"""
    b: np.ndarray
    counts: np.ndarray
    """[P, 3] how many said a, tie, b"""
    debates: list[str]


def collect(rows: list[Comparison]) -> tuple[Pairs, np.ndarray]:
    """Rows → pairs, and [R] the pair of each row."""
    import numpy as np

    arguments: dict[tuple[str, str], int] = {}
    texts, debates, pairs, groups = [], {}, {}, []
    which = np.zeros(len(rows), int)
    tally = []
    for r, row in enumerate(rows):
        ends = []
        for name, x in ((row.a_id, row.a), (row.b_id, row.b)):
            key = (row.group, name)
            if key not in arguments:
                arguments[key] = len(arguments)
                texts.append(x[0].content)
                groups.append(debates.setdefault(row.group, len(debates)))
            ends.append(arguments[key])
        which[r] = pairs.setdefault(tuple(ends), len(pairs))
        tally.append(round(2 - 2 * row.label))
    counts = np.zeros((len(pairs), 3))
    np.add.at(counts, (which, np.array(tally)), 1)
    a, b = np.array(list(pairs)).T
    return Pairs(texts, np.array(groups), a, b, counts, list(debates)), which


def minimise(loss: Callable[[Any], jax.Array], start: Any, steps: int) -> Any:
    """`steps` of L-BFGS from `start`; to be jitted or vmapped from outside."""
    import jax
    import optax

    solver = optax.lbfgs(linesearch=optax.scale_by_zoom_linesearch(max_linesearch_steps=20))
    step = optax.value_and_grad_from_state(loss)

    def body(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], None]:
        params, state = carry
        value, grad = step(params, state=state)
        updates, state = solver.update(
            grad, state, params, value=value, grad=grad, value_fn=loss
        )
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(body, (start, solver.init(start)), length=steps)[0][0]

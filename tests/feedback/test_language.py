from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.config import ConfigError
from rlhf_jax.feedback import language
from rlhf_jax.feedback.language import Grammar
from rlhf_jax.humans import Human

GRAMMAR = Grammar(("formal", "to the  Point"), spans=2)


def test_every_statement_survives_being_written_and_read():
    said = [language.render(GRAMMAR, i) for i in range(9)]
    assert said == [
        "Nothing to change.",
        "Make it more formal.",
        "Make it more to the point.",
        "Make it less formal.",
        "Make it less to the point.",
        "Part 1 is good.",
        "Part 2 is good.",
        "Part 1 is bad.",
        "Part 2 is bad.",
    ]
    assert [language.parse(GRAMMAR, text) for text in said] == list(range(9))
    assert language.parse(GRAMMAR, "  make it LESS\n formal ") == 3


def test_what_is_outside_the_grammar_is_refused():
    with pytest.raises(ConfigError, match="'It is fine'"):
        language.parse(GRAMMAR, "It is fine")
    with pytest.raises(ConfigError, match="statement 9"):
        language.render(GRAMMAR, 9)
    with pytest.raises(ConfigError, match="'Formal'"):
        language.statements(Grammar(("Formal", "formal"), 1))
    with pytest.raises(ConfigError, match="'2'"):
        language.statements(Grammar(("2",), 1))


def test_people_say_what_matters_most():
    """Rows of `worth` are in the order of `statements`."""
    gains, values = jnp.asarray([0.5, -2.0]), jnp.asarray([1.0, -1.5])
    both = jnp.ones(2, bool)
    say = lambda g, v, parts: language.render(
        GRAMMAR, int(language.elicit(Human(), g, v, parts, jax.random.key(0)))
    )
    assert say(gains, values, both) == "Make it less to the point."
    assert say(0 * gains, values, both) == "Part 2 is bad."
    assert say(0 * gains, values, jnp.asarray([True, False])) == "Part 1 is good."
    assert say(gains * jnp.asarray([1.0, 0.0]), 0 * values, both) == "Make it more formal."


def test_likelihood_of_a_statement_by_hand():
    # Worth: 0, ± ln 2, ± ln 4 for one feature and one real part of two: 1 + 2 + ½ + 4 + ¼
    loss = language.loss(
        jnp.asarray([np.log(2)]),
        jnp.asarray([np.log(4), 7.0]),
        jnp.asarray(3),
        jnp.asarray([True, False]),
    )
    assert loss == pytest.approx(-np.log(4 / 7.75), rel=1e-5)

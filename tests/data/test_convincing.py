"""The study of convincing arguments: its arrays, and that its fits find what made the answers."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rlhf_jax.data.arrays import collect, peers
from rlhf_jax.data.rows import Comparison, RowError, text
from rlhf_jax.feedback.comparison import log_davidson

SCRIPT = Path(__file__).parents[2] / "scripts" / "convincing.py"


def pair(a: str, b: str, label: float | None, who: str = "u", group: str = "g") -> Comparison:
    return Comparison(a=text(a), b=text(b), label=label, annotator=who, group=group)


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("convincing_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["convincing_script"] = module
    spec.loader.exec_module(module)
    return module


def test_a_pair_and_its_reverse_are_one_and_groups_are_apart():
    rows = [pair("x", "y", 1.0), pair("y", "x", 1.0, "v"), pair("x", "y", 0.5, "u", "h")]
    found = collect(rows)
    assert found.counts.tolist() == [[1, 0, 1], [0, 1, 0]]
    assert (found.place.tolist(), found.who.tolist()) == ([0, 0, 1, 1], [0, 1, 0])
    assert (found.groups, found.people) == (["g", "h"], ["u", "v"])
    with pytest.raises(RowError, match="answer 1"):
        collect([pair("x", "y", None)])
    assert len(collect([]).pair) == 0


def test_peers_are_what_most_others_said():
    found = collect([pair("x", "y", v) for v in (1.0, 1.0, 0.0, 0.5)])
    # Without one of the two first: a, b, tie level. Without the third or fourth: a leads.
    assert peers(found, found.counts).tolist() == [-1, -1, 0, 0]
    strict = found.counts * [1, 0, 1]
    assert peers(found, strict).tolist() == [-1, -1, 0, 0]


def answers(rng, difference, tie):
    p = np.exp(np.asarray(log_davidson(jnp.asarray(difference), jnp.asarray(tie))))
    return (rng.random(len(p))[:, None] > p.cumsum(1)).sum(1).clip(0, 2)


def test_the_text_fit_recovers_weights_and_ties(study):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3)).astype(np.float32)
    r = x @ np.array([1.0, -0.5, 0.0])
    a, b = rng.integers(0, 60, (2, 20_000))
    counts = np.eye(3, dtype=np.float32)[answers(rng, r[a] - r[b], -0.3)]
    reward, tie = study.fit_text(x, a, b, counts, np.full(3, 1e-6, np.float32))
    assert np.abs((reward - reward.mean()) - (r - r.mean())).max() < 0.12
    assert tie == pytest.approx(-0.3, abs=0.05)


def test_the_fit_of_people_finds_who_is_careful_and_who_likes_ties(study):
    rng = np.random.default_rng(1)
    n, people, each = 30, 40, 300
    r, careful, fond = (rng.normal(0, s, k) for s, k in ((1.5, n), (1.0, people), (1.0, people)))
    who = np.repeat(np.arange(people), each)
    a, b = rng.integers(0, n, (2, len(who)))
    said = answers(rng, np.exp(careful[who]) * (r[a] - r[b]), -0.5 + fond[who])
    p = study.fit_people(a, b, said, who, n, people)
    assert stats.spearmanr(p.rationality, careful)[0] > 0.9
    assert stats.spearmanr(p.own_tie, fond)[0] > 0.9
    assert stats.spearmanr(p.reward, r)[0] > 0.98


def test_intervals_hold_the_value_and_close_where_all_debates_agree(study):
    place = np.repeat(np.arange(4), 5)
    assert study.interval(np.full(20, 0.5), np.ones(20), place) == "0.500 [0.500, 0.500]"
    assert study.interval((place > 1) * 1.0, np.ones(20), place).startswith("0.500 [0.000, 1.000")


def test_a_usage_mistake_is_one_clear_error(study, tmp_path, capsys):
    assert study.cli.main(study.work, []) == 2
    assert study.cli.main(study.work, [str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 2

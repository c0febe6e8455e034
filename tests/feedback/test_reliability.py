from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.feedback import reliability
from rlhf_jax.feedback.reliability import Votes, dawid_skene

ITEMS, PEOPLE, CLASSES = 400, 6, 3
fit = jax.jit(lambda votes: dawid_skene(votes, ITEMS, PEOPLE, CLASSES, steps=200))


@pytest.fixture(scope="module")
def crowd():
    """Four careful people, one who always says 2, one who exchanges 0 and 1; all label all."""
    rng = np.random.default_rng(0)
    careful = 0.7 * np.eye(3) + 0.1
    stuck = np.tile([0.05, 0.05, 0.9], (3, 1))
    swapped = careful[[1, 0, 2]]
    confusion = np.stack([careful] * 4 + [stuck, swapped])
    truth = rng.choice(3, ITEMS, p=[0.5, 0.3, 0.2])
    item, who = (x.ravel() for x in np.meshgrid(np.arange(ITEMS), np.arange(PEOPLE)))
    label = np.asarray(
        [rng.choice(3, p=confusion[p, truth[i]]) for i, p in zip(item, who, strict=True)]
    )
    votes = Votes(*(jnp.asarray(x, jnp.int32) for x in (item, who, label)), jnp.ones(len(item)))
    return votes, truth, confusion


def test_confusions_are_recovered_and_truth_better_than_by_majority(crowd):
    votes, truth, confusion = crowd
    found = fit(votes)
    np.testing.assert_allclose(found.confusion, confusion, atol=0.12)
    np.testing.assert_allclose(found.prior, [0.5, 0.3, 0.2], atol=0.06)
    right = np.mean(np.argmax(found.posterior, 1) == truth)
    vote = np.mean(np.argmax(reliability.majority(votes, ITEMS, CLASSES), 1) == truth)
    assert right > vote + 0.02
    by_person = reliability.accuracy(found)
    assert np.argsort(by_person)[:2].tolist() in ([4, 5], [5, 4])


def test_agrees_with_crowd_kit(crowd):
    aggregation = pytest.importorskip("crowdkit.aggregation")
    pandas = pytest.importorskip("pandas")
    votes = crowd[0]
    frame = pandas.DataFrame(
        {k: np.asarray(x) for k, x in zip(("task", "worker", "label"), votes[:3], strict=True)}
    )
    theirs = aggregation.DawidSkene(n_iter=200, tol=-1.0).fit(frame)
    mine = fit(votes)
    np.testing.assert_allclose(mine.posterior, theirs.probas_.sort_index()[[0, 1, 2]], atol=2e-3)
    np.testing.assert_allclose(mine.prior, theirs.priors_.sort_index(), atol=1e-3)
    errors = theirs.errors_.reset_index().sort_values(["worker", "label"])[[0, 1, 2]]
    # Theirs is [worker, said, truth].
    confusion = errors.to_numpy().reshape(PEOPLE, CLASSES, CLASSES).transpose(0, 2, 1)
    np.testing.assert_allclose(mine.confusion, confusion, atol=2e-3)


def test_each_step_raises_the_likelihood(crowd):
    votes = crowd[0]
    ascent = [
        float(dawid_skene(votes, ITEMS, PEOPLE, CLASSES, steps=n).log_likelihood)
        for n in (0, 1, 2, 5, 20)
    ]
    assert (np.diff(ascent) > -0.5).all()
    assert ascent[-1] > ascent[0] + 10


def test_votes_of_no_weight_and_unseen_people_and_items_change_nothing(crowd):
    votes = crowd[0]
    more = Votes(*(jnp.concatenate([v, v[:7]]) for v in votes))
    more = more._replace(weight=more.weight.at[-7:].set(0.0), label=more.label.at[-7:].set(1))
    a = dawid_skene(votes, ITEMS, PEOPLE, CLASSES, steps=5)
    b = dawid_skene(more, ITEMS + 1, PEOPLE + 1, CLASSES, steps=5)
    assert np.isfinite(b.posterior).all()
    np.testing.assert_allclose(b.confusion[PEOPLE], 1 / 3, rtol=1e-5)
    np.testing.assert_allclose(b.confusion[:PEOPLE], a.confusion, atol=5e-3)

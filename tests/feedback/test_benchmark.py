from __future__ import annotations

import numpy as np

from rlhf_jax.feedback.benchmark import crowd


def test_everybody_in_the_crowd_answers_for_themselves():
    labels = np.asarray(crowd(people=8, answers=4000)())
    assert labels.shape == (8, 500)
    assert set(np.unique(labels)) == {0.0, 0.5, 1.0}
    assert len(np.unique(np.mean(labels == 0.5, axis=1))) > 4

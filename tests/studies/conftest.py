"""A finished study to read."""

from __future__ import annotations

from pathlib import Path

import pytest
from making import effect, make_study, write_runs

from rlhf_jax.study import Study


@pytest.fixture
def made(tmp_path: Path) -> tuple[Study, Path]:
    """A finished study and its root."""
    study = make_study()
    write_runs(study, tmp_path, effect)
    return study, tmp_path

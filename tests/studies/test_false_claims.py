"""The rule of verdicts on seeds whose law is known: a sample of `scripts/false_claims.py`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

STUDIES = 2000
ENOUGH = 0.025 + 3 * (0.025 * 0.975 / STUDIES) ** 0.5


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = Path(__file__).parents[2] / "scripts" / "false_claims.py"
    spec = importlib.util.spec_from_file_location("false_claims", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["false_claims"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("arms", ["same", "other"])
@pytest.mark.parametrize("law", ["normal", "log-normal", "outliers", "counts"])
def test_false_claims_are_supported_at_most_at_the_stated_rate_whatever_the_shape(
    script: ModuleType, law: str, arms: str
) -> None:
    for n in (8, 16, 64):
        r = script.simulate(law, arms, n, STUDIES)
        assert max(r.typical, r.family, r.refused) <= ENOUGH, r


def test_students_t_alone_does_not_keep_the_rate_where_one_arm_is_skewed(
    script: ModuleType,
) -> None:
    for law in ("log-normal", "outliers"):
        r = script.simulate(law, "other", 16, STUDIES)
        assert r.typical_t > 0.08
        assert r.mean_t > 0.06


def test_a_real_effect_of_normal_seeds_is_still_found(script: ModuleType) -> None:
    r = script.simulate("normal", "same", 64, STUDIES)
    assert r.power > 0.45
    assert r.power_t > r.power


def test_the_command_prints_every_row_and_what_it_amounts_to(
    script: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "LAWS", {"normal": script.LAWS["normal"]})
    script.work(["--studies", "200"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 6 + 1
    assert lines[-1].startswith("worst of the rule: ")
    with pytest.raises(script.ConfigError, match="usage"):
        script.work(["--studies", "many"])

"""What a study may say, and which runs it is made of."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from making import make_study

from rlhf_jax import rundir
from rlhf_jax.config import PPO, Collect, Config, ConfigError, Human, Model, Pretrain, Reward
from rlhf_jax.expectations import Differs, Trend
from rlhf_jax.studies import command, plan, verdicts
from rlhf_jax.study import Axis, Metric, Quick, Study, fresh, quickened, replaced, shuffled
from rlhf_jax.verdict import Measured

ROOT = Path("root")
STUDIES = Path(__file__).parents[2] / "configs" / "studies"
SAID = {"stated": "before", "primary": True}


def test_a_float_axis_is_one_population_cut_into_equal_blocks_of_seeds() -> None:
    chunks = plan.chunks(make_study(seeds=8, population=12), ROOT)
    assert [c.arm for c in chunks] == ["plain"] * 3 + ["checked"] * 3
    assert [list(c.seeds) for c in chunks[:3]] == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert all(c.config.human.lapse == (0.0, 0.2, 0.4, 0.6) for c in chunks)
    assert all(c.members <= 12 for c in chunks)
    assert chunks[1].directory == ROOT / "made" / "plain" / "seeds-3-5"
    assert chunks[3].config.human.flip == 0.1


def test_any_other_axis_is_a_run_for_each_point() -> None:
    axis = Axis("collect.budget", (1024, 2048), "samples read", scale="log")
    chunks = plan.chunks(make_study(axis=axis, expectations=(), population=8), ROOT)
    plain = [c for c in chunks if c.arm == "plain"]
    assert [c.config.collect.budget for c in plain] == [1024, 2048]
    assert [c.points for c in plain] == [(0,), (1,)]
    assert plain[1].directory == ROOT / "made" / "plain" / "2048" / "seeds-0-7"
    assert axis.positions == (1024.0, 2048.0)


def test_several_fields_can_move_together() -> None:
    axis = Axis(("rounds", "collect.budget"), ((1, 4096), (4, 1024)), "collections")
    plain = plan.chunks(make_study(axis=axis, expectations=()), ROOT)[:2]
    assert [(c.config.rounds, c.config.collect.budget) for c in plain] == [(1, 4096), (4, 1024)]
    assert axis.titles == ("1", "4")


def test_sections_and_names_can_be_points() -> None:
    shapes = (Model(width=16, heads=2), Model(width=32, heads=2))
    axis = Axis("model", shapes, "width", at=(16.0, 32.0), scale="log")
    study = make_study(axis=axis, expectations=())
    assert plan.chunks(study, ROOT)[1].config.model == shapes[1]
    assert axis.titles == ("16", "32")
    names = Axis("reward.aggregate", ("mean", "worst_case"), "aggregation")
    assert names.titles == ("mean", "worst_case")
    assert names.positions == (0.0, 1.0)


def test_arms_alone_are_a_study_too() -> None:
    study = make_study(axis=None, expectations=())
    assert [c.directory.name for c in plan.chunks(study, ROOT)] == ["seeds-0-7"] * 2
    assert study.positions == (0.0,)


def test_runs_of_equal_base_models_share_one_and_others_do_not() -> None:
    arms = {
        "a": Config(),
        "b": Config(human=Human(lapse=0.5), reward=Reward(l2=0.1)),
        "longer": Config(pretrain=Pretrain(epochs=3)),
        "own": Config(pretrain=Pretrain(shared=False)),
    }
    study = make_study(arms=arms, axis=None, expectations=())
    a, b, longer, own = plan.chunks(study, ROOT)
    assert a.base is not None
    assert a.base == b.base
    assert longer.base not in (None, a.base)
    assert own.base is None
    assert a.config.pretrain.load == str(ROOT / "bases" / a.base.name)
    assert a.base.seeds == 1


def test_the_quick_form_is_a_study_of_its_own() -> None:
    quick = Quick(seeds=2, points=(0, 3), arms=("plain",), settings={"ppo.iterations": 5})
    short = quickened(make_study(quick=quick))
    assert (short.name, short.title) == ("made-quick", "Careless answers: short form")
    assert list(short.arms) == ["plain"]
    assert short.positions == (0.0, 0.6)
    (chunk,) = plan.chunks(short, ROOT)
    assert chunk.members == 4
    assert chunk.config.ppo.iterations == 5


def test_the_control_is_a_study_of_its_own_in_which_only_the_answers_are_dealt_anew() -> None:
    study = make_study()
    control = shuffled(study)
    assert control.name == "made-shuffled"
    assert control.expectations == study.expectations
    for arm, config in control.arms.items():
        assert config.collect.shuffled
        assert replaced(config, "collect.shuffled", False) == study.arms[arm]


def test_the_confirmation_has_seeds_that_no_study_has_and_claims_stated_before_them() -> None:
    study = make_study(population=12)
    again = fresh(study)
    assert again.name == "made-fresh"
    assert {e.stated for e in study.expectations} == {"before", "after"}
    assert {e.stated for e in again.expectations} == {"before"}
    seeds = [list(c.seeds) for c in plan.chunks(again, ROOT) if c.arm == "plain"]
    assert seeds == [[1000, 1001, 1002], [1003, 1004, 1005], [1006, 1007]]
    assert plan.chunks(again, ROOT)[0].base == plan.chunks(study, ROOT)[0].base
    with pytest.raises(ConfigError, match="its own seeds reach 1000"):
        fresh(again)


@pytest.mark.parametrize("path", sorted(STUDIES.glob("[!_]*.py")), ids=lambda p: p.stem)
def test_every_study_has_primary_claims_a_control_that_its_short_form_judges_too(
    path: Path,
) -> None:
    study = command.read(path)
    assert 1 <= sum(e.primary for e in study.expectations) <= 3
    assert study.control is not None
    short = quickened(study)
    arms = {arm: [[0.0, 1.0]] * short.points for arm in short.arms}
    blank = Measured(short.axis_name, short.positions, arms)
    measured = {m.name: blank for m in short.metrics}
    assert verdicts.judged(short, measured, deals=1).positive is not None


def test_replaced_changes_one_leaf_only() -> None:
    before = Config()
    after = replaced(before, "ppo.adam.learning_rate", 0.5)
    assert after.ppo.adam.learning_rate == 0.5
    back = dataclasses.replace(after, ppo=dataclasses.replace(after.ppo, adam=before.ppo.adam))
    assert back == before


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": "a/b"}, "name = 'a/b'"),
        ({"arms": {}}, "needs an arm"),
        ({"arms": {"a b": Config()}}, "arm 'a b'"),
        ({"arms": {"plain": Config(human=Human(lapse=(0.0, 1.0)))}}, "human.lapse of arm plain"),
        ({"metrics": ()}, "needs a metric"),
        ({"control": None}, "needs a positive control"),
        (
            {"expectations": 4 * (Differs("gold", "plain", 0, "lower", **SAID),)},
            "4 primary expectations: a study may have 3",
        ),
        ({"metrics": (Metric("gold", "a"), Metric("gold", "b"))}, "two metrics have one name"),
        ({"seeds": 0}, "seeds = 0"),
        ({"population": 0}, "population = 0"),
        ({"baseline": "none"}, "no arm 'none': there are plain, checked"),
        ({"axis": Axis("human.lapse", (), "x")}, "no points"),
        ({"axis": Axis("human.lapse", (0.0, 0.0), "x")}, "one name"),
        ({"axis": Axis("human.lapse", (0.0, 0.1), "x", scale="log")}, "points above 0"),
        ({"axis": Axis("human.lapse", (0.0, 0.1), "x", at=(1.0,))}, "1 entries for 2 points"),
        ({"axis": Axis(("rounds", "seeds"), ((1, 2), (1,)), "x")}, "not one value for each"),
    ],
)
def test_a_study_that_cannot_be_meant_is_refused(changes: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says.replace("(", r"\(")):
        make_study(**changes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"axis": Axis("human.laps", (0.0,), "x")}, "human has no field 'laps'"),
        ({"axis": Axis("human.lapse", (0.0, 3.0), "x")}, "human.lapse = 3.0"),
        ({"arms": {"plain": Config(collect=Collect(budget=0))}, "axis": None}, "collect.budget"),
    ],
)
def test_a_run_that_cannot_be_made_is_refused_before_any_is(changes: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        plan.chunks(make_study(**changes, expectations=()), ROOT)


@pytest.mark.parametrize(
    ("expectation", "says"),
    [
        (Trend("glod", "plain", "increases", by=0.1, stated="before"), "no metric 'glod'"),
        (Trend("gold", "plian", "increases", by=0.1, stated="before"), "no arm 'plian'"),
        (
            Differs("gold", "plain", "checked", "higher", at=0.3, stated="before"),
            "no single point 0.3",
        ),
    ],
)
def test_expectations_of_what_is_not_there_are_refused(expectation: Trend, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        verdicts.check(make_study(expectations=(expectation,)))


def test_a_study_needs_no_jax_to_be_read() -> None:
    import subprocess
    import sys

    code = "import sys; from rlhf_jax.studies import command; assert 'jax' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_study_type_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_study().seeds = 3  # type: ignore[misc]
    assert isinstance(make_study(), Study)


def test_a_finished_run_with_other_settings_is_refused_and_never_shown(tmp_path: Path) -> None:
    study = make_study(axis=None, expectations=())
    config = plan.chunks(study, tmp_path)[0].config
    assert not plan.done(config)
    with rundir.opened(config):
        pass
    assert not plan.done(config)
    (rundir.place(config) / "metadata.json").write_text('{"finished": "now"}')
    assert plan.done(config)
    edited = dataclasses.replace(config, ppo=PPO(kl_weight=0.7))
    with pytest.raises(ConfigError, match=r"holds a run with other settings: ppo\.kl_weight"):
        plan.done(edited)


def test_an_arm_that_an_analysis_needs_may_be_left_out() -> None:
    expectation = Differs("of the analysis", "plain", 0.0, "higher", stated="before")
    said = verdicts.judged(make_study(expectations=(expectation,)), {}, deals=1)
    assert said.unjudged == (expectation,)
    assert said.verdicts == ()

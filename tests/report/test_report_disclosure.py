from __future__ import annotations

import copy
import json

import numpy as np
import pytest

from rlhf_jax.config import ConfigError
from rlhf_jax.report import write_report
from rlhf_jax.report.disclosure import disclose
from rlhf_jax.report.records import read
from rlhf_jax.report.results import results
from rlhf_jax.report.schema import disclosure as schema
from rlhf_jax.report.schema import faults
from rlhf_jax.report.shortcomings import find, names


def said(run):
    record = read(run)
    return {f.rule: f.statement for f in find(record, results(record))}


def evaluated(metric, change):
    """A row editor that applies `change` to one metric after PPO."""

    def edit(row):
        if row["stage"] == "evaluate" and row["round"] > 0:
            row[metric] = [change(v) for v in row[metric]]
        return row

    return edit


def measured(metric, value):
    def edit(row):
        return {**row, metric: [value] * 8} if row["stage"] == "measure" else row

    return edit


def set_config(run, **values):
    path = run / "config.json"
    changed = {k.replace("__", "."): v for k, v in values.items()}
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def test_no_rule_speaks_of_a_run_that_went_well(make_run):
    assert said(make_run()) == {}


def test_a_fall_of_gold_while_the_proxy_rises_is_called_hacking(make_run):
    found = said(make_run(change=-1.0))
    assert "proxy rose by 3.00 deviations while gold changed by −1.00" in found["reward_hacking"]
    assert "−1.00" in found["gold_fell"]
    assert found["seeds_that_lost"].startswith("8 of 8 seeds")
    assert "no_clear_change" not in found


def test_gold_that_turns_within_the_last_round_is_called_over_optimisation(make_run, edit_rows):
    run = make_run(rounds=1)

    def turn(row):
        if row["stage"] == "policy":
            row["objective/gold"] = [1.0 - (row["step"] / 10 - 0.4) ** 2] * 8
            row["objective/gold"][0] += 0.01
        return row

    edit_rows(run, turn)
    found = said(run)
    # Halves of 1 − (t − 0.4)² at t = 0 … 0.4 and 0.5 … 0.9: means 0.94 and 0.89.
    assert "gold changed by −0.05" in found["reward_hacking"]
    assert "gold_fell" not in found


def test_a_change_whose_interval_holds_zero_is_said_to_be_unclear(make_run):
    found = said(make_run(change=0.0))
    assert "interval −0.03 to 0.03" in found["no_clear_change"]
    assert "gold_fell" not in found


def test_seeds_that_end_in_two_groups_are_said_to(make_run, edit_rows):
    run = make_run(seeds=16)

    def part(row):
        if "eval/gold_sampled" in row and row["round"] == 2:
            row["eval/gold_sampled"] = [0.01 * i + 9.0 * (i < 3) for i in range(16)]
        return row

    assert "two_groups" not in said(run)
    edit_rows(run, part)
    assert "13 near 0.09 and 3 near 9.01: mean" in said(run)["two_groups"]


@pytest.mark.parametrize(
    ("rule", "edit"),
    [
        ("non_words", evaluated("eval/nonword_share", lambda v: 0.3)),
        ("narrowing", evaluated("eval/distinct_share", lambda v: 0.1)),
        ("under_the_ceiling", measured("reward/accuracy_heldout", 0.7)),
        ("miscalibrated", measured("reward/ece", 0.2)),
        ("diverged", measured("reward/brier", float("nan"))),
    ],
)
def test_each_rule_speaks_of_its_own_failure_only(make_run, edit_rows, rule, edit):
    run = make_run()
    edit_rows(run, edit)
    assert set(said(run)) == {rule}


def test_an_objective_that_ends_below_where_it_began_is_said(make_run, edit_rows):
    run = make_run()

    def falls(in_round):
        def edit(row):
            if row["stage"] == "policy":
                down = row["step"] if row["round"] == in_round else -row["step"]
                row["objective/rlhf_reward"] = [0.5 - 0.1 * down + 0.01 * s for s in range(8)]
            return row

        return edit

    edit_rows(run, falls(1))
    found = said(run)
    assert set(found) == {"objective_fell"}
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = max(row["step"] for row in steps if row["stage"] == "policy" and row["round"] == 1)
    assert f"changed by −{0.1 * last:.2f}" in found["objective_fell"]
    edit_rows(run, falls(0))  # what the first round loses, the last does not
    assert said(run) == {}


def test_what_limits_a_run_is_said_even_when_its_numbers_are_good(make_run):
    assert set(said(make_run(seeds=1))) == {"few_seeds"}
    assert set(said(make_run(seeds=4))) == {"few_seeds"}
    assert "many_settings" in said(make_run(kl_weights=(0.0, 0.1)))
    shared, early = make_run(), make_run()
    set_config(shared, pretrain__shared=True)
    assert set(said(shared)) == {"shared_base"}
    set_config(early, rounds=5)
    assert said(early) == {"unfinished": "Unfinished: evaluated after 2 of 5 rounds."}


def test_the_assumed_value_of_non_words_is_that_of_the_grid_point(make_run, edit_rows):
    run = make_run(seeds=5, kl_weights=(0.0, 0.1))
    metadata = json.loads((run / "metadata.json").read_text())
    for member in metadata["members"]:
        member["point"] = {"world.nonword_value": -3.0 if member["point"]["ppo.kl_weight"] else 0.5}
    (run / "metadata.json").write_text(json.dumps(metadata))
    edit_rows(run, evaluated("eval/nonword_share", lambda v: 0.3))
    record = read(run)
    spoken = [f for f in find(record, results(record)) if f.rule == "non_words"]
    assert [("0.5" in f.statement, "−3" in f.statement) for f in spoken] == [
        (True, False),
        (False, True),
    ]


def test_the_disclosure_is_strict_json_and_holds_the_numbers_of_the_run(make_run):
    run = make_run(kl_weights=(0.0, 0.1))
    write_report(run)

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    text = (run / "disclosure.json").read_text(encoding="utf-8")
    document = json.loads(text, parse_constant=refuse)
    assert document["rules"] == list(names())
    assert document["feedback"]["person"]["human.rationality"] == "∞"
    assert document["objective"]["policy"]["settings"]["ppo.kl_weight"] == [0.0, 0.1]
    gold = [r for r in document["evaluation"]["results"] if r["metric"] == "eval/gold_sampled"]
    assert [r["change"]["mean"] for r in gold] == pytest.approx([2.0, 1.0])
    assert {r["change"]["seeds"] for r in gold} == {8}
    assert document["missing"] == []


def test_one_seed_has_no_half_width(make_run):
    run = make_run(seeds=1)
    write_report(run)
    document = json.loads((run / "disclosure.json").read_text(encoding="utf-8"))
    assert {r["after"]["half_width"] for r in document["evaluation"]["results"]} == {None}


def test_a_disclosure_that_departs_from_the_schema_is_refused(make_run):
    run = make_run()
    metadata = json.loads((run / "metadata.json").read_text())
    (run / "metadata.json").write_text(json.dumps(metadata | {"seconds": "long"}))
    record = read(run)
    with pytest.raises(ConfigError, match=r"disclosure: \$\.run\.seconds is 'long'"):
        disclose(record, results(record), [])


def paths(value, at=()):
    yield at
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    for key, item in items:
        yield from paths(item, (*at, key))


def mutated(document, rng):
    """The document with one random entry removed, replaced or added."""
    out = copy.deepcopy(document)
    places = [p for p in paths(document) if p]
    *parents, key = places[rng.integers(len(places))]
    holder = out
    for step in parents:
        holder = holder[step]
    match rng.integers(3):
        case 0:
            del holder[key]
        case 1:
            holder[key] = [None, -1, 1.5, "", "word", True, [], {}, [{}]][rng.integers(9)]
        case _ if isinstance(holder, dict):
            holder["unheard of"] = 1
    return out


def test_the_checker_agrees_with_jsonschema_on_mutated_disclosures(make_run):
    jsonschema = pytest.importorskip("jsonschema")
    record = read(make_run())
    document = disclose(record, results(record), ["something"])
    oracle = jsonschema.Draft202012Validator(schema())
    oracle.check_schema(schema())
    assert oracle.is_valid(document)
    rng, verdicts = np.random.default_rng(0), []
    for _ in range(400):
        other = mutated(document, rng)
        verdicts.append(oracle.is_valid(other))
        assert (not list(faults(other, schema()))) == verdicts[-1], other
    assert 50 < sum(verdicts) < 350

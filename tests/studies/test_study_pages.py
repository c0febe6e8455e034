"""What is read in the end: pages, tables, the atlas, the bill."""

from __future__ import annotations

import dataclasses
import json
import re
from itertools import zip_longest
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from making import effect, make_study, write_runs
from matplotlib.figure import Figure
from rich.console import Console

from rlhf_jax.config import ConfigError
from rlhf_jax.expectations import Differs
from rlhf_jax.ops.intervals import percentile
from rlhf_jax.report import drawing
from rlhf_jax.report.records import Record
from rlhf_jax.studies import (
    answers,
    command,
    costs,
    figures,
    index,
    page,
    plan,
    tables,
    verdicts,
)
from rlhf_jax.studies.costs import Cost
from rlhf_jax.studies.results import Analysis, Results
from rlhf_jax.study import Metric, Study
from rlhf_jax.verdict import Measured, seeds_needed

COMMAND = "rlhf-jax study made"


@pytest.fixture
def written(made: tuple[Study, Path]) -> Path:
    study, root = made
    said = answers.answer(study, root)
    assert answers.write(said, root, COMMAND) == root / "made" / "study.html"
    return root


def text_of(page: Path) -> str:
    html = page.read_text()
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", html))


def test_the_page_says_all_that_it_must(written: Path) -> None:
    text = text_of(written / "made" / "study.html")
    for must in (
        "Careless answers",
        "What does carelessness cost?",
        "A3 · 2 arms × 4 points × 8 seeds",
        "Of 1 expectation stated before the data: 1 supported (1 primary).",
        "Of 1 expectation stated after the data: 1 supported (1 primary).",
        "✔ supported · primary, stated before its data",
        "✔ supported · primary, stated after its data",
        "Positive control, found: gold of plain at careless answers (share) = 0.6 is lower",
        "the sign test",
        "No p is below 2⁻ⁿ",
        "far out",
        "Expected by: Coste et al.",
        "careless answers (share)",
        "gold of samples (rating)",
        "n = 8 seeds",
        "95 % bootstrap intervals",
        "Bonferroni",
        "Holm",
        "Negative control",
        "Coste et al. found 25 % noise to matter.",
        "human.lapse",
        "human.flip",
        COMMAND,
    ):
        assert must in text, must


def test_the_page_needs_nothing_but_itself(written: Path) -> None:
    for file in (written / "made" / "study.html", written / "index.html"):
        html = file.read_text()
        assert "<svg" in html
        links = set(re.findall(r'(?:href|src)="([^"]*)"', html))
        outside = {x for x in links if not x.startswith("#")}
        assert outside <= {"made/study.html"}
        assert "@import" not in html
        assert 'name="viewport"' in html
        ids = re.findall(r'\bid="([^"]+)"', html)
        assert len(ids) == len(set(ids))


def test_markdown_holds_the_same_numbers_as_the_page(written: Path) -> None:
    page, markdown = (
        re.sub(r"\s+", " ", t)
        for t in (text_of(written / "made" / "study.html"), (written / "made/study.md").read_text())
    )
    numbers = re.findall(r"−?\d\.\d\d \[−?\d\.\d\d, −?\d\.\d\d\]", markdown)
    assert len(numbers) >= 17
    assert all(n in page for n in numbers)


def test_equal_numbers_write_equal_bytes(written: Path, made: tuple[Study, Path]) -> None:
    study, root = made
    before = {p: (root / "made" / p).read_bytes() for p in ("study.html", "results.json")}
    answers.write(answers.answer(study, root), root, COMMAND)
    for name, content in before.items():
        assert (root / "made" / name).read_bytes() == content


def test_the_atlas_shows_every_study_and_leads_to_it(written: Path) -> None:
    other = make_study(name="other", title="Another", atlas="A1", axis=None, expectations=())
    write_runs(other, written, effect)
    answers.write(answers.answer(other, written), written, COMMAND)
    html = (written / "index.html").read_text()
    assert html.index("other/study.html") < html.index("made/study.html")  # A1 before A3
    assert html.count("<svg") == 2
    rows = (written / "index.md").read_text().splitlines()
    assert (
        "| A1 | [Another](other/study.html) | A1 · 2 arms × 8 seeds | Nothing was expected. |"
        in rows
    )
    (written / "made" / index.SUMMARY).write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        index.write(written)


def test_a_single_seed_is_shown_without_intervals(tmp_path: Path) -> None:
    study = make_study(seeds=1, expectations=())
    write_runs(study, tmp_path, effect)
    answers.write(answers.answer(study, tmp_path), tmp_path, COMMAND)
    text = text_of(tmp_path / "made" / "study.html")
    assert "One seed: there are no intervals." in text
    assert "nan" not in text.lower()


def test_numbers_that_only_one_arm_has_or_that_are_all_alike_are_shown(tmp_path: Path) -> None:
    def share(record: Record) -> np.ndarray:
        members = record.metrics["evaluate", "eval/gold_sampled"].values.shape[1]
        return np.full(members, 0.2 if record.config["human.flip"] else np.nan)

    # 0.2 sixteen times has a mean that is not 0.2 to the last bit.
    alike = Metric("share", "share", derive=share)
    arms = make_study().arms | {f"arm-{i}": make_study().arms["plain"] for i in range(4)}
    study = make_study(arms=arms, metrics=(*make_study().metrics, alike), seeds=16)
    write_runs(study, tmp_path, effect)
    answers.write(answers.answer(study, tmp_path), tmp_path, COMMAND)
    markdown = (tmp_path / "made" / "study.md").read_text()
    table = markdown[markdown.index("**share**") :].split("\n\n")[1]
    assert [row.split(" | ")[0] for row in table.splitlines()[2:]] == ["| checked"] * 4


def test_the_whole_axis_is_pooled_and_whole_seeds_are_resampled(made: tuple[Study, Path]) -> None:
    study, root = made
    results = answers.answer(study, root).results
    table = tables.compared(results)
    assert table is not None
    assert table.head[1] == "whole axis"
    gold = {row[0]: row[1] for row in table.rows}
    for arm in ("plain", "checked"):
        x = results.of("gold", arm)  # 4 points × 8 seeds: of 32 numbers 8 go at each end
        middle = np.sort(x.ravel())[8:-8].mean()
        columns = np.random.default_rng(1).integers(8, size=(4000, 8))
        draws = np.sort(x[:, columns].transpose(1, 0, 2).reshape(4000, -1))[:, 8:-8].mean(axis=1)
        told = tables.interval(percentile(middle, draws, 8))
        found, wanted = (
            np.array([float(n) for n in re.findall(r"-?\d+\.\d+", t)])
            for t in (gold[f"{arm}: gold of samples"], told)
        )
        assert found[0] == wanted[0]
        np.testing.assert_allclose(found[1:], wanted[1:], atol=0.03)


def test_many_arms_and_long_names_are_drawn(tmp_path: Path) -> None:
    arms = {f"arm-with-a-long-name-{i}": c for i in range(4) for c in [make_study().arms["plain"]]}
    arms |= make_study().arms
    study = make_study(arms=arms, expectations=(), seeds=3)
    write_runs(study, tmp_path, effect)
    answers.write(answers.answer(study, tmp_path), tmp_path, COMMAND)
    assert "arm-with-a-long-name-3" in (tmp_path / "made" / "study.html").read_text()


def cost(run: Path, root: Path, **changes: object) -> Cost:
    usual = Cost(str(run.relative_to(root)), 8, 40.0, 24.0, 7, 2, True, "2026-11-23T01:00:00Z")
    return usual._replace(**changes)  # type: ignore[arg-type]


def test_the_bill_compares_a_seed_alone_with_the_population(made: tuple[Study, Path]) -> None:
    study, root = made
    for chunk in plan.chunks(study, root):
        costs.note(root / "made", cost(chunk.directory, root))
    lonely = cost(plan.alone(study, root).directory, root, members=1, seconds=30.0)
    costs.note(root / "made", lonely)
    with (root / "made" / costs.FILE).open("a") as file:
        file.write('{"run": "half a li')
    bill = costs.bill(study, root, ("plain",))
    assert bill.members == 32
    assert len(bill.rows) == 4
    said = " ".join(costs.sentences(bill))
    assert "2 min 40 s for 32 members (points × seeds) in 4 runs, 5.0 s a member" in said
    assert "28 programs" in said
    # 30 s against 40/8 = 5 s; without the compiler 30 − 24 = 6 s against 16/8 = 2 s.
    assert "6.0 times less" in said
    assert "3.0 times less" in said
    assert "the same session" in said


def test_results_hold_numbers_by_seed_and_no_clock(written: Path) -> None:
    found = json.loads((written / "made" / "results.json").read_text())
    assert len(found["metrics"]["gold"]["arms"]["plain"][0]) == 8
    assert not re.search(r"\d\d:\d\d", json.dumps(found))


def test_results_are_strict_json_where_a_seed_has_no_number(tmp_path: Path) -> None:
    def halting(arm: str, point: int, seed: int) -> dict[str, Any]:
        lost = {"eval/gold_sampled": float("nan")} if (point, seed) == (2, 3) else {}
        return effect(arm, point, seed) | lost

    study = make_study()
    write_runs(study, tmp_path, halting)
    answers.write(answers.answer(study, tmp_path), tmp_path, COMMAND)
    text = (tmp_path / "made" / "results.json").read_text()
    found = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    gold = found["metrics"]["gold"]["arms"]["plain"]
    assert [(i, j) for i, row in enumerate(gold) for j, x in enumerate(row) if x is None] == [
        (2, 3)
    ]


def test_an_analysis_that_its_numbers_do_not_allow_leaves_the_rest_of_the_page(
    tmp_path: Path,
) -> None:
    def refuse(_: Results) -> Analysis:
        raise ConfigError("no seed went far enough")

    mine, others = (
        make_study().expectations,
        (Differs("reach", "plain", "checked", "higher", stated="after"),),
    )
    study = make_study(analyse=refuse, expectations=(*mine, *others))
    write_runs(study, tmp_path, effect)
    said = answers.answer(study, tmp_path)
    answers.write(said, tmp_path, COMMAND)
    text = text_of(tmp_path / "made" / "study.html")
    assert "could not be made: no seed went far enough." in text
    assert "Of 1 expectation stated before the data: 1 supported (1 primary)." in text
    assert "Of 2 expectations stated after the data: 1 supported (1 primary), 1 not judged." in text
    assert said.judged.unjudged == others


def test_a_page_says_when_its_seeds_are_too_few_to_settle_anything(tmp_path: Path) -> None:
    # Two claims: 2 · 2⁻ⁿ ≤ 0.025 from n = 7 on.
    assert [seeds_needed(m) for m in (1, 2, 3, 13)] == [6, 7, 7, 10]
    for seeds in (6, 7):
        root = tmp_path / str(seeds)
        study = make_study(seeds=seeds)
        write_runs(study, root, effect)
        said = answers.answer(study, root)
        answers.write(said, root, COMMAND)
        text = text_of(root / "made" / "study.html")
        few = "6 seeds cannot settle that by the rule below, whatever they show: a claim takes at "
        few += "least 6, and all 2 primary ones 7."
        assert (few in text) == (seeds == 6)
        assert {v.outcome for v in said.judged.verdicts} == (
            {"inconclusive"} if seeds == 6 else {"supported"}
        )


def test_a_page_names_every_revision_that_its_runs_were_made_by(tmp_path: Path) -> None:
    study = make_study()
    write_runs(study, tmp_path, effect)
    file = plan.chunks(study, tmp_path)[0].directory / "metadata.json"
    file.write_text(file.read_text().replace('"abc"', '"def"'))
    assert answers.answer(study, tmp_path).results.revision == "def and abc"


def test_names_are_escaped(tmp_path: Path) -> None:
    study = dataclasses.replace(make_study(expectations=()), title="<b>&", question='"<i>"')
    write_runs(study, tmp_path, effect)
    answers.write(answers.answer(study, tmp_path), tmp_path, "a < b")
    for file in ("made/study.html", "index.html"):
        html = (tmp_path / file).read_text()
        assert "<b>&" not in html
        assert "<i>" not in html.replace('<i style="', "")


def test_an_interval_is_whole_on_a_line_of_80_columns(made: tuple[Study, Path]) -> None:
    study, root = made
    said = answers.answer(study, root)
    with (console := Console(width=80)).capture() as shown:
        console.print(tables.terminal(said.results))
    wanted = [
        tables.interval(verdicts.centre(row, study.metrics[0]))
        for row in said.results.of("gold", "checked")
    ]
    assert len(wanted) == 4
    for text in wanted:
        value, bracket = text.split(" [")
        assert value in shown.get()
        assert f"[{bracket}" in shown.get()


def failing(*gone: tuple[str, int, int]) -> Any:
    """`effect`, but these (arm, point, seed) diverged before they were evaluated."""

    def found(arm: str, point: int, seed: int) -> dict[str, Any]:
        made = effect(arm, point, seed)
        if (arm, point, seed) not in gone:
            return made
        return {"eval/gold_sampled": None, "bestofn/gold": [None] * 3}

    return found


def test_seeds_that_failed_are_counted_arm_by_arm_and_by_the_verdicts(tmp_path: Path) -> None:
    study = make_study(seeds=16, population=16)
    write_runs(study, tmp_path, failing(("plain", 1, 3), ("plain", 3, 5), ("checked", 3, 0)))
    said = answers.answer(study, tmp_path)
    answers.write(said, tmp_path, COMMAND)
    markdown = (tmp_path / "made" / "study.md").read_text()
    for row in (
        "| plain | 0.2 | 1 of 16 (6 %) |",
        "| plain | 0.4 | 0 of 16 (0 %) |",
        "| checked | 0.6 | 1 of 16 (6 %) |",
    ):
        assert row in markdown
    (gold,) = [line for line in markdown.splitlines() if line.startswith("| plain | 0.6 | −")]
    assert "| 15 of 16 |" in gold
    trend, beside = said.judged.verdicts
    assert (trend.outcome, beside.outcome) == ("supported", "supported")
    assert "it holds in 14 of 16 seeds (2 without a number count against" in trend.sentence
    assert "(3 without a number" in beside.sentence
    whole = make_study(seeds=16, population=16)
    write_runs(whole, tmp_path / "whole", effect)
    assert "Seeds that failed" not in page.markdown(answers.answer(whole, tmp_path / "whole"), "")


def test_an_analysis_is_of_the_seeds_that_failed_nowhere_and_its_claims_count_the_others(
    tmp_path: Path,
) -> None:
    def curves(found: Results) -> Analysis:
        curve = {arm: found.of("curve", arm)[:, :, -1] for arm in found.arms}
        assert all(np.isfinite(v).all() for v in curve.values())
        return Analysis(measured={"end": Measured("the axis", found.at, curve)})

    claim = Differs("end", "plain", -9.0, "higher", stated="before")
    study = make_study(seeds=16, population=16, analyse=curves, expectations=(claim,))
    write_runs(study, tmp_path, failing(("plain", 1, 3), ("checked", 3, 0)))
    said = answers.answer(study, tmp_path)
    (verdict,) = said.judged.verdicts
    assert "it holds in 14 of 16 seeds (2 without a number" in verdict.sentence
    assert said.analysis.notes == [
        "The study's own figures and tables are of the 14 seeds that failed in no arm; the other 2 "
        "count as failed in claims about them."
    ]


def test_an_arm_without_numbers_says_so_where_arms_are_named(tmp_path: Path) -> None:
    gone = [("checked", p, s) for p in range(4) for s in range(8)]
    study = make_study()
    write_runs(study, tmp_path, failing(*gone, ("plain", 2, 1)))
    (panel,) = figures.panels(answers.answer(study, tmp_path).results)
    assert [label for label, _ in panel.key] == ["plain (n = 7 to 8)", "checked (no numbers)"]
    rows = make_study(axis=None, expectations=())
    write_runs(rows, tmp_path / "rows", failing(*gone))
    (panel,) = figures.panels(answers.answer(rows, tmp_path / "rows").results)
    assert "checked (no numbers)" in panel.svg


def test_a_positive_control_that_is_not_found_is_shouted(made: tuple[Study, Path]) -> None:
    study, root = made
    control = Differs("gold", "plain", "plain", "higher", 0.2, 0.6, 0.0, stated="before")
    study = dataclasses.replace(study, control=control)
    answers.write(answers.answer(study, root), root, COMMAND)
    assert "POSITIVE CONTROL NOT FOUND: gold of plain" in text_of(root / "made" / "study.html")
    few = make_study(seeds=4, name="few")
    write_runs(few, root, effect)
    said = answers.answer(few, root)
    assert page.positive(said.judged, few).startswith("Positive control, not to be settled by so")


def test_the_atlas_counts_as_people_do(tmp_path: Path) -> None:
    for i, atlas in enumerate(("A10", "A2", "", "B1", "A3, A8")):
        (tmp_path / f"study-{i}").mkdir()
        said = {"name": f"study-{i}", "atlas": atlas}
        (tmp_path / f"study-{i}" / index.SUMMARY).write_text(json.dumps(said))
    assert [s["atlas"] for s in index.found(tmp_path)] == ["A2", "A3, A8", "A10", "B1", ""]


def test_intervals_of_shares_stay_between_0_and_1() -> None:
    seeds = np.array([0.0, 0.0, 0.0, 1.0])
    share, other = Metric("s", "s", "share"), Metric("s", "s", "nats")
    assert verdicts.centre(seeds, other).low < 0
    assert (verdicts.centre(seeds, share).low, verdicts.centre(1 - seeds, share).high) == (0, 1)


def test_seeds_far_out_and_in_groups_are_told_in_the_tables(tmp_path: Path) -> None:
    def odd(arm: str, point: int, seed: int) -> dict[str, Any]:
        found = effect(arm, point, seed % 3)  # three values
        found["eval/gold_sampled"] += 0.001 * seed + 20.0 * (arm == "plain" and seed < 3)
        found["eval/gold_sampled"] += 20.0 * (arm == "checked" and seed == 3)
        return found

    study = make_study(seeds=16, population=16)
    write_runs(study, tmp_path, odd)
    said = answers.answer(study, tmp_path)
    first = tables.measured(said.results)[0]
    assert first.head[-2:] == ["n", "far out"]
    told = {row[0]: row[-1] for row in first.rows}
    assert told == {"plain": "two groups: 13 + 3", "checked": "1"}
    assert "Seeds in two groups somewhere: plain." in figures.panels(said.results)[0].note


STUDIES = Path(__file__).parents[2] / "configs" / "studies"


def test_no_label_of_a_study_is_cut() -> None:
    labels, names = set(), set()
    for path in STUDIES.glob("[!_]*.py"):
        study = command.read(path)
        names.add(study.axis_name)
        labels |= {f"{m.label} ({m.unit})" if m.unit else m.label for m in study.metrics}
    assert len(labels) > 20
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **drawing.STYLE}):
        figure = Figure(figsize=(drawing.WIDTH, drawing.HEIGHT), layout="constrained")
        plot = figure.subplots()
        for along, up in zip_longest(sorted(names), sorted(labels), fillvalue="x"):
            plot.set_xlabel(drawing.fitted(along, drawing.WIDTH))
            plot.set_ylabel(drawing.fitted(up, drawing.HEIGHT))
            figure.draw_without_rendering()
            for label in (plot.xaxis.label, plot.yaxis.label):
                box = label.get_window_extent()
                inside = figure.bbox.padded(1)
                assert inside.x0 <= box.x0, label
                assert box.x1 <= inside.x1, label
                assert inside.y0 <= box.y0, label
                assert box.y1 <= inside.y1, label

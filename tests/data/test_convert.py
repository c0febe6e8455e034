"""Nothing is dropped without being counted."""

from __future__ import annotations

import json
import tracemalloc

import pytest

from rlhf_jax.config import ConfigError
from rlhf_jax.data.convert import (
    VOTERS,
    Account,
    Outcome,
    load_arguments,
    read_rows,
    recognise,
    stream_records,
    stream_rows,
    write_rows,
)
from rlhf_jax.data.formats import FORMATS, Options
from rlhf_jax.data.rows import Comparison, Label, text
from rlhf_jax.data.stats import summary

NONE = Options()
GOOD = {"prompt": "q", "chosen": "a", "rejected": "b"}


def lines(tmp_path, *records):
    path = tmp_path / "f.jsonl"
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records))
    return path


def comparison(label, **fields):
    given = {"prompt": text("q"), "a": text("x"), "b": text("y"), "item": "1"}
    return Comparison(**(given | fields), label=label)


def test_skip_lists_each_malformed_record_with_file_line_and_reason(tmp_path):
    path = lines(tmp_path, GOOD, {"prompt": "q", "chosen": 3, "rejected": "b"}, "{", GOOD, {})
    result = read_rows(path, FORMATS["trl_preference"], NONE, "skip")
    assert (result.records, len(result.rows)) == (2, 2)
    assert [str(m).split(":")[:2] for m in result.malformed] == [
        ["f.jsonl", "2"],
        ["f.jsonl", "3"],
        ["f.jsonl", "5"],
    ]
    assert "field 'chosen' is a whole number, expected text or a list" in str(result.malformed[0])


def test_fail_raises_at_the_first_malformed_record(tmp_path):
    path = lines(tmp_path, GOOD, {"chosen": "a"}, "{")
    with pytest.raises(ConfigError, match=r"f\.jsonl:2: field 'rejected' is missing"):
        read_rows(path, FORMATS["trl_preference"], NONE)


def test_answers_that_a_format_cannot_express_are_listed_or_fatal():
    rows = [comparison(1.0), comparison(0.5), comparison(None), Label(x=text("x"), value="good")]
    result = write_rows(rows, FORMATS["trl_preference"], NONE, "skip")
    assert len(result.records) == 1
    assert [(r.row, r.reason) for r in result.refused] == [
        (2, "a tie has no place in a preference"),
        (3, "'can't tell' has no place in a preference"),
        (4, "a label has no place in trl_preference"),
    ]
    with pytest.raises(ConfigError, match="row 2: a tie"):
        write_rows(rows, FORMATS["trl_preference"], NONE)


def test_one_answer_that_does_not_fit_does_not_take_its_record_with_it():
    rows = [comparison(1.0, annotator="u"), comparison(0.7), comparison(0.0)]
    result = write_rows(rows, FORMATS["label_studio"], NONE, "skip")
    assert [len(r["annotations"]) for r in result.records] == [2]
    assert [r.row for r in result.refused] == [2]


def test_a_record_whose_answers_contradict_each_other_is_refused_whole():
    rows = [comparison(1.0), comparison(1.0, a=text("other"))]
    result = write_rows(rows, FORMATS["label_studio"], NONE, "skip")
    assert (len(result.records), [r.row for r in result.refused]) == (0, [1, 2])


def test_fields_that_do_not_survive_are_counted_and_a_swap_is_only_a_loss_of_order():
    rows = [
        comparison(1.0, annotator="u", confidence=0.9, a_id="m1"),
        comparison(0.0, annotator="u"),
    ]
    lost = write_rows(rows, FORMATS["trl_preference"], NONE).lost
    assert lost == {"item": 2, "annotator": 2, "confidence": 1, "a_id": 1, "order": 1}


def test_what_only_the_source_format_knows_goes_back_there_and_is_lost_elsewhere(tmp_path):
    path = lines(tmp_path, GOOD | {"margin": 2})
    rows = read_rows(path, FORMATS["trl_preference"], NONE).rows
    assert write_rows(rows, FORMATS["trl_preference"], NONE).records == [GOOD | {"margin": 2}]
    other = write_rows(rows, FORMATS["alpaca_eval"], NONE)
    assert "margin" not in other.records[0]
    assert other.lost["extra"] == 1


@pytest.mark.parametrize(
    ("record", "name"),
    [
        (GOOD, "trl_preference"),
        ({"chosen": "a b", "rejected": "a c"}, "trl_preference_implicit"),
        ({"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a"}, "hh_rlhf"),
        ({"prompt": "q", "completion": "a", "label": True}, "trl_unpaired"),
        ({"type": "label", "x": "a", "value": "good"}, "rows"),
    ],
)
def test_a_format_is_recognised_by_its_fields(tmp_path, record, name):
    assert recognise(lines(tmp_path, "{", record), NONE).name == name


def test_the_first_hundred_records_vote_on_the_format(tmp_path):
    hh = {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}
    odd = {"chosen": "b", "rejected": "c"}
    path = lines(tmp_path, odd, hh, hh)
    assert recognise(path, NONE).name == "hh_rlhf"
    result = read_rows(path, FORMATS["hh_rlhf"], NONE, "skip")
    assert (len(result.rows), [m.line for m in result.malformed]) == (2, [1])
    assert recognise(lines(tmp_path, odd, odd, hh), NONE).name == "trl_preference_implicit"
    late = lines(tmp_path, *[odd] * VOTERS, *[hh] * VOTERS * 2)
    assert recognise(late, NONE).name == "trl_preference_implicit"


def test_why_no_format_reads_a_record_is_said(tmp_path):
    message = {"role": "assistant", "content": "a", "weight": 1}
    path = lines(tmp_path, {"prompt": [message], "chosen": [message], "rejected": [message]})
    with pytest.raises(
        ConfigError, match=r"f\.jsonl:1: this looks like trl_preference, but .*weight"
    ):
        recognise(path, NONE)
    with pytest.raises(ConfigError, match=r"f\.jsonl:1: not JSON: more than one value"):
        recognise(lines(tmp_path, '{"a": 1}{"a": 1}'), NONE)


def test_a_million_answers_need_little_memory(tmp_path):
    def rows(count):
        for i in range(count):
            yield Comparison(prompt=text(f"{i} " * 200), a=text(f"a{i}"), b=text("b"), label=1.0)

    summary(rows(10))
    tracemalloc.start()
    facts = summary(rows(20_000))["comparison"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert facts["things judged"] == 20_000
    assert peak < 20_000 * 400  # bytes; a prompt alone has 1,000


@pytest.mark.parametrize("name", ["trl_preference", "label_studio"])
def test_records_are_made_one_after_the_other_in_little_memory(name):
    def rows(count):
        for i in range(count):
            yield comparison(i % 2, prompt=text(f"{i} " * 200), item=str(i % (count // 2)))

    outcome, refused = Outcome(), []
    tracemalloc.start()
    made = stream_records(rows(2_000), FORMATS[name], NONE, "skip", outcome, refused.append)
    count = sum(1 for _ in made)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Of an item the two answers are about different prompts, which one task cannot have.
    want = (2_000, 0) if name == "trl_preference" else (0, 2_000)
    assert (count, outcome.refused) == want == (outcome.records, len(refused))
    assert peak < 2_000 * 500  # bytes; a prompt alone has 1,000


def test_answers_come_one_after_the_other_with_an_account(tmp_path):
    account = Account()
    path = lines(tmp_path, GOOD, GOOD | {"rejected": "a"}, "{", GOOD)
    rows = stream_rows(path, FORMATS["trl_preference"], NONE, "skip", account)
    next(rows)
    assert (account.records, account.answers) == (1, 1)
    assert len(list(rows)) == 2
    assert (account.records, len(account.malformed), account.unanswered) == (3, 1, 0)
    assert account.remarks == {"a preference between two identical texts": [1, 2]}


def test_an_unknown_format_is_one_clear_error(tmp_path):
    with pytest.raises(ConfigError, match="give --format"):
        recognise(lines(tmp_path, {"x": 1}), NONE)
    with pytest.raises(ConfigError, match="no record"):
        recognise(lines(tmp_path), NONE)


def test_arguments_must_be_texts(tmp_path):
    path = tmp_path / "args.json"
    path.write_text('{"arg1": 3}')
    with pytest.raises(ConfigError, match="argument 'arg1' is not text"):
        load_arguments(path)

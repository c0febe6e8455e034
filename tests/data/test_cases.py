"""Files as people write them: each is read right, or refused in words that name what it is."""

from __future__ import annotations

import gzip
import json

import pytest

from rlhf_jax.config import ConfigError
from rlhf_jax.data.convert import Account, read_rows, recognise, stream_rows, write_rows
from rlhf_jax.data.formats import FORMATS, Options
from rlhf_jax.data.formats.label_studio import TRUTH
from rlhf_jax.data.formats.prompts import REPEATED, SPLIT
from rlhf_jax.data.formats.trl import AS_STRINGS
from rlhf_jax.data.rows import SAID, Turn, extra_of, text
from rlhf_jax.data.stats import summary

NONE = Options()


def turns(*said: str) -> tuple[Turn, ...]:
    """'user: words', … as a conversation."""
    return tuple(Turn(*s.split(": ", 1)) for s in said)


def messages(*said: str) -> list[dict[str, str]]:
    return [t._asdict() for t in turns(*said)]


def put(tmp_path, *records, name="f.jsonl"):
    path = tmp_path / name
    lines = [r if isinstance(r, str) else json.dumps(r) for r in records]
    path.write_text("\n".join(lines) + "\n", newline="")
    return path


def put_list(tmp_path, *records):
    lines = [r if isinstance(r, str) else json.dumps(r) for r in records]
    return put(tmp_path, "[" + ",\n".join(lines) + "]", name="f.json")


def read(path, options=NONE, on_error="fail"):
    """(rows, account), the format found out."""
    account = Account()
    chosen = recognise(path, options)
    return list(stream_rows(path, chosen, options, on_error, account)), account


def said(row) -> list[str]:
    return json.loads(row.extra).get(SAID, [])


def test_question_and_system_are_the_prompt_and_answers_stay_whole(tmp_path):
    danube = "The river that flows through Vienna is the Danube."
    rhine = "The river that flows through Vienna is the Rhine."
    path = put(
        tmp_path,
        {
            "system": "You are brief.",
            "question": "Which river flows through Vienna?",
            "chosen": danube,
            "rejected": rhine,
        },
        {"system": "", "question": "2+2?", "chosen": "4", "rejected": "5"},
    )
    (first, second), account = read(path)
    assert first.prompt == turns(
        "system: You are brief.", "user: Which river flows through Vienna?"
    )
    assert (first.a, first.b) == (turns(f"assistant: {danube}"), turns(f"assistant: {rhine}"))
    assert (second.prompt, second.a) == (turns("user: 2+2?"), turns("assistant: 4"))
    assert said(first) == ["the prompt is of 'system', 'question'"]
    assert account.remarks["the prompt is of 'system', 'question'"] == [1, 1]
    (record, _) = write_rows([first, second], FORMATS["trl_preference"], NONE).records
    assert set(record) == {"prompt", "chosen", "rejected"}


@pytest.mark.parametrize("name", ["question", "instruction", "query", "problem", "input"])
def test_a_prompt_is_found_by_the_other_names_it_goes_by(tmp_path, name):
    path = put(tmp_path, {name: "Who was it?", "chosen": "It was me", "rejected": "It was you"})
    (row,), _ = read(path)
    assert (row.prompt, row.a, row.b) == (
        text("Who was it?"),
        text("It was me"),
        text("It was you"),
    )
    assert said(row) == [f"the prompt is of '{name}'"]


def test_the_input_of_an_instruction_follows_it(tmp_path):
    pair = {"instruction": "Translate", "input": "salut"}
    (row,), _ = read(put(tmp_path, pair | {"chosen": "hi", "rejected": "ho"}))
    assert row.prompt == text("Translate\n\nsalut")
    outputs = {"output_1": "hi", "output_2": "ho", "preference": 2}
    (row,), _ = read(put(tmp_path, pair | outputs))
    assert row.prompt == text("Translate\n\nsalut")


def test_two_fields_that_could_both_be_the_prompt_are_asked_about(tmp_path):
    record = {"question": "q r", "query": "s t", "chosen": "a", "rejected": "b"}
    path = put(tmp_path, record)
    with pytest.raises(ConfigError, match=r"'question' and 'query' could each be the prompt"):
        read(path)
    (row,), _ = read(path, Options({"prompt": "query"}))
    assert row.prompt == text("s t")
    mine = {"prompt": "question", "chosen": "response_j", "rejected": "response_k"}
    path = put(tmp_path, {"question": "q", "response_j": "a", "response_k": "b"})
    (row,) = read_rows(path, FORMATS["trl_preference"], Options(mine)).rows
    assert (row.prompt, row.a, row.b) == (text("q"), text("a"), text("b"))


def test_a_prompt_is_split_off_only_where_no_field_could_be_one_and_the_row_says_so(tmp_path):
    pair = {"chosen": "Q: 1+1=\nA: 2", "rejected": "Q: 1+1=\nA: 11"}
    path = put(tmp_path, pair, pair | {"id": "7", "category": "plain sums", "score_chosen": 4.5})
    rows, account = read(path)
    assert {r.prompt for r in rows} == {text("Q: 1+1=\nA:")}
    assert all(said(r) == [SPLIT] for r in rows)
    assert account.remarks[SPLIT] == [2, 1]
    written = write_rows(rows, FORMATS["trl_preference_implicit"], NONE)
    assert written.records[0] == pair
    assert not written.lost
    (row,), account = read(put(tmp_path, pair | {"topic": "What is one and one?"}))
    assert (row.prompt, row.a, row.b) == (text(""), text(pair["chosen"]), text(pair["rejected"]))
    assert "'topic' may be it" in said(row)[0]
    assert list(account.remarks) == said(row)


def test_a_preference_between_equal_scores_is_said(tmp_path):
    scored = {"prompt": "Q", "chosen": "a", "rejected": "b", "score_chosen": 4.0}
    path = put(tmp_path, scored | {"score_rejected": 4.0}, scored | {"score_rejected": 3.0})
    assert read(path)[1].remarks == {"chosen and rejected have the same score": [1, 1]}


def test_a_system_field_stands_before_an_explicit_prompt(tmp_path):
    record = {"id": "7", "system": "Speak as a pirate.", "prompt": "Hello"}
    (row,), _ = read(put(tmp_path, record | {"chosen": "Arr", "rejected": "Hi"}))
    assert row.prompt == turns("system: Speak as a pirate.", "user: Hello")
    assert (row.a, row.b) == (turns("assistant: Arr"), turns("assistant: Hi"))


def test_a_prompt_that_stands_in_both_answers_again_is_there_once(tmp_path):
    pear, chair = (messages("user: Name a fruit.", f"assistant: {x}") for x in ("Pear.", "Chair."))
    talk = {"chosen": pear, "rejected": chair}
    for prompt in (messages("user: Name a fruit."), "Name a fruit."):
        (row,), account = read(put(tmp_path, {"prompt": prompt} | talk))
        assert row.prompt == turns("user: Name a fruit.")
        assert (row.a, row.b) == (turns("assistant: Pear."), turns("assistant: Chair."))
        assert account.remarks == {REPEATED: [1, 1]}
        (record,) = write_rows([row], FORMATS["hh_rlhf"], NONE).records
        assert record["chosen"] == "\n\nHuman: Name a fruit.\n\nAssistant: Pear."
    plain = {"prompt": "Name a fruit.", "chosen": "Name a fruit. Pear."}
    (row,), _ = read(put(tmp_path, plain | {"rejected": "Name a fruit. Chair."}))
    assert (row.prompt, row.a, row.b) == (text("Name a fruit."), text(" Pear."), text(" Chair."))
    # What merely begins alike does not repeat the prompt.
    for prompt, a, b in (
        ("Hi", "Hi there", "Hi!"),
        ("Name a fruit", "Name a fruity", "Name a fruit"),
    ):
        (row,), _ = read(put(tmp_path, {"prompt": prompt, "chosen": a, "rejected": b}))
        assert (row.prompt, row.a, row.b) == (text(prompt), text(a), text(b))
    with pytest.raises(ConfigError, match="neither repeat it nor answer it"):
        read(put(tmp_path, {"prompt": "Name a car."} | talk))


def test_two_identical_answers_are_counted_and_said(tmp_path):
    path = put(
        tmp_path,
        {"prompt": "Q2", "chosen": "good", "rejected": "bad"},
        {"prompt": "Q", "chosen": "same", "rejected": "same"},
    )
    rows, account = read(path)
    assert account.remarks == {"a preference between two identical texts": [1, 2]}
    assert summary(rows)["comparison"]["identical answers"]["count"] == 1
    same = messages("user: Q", "assistant: A")
    _, account = read(put(tmp_path, {"chosen": same, "rejected": same}))
    assert account.remarks["a preference between two identical texts"] == [1, 1]


@pytest.mark.parametrize(
    ("start", "line"), [("\n\n", "\n\n"), ("", "\n\n"), ("\r\n\r\n", "\r\n\r\n"), ("\n", "\n\n")]
)
def test_transcripts_with_windows_line_ends_or_stripped_are_turns(tmp_path, start, line):
    chosen, rejected = (
        f"{start}Human: tell me a fact{line}Assistant: Cats {what} when calm."
        for what in ("purr", "bark")
    )
    path = put(tmp_path, {"chosen": chosen, "rejected": rejected})
    assert recognise(path, NONE).name == "hh_rlhf"
    (row,), _ = read(path)
    assert row.prompt == turns("user: tell me a fact")
    assert row.a == turns("assistant: Cats purr when calm.")
    assert FORMATS["hh_rlhf"].write([row], NONE) == {"chosen": chosen, "rejected": rejected}


@pytest.mark.parametrize("plain", [{}, {"prompt": "Q"}])
def test_transcripts_in_a_file_of_plain_strings_are_counted_and_said(tmp_path, plain):
    odd = plain | {"chosen": "an a", "rejected": "a b"}
    hh = {k: f"\n\nHuman: q\n\nAssistant: {k}" for k in ("chosen", "rejected")}
    rows, account = read(put(tmp_path, odd, hh, odd, odd, hh))
    assert len(rows) == 5
    assert account.remarks[AS_STRINGS] == [2, 2]
    # Prompt and answers as one text each is another thing, and so is a person called Human.
    whole = {"prompt": "\n\nHuman: q\n\nAssistant:", "chosen": " Human: a", "rejected": " b"}
    _, account = read(put(tmp_path, whole, odd))
    assert AS_STRINGS not in account.remarks


def test_a_nan_or_a_doubled_key_in_a_list_costs_one_record(tmp_path):
    pair = {"instruction": "Say hi", "output_1": "hi", "output_2": "hello"}
    nan = json.dumps(pair | {"preference": 7}).replace("7", "NaN")
    path = put_list(tmp_path, *(pair | {"preference": v} for v in (1.0, 2.0, 1.5)), nan)
    rows, account = read(path, on_error="skip")
    assert [r.label for r in rows] == [1.0, 0.0, 0.5]
    twice = '{"prompt": "Q", "prompt": "Q", "chosen": "a", "rejected": "b"}'
    good = {"prompt": "Q", "chosen": "a", "rejected": "b"}
    rows, account = read(put_list(tmp_path, good, twice, good | {"prompt": "Q3"}), on_error="skip")
    assert [r.prompt for r in rows] == [text("Q"), text("Q3")]
    assert [m.reason for m in account.malformed] == ["field 'prompt' stands twice in one object"]
    with pytest.raises(ConfigError, match="stands twice"):
        read(path.with_name("f.json"))


def argilla(responses, **more):
    fields = {"prompt": "Q", "response_a": "x", "response_b": "y"}
    return {"id": "e1", "fields": fields, "responses": responses} | more


def response(value, who, status=None):
    return {"value": value, "user_id": who} | ({} if status is None else {"status": status})


def test_only_submitted_argilla_responses_are_verdicts(tmp_path):
    given = [
        response("response_b", "u0", "draft"),
        response("response_a", "u1", "submitted"),
        response("response_b", "u2", "discarded"),
        response(None, "u3"),
        response("response_a", "u4"),
    ]
    record = argilla({"preference": given, "rating": [response(4, "u2", "discarded")]})
    rows, account = read(put_list(tmp_path, record))
    assert [(r.annotator, r.label) for r in rows] == [("u1", 1.0), ("u2", None), ("u4", 1.0)]
    assert summary(rows)["comparison"]["ties"]["of"] == 2
    assert len(account.remarks) == 1
    assert FORMATS["argilla"].write(rows, NONE) == record


def test_argilla_1_is_read_and_what_was_discarded_is_no_verdict(tmp_path):
    people = [
        {"user_id": "p1", "values": {"preference": {"value": "response_a"}}, "status": "submitted"},
        {"user_id": "p2", "values": {"preference": {"value": "response_b"}}, "status": "discarded"},
        {"user_id": "p3", "values": {}, "status": "draft"},
        {"user_id": "p4", "values": {"preference": {"value": "tie"}}, "status": "submitted"},
    ]
    record = argilla(people, external_id="x1")
    del record["id"]
    rows, _ = read(put_list(tmp_path, record))
    assert [(r.annotator, r.label) for r in rows] == [("p1", 1.0), ("p2", None), ("p4", 0.5)]
    assert {r.item for r in rows} == {"x1"}


def test_records_and_tasks_nobody_answered_are_counted(tmp_path):
    answered = argilla({"preference": [response("response_a", "u1")]})
    rows, account = read(put_list(tmp_path, answered, argilla({}), argilla([])))
    assert (len(rows), account.records, account.unanswered) == (1, 3, 2)
    assert not account.malformed
    rows, account = read(put_list(tmp_path, task("left"), task()))
    assert (len(rows), account.unanswered, account.malformed) == (1, 1, [])


def pairwise(selected, to="text1,text2"):
    return {"type": "pairwise", "value": {"selected": selected}, "to_name": to, "from_name": "pw"}


def choice(name):
    return {"type": "choices", "value": {"choices": [name]}, "to_name": "text1"}


def task(*said, **data):
    """A Label Studio task; a side of a pairwise choice stands for its result."""
    results = [pairwise(s) if isinstance(s, str) else s for s in said]
    notes = [{"completed_by": 1, "result": r if isinstance(r, list) else [r]} for r in results]
    return {"id": 1, "data": {"prompt": "Q", "text1": "x", "text2": "y"} | data} | {
        "annotations": notes
    }


def test_a_choice_of_a_tie_in_label_studio_is_a_half(tmp_path):
    rows, _ = read(put_list(tmp_path, task(choice("tie"), "left", choice("Tie"), [])))
    assert [r.label for r in rows] == [0.5, 1.0, 0.5, None]
    assert FORMATS["label_studio"].write(rows, NONE)["annotations"][0]["result"] == [choice("tie")]
    (row,), _ = read(put_list(tmp_path, task(choice("equal"))), Options({"tie": "equal"}))
    assert row.label == 0.5
    with pytest.raises(ConfigError, match="--field tie=NAME"):
        read(put_list(tmp_path, task(choice("equal"))))
    with pytest.raises(ConfigError, match="1 entries of type 'pairwise' and 1 choices 'tie'"):
        read(put_list(tmp_path, task([pairwise("left"), choice("tie")])))


def test_left_in_label_studio_is_the_field_that_its_tag_names_first(tmp_path):
    shown = task(pairwise("left", "text2,text1"), pairwise("right", "text2,text1"), "left")
    rows, _ = read(put_list(tmp_path, shown))
    assert [(r.a[0].content, r.label) for r in rows] == [("x", 0.0), ("x", 1.0), ("x", 1.0)]
    assert FORMATS["label_studio"].write(rows, NONE)["annotations"][0]["result"] == [
        pairwise("left", "text2,text1")
    ]


def test_an_annotation_that_is_marked_as_the_truth_is_said(tmp_path):
    marked = task("left", "right")
    marked["annotations"][0]["ground_truth"] = True
    rows, account = read(put_list(tmp_path, marked))
    assert account.remarks == {TRUTH: [1, 1]}
    assert FORMATS["label_studio"].write(rows, NONE)["annotations"][0]["ground_truth"] is True


@pytest.mark.parametrize("kind", ["rating", "ranker"])
def test_label_studio_projects_of_other_kinds_are_refused_by_name(tmp_path, kind):
    with pytest.raises(ConfigError, match=f"results of type {kind}: only pairwise"):
        read(put_list(tmp_path, task({"type": kind, "value": {kind: 4}})))


def test_json_min_is_read(tmp_path):
    record = {
        "prompt": "Q",
        "text1": "x",
        "text2": "y",
        "id": 1,
        "pw": "left",
        "annotator": 1,
        "annotation_id": 11,
        "created_at": "2024-01-01T00:00:00Z",
        "lead_time": 4.2,
    }
    path = put_list(tmp_path, record, record | {"pw": "right", "annotator": 2})
    assert recognise(path, NONE).name == "label_studio_min"
    (left, right), _ = read(path)
    assert (left.prompt, left.a, left.b) == (text("Q"), text("x"), text("y"))
    assert [(r.label, r.annotator, r.seconds) for r in (left, right)] == [
        (1.0, "1", 4.2),
        (0.0, "2", 4.2),
    ]


def test_summaries_rated_by_axis_are_ratings(tmp_path):
    axes = {"overall": 6, "accuracy": 7, "coverage": 5, "coherence": 7}
    record = {
        "info": {"id": "t3_x", "post": "Long post."},
        "summary": {"text": "Short.", "policy": "sup4", "axes": axes},
        "worker": "W1",
        "batch": "b0",
    }
    rows, _ = read(put(tmp_path, record))
    assert {r.axis: r.value for r in rows} == axes
    assert {(r.annotator, r.x, r.x_id) for r in rows} == {("W1", text("Short."), "sup4")}
    pair = {"info": {"id": "1", "post": "P"}, "summaries": [{"text": "a"}, {"text": "b"}]}
    (row,), _ = read(put(tmp_path, pair | {"choice": 0, "extra": None}))
    assert (row.label, row.confidence) == (1.0, None)


def test_what_a_person_wrote_must_not_be_rated_wrong(tmp_path):
    step = {"completions": [], "chosen_completion": None}
    own = {"text": "mine", "rating": -1, "source": "human"}
    record = {"question": {"problem": "q"}, "label": {"steps": [step | {"human_completion": own}]}}
    with pytest.raises(ConfigError, match=r"human_completion\.rating = -1"):
        read(put(tmp_path, record))


TALK = messages("user: q", "assistant: a")
FOREIGN = {
    "MT-bench or Chatbot Arena": {
        "question_id": 81,
        "model_a": "m1",
        "model_b": "m2",
        "winner": "tie",
        "judge": "expert_1",
        "conversation_a": TALK,
        "conversation_b": TALK,
        "turn": 1,
    },
    "UltraFeedback": {
        "source": "s",
        "instruction": "i",
        "models": ["m1"],
        "completions": [{"model": "m1", "response": "r1", "overall_score": 8.0}],
    },
    "HelpSteer ratings": {
        "prompt": "p",
        "response": "r",
        "helpfulness": 3,
        "correctness": 4,
        "coherence": 4,
    },
    "HelpSteer 2": {"prompt": "p", "response_1": "a", "response_2": "b", "preference_strength": -2},
    "HelpSteer 3": {
        "context": TALK[:1],
        "response1": "a",
        "response2": "b",
        "overall_preference": -2,
    },
    "Nectar": {"prompt": "p", "answers": [{"answer": "a", "rank": 1.0}], "num_responses": 1},
    "SafeRLHF": {
        "prompt": "p",
        "response_0": "a",
        "response_1": "b",
        "better_response_id": 1,
        "safer_response_id": 0,
    },
    "POPQUORN": {"instance_id": 1, "user_id": 0, "text": "hello, you", "offensiveness": 1.0},
    "StackExchange": {"qid": 1, "question": "q", "answers": [{"pm_score": 3, "text": "a"}]},
    "response_j before response_k": {"question": "q", "response_j": "a", "response_k": "b"},
    "LLaMA-Factory": {
        "conversations": [{"from": "human", "value": "q"}],
        "chosen": {"from": "gpt", "value": "a"},
        "rejected": {"from": "gpt", "value": "b"},
    },
    "model-written": {
        "question": "q",
        "statement": "s",
        "label": "yes",
        "answer_matching_behavior": " Yes",
    },
    "ProcessBench": {"problem": "Q", "steps": ["a"], "final_answer_correct": False, "label": 1},
    "Math-Shepherd": {"input": "Q? Step 1: a", "label": "Q? Step 1: a +", "task": "GSM8K"},
    "Argilla 1 data set as the Hub has it": {
        "prompt": "Q",
        "preference": [{"user_id": "u1", "value": "response_a"}],
        "external_id": None,
        "metadata": "{}",
    },
    "a list under 'data'": {"data": [{"prompt": "Q", "chosen": "a", "rejected": "b"}]},
    r"columns \(prompt, chosen, rejected\)": {"prompt": ["Q"], "chosen": ["a"], "rejected": ["b"]},
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_format_that_is_not_read_is_refused_by_name(tmp_path, name):
    with pytest.raises(ConfigError, match=rf"f\.jsonl:1: .*{name}.*(not read|alone)"):
        read(put(tmp_path, FOREIGN[name]))


def test_webgpt_lists_are_refused_by_name(tmp_path):
    pair = [{"question": {"full_text": "q"}, "answer": "a", "score": s} for s in (1.0, -1.0)]
    with pytest.raises(ConfigError, match="WebGPT"):
        read(put(tmp_path, pair, pair))


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"prompt": "Q", "completion": "a", "label": 1}, "'label' is a whole number"),
        ({"prompt": "Q", "chosen": {"role": "x"}, "rejected": {}}, "'chosen' is an object"),
        ({"type": "pairwise", "prompt": "q"}, "field 'type' = 'pairwise'"),
        (argilla({"preference": [response("A", "u1")]}), "= 'A', expected one of response_a"),
        (argilla({"stars": [response(4, "u1")]}), "question 'stars' is none of ours"),
    ],
)
def test_a_record_of_a_known_format_that_cannot_be_read_says_why(tmp_path, record, reason):
    with pytest.raises(ConfigError, match=reason):
        read(put(tmp_path, record))


def test_copies_of_a_record_in_a_file_of_several_gzip_members_are_copies(tmp_path):
    path = tmp_path / "f.jsonl.gz"
    line = json.dumps({"prompt": "Q", "chosen": "a", "rejected": "b"}).encode() + b"\n"
    path.write_bytes(gzip.compress(line) + gzip.compress(line))
    rows, _ = read(path)
    assert summary(rows)["comparison"]["copies without a name"] == 1
    assert extra_of(rows[0], "trl") == {}

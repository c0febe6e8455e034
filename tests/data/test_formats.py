"""A few synthetic records per format: what they mean, and that writing gives them back."""

from __future__ import annotations

import pytest

from rlhf_jax.config import ConfigError
from rlhf_jax.data.formats import FORMATS, Options, hh_rlhf, prompts
from rlhf_jax.data.rows import (
    Comparison,
    Correction,
    Critique,
    Label,
    Process,
    Ranking,
    Rating,
    RowError,
    Span,
    Spans,
    Step,
    Turn,
    text,
)

SKY = [{"role": "user", "content": "What colour is the sky?"}]
BLUE, GREEN = ([{"role": "assistant", "content": c}] for c in ("Blue.", "Green."))
ARGUMENTS = {"arg1": "Water is wet.", "2": "It is not."}
NONE = Options()
UKP = Options(arguments=ARGUMENTS)
CODE = "def double(x):\n"


def ukp(value: str, worker: str = "w1") -> dict:
    return {
        "worker": worker,
        "value": value,
        "reason": "clearer – “says why”",
        "competence": 0.25,
        "stance": None,
        "accept": "2016-01-31 16:53:19.0 UTC",
        "submit": "2016-01-31 16:54:20.5 UTC",
    }


def candidate(words: str, rating: int | None) -> dict:
    return {"text": words, "rating": rating, "flagged": False}


RECORDS: dict[str, list[dict]] = {
    "trl_preference": [
        {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."},
        {"prompt": SKY, "chosen": BLUE, "rejected": GREEN, "margin": 0.5},
        {"prompt": "", "chosen": "a\u2028b", "rejected": ""},
    ],
    "trl_preference_implicit": [
        {"chosen": "The sky is blue.", "rejected": "The sky is green."},
        {"chosen": SKY + BLUE, "rejected": SKY + GREEN},
        {"chosen": "blue", "rejected": "blue"},
    ],
    "trl_unpaired": [
        {"prompt": "The sky is", "completion": " blue.", "label": True},
        {"prompt": SKY, "completion": GREEN, "label": False},
    ],
    "trl_stepwise": [
        {"prompt": "1+1+1?", "completions": ["1+1=2", "2+1=4"], "labels": [True, False]}
    ],
    "hh_rlhf": [
        {
            "chosen": "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: sky?\n\nAssistant: blue",
            "rejected": "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: sky?\n\nAssistant:",
        },
        {"chosen": "\n\nHuman: hi\n\nAssistant: a", "rejected": "\n\nHuman: ho\n\nAssistant: b"},
        {
            "chosen": "\r\n\r\nHuman: q\r\n\r\nAssistant: a",
            "rejected": "\r\n\r\nHuman: q\r\n\r\nAssistant: b\r\nc",
        },
        {"chosen": "Human: q\n\nAssistant: Cats purr", "rejected": "Human: q\n\nAssistant: Cats"},
    ],
    "summarize": [
        {
            "info": {"id": "t3_x", "post": "A long post.", "title": "T", "subreddit": "pets"},
            "summaries": [
                {"text": " short", "policy": "ref", "note": None},
                {"text": " shorter", "policy": "sup1", "note": "unclear"},
            ],
            "choice": 1,
            "worker": "w",
            "batch": "batch9",
            "split": "train",
            "extra": {"confidence": 8},
        },
        {
            "info": {"id": "c", "article": "News.", "site": "dailymail"},
            "summaries": [{"text": "a"}, {"text": "b"}],
            "choice": 0,
            "extra": {},
        },
    ],
    "summarize_axes": [
        {
            "info": {"id": "t3_x", "post": "A long post.", "title": "T", "subreddit": "r"},
            "split": "valid1",
            "summary": {
                "text": "Short.",
                "policy": "sup4",
                "note": "ok",
                "axes": {"overall": 6, "accuracy": 7, "coverage": 5, "coherence": None},
            },
            "worker": "w1",
            "batch": "b0",
        }
    ],
    "prm800k": [
        {
            "labeler": "uuid",
            "timestamp": "2023-01-22T04:34:27.052924",
            "generation": 9,
            "is_quality_control_question": False,
            "question": {"problem": "1+1?", "ground_truth_answer": "2"},
            "label": {
                "steps": [
                    {
                        "completions": [candidate("One.", 0), candidate("Two!", -1)],
                        "human_completion": None,
                        "chosen_completion": 0,
                    },
                    {
                        "completions": [candidate("1+1=3", -1)],
                        "human_completion": {"text": "1+1=2", "rating": None, "source": "human"},
                        "chosen_completion": None,
                    },
                    {
                        "completions": [candidate("so 4", -1), candidate("so 5", None)],
                        "human_completion": None,
                        "chosen_completion": None,
                    },
                ],
                "total_time": 278270,
                "finish_reason": "found_error",
            },
        }
    ],
    "alpaca_eval": [
        {
            "instruction": "Say hi",
            "output_1": "hi",
            "output_2": "yo",
            "dataset": "selfinstruct",
            "generator_1": "gpt4",
            "generator_2": "llama",
            "annotator": "claude",
            "preference": p,
            "time_per_example": 1.5,
            "raw_completion": {"why": "tone"},
        }
        for p in (1.0, 2.0, 1.5, None, 1.25)
    ]
    + [
        {
            "instruction": "Translate",
            "input": "hi",
            "output_1": "salut",
            "output_2": "yo",
            "preference": 1.0,
        }
    ],
    "argilla": [
        {
            "id": "7",
            "fields": {"prompt": "Hi", "response_a": "yo", "response_b": "hello"},
            "responses": {
                "preference": [
                    {"value": "response_b", "user_id": "u1"},
                    {"value": "tie", "user_id": "u2"},
                ],
                "ranking": [{"value": ["response_b", "response_a"], "user_id": "u1"}],
            },
            "metadata": {"topic": "greeting"},
            "suggestions": {},
            "vectors": {},
            "_server_id": None,
        },
        {
            "id": "8",
            "fields": {"prompt": SKY, "response": "Bleu."},
            "responses": {
                "rating": [{"value": 4, "user_id": "u1"}],
                "label": [{"value": "typo", "user_id": "u1"}],
                "critique": [{"value": "misspelt", "user_id": "u1"}],
                "correction": [{"value": "Blue.", "user_id": "u1"}],
            },
        },
    ],
    "label_studio": [
        {
            "id": 12,
            "project": 3,
            "data": {"prompt": "Hi", "text1": "yo", "text2": "hello", "lang": "en"},
            "annotations": [
                {
                    "id": 1001,
                    "completed_by": 10,
                    "result": [
                        {
                            "id": "r1",
                            "from_name": "pw",
                            "to_name": "text1,text2",
                            "type": "pairwise",
                            "value": {"selected": "right"},
                        }
                    ],
                    "was_cancelled": False,
                    "lead_time": 4.5,
                    "created_at": "2021-03-09T22:16:08.728353Z",
                },
                {
                    "id": 1002,
                    "completed_by": {"id": 11, "email": "a@b.c"},
                    "result": [],
                    "was_cancelled": True,
                },
            ],
            "predictions": [],
        }
    ],
    "label_studio_min": [
        {
            "prompt": "Hi",
            "text1": "yo",
            "text2": "hello",
            "id": 1,
            "pw": said,
            "annotator": 10,
            "annotation_id": 11,
            "created_at": "2024-01-01T00:00:00Z",
            "updated_at": "2024-01-02T00:00:00Z",
            "lead_time": 4.5,
        }
        for said in ("left", "tie")
    ],
    "ukpconvarg1": [
        {
            "topic": "wet-water",
            "debate": "Is water wet?",
            "a1": "arg1",
            "a2": "2",
            "annotations": [ukp("a1"), ukp("a2", "w2"), ukp("equal", "w3")],
            "gold": "a1",
        }
    ],
    "bigbench_mistake": [
        {
            "task": "t",
            "input": "sort b a",
            "steps": ["a first", "b second", "done"],
            "target": "a b",
            "answer": "b a",
            "mistake_index": m,
        }
        for m in (1, None, 0)
    ],
    "finegrained_rlhf": [
        {
            "question": "Who?",
            "passages": [["Title", "Sentence."]],
            "gold": "She.",
            **{f"prediction {i}": f"answer {i}" for i in (1, 2, 3, 4)},
            "feedback": {
                "errors": [
                    {"error type": "Irrelevant", "explanation": "", "start": 0, "end": 6},
                ],
                "missing-info": [
                    {"error type": "Missing-Answer", "passage_id": 2, "sentence_id": [8, 1]}
                ],
                "corrected-prediction": "She did.",
            },
            "preference": [0, 1, 2, 1, 1, 0],
        }
    ],
    "ilf_code": [
        {
            "task_id": 601,
            "prompt": CODE,
            "original_model_completion": CODE + "    return x\n",
            "Feedback": "It must add x to itself.",
            "completion": "    return x + x\r\n",
            "worker_id": "w",
            "test": "assert double(2) == 4",
            "passed": True,
        }
    ],
    "gsm8k_solutions": [
        {
            "question": "1+1?",
            "ground_truth": "2\nA: 2",
            "6b": {"is_correct": False, "solution": "A: 3"},
            "175b": {"is_correct": True, "solution": "A: 2"},
        }
    ],
    "gsm8k": [{"question": "1+1?", "answer": "2\n#### 2"}],
    "rows": [{"type": "critique", "prompt": "Hi", "x": "yo", "words": "curt", "annotator": "u"}],
}
EVERY = [(name, i) for name, records in RECORDS.items() for i in range(len(records))]


def options(name: str) -> Options:
    return UKP if name == "ukpconvarg1" else NONE


def rows_of(name: str, i: int = 0) -> list:
    return FORMATS[name].read(RECORDS[name][i], options(name))


def test_every_format_has_synthetic_records():
    assert set(RECORDS) == set(FORMATS)


@pytest.mark.parametrize(("name", "i"), EVERY)
def test_writing_what_was_read_gives_the_record_back(name, i):
    f, record = FORMATS[name], RECORDS[name][i]
    rows = f.read(record, options(name))
    assert f.write(rows, options(name)) == record
    assert all(isinstance(r, f.types) for r in rows)


@pytest.mark.parametrize(("name", "i"), EVERY)
def test_reading_leaves_the_record_as_it_was(name, i):
    before = repr(RECORDS[name][i])
    rows_of(name, i)
    assert repr(RECORDS[name][i]) == before


@pytest.mark.parametrize(("name", "i"), EVERY)
def test_a_record_without_one_of_its_marks_or_with_a_wrong_type_is_refused(name, i):
    f, record = FORMATS[name], RECORDS[name][i]
    for mark in f.marks - ({"prompt"} if name == "trl_preference" else set()):
        with pytest.raises(RowError, match=mark):
            f.read({k: v for k, v in record.items() if k != mark}, options(name))
        with pytest.raises(RowError):
            f.read(record | {mark: 3.25}, options(name))


def test_trl_splits_an_implicit_prompt_before_the_word_that_differs():
    (row,) = rows_of("trl_preference_implicit", 0)
    assert (row.prompt, row.a, row.b) == (text("The sky is"), text(" blue."), text(" green."))
    assert prompts.split(text("great"), text("green")) == (text(""), text("great"), text("green"))


def test_trl_keeps_at_least_one_message_in_each_implicit_answer():
    same = (Turn("user", "hi"), Turn("assistant", "yo"))
    assert prompts.split(same, same) == (same[:1], same[1:], same[1:])


@pytest.mark.parametrize("label", [0.5, 0.7, None])
def test_trl_and_hh_refuse_what_is_not_a_strict_preference(label):
    row = Comparison(prompt=(), a=text("x"), b=text("y"), label=label)
    for name in ("trl_preference", "trl_preference_implicit", "hh_rlhf"):
        with pytest.raises(RowError):
            FORMATS[name].write([row], NONE)


def test_hh_splits_at_the_last_assistant_turn_that_begins_alike():
    turns = hh_rlhf.parse(RECORDS["hh_rlhf"][0]["chosen"], "")[0]
    (row,) = rows_of("hh_rlhf")
    assert row.prompt == turns[:3]
    assert (row.a, row.b) == ((Turn("assistant", "blue"),), (Turn("assistant", ""),))


def test_hh_answers_begin_at_the_earlier_assistant_turn_where_dialogues_part_in_a_human_turn():
    start = "\n\nHuman: hi\n\nAssistant: hello"
    record = {
        "chosen": start + "\n\nHuman: sky?\n\nAssistant: blue",
        "rejected": start + "\n\nHuman: sea?\n\nAssistant: green",
    }
    (row,) = FORMATS["hh_rlhf"].read(record, NONE)
    assert row.prompt == (Turn("user", "hi"),)
    assert row.a[0] == row.b[0] == Turn("assistant", "hello")
    assert [t.content for t in row.b[1:]] == ["sea?", "green"]
    assert FORMATS["hh_rlhf"].write([row], NONE) == record


def test_hh_has_no_prompt_where_nothing_is_shared_and_answers_may_differ_in_length():
    (row,) = rows_of("hh_rlhf", 1)
    assert row.prompt == ()
    longer = {"chosen": "\n\nHuman: q\n\nAssistant: a\n\nHuman: r\n\nAssistant: b"}
    (row,) = FORMATS["hh_rlhf"].read(longer | {"rejected": "\n\nHuman: q\n\nAssistant: a"}, NONE)
    assert (len(row.prompt), len(row.a), len(row.b)) == (1, 3, 1)


def test_hh_refuses_a_turn_that_would_be_read_as_two():
    row = Comparison(prompt=(Turn("user", "a\n\nHuman: b"),), a=(), b=(), label=1.0)
    with pytest.raises(RowError, match="itself"):
        FORMATS["hh_rlhf"].write([row], NONE)


def test_summarize_choice_1_is_the_second_and_confidence_keeps_its_scale():
    (row,) = rows_of("summarize")
    assert (row.label, row.annotator, row.confidence, row.b_id) == (0.0, "w", 8.0, "sup1")
    assert rows_of("summarize", 1)[0].prompt == text("News.")


def test_alpaca_preference_is_one_plus_the_probability_of_the_second():
    labels = [rows_of("alpaca_eval", i)[0].label for i in range(5)]
    assert labels == [1.0, 0.0, 0.5, None, 0.75]
    old = RECORDS["alpaca_eval"][0] | {"preference": 0}
    assert FORMATS["alpaca_eval"].read(old, NONE)[0].label == 0.5
    with pytest.raises(RowError, match="preference"):
        FORMATS["alpaca_eval"].read(old | {"preference": 2.5}, NONE)


def test_prm800k_path_goes_over_chosen_human_and_last_steps():
    (row,) = rows_of("prm800k")
    assert [s.text for s in row.path] == ["One.", "1+1=2", "so 4"]
    assert [s.label for s in row.path] == [0, 1, -1]
    assert (row.first_error, row.seconds, row.end) == (2, 278.27, 1674362067052924)
    assert sum(s.human for s in row.steps) == 1


def test_bigbench_mistake_labels_nothing_after_the_first_error():
    labels = [[s.label for s in rows_of("bigbench_mistake", i)[0].steps] for i in range(3)]
    assert labels == [[1, -1, None], [1, 1, 1], [-1, None, None]]
    steps = (Step(0, "a", -1), Step(1, "b", 1))
    with pytest.raises(RowError, match="first wrong"):
        FORMATS["bigbench_mistake"].write([Process(steps=steps)], NONE)


def test_trl_stepwise_refuses_neutral_and_unlabelled_steps():
    for label in (0, None):
        row = Process(prompt=text("q"), steps=(Step(0, "a", label),))
        with pytest.raises(RowError):
            FORMATS["trl_stepwise"].write([row], NONE)


def test_finegrained_pairs_run_12_13_14_23_24_34_with_0_as_a_tie():
    spans, correction, *pairs = rows_of("finegrained_rlhf")
    assert isinstance(spans, Spans)
    assert isinstance(correction, Correction)
    assert [(p.a_id[-1] + p.b_id[-1], p.label) for p in pairs] == [
        ("12", 0.5),
        ("13", 1.0),
        ("14", 0.0),
        ("23", 1.0),
        ("24", 1.0),
        ("34", 0.5),
    ]
    assert spans.spans == (Span(0, 6, "Irrelevant", ""),)
    assert spans.missing == ("Missing-Answer",)
    outside = {"error type": "x", "explanation": "", "start": 3, "end": 99}
    bad = RECORDS["finegrained_rlhf"][0]
    bad = bad | {"feedback": bad["feedback"] | {"errors": [outside]}}
    with pytest.raises(RowError, match="99"):
        FORMATS["finegrained_rlhf"].read(bad, NONE)


def test_ilf_is_a_critique_and_a_correction_of_the_program_without_its_prompt():
    critique, correction = rows_of("ilf_code")
    assert isinstance(critique, Critique)
    assert critique.x == correction.x == text("    return x\n")
    assert correction.better == text("    return x + x\r\n")


def test_gsm8k_solutions_are_labels_beside_a_demonstration():
    truth, *solutions = rows_of("gsm8k_solutions")
    assert truth.x_id == "ground_truth"
    assert [(r.x_id, r.value) for r in solutions] == [("6b", "bad"), ("175b", "good")]


def test_ukp_keeps_worker_reason_times_and_competence():
    first, second, third = rows_of("ukpconvarg1")
    assert (first.label, second.label, third.label) == (1.0, 0.0, 0.5)
    assert first.duration == 61.5
    assert (first.annotator, first.group, first.b) == ("w1", "Is water wet?", text("It is not."))
    assert '"competence": 0.25' in first.extra
    with pytest.raises(RowError, match="--arguments"):
        FORMATS["ukpconvarg1"].read(RECORDS["ukpconvarg1"][0], NONE)


def test_label_studio_right_prefers_the_second_and_cancelled_is_no_answer():
    picked, skipped = rows_of("label_studio")
    assert (picked.label, picked.annotator, picked.seconds) == (0.0, "10", 4.5)
    assert (skipped.label, skipped.annotator) == (None, "a@b.c")
    soft = Comparison(a=text("x"), b=text("y"), label=0.6)
    with pytest.raises(RowError, match="soft"):
        FORMATS["label_studio"].write([soft], NONE)


def test_argilla_questions_become_their_feedback_types():
    second, tie, ranking = rows_of("argilla")
    assert (second.label, tie.label, tie.annotator) == (0.0, 0.5, "u2")
    assert isinstance(ranking, Ranking)
    assert (ranking.options, ranking.ranks) == (("hello", "yo"), (1, 2))
    kinds = [type(r) for r in rows_of("argilla", 1)]
    assert kinds == [Rating, Label, Critique, Correction]


def test_argilla_rankings_keep_ties():
    record = {
        "fields": {"one": "a", "two": "b"},
        "responses": {
            "ranking": [{"value": [{"value": "one", "rank": 1}, {"value": "two", "rank": 1}]}]
        },
    }
    (row,) = FORMATS["argilla"].read(record, NONE)
    assert row.ranks == (1, 1)
    assert FORMATS["argilla"].write([row], NONE) == record


def test_projects_with_their_own_names_are_read_through_a_field_map():
    mine = Options(fields={"prompt": "question", "a": "left", "b": "right", "preference": "better"})
    record = {
        "fields": {"question": "Hi", "left": "yo", "right": "hello"},
        "responses": {"better": [{"value": "left", "user_id": "u"}]},
    }
    (row,) = FORMATS["argilla"].read(record, mine)
    assert (row.label, row.prompt) == (1.0, text("Hi"))
    assert FORMATS["argilla"].write([row], mine) == record
    with pytest.raises(RowError, match="better"):
        FORMATS["argilla"].read(record, NONE)
    with pytest.raises(ConfigError, match="'nonsense'"):
        FORMATS["argilla"].read(record, Options(fields={"nonsense": "x"}))

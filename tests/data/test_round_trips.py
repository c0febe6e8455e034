"""Round trips of arbitrary answers: rows → record → rows, as far as each format can."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_jax.data.formats import FORMATS, Options, ukpconvarg1
from rlhf_jax.data.rows import (
    TYPES,
    Comparison,
    Correction,
    Critique,
    Label,
    Process,
    Rating,
    RowError,
    Span,
    Step,
    Turn,
    swapped,
    text,
)

quick = settings(derandomize=True, max_examples=50, deadline=None)
words = st.text(st.characters(codec="utf-8"), max_size=8)
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6)
strings = words.map(text)
turns = st.builds(Turn, st.sampled_from(["user", "assistant", "system"]), words)
talks = st.lists(turns, min_size=1, max_size=3).map(tuple)
texts = strings | talks
times = st.integers(0, 4_000_000_000_000_000)
spent = st.none() | st.floats(0, 1e6, width=32)
step = st.builds(Step, st.just(0), words, st.sampled_from([-1, 0, 1, None]))
strict = st.sampled_from([0.0, 1.0])
BY_ANNOTATION = {
    "str": words,
    "Text": st.just(()) | texts,
    "int | None": st.none() | times,
    "float | None": spent,
    "float": st.floats(-100, 100, width=32),
    "tuple[str, ...]": st.lists(words, max_size=3).map(tuple),
    "tuple[int, ...]": st.lists(st.integers(1, 9), max_size=3).map(tuple),
    "tuple[Step, ...]": st.lists(step, max_size=3).map(tuple),
    "tuple[Span, ...]": st.lists(
        st.builds(Span, st.integers(0, 9), st.integers(0, 9), words, words), max_size=3
    ).map(tuple),
}


def anything(row_type):
    """Any row of a type at all."""
    fields = {f.name: BY_ANNOTATION[str(f.type)] for f in dataclasses.fields(row_type)}
    fields["extra"] = st.sampled_from(["{}", '{"k": [1, "é"]}'])
    return st.builds(row_type, **fields)


def there_and_back(name, rows, options=None):
    f, options = FORMATS[name], options or Options()
    return f.read(f.write(rows, options), options)


@pytest.mark.parametrize("row_type", TYPES)
def test_our_own_format_keeps_everything(row_type):
    @quick
    @given(anything(row_type))
    def check(row):
        assert there_and_back("rows", [row]) == [row]

    check()


@quick
@given(st.one_of(st.tuples(*[strings] * 3), st.tuples(*[talks] * 3)), strict)
def test_trl_preference_keeps_prompt_and_answers_up_to_their_order(parts, label):
    row = Comparison(prompt=parts[0], a=parts[1], b=parts[2], label=label, source="trl")
    assert there_and_back("trl_preference", [row]) == [row if label else swapped(row)]


@quick
@given(st.one_of(st.tuples(*[strings] * 3), st.tuples(*[talks] * 3)))
def test_trl_implicit_prompts_move_but_prompt_and_answer_together_stay(parts):
    prompt, a, b = parts
    row = Comparison(prompt=prompt, a=a, b=b, label=1.0, source="trl")
    (back,) = there_and_back("trl_preference_implicit", [row])
    record = FORMATS["trl_preference_implicit"].write([row], Options())
    assert FORMATS["trl_preference_implicit"].write([back], Options()) == record


@quick
@given(st.one_of(st.tuples(strings, strings), st.tuples(talks, talks)), st.booleans())
def test_trl_unpaired_keeps_prompt_completion_and_label(parts, good):
    value = "good" if good else "bad"
    row = Label(prompt=parts[0], x=parts[1], value=value, source="trl", extra="{}")
    assert there_and_back("trl_unpaired", [row]) == [row]


@quick
@given(words, st.lists(st.tuples(words, st.booleans()), min_size=1, max_size=4))
def test_trl_stepwise_keeps_steps_and_labels(prompt, steps):
    made = tuple(Step(i, s, 1 if right else -1) for i, (s, right) in enumerate(steps))
    row = Process(prompt=text(prompt), steps=made, source="trl")
    assert there_and_back("trl_stepwise", [row]) == [row]


@quick
@given(st.lists(turns, max_size=3).map(tuple), talks, talks)
def test_hh_transcripts_are_refused_or_written_back_the_same(prompt, a, b):
    row = Comparison(prompt=prompt, a=a, b=b, label=1.0)
    f = FORMATS["hh_rlhf"]
    try:
        record = f.write([row], Options())
    except RowError as e:
        assert "system" in str(e) or "itself" in str(e)  # noqa: PT017
        return
    (back,) = f.read(record, Options())
    assert (back.prompt + back.a, back.prompt + back.b) == (prompt + a, prompt + b)
    assert f.write([back], Options()) == record


@quick
@given(words, words, words, strict, names, names, st.none() | st.integers(1, 9))
def test_summarize_keeps_worker_batch_and_confidence(prompt, a, b, label, who, batch, sure):
    row = Comparison(
        prompt=text(prompt),
        a=text(a),
        b=text(b),
        label=label,
        annotator=who,
        group=batch,
        confidence=sure if sure is None else float(sure),
    )
    (back,) = there_and_back("summarize", [row])
    assert dataclasses.replace(back, source="", extra="{}") == row


@quick
@given(words, words, words, st.none() | st.floats(0, 1, width=32), names, spent)
def test_alpaca_keeps_soft_labels_to_one_rounding_and_everything_else_exactly(
    prompt, a, b, label, who, seconds
):
    row = Comparison(
        prompt=text(prompt), a=text(a), b=text(b), label=label, annotator=who, seconds=seconds
    )
    (back,) = there_and_back("alpaca_eval", [row])
    same = back.label is label is None or back.label == pytest.approx(label, abs=2**-52)
    assert same
    assert dataclasses.replace(back, source="", extra="{}", label=label) == row


candidate = st.tuples(words, st.sampled_from([-1, 0, 1, None]), st.booleans())
place = st.tuples(
    st.lists(candidate, min_size=1, max_size=3), st.integers(-1, 2), st.none() | words
)


@quick
@given(words, st.lists(place, max_size=3), names, st.none() | times, st.none() | st.integers(0, 9))
def test_prm800k_keeps_candidates_choices_and_times(prompt, places, who, end, seconds):
    steps = []
    for at, (pool, chosen, own) in enumerate(places):
        picked = -1 if own is not None else chosen
        steps += [Step(at, t, v, i == picked, False, f) for i, (t, v, f) in enumerate(pool)]
        steps += [] if own is None else [Step(at, own, 1, True, True)]
    row = Process(
        prompt=text(prompt),
        steps=tuple(steps),
        annotator=who,
        end=end,
        seconds=None if seconds is None else float(seconds),
    )
    (back,) = there_and_back("prm800k", [row])
    assert dataclasses.replace(back, source="", extra="{}") == row


@quick
@given(words, st.lists(words, min_size=1, max_size=4), st.none() | st.integers(0, 3), names)
def test_bigbench_mistake_keeps_the_first_error(prompt, steps, mistake, task):
    wrong = None if mistake is None else min(mistake, len(steps) - 1)
    labels = [1 if wrong is None or i < wrong else -1 if i == wrong else None for i in range(4)]
    made = tuple(Step(i, s, labels[i]) for i, s in enumerate(steps))
    row = Process(prompt=text(prompt), group=task, steps=made, source="bigbench_mistake")
    assert there_and_back("bigbench_mistake", [row]) == [row]
    assert row.first_error == wrong


answer = st.tuples(st.sampled_from([0.0, 0.5, 1.0]), names, words, times, times)


@quick
@given(words, names, words, words, st.lists(answer, min_size=1, max_size=4))
def test_ukp_keeps_every_worker_reason_and_time(topic, debate, a, b, answers):
    rows = [
        Comparison(
            prompt=text(topic),
            group=debate,
            item="i",
            a=text(a),
            b=text(b),
            a_id="arg1",
            b_id="arg2",
            label=label,
            annotator=who,
            reason=reason,
            start=start,
            end=end,
        )
        for label, who, reason, start, end in answers
    ]
    arguments: dict[str, str] = {}
    assert list(ukpconvarg1.gathered(rows, arguments)) == rows
    options = Options(arguments=arguments)
    back = there_and_back("ukpconvarg1", rows, options)
    assert [dataclasses.replace(r, source="", extra="{}", item="i") for r in back] == rows


@quick
@given(
    st.just(()) | texts,
    texts,
    texts,
    st.lists(
        st.tuples(st.sampled_from([None, 0.0, 0.5, 1.0]), names, spent, st.none() | times),
        min_size=1,
        max_size=3,
    ),
)
def test_label_studio_keeps_ties_people_seconds_and_times(prompt, a, b, answers):
    rows = [
        Comparison(prompt=prompt, item="12", a=a, b=b, label=v, annotator=who, seconds=s, end=end)
        for v, who, s, end in answers
    ]
    back = there_and_back("label_studio", rows)
    assert [dataclasses.replace(r, source="", extra="{}") for r in back] == rows


@quick
@given(texts, texts, names, st.integers(-9, 9), words, words, st.sampled_from([0.0, 0.5, 1.0]))
def test_argilla_keeps_all_kinds_of_answers_about_one_record(prompt, x, who, n, w, v, label):
    shared = {"prompt": prompt, "item": "r", "annotator": who}
    rows = [
        Comparison(**shared, a=x, b=text(w), label=label),
        Rating(**shared, x=x, value=float(n)),
        Label(**shared, x=x, value=v),
        Critique(**shared, x=x, words=w),
        Correction(**shared, x=x, better=text(w)),
    ]
    back = there_and_back("argilla", rows)
    assert [dataclasses.replace(r, source="", extra="{}") for r in back] == rows


@quick
@given(words, words, words, words, names, st.integers(0, 999))
def test_ilf_keeps_program_critique_and_repair(prompt, program, critique, repair, who, task):
    shared = {
        "prompt": text(prompt),
        "x": text(program),
        "annotator": who,
        "group": str(task),
    }
    rows = [Critique(**shared, words=critique), Correction(**shared, better=text(repair))]
    back = there_and_back("ilf_code", rows)
    assert [dataclasses.replace(r, source="", extra="{}", item="") for r in back] == rows

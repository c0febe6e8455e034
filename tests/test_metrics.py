"""What is written is what was measured, to the last bit, and can be cut back."""

from __future__ import annotations

import json

import jax.numpy as jnp
import numpy as np
import pytest
from tiny import EOS, LANGUAGE, PAD, A, B, C

from rlhf_jax import logs, metrics
from rlhf_jax.events import DRAWN, Events, crc32c
from rlhf_jax.grid import Member

MEMBERS = [Member(0, {}), Member(1, {})]
EMPTY = {"metrics": 0, "samples": 0}


def read(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# --- rows


def test_a_row_holds_the_values_of_all_members_at_one_step():
    found = {
        "b": np.asarray([[1, 2, 3], [4, 5, 6]], np.float32),
        "a": np.asarray([[7, 8, 9], [0, 1, 2]], np.float32),
    }
    got = metrics.rows("ppo", 2, 30, 3, found)
    head = {"stage": "ppo", "round": 2}
    assert got == [
        {**head, "step": 30, "a": [7.0, 0.0], "b": [1.0, 4.0]},
        {**head, "step": 31, "a": [8.0, 1.0], "b": [2.0, 5.0]},
        {**head, "step": 32, "a": [9.0, 2.0], "b": [3.0, 6.0]},
    ]
    assert list(got[0]) == ["stage", "round", "step", "a", "b"]


def test_a_look_is_one_row_and_may_hold_a_list_a_member():
    found = {"x": np.asarray([1, 2], np.float32), "bins": np.ones((2, 3), np.float32)}
    assert metrics.rows("measure", 0, 0, 0, found) == [
        {"stage": "measure", "round": 0, "step": 0, "x": [1.0, 2.0], "bins": [[1.0] * 3] * 2}
    ]


def test_responses_are_no_metrics():
    found = {"sample/greedy/tokens": np.zeros((2, 1, 4), np.int32)}
    (row,) = metrics.rows("evaluate", 0, 0, 0, found)
    assert set(row) == {"stage", "round", "step"}


def test_every_float32_reads_back_as_itself_and_no_longer_than_need_be():
    bits = np.random.default_rng(0).integers(0, 2**32, 20_000, dtype=np.uint32)
    x = bits.view(np.float32)
    x = np.concatenate([x[np.isfinite(x)], np.float32([0.1, 1e-45, 3.4e38, -0.0, 1 / 3])])
    (row,) = metrics.rows("s", 0, 0, 0, {"x": x})
    back = np.asarray(json.loads(json.dumps(row))["x"], np.float32)
    np.testing.assert_array_equal(back.view(np.uint32), x.view(np.uint32))
    assert json.dumps(metrics.rows("s", 0, 0, 0, {"x": np.float32([0.1])})[0]["x"]) == "[0.1]"


def test_whole_numbers_and_flags_stay_what_they_are():
    found = {"n": np.asarray([3], np.int32), "b": np.asarray([True])}
    text = json.dumps(metrics.rows("s", 0, 0, 0, found)[0])
    assert '"b": [true], "n": [3]' in text


# --- samples


def block(tokens: list, ended: list[int], **columns: list) -> dict[str, np.ndarray]:
    tokens = np.asarray(tokens, np.int32)
    mask = np.arange(tokens.shape[-1]) < np.asarray(ended)[..., None]
    return {"tokens": tokens, "mask": mask} | {k: np.asarray(v) for k, v in columns.items()}


@pytest.fixture
def responses() -> dict[str, np.ndarray]:
    sampled = block(
        [[[A, B, EOS, C], [EOS, A, A, A]], [[C, C, C, C], [B, EOS, PAD, PAD]]],
        [[3, 1], [4, 2]],
        reward=np.float32([[0.1, 0.2], [0.3, 0.4]]),
        gold=np.float32([[1, 2], [3, 4]]),
        rated=[[True, False], [False, False]],
    )
    greedy = block(
        [[[A, EOS, PAD, PAD]], [[B, EOS, PAD, PAD]]],
        [[2], [2]],
        reward=np.float32([[5], [6]]),
        gold=np.float32([[7], [8]]),
        rated=[[True], [True]],
    )
    both = {"sampled": sampled, "greedy": greedy}
    return {f"sample/{d}/{k}": v for d, columns in both.items() for k, v in columns.items()}


def test_a_sample_is_spelled_up_to_its_end_with_its_reward_and_gold(responses):
    got = metrics.samples(1, responses, LANGUAGE)
    assert [r["text"] for r in got] == ["ab", "", "cccc", "b", "a", "b"]
    assert [r["member"] for r in got] == [0, 0, 1, 1, 0, 1]
    assert [r["decoding"] for r in got] == ["sampled"] * 4 + ["greedy"] * 2
    assert [r["reward"] for r in got] == [0.1, 0.2, 0.3, 0.4, 5.0, 6.0]
    assert [r["gold"] for r in got] == [1.0, 2.0, 3.0, 4.0, 7.0, 8.0]
    assert [r["rated"] for r in got] == [True, False, False, False, True, True]
    json.dumps(got)


def test_samples_before_the_first_round_are_called_before(responses):
    when = lambda r: {row["when"] for row in metrics.samples(r, responses, LANGUAGE)}
    assert (when(0), when(1), when(2)) == ({"before"}, {"after"}, {"after"})


# --- divergence


NAN = float("nan")


def test_a_member_leaves_at_its_first_number_that_is_none():
    head = {"stage": "ppo", "round": 0}
    good = {**head, "step": 4, "a": [1.0, 2.0], "bins": [[1.0], [2.0]]}
    bad = {**head, "step": 5, "a": [1.0, NAN], "bins": [[float("inf")], [NAN]]}
    assert logs.leaving(good, (), 2) == {}
    left = {0: logs.Left("ppo", 0, 5, "bins"), 1: logs.Left("ppo", 0, 5, "a")}
    assert logs.leaving(bad, (), 2) == left
    assert logs.leaving(bad, (1,), 2) == {0: left[0]}
    assert str(left[1]) == "ppo, round 1, step 6: a is not finite"


def test_a_model_that_all_members_share_takes_all_of_them_along():
    row = {"stage": "pretrain", "round": 0, "step": 2, "loss": [NAN]}
    assert set(logs.leaving(row, (), 3)) == {0, 1, 2}


def test_who_has_left_stays_away_and_the_log_is_strict_json(tmp_path):
    def strictly(path) -> list[dict]:
        def refuse(word):
            raise AssertionError(f"{word} is not JSON")

        lines = path.read_text().splitlines()
        return [json.loads(line, parse_constant=refuse) for line in lines]

    head = {"stage": "ppo", "round": 0}
    files = metrics.Files(tmp_path, MEMBERS, EMPTY)
    files.metrics({**head, "step": 0, "a": [1.0, 2.0]})
    files.metrics({**head, "step": 1, "a": [1.0, NAN], "b": [[1.0, 2.0], [3.0, float("inf")]]})
    sizes = files.flush()
    for again in (False, True):
        said = metrics.Files(tmp_path, MEMBERS, sizes) if again else files  # a resume remembers
        assert said.gone == {1: logs.Left("ppo", 0, 1, "a")}
        # Numbers that look finite again are none: this member is gone for good.
        row = said.metrics({**head, "step": 2, "a": [1.0, 2.0], "b": [[1.0, 2.0], [3.0, 4.0]]})
        assert row == {**head, "step": 2, "a": [1.0, None], "b": [[1.0, 2.0], [None, None]]}
        for member in (0, 1):
            said.sample({"member": member, "text": "x"})
        said.close()
        assert strictly(tmp_path / "metrics.jsonl") == [
            {**head, "step": 0, "a": [1.0, 2.0]},
            {**head, "step": 1, "a": [1.0, None], "b": [[1.0, 2.0], [3.0, None]]},
            row,
        ]
        assert [r["member"] for r in strictly(tmp_path / "samples.jsonl")] == [0]


# --- files


def row(step: int) -> dict:
    return {"stage": "ppo", "round": 0, "step": step, "x": [step + 0.5, step - 0.5]}


@pytest.fixture
def directory(tmp_path):
    return tmp_path


def write(directory, sizes, steps) -> dict:
    files = metrics.Files(directory, MEMBERS, sizes)
    for i in steps:
        files.metrics(row(i))
        files.sample({"member": 0, "text": "wörd" * i})
    sizes = files.flush()
    files.close()
    return sizes


def test_rows_are_written_one_a_line_in_order(directory):
    write(directory, EMPTY, range(3))
    assert read(directory / "metrics.jsonl") == [row(i) for i in range(3)]
    assert [r["text"] for r in read(directory / "samples.jsonl")] == ["", "wörd", "wördwörd"]


def test_flush_returns_the_bytes_that_stand_in_the_files(directory):
    sizes = write(directory, EMPTY, range(3))
    for name in logs.LOGS:
        assert (directory / f"{name}.jsonl").stat().st_size == sizes[name] > 0


def test_a_resumed_run_cuts_off_what_its_checkpoint_did_not_see(directory):
    at_checkpoint = write(directory, EMPTY, range(3))
    write(directory, at_checkpoint, range(3, 6))
    with (directory / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "pp')  # killed in mid-line
    write(directory, at_checkpoint, range(3, 5))
    assert read(directory / "metrics.jsonl") == [row(i) for i in range(5)]
    assert len(read(directory / "samples.jsonl")) == 5


def test_an_interrupted_and_an_uninterrupted_run_write_equal_bytes(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    write(one, EMPTY, range(6))
    sizes = write(two, EMPTY, range(2))
    write(two, sizes, range(2, 4))
    write(two, sizes, range(2, 6))
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_a_run_from_the_beginning_empties_the_files(directory):
    write(directory, EMPTY, range(3))
    write(directory, EMPTY, range(1))
    assert read(directory / "metrics.jsonl") == [row(0)]


@pytest.mark.parametrize("name", logs.LOGS)
def test_a_log_that_is_not_what_was_written_is_refused_and_left_as_it_is(directory, name):
    sizes = write(directory, EMPTY, range(3))
    path = directory / f"{name}.jsonl"
    whole = path.read_bytes()
    for raw, said in (
        (whole[:-1], rf"{name}\.jsonl has {len(whole) - 1} of the {len(whole)} bytes"),
        (bytes([whole[0] ^ 1]) + whole[1:], rf"first {len(whole)} bytes of {name}\.jsonl are not"),
    ):
        path.write_bytes(raw)
        with pytest.raises(ValueError, match=said):
            metrics.Files(directory, MEMBERS, sizes)
        assert path.read_bytes() == raw
    path.write_bytes(whole + b"more")
    metrics.Files(directory, MEMBERS, sizes).close()
    assert path.read_bytes() == whole


# --- TensorBoard


def events(path) -> dict[tuple[str, int], float]:
    """(name, step) → value of all events there, read from the records themselves."""
    from tensorboardX.crc32c import crc32c
    from tensorboardX.proto.event_pb2 import Event

    def check(part: bytes) -> bytes:
        x = crc32c(part)
        return ((((x >> 15) | (x << 17)) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")

    out = {}
    for file in sorted(path.iterdir()):
        raw = file.read_bytes()
        while raw:
            # length (8 bytes), its checksum (4), the record, its checksum (4)
            n = int.from_bytes(raw[:8], "little")
            event = Event.FromString(raw[12 : 12 + n])
            assert raw[8:12] == check(raw[:8])
            assert raw[12 + n : 16 + n] == check(raw[12 : 12 + n])
            raw = raw[16 + n :]
            for value in event.summary.value:
                assert (value.tag, event.step) not in out
                out[value.tag, event.step] = value.simple_value
    return out


def test_events_hold_every_seed_and_the_mean_of_each_grid_point(directory):
    members = [Member(s, {"ppo.kl_weight": k}) for k in (0.1, 0.2) for s in (0, 1)]
    writer = Events(directory, members, 0)
    writer.write({"stage": "ppo", "round": 0, "step": 0, "x": [1.0, 3.0, 10.0, 30.0]}, 0)
    # The shared base model has one row for all.
    writer.write({"stage": "pretrain", "round": 0, "step": 0, "y": [5.0]}, 1)
    # What is not one number a member is not drawn, nor is who has left.
    writer.write({"stage": "measure", "round": 0, "step": 0, "z": [[1.0, 2.0]] * 4}, 2)
    writer.write({"stage": "ppo", "round": 0, "step": 3, "x": [1.0, None, None, None]}, 3)
    writer.flush()
    one, two = directory / "ppo.kl_weight=0.1", directory / "ppo.kl_weight=0.2"
    assert events(one / "mean") == {("x", 0): 2.0, ("y", 1): 5.0, ("x", 3): 1.0}
    assert events(one / "seed 0") == {("x", 0): 1.0, ("y", 1): 5.0, ("x", 3): 1.0}
    assert events(one / "seed 1") == {("x", 0): 3.0, ("y", 1): 5.0}
    assert events(two / "mean") == {("x", 0): 20.0, ("y", 1): 5.0}
    assert events(two / "seed 1") == {("x", 0): 30.0, ("y", 1): 5.0}


def test_many_members_are_drawn_as_means_alone(directory):
    Events(directory, [Member(s, {}) for s in range(DRAWN + 1)], 0)
    assert [p.name for p in (directory / "all").iterdir()] == ["mean"]


def test_the_step_of_an_event_is_its_stages_own_through_all_rounds(directory):
    files = metrics.Files(directory, MEMBERS, EMPTY)
    plan = [("fit", 0, 0), ("fit", 0, 1), ("ppo", 0, 0), ("look", 0, 0)]
    plan += [("fit", 1, 0), ("fit", 1, 1), ("fit", 1, 2), ("ppo", 1, 0), ("look", 1, 0)]
    for i, (stage, round_, step) in enumerate(plan):
        files.metrics({"stage": stage, "round": round_, "step": step, stage: [1.0, float(i)]})
        if i == 4:
            kept = files.flush()
    files.close()
    want = {("fit", i): x for i, x in enumerate([0.0, 1.0, 4.0, 5.0, 6.0])}
    want |= {("ppo", 0): 2.0, ("ppo", 1): 7.0, ("look", 0): 3.0, ("look", 1): 8.0}
    assert events(directory / "events" / "all" / "seed 1") == want
    # A resumed run cuts its events back as it does its log, and counts on from there.
    files = metrics.Files(directory, MEMBERS, kept)
    for i, (stage, round_, step) in enumerate(plan):
        if i > 4:
            files.metrics({"stage": stage, "round": round_, "step": step, stage: [1.0, float(i)]})
    files.close()
    assert events(directory / "events" / "all" / "seed 1") == want


def test_checksums_are_castagnolis():
    # RFC 3720, B.4, and the check value of the catalogues.
    texts = [bytes(32), b"\xff" * 32, bytes(range(32)), b"123456789", b""]
    known = [0x8A9136AA, 0x62A8AB43, 0x46DD794E, 0xE3069283, 0]
    assert crc32c(texts).tolist() == known


def test_numbers_of_the_compiled_program_need_no_conversion_by_the_caller():
    found = {"x": np.asarray(jnp.asarray([[0.1], [0.2]]))}
    assert metrics.rows("s", 0, 0, 1, found)[0]["x"] == [0.1, 0.2]

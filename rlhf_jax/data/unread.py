"""Kinds of feedback that are not read yet, told by their fields: a refusal names them."""

from __future__ import annotations

from typing import Any

KNOWN: tuple[tuple[str, str], ...] = (
    ("conversation_a conversation_b winner judge", "MT-bench or Chatbot Arena votes"),
    ("conversation_a conversation_b winner", "Chatbot Arena votes"),
    ("instruction models completions", "UltraFeedback (completions with ratings by axis)"),
    ("prompt response helpfulness correctness", "HelpSteer ratings by axis"),
    ("prompt response_1 response_2 preference_strength", "HelpSteer 2 preferences with a strength"),
    ("context response1 response2 overall_preference", "HelpSteer 3 preferences with a strength"),
    ("prompt answers num_responses", "Nectar (answers with ranks)"),
    ("response_0 response_1 better_response_id", "SafeRLHF (a better and a safer response)"),
    ("instance_id user_id offensiveness", "POPQUORN ratings"),
    ("history human_ref_A human_ref_B labels", "Stanford Human Preferences (SHP)"),
    ("question answers qid", "StackExchange preferences (answers with scores)"),
    ("question answer score", "WebGPT comparisons (answers with scores)"),
    ("question response_j response_k", "pairs of rewards (response_j before response_k)"),
    ("conversations chosen rejected", "LLaMA-Factory or ShareGPT pairs (from, value)"),
    ("question statement answer_matching_behavior", "model-written evaluations"),
    ("problem steps final_answer_correct", "ProcessBench"),
    ("input label task", "Math-Shepherd (steps marked + and −)"),
    ("external_id metadata", "an Argilla 1 data set as the Hub has it"),
)
"""(fields that are all there, what has them), the more telling first"""


def known(record: dict[str, Any]) -> str:
    """What a record that no format reads seems to be, in a sentence; '' if nothing is known."""
    lists = [v for v in record.values() if isinstance(v, list)]
    if len(record) == 1 and lists and all(isinstance(v, dict) for v in lists[0]):
        return f"the records stand in a list under '{next(iter(record))}': write that list alone"
    messages = any(isinstance(v, dict) and "role" in v for x in lists for v in x)
    same = len(lists) == len(record) > 1 and len({len(v) for v in lists}) == 1
    if same and not messages:
        return f"columns ({', '.join(record)}) are not read: write one object a record"
    for fields, name in KNOWN:
        if set(fields.split()) <= record.keys():
            return f"this looks like {name}, which is not read yet"
    return ""

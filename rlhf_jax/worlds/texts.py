"""A world of texts: prompts and responses of a preference file, and what people said of them.

Nobody knows here what a response is worth: there is no gold, only the answers. Those about some
prompts are held out and measure the reward model; nothing of these prompts, not even their
responses, is in the corpus, in the table or in what the tokenizer was trained on.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from rlhf_jax.config import Config, ConfigError
from rlhf_jax.config import World as Settings
from rlhf_jax.data import rows as data
from rlhf_jax.data.convert import load_arguments, read_rows, recognise
from rlhf_jax.data.formats import Options
from rlhf_jax.feedback.comparison import Comparison
from rlhf_jax.humans.choice import CANT_TELL
from rlhf_jax.types import Array, Episode, Key, Language, Prompts, World

UNKNOWN = "\N{REPLACEMENT CHARACTER}"
"""Stands for letters that the tokenizer does not have"""
OWN = ("·", "^", "$")
"""Padding, the beginning of a response and its end: the three symbols after the tokenizer's"""


class Unseen(NamedTuple):
    """Comparisons about held-out prompts, by pair of responses."""

    x: Episode
    """[M] the responses, each once"""
    a: np.ndarray
    """[K] int32, row of `x`"""
    b: np.ndarray
    said: np.ndarray
    """[K, 3] float32: how many people say a, tie, b; a soft label is shared by a and b"""
    ceilings: tuple[float, float] | None
    """see `ceilings`; None where no two people answered about one pair"""


class Answered(NamedTuple):
    """A world and what real people said in it."""

    world: World
    answers: Comparison
    """[N] about prompts that are not held out, in the order of the rows"""
    unit: np.ndarray
    """[N] int: answers of one unit are about prompts that no split should part"""
    unseen: Unseen
    people: int
    """annotators, those without a name counted as one"""


class Tokens(NamedTuple):
    """A tokenizer as the world needs it."""

    language: Language
    encode: Callable[[str], list[int]]
    facts: dict[str, Any]


def spoken(x: data.Text, answer: bool = False) -> str:
    """A text as one string. Turns begin with their role, but an answer's first with its words."""
    if data.is_plain(x):
        return x[0].content
    said = [f"{turn.role}: {turn.content}" for turn in x]
    if answer and x and x[0].role in ("", "assistant"):
        said[0] = x[0].content
    return "\n".join(said)


def trained(texts: Sequence[str], vocabulary: int) -> Any:
    """A byte-pair encoding of at most `vocabulary` tokens, the same for the same texts.

    Sennrich et al. 2016 (arXiv 1508.07909), on letters: the most frequent ones, at most half of
    the vocabulary, and `UNKNOWN` for all others. Which of two equally frequent letters stays is
    decided by the alphabet, not by chance.
    """
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    out = tokenizers.Tokenizer(models.BPE(unk_token=UNKNOWN))
    out.pre_tokenizer, out.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    count = Counter("\N{LOWER ONE EIGHTH BLOCK}")
    for text in texts:
        count.update(text.replace(" ", ""))
    letters = sorted(count, key=lambda c: (-count[c], c))[: max((vocabulary - 1) // 2, 1)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[UNKNOWN],
        initial_alphabet=letters,
        limit_alphabet=len(letters),
        show_progress=False,
    )
    out.train_from_iterator(texts, trainer)
    return out


def tokens_of(settings: Settings, texts: Sequence[str]) -> Tokens:
    """The tokenizer that `settings` name, or one trained on these texts."""
    import tokenizers

    if settings.tokenizer:
        try:
            coder = tokenizers.Tokenizer.from_file(settings.tokenizer)
        except Exception as problem:  # the library raises nothing narrower
            raise ConfigError(f"world.tokenizer = {settings.tokenizer}: {problem}") from None
        coder.no_padding()
        coder.no_truncation()
        name = f"loaded: {Path(settings.tokenizer).name}"
    else:
        coder = trained(texts, settings.vocabulary - len(OWN))
        name = "byte-pair encoding trained on the texts that are not held out"
    size = coder.get_vocab_size(with_added_tokens=True)
    symbols = (*(coder.id_to_token(i) or str(i) for i in range(size)), *OWN)
    pad, bos, eos = range(size, size + len(OWN))
    actions = ~np.isin(np.arange(len(symbols)), [pad, bos])
    text = lambda ids: coder.decode([int(i) for i in ids if i < size], skip_special_tokens=False)
    language = Language(symbols, pad, bos, eos, actions, settings.length + 1, text)
    encode = lambda x: coder.encode(x, add_special_tokens=False).ids
    return Tokens(language, encode, {"tokenizer": name, "vocabulary": len(symbols)})


def units(rows: Sequence[data.Comparison]) -> np.ndarray:
    """[N] int: a number for each row, equal where a prompt or a group of prompts is shared."""
    number: dict[Any, int] = {}
    many = len({r.group for r in rows}) > 1
    at = lambda thing: number.setdefault(thing, len(number))
    prompt = np.asarray([at(("prompt", r.prompt)) for r in rows])
    group = np.asarray(
        [at(("group", r.group) if many and r.group else ("prompt", r.prompt)) for r in rows]
    )
    size = len(number), len(number)
    graph = sparse.coo_matrix((np.ones(len(rows)), (prompt, group)), size)
    return csgraph.connected_components(graph, directed=False)[1][prompt]


def held(unit: np.ndarray, weight: np.ndarray, share: float, seed: int) -> np.ndarray:
    """[N] bool: units drawn in a fixed order until they have `share` of the whole weight.

    `weight` [units]. At least one unit is held, and one is not: all False where there is one unit.
    """
    n = len(weight)
    order = np.random.default_rng(seed).permutation(n)
    reached = np.cumsum(weight[order]) >= share * weight.sum() - 1e-9
    many = min(int(np.argmax(reached)) + 1, n - 1)
    return np.isin(unit, order[:many])


def ceilings(votes: np.ndarray) -> tuple[float, float] | None:
    """How well other annotators predict one who took a side, on the same pair: [K, 3] → 2 shares.

    votes: different people who say a, tie, b of a pair. Over all who say a or b where somebody
    else answered: the share of the others' sides that is theirs, ½ where the others only tie; and
    whether theirs is the side of most of the others, ½ where neither is.
    """
    shares, most, total = 0.0, 0.0, 0.0
    several = votes[votes.sum(axis=1) >= 2]
    for mine, other in ((several[:, 0], several[:, 2]), (several[:, 2], several[:, 0])):
        same, against = np.maximum(mine - 1, 0), other
        sides = same + against
        share = np.where(sides > 0, same / np.maximum(sides, 1), 0.5)
        shares += float((mine * share).sum())
        most += float((mine * (np.sign(same - against) + 1) / 2).sum())
        total += float(mine.sum())
    return (shares / total, most / total) if total else None


class _Written(NamedTuple):
    """Texts as arrays, and how many had to be cut."""

    tokens: np.ndarray
    mask: np.ndarray
    cut: int


def _responses(texts: Sequence[str], coder: Tokens) -> _Written:
    """[N, T]: the tokens of each and EOS, padded; of a longer one the beginning, without EOS."""
    language, n = coder.language, len(texts)
    tokens = np.full((n, language.length), language.pad, np.int32)
    mask, cut = np.zeros(tokens.shape, bool), 0
    assert language.eos is not None
    for i, text in enumerate(texts):
        ids = [*coder.encode(text), language.eos]
        cut += len(ids) > language.length
        ids = ids[: language.length]
        tokens[i, : len(ids)], mask[i, : len(ids)] = ids, True
    return _Written(tokens, mask, cut)


def _prompts(texts: Sequence[str], coder: Tokens, length: int) -> _Written:
    """[N, P]: the tokens of each and BOS, padded on the left; of a longer one the end."""
    language, n = coder.language, len(texts)
    tokens = np.full((n, length), language.pad, np.int32)
    mask, cut = np.zeros(tokens.shape, bool), 0
    for i, text in enumerate(texts):
        ids = [*coder.encode(text), language.bos]
        cut += len(ids) > length
        ids = ids[-length:]
        tokens[i, length - len(ids) :], mask[i, length - len(ids) :] = ids, True
    return _Written(tokens, mask, cut)


class _Numbered(NamedTuple):
    """Rows by the number of their prompt and of their responses, each different text once."""

    prompts: list[str]
    responses: list[tuple[int, str]]
    """(prompt, text)"""
    prompt: np.ndarray
    """[N]"""
    a: np.ndarray
    b: np.ndarray


def _numbered(rows: Sequence[data.Comparison]) -> _Numbered:
    prompts: dict[data.Text, int] = {}
    responses: dict[tuple[int, str], int] = {}
    at = []
    for r in rows:
        p = prompts.setdefault(r.prompt, len(prompts))
        a, b = ((p, spoken(x, answer=True)) for x in (r.a, r.b))
        at.append((p, *(responses.setdefault(x, len(responses)) for x in (a, b))))
    p, a, b = np.asarray(at, np.int32).T
    return _Numbered([spoken(x) for x in prompts], list(responses), p, a, b)


def _unseen(rows: Sequence[data.Comparison], x: Episode, a: np.ndarray, b: np.ndarray) -> Unseen:
    """What was said of each pair, whichever of the two was shown first."""
    said: dict[tuple[int, int], np.ndarray] = {}
    votes: dict[tuple[int, int], dict[str, int]] = {}
    for r, i, j in zip(rows, a.tolist(), b.tolist(), strict=True):
        if r.label is None:
            continue
        pair, label = ((i, j), r.label) if i <= j else ((j, i), 1.0 - r.label)
        tie = float(label == 0.5)
        count = np.asarray([(1 - tie) * label, tie, (1 - tie) * (1 - label)])
        said[pair] = said.get(pair, np.zeros(3)) + count
        if r.annotator:
            mine = votes.setdefault(pair, {})
            mine.setdefault(r.annotator, int(np.sign(0.5 - label)) + 1)
    if not said:
        raise ConfigError("nobody answered about the prompts that are held out")
    table = [[sum(v == k for v in mine.values()) for k in range(3)] for mine in votes.values()]
    first, second = np.asarray(list(said), np.int32).T
    known = ceilings(np.asarray(table, float).reshape(-1, 3))
    return Unseen(x, first, second, np.asarray(list(said.values()), np.float32), known)


def answered(
    rows: Iterable[data.Row], settings: Settings, said: dict[str, Any] | None = None
) -> Answered:
    """A world of texts, and the answers that people gave in it, from rows of `rlhf_jax.data`.

    Prompts of one `Row.group` are held out together, if the rows have several groups. `said`: what
    else is to stand in the disclosure.

    Raises:
      ConfigError: there are no comparisons, or none that can be held out.
    """
    every = list(rows)
    compared = [r for r in every if isinstance(r, data.Comparison)]
    where = (said or {}).get("source", "the rows")
    if not compared:
        kinds = ", ".join(sorted({data.kind(r) for r in every})) or "nothing"
        raise ConfigError(f"{where}: holds {kinds}, and only comparisons can be fitted")
    unit = units(compared)
    if unit.max() == 0:
        raise ConfigError(
            f"{where}: all {len(compared)} answers are about one prompt, or one group of prompts; "
            "none can be held out"
        )
    numbered = _numbered(compared)
    first = np.unique(numbered.prompt, return_index=True)[1]
    out = held(unit, np.bincount(unit[first]).astype(float), settings.held_out, seed=0)
    kept_prompt = ~out[first]
    kept = np.asarray([kept_prompt[p] for p, _ in numbered.responses])
    asked_texts = [t for t, k in zip(numbered.prompts, kept_prompt, strict=True) if k]
    said_texts = [t for (_, t), k in zip(numbered.responses, kept, strict=True) if k]
    coder = tokens_of(settings, [*asked_texts, *said_texts])
    asks = _prompts(numbered.prompts, coder, settings.prompt_length)
    says = _responses([t for _, t in numbered.responses], coder)
    of = np.asarray([p for p, _ in numbered.responses])

    def episode(at: np.ndarray) -> Episode:
        p = of[at]
        return Episode(Prompts(asks.tokens[p], asks.mask[p]), says.tokens[at], says.mask[at])

    names = {name: i for i, name in enumerate(dict.fromkeys(r.annotator for r in compared))}
    shown = np.flatnonzero(~out)
    label = [CANT_TELL if (y := compared[i].label) is None else y for i in shown]
    columns: dict[str, Any] = {
        "label": np.asarray(label, np.float32),
        "weight": np.asarray([compared[i].label is not None for i in shown], np.float32),
        "who": np.asarray([names[compared[i].annotator] for i in shown], np.int32),
    }
    sides = episode(numbered.a[shown]), episode(numbered.b[shown])
    answers = Comparison(*sides, **columns)
    if not answers.weight.any():
        raise ConfigError(f"{where}: nobody answered about the prompts that are not held out")
    unseen_rows = np.flatnonzero(out)
    place = np.cumsum(~kept) - 1
    unseen = _unseen(
        [compared[i] for i in unseen_rows],
        episode(np.flatnonzero(~kept)),
        place[numbered.a[unseen_rows]].astype(np.int32),
        place[numbered.b[unseen_rows]].astype(np.int32),
    )
    corpus = episode(np.flatnonzero(kept))
    alike = np.all(says.tokens[numbered.a] == says.tokens[numbered.b], axis=1)
    unknown = coder.language.symbols.index(UNKNOWN) if UNKNOWN in coder.language.symbols else -1
    facts = {
        "source": "rows given in Python",
        **(said or {}),
        "licence": "not stated by the source",
        "gold": "none: nobody said what a response is worth by itself",
        "answers": len(compared),
        "answers_held_out": len(unseen_rows),
        "answers_cannot_tell": sum(r.label is None for r in compared),
        "other_rows_not_used": len(every) - len(compared),
        "annotators_named": len(names.keys() - {""}),
        "prompts": len(numbered.prompts),
        "prompts_held_out": int((~kept_prompt).sum()),
        "prompts_cut": asks.cut,
        "responses": len(numbered.responses),
        "responses_held_out": int((~kept).sum()),
        "responses_cut": says.cut,
        "answers_about_two_that_are_alike_as_tokens": int(alike.sum()),
        "held_out_pairs": len(unseen.a),
        "tokens_unknown": float(np.mean(says.tokens[says.mask] == unknown)),
        **coder.facts,
    }
    draw = lambda which: _drawer(asks.tokens[which], asks.mask[which])
    world = World(
        language=coder.language,
        corpus=(jnp.asarray(corpus.tokens), jnp.asarray(corpus.mask)),
        shown=jnp.ones(len(corpus.tokens), bool),
        dimensions=(),
        features=(),
        values=None,
        impressions=0,
        show=None,
        prompt=draw(kept_prompt),
        trigger=None,
        row=None,
        facts=facts,
        asked=jax.tree.map(jnp.asarray, corpus.prompts),
        examined=draw(~kept_prompt),
    )
    return Answered(world, answers, unit[shown], unseen, len(names))


def _drawer(tokens: np.ndarray, mask: np.ndarray) -> Callable[[Any, Key], tuple[Array, Array]]:
    """`World.prompt`: each of these with the same probability."""

    def prompt(settings: Any, key: Key) -> tuple[Array, Array]:
        at = jax.random.randint(key, (), 0, len(tokens))
        return jnp.asarray(tokens)[at], jnp.asarray(mask)[at]

    return prompt


def read(config: Config) -> Answered:
    """The world and the answers of the file that `collect.source` names, its format recognised.

    Raises:
      ConfigError: there is no such file, it cannot be read, or `answered` refuses what it holds.
    """
    if not config.collect.source:
        raise ConfigError(
            "world.name = texts needs answers: name a file of them, --collect.source FILE, or give "
            "rows (docs/texts.md)"
        )
    path, second = Path(config.collect.source), config.collect.arguments
    options = Options({}, load_arguments(Path(second)) if second else {})
    chosen = recognise(path, options)
    rows = read_rows(path, chosen, options).rows
    said = {
        "source": path.name,
        "format": chosen.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    return answered(rows, config.world, said)

"""When two texts are the same question: what a paraphrase keeps, and what it must never pass over."""

from uuid import uuid4

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.pool.identity import normal_text
from services.pool.service import near

SAMPLE = "how many red apples does the old farmer sell on monday if each costs more than"
WORDS = st.sampled_from(SAMPLE.split())
PROSE = st.lists(WORDS, min_size=1, max_size=40).map(" ".join)
TEXTS = (
    PROSE | st.text(min_size=1, max_size=60) | st.from_regex(r"Calculate [0-9]( [-+*/] [0-9]){1,4}\.", fullmatch=True)
)
LONG = (
    "A farmer sells {} apples and twelve pears on Monday and gives away half of what is left on Tuesday before the market closes; "
    "how many pieces of fruit does the farmer carry home in the evening if nobody buys anything else?"
)


def alike(one: str, other: str) -> float:
    return near.similarity(near.words(one), near.words(other))


@given(TEXTS, TEXTS)
def test_similarity_is_symmetric_and_a_share(one: str, other: str):
    assert alike(one, other) == alike(other, one)
    assert 0 <= alike(one, other) <= 1


@given(TEXTS)
def test_a_text_is_near_itself_however_it_is_written(text: str):
    assert alike(text, text) == 1
    assert alike(text, f"  {normal_text(text)}\n") == 1


@given(PROSE, st.integers(0, 10**6), st.integers(0, 10**6), PROSE)
def test_other_numbers_make_another_question(before: str, one: int, other: int, behind: str):
    similarity = alike(f"{before} {one} {behind}", f"{before} {other} {behind}")
    assert similarity == (1 if one == other else 0)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Calculate 3 + 4 - 5.", "Calculate 3 - 4 + 5."),
        ("Calculate 2*(3+4).", "Calculate (2*3)+4."),
        ("What is 5!", "What is 5"),
        ("What is .5 of it?", "What is 5 of it?"),
        ("What is 3:4 in percent?", "What is 3 4 in percent?"),
        ("What is x² here and now?", "What is x³ here and now?"),
        ("If x = 3 and y = 4, find x.", "If x = 3 and y = 4, find y."),
        (LONG.format("two"), LONG.format("three")),
        (LONG.format("30"), LONG.format("31")),
        (LONG.format("1,000"), LONG.format("1.000")),
        (LONG.format("½"), LONG.format("¼")),
        (LONG.format("٣"), LONG.format("٤")),
        (LONG.format("三"), LONG.format("四")),
    ],
)
def test_what_is_counted_or_computed_is_never_passed_over(one: str, other: str):
    assert alike(one, other) == 0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Calculate 3 + 4 - 5.", "calculate 3+4−5"),
        (LONG.format(30), LONG.format(30).replace("before the market closes", "before the markets close")),
        (LONG.format(30), "Please answer: " + LONG.format(30)),
        ("What's the capital of France?", "what’s the capital of france"),
        ("法国的首都是什么城市", "法国的首都是什么城市?"),
    ],
)
def test_other_words_for_the_same_are_near(one: str, other: str):
    assert alike(one, other) >= 0.8


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=[chr(code) for code in range(128)], max_size=60))
def test_ascii_is_cut_as_any_text_is(text: str):
    assert near._ASCII_TOKEN.findall(text) == near._TOKEN.findall(text)


def test_short_texts_are_near_only_in_the_same_words():
    assert alike("Why?", "why") == 1
    assert alike("Why not?", "Why?") == 0
    assert alike("???", "?!") == 0


@given(st.lists(TEXTS, max_size=20))
def test_bands_depend_on_the_words_of_each_text_and_on_the_scope_alone(texts: list[str]):
    words = [near.words(text) for text in texts]
    together = near.bands(b"one", words)
    assert together.shape == (len(texts), near.BANDS)
    for at, text in enumerate(texts):
        alone = near.bands(b"one", [near.words(f" {normal_text(text)} ")])
        assert np.array_equal(alone[0], together[at])
        assert not set(near.bands(b"other", [words[at]])[0]) & set(together[at])


def test_most_near_pairs_share_a_band():
    """1 - (1 - 0.8^3)^8 = 0.997 of pairs at 0.8; of a thousand at 0.8 or more, 985 are far below what to expect."""
    generator = np.random.default_rng(0)
    shared = total = 0
    while total < 1000:
        tokens = [f"word{chr(97 + at // 26)}{chr(97 + at % 26)}" for at in generator.integers(0, 676, 60)]
        changed = list(tokens)
        changed[int(generator.integers(60))] = "elsewhere"
        one, other = near.words(" ".join(tokens)), near.words(" ".join(changed))
        if near.similarity(one, other) >= 0.8:
            total += 1
            first, second = near.bands(uuid4().bytes, [one, other])
            shared += bool(set(first) & set(second))
    assert shared >= 985

"""Whether two texts are the same question in other words: pure functions over word n-grams.

Two texts are near when the share of their word 3-grams that they have in common (Jaccard) reaches the campaign's threshold AND
their formulas are equal: every number (in digits or in words), sign, bracket and single letter, in order. So "3 + 4" and "3 + 5",
or "find x" and "find y", are different questions however long the rest of their text is. A text of fewer than three words is one
n-gram: only the same words are near it.

Candidates are found by MinHash (Broder 1997) with `BANDS` bands of `ROWS` values each, mixed with the formula: a pair of
similarity s shares a band with probability 1 - (1 - s^ROWS)^BANDS, 0.997 at 0.8 and 0.97 at 0.7. Limit: beyond that, a pair is missed.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from services.pool.identity import normal_text

WORDS = 3
BANDS, ROWS = 8, 3
_SEED = 1
_LETTER = r"(?:[^\W\d_]|(?!\d)[\u0300-\u036f\u0590-\u1aff])"
_TOKEN = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff]"  # scripts without spaces: a token a character
    rf"|{_LETTER}{{2,}}(?:['-]{_LETTER}+)*"  # words, also well-known and John's
    r"|\.?\d+(?:[.,:]\d+)*!*"  # numbers
    r"|[^\W_]"  # letters alone
    r"|[^\w\s.,;:!?'\"$`‘“”„«»…–—-]|-"  # everything else but the punctuation of prose
)
# The same on ASCII, several times as fast.
_ASCII_TOKEN = re.compile(
    r"[A-Za-z]{2,}(?:['-][A-Za-z]+)*|\.?[0-9]+(?:[.,:][0-9]+)*!*|[A-Za-z0-9]|[^\w\s.,;:!?'\"$`-]|-"
)
_SAME_SIGNS = str.maketrans({"−": "-", "×": "*", "·": "*", "⋅": "*", "÷": "/", "’": "'", "‑": "-"})
_ARTICLES = frozenset("ai")  # single letters that are words
_NUMBERS = (
    "zero two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen "
    "twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion half third quarter fifth twice double "
    "triple"
)
_NUMBER_WORDS = frozenset(_NUMBERS.split())
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB), np.uint64(31), np.uint64(29))


class Words(NamedTuple):
    """What of a text is compared: its word n-grams and its formula."""

    shingles: frozenset[str]
    formula: tuple[str, ...]


def words(text: str) -> Words:
    """The n-grams and the formula of a text; case, white space and the punctuation of prose are in neither."""
    tokens = _tokens(normal_text(text).casefold())
    if len(tokens) < WORDS:
        shingles = frozenset((" ".join(tokens),))
    else:
        shingles = frozenset(map(" ".join, zip(tokens, tokens[1:], tokens[2:], strict=False)))
    return Words(shingles, tuple(filter(_is_formula, tokens)))


def _tokens(normal: str) -> list[str]:
    if normal.isascii():
        return _ASCII_TOKEN.findall(normal) or [normal]
    return _TOKEN.findall(normal.translate(_SAME_SIGNS)) or [normal]


def _is_formula(token: str) -> bool:
    """Whether another token in this place makes another question."""
    if len(token) > 1 and token.isalpha():
        return token in _NUMBER_WORDS
    if token.isalpha():
        return (token not in _ARTICLES and not "\u3040" <= token <= "\u9fff") or token.isnumeric()
    return not token[:1].isalpha() or any(map(str.isnumeric, token))


def similarity(one: Words, other: Words) -> float:
    """The Jaccard similarity of the n-grams, 0 where the formulas differ. Symmetric; 1 for a text with itself."""
    if one.formula != other.formula:
        return 0.0
    common = len(one.shingles & other.shingles)
    return common / (len(one.shingles) + len(other.shingles) - common)


def bands(scope: bytes, texts: Sequence[Words]) -> NDArray[np.int64]:
    """The band hashes of each text, (N, BANDS): near texts of one scope probably share one, those of two scopes none."""
    if not texts:
        return np.empty((0, BANDS), np.int64)
    signatures: Any = RMinHash.digests_from_token_sets([list(text.shingles) for text in texts], BANDS * ROWS, _SEED)
    minima = np.array(signatures, dtype=np.uint64).reshape(len(texts), BANDS, ROWS)
    keys = b"".join(
        hashlib.blake2b("\0".join(text.formula).encode(), digest_size=8, key=scope).digest() for text in texts
    )
    mixed = np.frombuffer(keys, np.uint64)[:, None] + np.arange(BANDS, dtype=np.uint64) * _MIX[1]
    for row in range(ROWS):
        mixed = (mixed ^ minima[:, :, row]) * _MIX[0]
        mixed = (mixed ^ (mixed >> _MIX[2])) * _MIX[1]
        mixed ^= mixed >> _MIX[3]
    return mixed.view(np.int64)

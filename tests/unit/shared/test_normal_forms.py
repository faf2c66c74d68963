"""Normal forms: what Unicode says for texts that somebody could mean, and no long run of marks to sort in any other."""

import sys
import unicodedata
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import normal_forms
from shared.normal_forms import MARKS, nfc, nfkc

MARK = st.characters(categories=["Mn", "Mc"]) | st.sampled_from("\u0344\u0f73\uff9e\u3099\u0301\u0323")
TEXTS = st.text(st.characters(codec="utf-8") | MARK, max_size=MARKS)


@given(TEXTS)
def test_what_somebody_could_mean_is_normalised_as_ever(text: str):
    assert nfc(text) == unicodedata.normalize("NFC", text)
    assert nfkc(text) == unicodedata.normalize("NFKC", text)


@given(st.lists(st.tuples(MARK, st.integers(1, 200)), min_size=1, max_size=5), TEXTS)
def test_no_run_of_marks_is_long(runs: list[tuple[str, int]], text: str):
    safe = normal_forms._stream_safe(text + "".join(mark * count for mark, count in runs))
    marks = (unicodedata.combining(one) > 0 for one in unicodedata.normalize("NFKD", safe))
    assert max((len(list(run)) for is_mark, run in groupby(marks) if is_mark), default=0) <= 4 * MARKS


@pytest.mark.parametrize("form", [nfc, nfkc])
def test_a_hundred_thousand_marks_are_no_work(form: type[str]):
    text = "a" + "\u0301" * 50_000 + "\u0323" * 50_000
    assert len(form(text)) >= len(text)


def test_every_mark_is_in_the_range_that_is_looked_at():
    outside = [*range(normal_forms._FIRST_MARK), *range(normal_forms._BEHIND_MARKS, sys.maxunicode + 1)]
    assert not [one for one in map(chr, outside) if unicodedata.combining(one)]

"""Unicode normal forms in linear time, whatever was sent.

The marks behind a letter are put in order by an insertion sort, so that a hundred thousand of them take many seconds during which the
process does nothing else. Here a COMBINING GRAPHEME JOINER stands behind every `MARKS` of them, which ends the run: the Stream-Safe
Text Format of https://www.unicode.org/reports/tr15/#Stream_Safe_Text_Format. No language has half as many.
"""

import re
import unicodedata
from functools import cache

MARKS = 30
_JOINER = "\N{COMBINING GRAPHEME JOINER}"
_FIRST_MARK, _BEHIND_MARKS = 0x300, 0x1F000


def nfc(text: str) -> str:
    """Normal form C: equal for texts that a reader cannot tell apart."""
    return text if text.isascii() else unicodedata.normalize("NFC", _stream_safe(text))


def nfkc(text: str) -> str:
    """Normal form KC: also without differences of width, ligature and the like."""
    return text if text.isascii() else unicodedata.normalize("NFKC", _stream_safe(text))


def _stream_safe(text: str) -> str:
    return _long_runs().sub(rf"\g<0>{_JOINER}", text)


@cache
def _long_runs() -> re.Pattern[str]:
    """`MARKS` characters in a row that are marks, or become some."""
    characters = map(chr, range(_FIRST_MARK, _BEHIND_MARKS))
    marks = [one for one in characters if unicodedata.combining(unicodedata.normalize("NFKD", one)[0])]
    return re.compile(f"[{''.join(marks)}]{{{MARKS}}}")

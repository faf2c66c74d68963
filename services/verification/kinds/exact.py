"""Exact answers: the same text after normalising (NFKC, case, white space, outer punctuation, `\\text{}` and `$`)."""

import re
import unicodedata

from services.verification.kinds.judgement import Judgement, scored, unscored
from shared.contracts.verdicts import UnscoredReason

VERIFIER = "exact@1"
_WRAPPER = re.compile(r"^\\(?:text|textbf|textit|mathrm|mathbf|boxed)\s*\{(.*)\}$", re.DOTALL)
_OUTER = " \t\r\n.,;:!?\"'`$*"


def judge(reference: str, answer: str) -> Judgement:
    """Correct iff both normalise to the same text; a reference of which nothing is left can't be judged against."""
    wanted = normalise(reference)
    if not wanted:
        return unscored(UnscoredReason.REFERENCE_UNPARSEABLE)
    return scored(normalise(answer) == wanted)


def normalise(text: str) -> str:
    """The form that is compared."""
    text = unicodedata.normalize("NFKC", text).strip(_OUTER)
    if match := _WRAPPER.match(text):
        text = match[1].strip(_OUTER)
    return " ".join(text.casefold().split())

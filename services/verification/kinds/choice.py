"""Multiple choice: the letter (or digit) chosen, as `B`, `(B)`, `B.`, `B) text` or `\\text{B}`."""

import re

from services.verification.kinds.exact import normalise
from services.verification.kinds.judgement import INCORRECT, Judgement, scored, unscored
from shared.contracts.verdicts import UnscoredReason

VERIFIER = "choice@1"
# A letter alone, in brackets, or followed by a mark: "a dog" is not choice A.
_CHOICE = re.compile(r"^(?:[(\[]([a-z0-9])[)\]](?:\W.*)?|([a-z0-9])(?:[).:\]](?:\s.*)?)?)$", re.DOTALL)


def judge(reference: str, answer: str) -> Judgement:
    """Correct iff both name the same choice."""
    wanted = chosen(reference)
    if wanted is None:
        return unscored(UnscoredReason.REFERENCE_UNPARSEABLE)
    given = chosen(answer)
    return INCORRECT if given is None else scored(given == wanted)


def chosen(text: str) -> str | None:
    """The one choice that a text names, in lower case, or None."""
    match = _CHOICE.match(normalise(text))
    return match and (match[1] or match[2])

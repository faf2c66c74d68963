"""Questions in words with a worked reference solution (gsm_symbolic `answer_cot`, ending in a boxed answer).

Nothing is understood here, only equations `... = number` are found in the text, so there is no confirmative verification by
rule: an answer is checked by recomputing it (the reference or another attempt).
"""

import re
from random import Random

from shared.trajectories.domains.domain import Domain, recompute
from shared.trajectories.segments import PROTOCOL_PHRASES, boxed_answer

_RESULT = re.compile(r"(?<==)(\s*\$?)(-?\d+(?:\.\d+)?)(?![\d.]*\d)")
_WHOLE = re.compile(r"-?\d+(?:\.\d+)?")


def solve(question: str, reference: str | None = None) -> str | None:
    """The reference solution, if it ends in a boxed answer and contains no protocol phrase."""
    del question
    if reference is None or boxed_answer(reference) is None:
        return None
    if any(phrase in reference for phrase in PROTOCOL_PHRASES):
        return None
    return reference.strip()


def confirm(question: str, answer: str) -> str | None:
    """Always None: text cannot be checked by rule without solving it again."""
    del question, answer
    return None


def slip(solution: str, rng: Random) -> str | None:
    """A wrong attempt: one equation has another result, and so has the boxed answer."""
    answer = boxed_answer(solution)
    results = list(_RESULT.finditer(solution))
    if answer is None or not results or _WHOLE.fullmatch(answer) is None:
        return None
    chosen = rng.choice(results)
    right = chosen.group(2)
    wrong = _off(right, rng)
    wrong_answer = wrong if right == answer else _off(answer, rng)
    head = solution[: chosen.start(2)] + wrong
    tail = solution[chosen.end(2) :]
    opening = tail.rindex("\\boxed{") if "\\boxed{" in tail else -1
    if opening < 0:
        return None
    middle = re.sub(rf"(?<![\d.]){re.escape(right)}(?![\d.]*\d)", wrong, tail[:opening])
    return f"{head}{middle}\\boxed{{{wrong_answer}}}"


def _off(number: str, rng: Random) -> str:
    """A number near this one, with as many decimals, and not equal to it."""
    decimals = len(number.partition(".")[2])
    size = max(1.0, abs(float(number)) / 10)
    error = rng.choice((-1, 1)) * max(1, round(rng.uniform(0.1, 1.5) * size))
    return f"{float(number) + error:.{decimals}f}"


TEXT = Domain(name="text", solve=solve, confirm=confirm, recompute=recompute, slip=slip)

"""Where each token ends in the text, from the engine's own token strings; text is never tokenised again.

Limit: some tokenizers decode a token alone differently than within a text (a lost leading space, bytes of one character
over several tokens). Then tokens are found again in the text from left to right, and one that cannot be found ends where
its predecessor does.
"""

from collections.abc import Sequence

_LOST_CHARACTERS = 8  # how far a token may be found behind where it was expected


def token_ends(tokens: Sequence[str], text: str, *, ends_with_stop_token: bool) -> list[int]:
    """Character offset in `text` after each token: non-decreasing, the last one is len(text).

    `ends_with_stop_token`: the last token is the end-of-sequence token, which has no text.
    """
    spoken = tokens[:-1] if ends_with_stop_token else tokens
    ends: list[int] = []
    position = 0
    for token in spoken:
        position = _end_of(token, text, position)
        ends.append(position)
    if ends_with_stop_token:
        ends.append(len(text))
    if ends:
        ends[-1] = len(text)
    return ends


def _end_of(token: str, text: str, position: int) -> int:
    if text.startswith(token, position):
        return position + len(token)
    found = text.find(token, position, position + _LOST_CHARACTERS + len(token))
    return position if found < 0 else found + len(token)

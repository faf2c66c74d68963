"""Token ends tile the text."""

from hypothesis import given
from hypothesis import strategies as st

from services.generation.service.offsets import token_ends


@given(st.lists(st.text(max_size=4), max_size=30), st.booleans())
def test_tokens_that_tile_the_text_end_where_they_end(tokens: list[str], stopped: bool) -> None:
    text = "".join(tokens)
    expected = [len("".join(tokens[: index + 1])) for index in range(len(tokens))]
    if stopped:
        tokens, expected = [*tokens, "<end>"], [*expected, len(text)]
    assert token_ends(tokens, text, ends_with_stop_token=stopped) == expected


@given(st.lists(st.text(max_size=4), min_size=1, max_size=30), st.text(max_size=40), st.booleans())
def test_any_tokens_give_non_decreasing_ends_that_reach_the_end(tokens: list[str], text: str, stopped: bool) -> None:
    ends = token_ends(tokens, text, ends_with_stop_token=stopped)
    assert len(ends) == len(tokens)
    assert ends == sorted(ends)
    assert ends[-1] == len(text)


def test_lost_spaces_and_split_characters_are_found_again() -> None:
    assert token_ends(["Hello", "world", "!"], "Hello world!", ends_with_stop_token=False) == [5, 11, 12]
    assert token_ends(["a", "", "é", "b"], "aéb", ends_with_stop_token=False) == [1, 1, 2, 3]

"""The tiny policy: the tokenizer gives text back, phrases are single tokens, and a seed fixes the bytes."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.training.tiny import PHRASE_TOKENS, make_tiny_model, make_tokenizer
from shared.trajectories.segments import Round, assemble

TOKENIZER = make_tokenizer()
ANSWER = assemble(
    [
        Round("12+7=19\n19-5=13\n\\boxed{13}", "13+5=18\n18-7=11\n11!=12\nTherefore, the answer is incorrect."),
        Round("12+7=19\n19-5=14\n\\boxed{14}", "14-12=2\n2-7=-5\n-5+5=0\nTherefore, the answer is correct."),
    ]
).text


def encode(text: str) -> list[int]:
    ids: list[int] = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    return ids


@given(st.text(alphabet=[chr(code) for code in range(32, 127) if chr(code) not in "<>"] + ["\n"], max_size=60))
def test_plain_text_comes_back(text: str) -> None:
    assert TOKENIZER.decode(encode(text), skip_special_tokens=True) == text


def test_an_answer_comes_back_with_single_token_phrases() -> None:
    ids = encode(ANSWER)
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == ANSWER
    assert len(ids) < len(ANSWER) / 2
    assert all(len(encode(phrase)) == 1 for phrase in PHRASE_TOKENS)


@given(st.text(max_size=30))
def test_unknown_characters_do_not_crash(text: str) -> None:
    assert len(encode(text)) <= len(text)


def test_the_chat_template_ends_where_the_policy_starts() -> None:
    messages = [{"role": "user", "content": "Calculate 1+2."}]
    text = TOKENIZER.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert text == "<user>Calculate 1+2.<assistant>"


@pytest.fixture(scope="module")
def digests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    made = {}
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        directory: Path = tmp_path_factory.mktemp(name)
        make_tiny_model(directory, seed, hidden_size=32, intermediate_size=64, layers=1, heads=1)
        made[name] = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in directory.iterdir()}
    return made


def test_a_seed_fixes_every_byte(digests: dict[str, dict[str, str]]) -> None:
    assert digests["a"] == digests["b"]
    assert digests["a"]["model.safetensors"] != digests["c"]["model.safetensors"]
    assert {"config.json", "tokenizer.json", "tokenizer_config.json"} <= digests["a"].keys()


def test_heads_must_divide_the_hidden_size(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="multiple of heads"):
        make_tiny_model(tmp_path, hidden_size=100, heads=3)

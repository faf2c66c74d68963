"""The field's commonest bugs, one test each, with real tokenizers: off by one, a lost end or first token, a wrong attempt trained.

Every test runs with the tiny policy's characters and with a BPE whose tokens straddle the edges of segments and split characters.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from services.training.rl.actions import UNTRAINED, token_segments
from services.training.sft.rows import IGNORED, Tokenised, tokenise_prompt, tokenise_rows
from services.training.tiny import make_tokenizer
from shared.contracts.recipe import SftRecipe
from shared.contracts.verdicts import ScoredSegment, SegmentKind
from shared.trajectories.segments import Round, Trajectory, assemble
from tests.unit.training.bpe import BEGIN, bpe_tokenizer
from tests.unit.training.trainers import points, sft_trainer

QUESTION = "What is 2 + 3?"
TOKENIZERS = {"characters": make_tokenizer(), "bpe": bpe_tokenizer()}
# Line breaks that BPE merges with what stands before, and characters of two to four bytes, which it splits.
words = st.text(st.sampled_from("ab 17+=.,:}\n×°€–"), max_size=12)
both = pytest.mark.parametrize("tokenizer", list(TOKENIZERS.values()), ids=list(TOKENIZERS))


@st.composite
def trajectories(draw: st.DrawFn) -> Trajectory:
    """1 to 3 rounds, all but the last wrong and found to be."""
    count = draw(st.integers(1, 3))
    return assemble(
        Round(
            f"{draw(words)}\n\\boxed{{{90 + number}}}",
            f"{draw(words)}\nTherefore, the answer is {'correct' if number == count - 1 else 'incorrect'}.",
        )
        for number in range(count)
    )


def row_of(built: Trajectory, trained: list[bool]) -> dict[str, Any]:
    segments = [
        {"kind": segment.kind.value, "start": segment.start, "end": segment.end, "trained": bit}
        for segment, bit in zip(built.segments, trained, strict=True)
    ]
    prompt, completion = (
        [{"role": role, "content": text}] for role, text in (("user", QUESTION), ("assistant", built.text))
    )
    return {"question_id": "q", "prompt": prompt, "completion": completion, "segments": segments}


def s2r_mask(built: Trajectory) -> list[bool]:
    """Three rounds: 0,1,0,1,1,1; one: 1,1."""
    rounds = len(built.segments) // 2
    return [bit for number in range(rounds) for bit in (number == rounds - 1, True)]


def tokenised(
    tokenizer: PreTrainedTokenizerFast, built: Trajectory, trained: list[bool]
) -> tuple[list[int], list[int], int]:
    """(input_ids, labels, tokens of the prompt) of the only row."""
    rows = tokenise_rows([row_of(built, trained)], tokenizer, 10_000)
    assert rows.left_out == {}
    return rows.input_ids[0], rows.labels[0], len(tokenise_prompt(tokenizer, QUESTION))


def offsets_by_decoding(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> list[int]:
    """Characters that are whole after each token: from the text that the tokens decode to, not from the tokenizer's offsets."""
    return [len(tokenizer.decode(ids[: count + 1]).rstrip("\ufffd")) for count in range(len(ids))]


@both
@given(trajectories())
def test_prompt_and_response_are_the_texts_and_nothing_lies_between(tokenizer: Any, built: Trajectory) -> None:
    ids, _, prompt = tokenised(tokenizer, built, s2r_mask(built))
    assert tokenizer.decode(ids[prompt:-1]) == built.text
    assert tokenizer.decode(ids[:prompt]).endswith(
        tokenizer.apply_chat_template(
            [{"role": "user", "content": QUESTION}], add_generation_prompt=True, tokenize=False
        )
    )
    begin = tokenizer.convert_tokens_to_ids(BEGIN) if tokenizer.bos_token else None
    assert [at for at, token in enumerate(ids) if token == begin] == ([0] if begin is not None else [])


@both
@given(trajectories())
def test_the_end_token_is_there_once_and_trained(tokenizer: Any, built: Trajectory) -> None:
    ids, labels, prompt = tokenised(tokenizer, built, s2r_mask(built))
    assert [at for at, token in enumerate(ids[prompt:], prompt) if token == tokenizer.eos_token_id] == [len(ids) - 1]
    assert labels[-1] == tokenizer.eos_token_id
    _, untrained, _ = tokenised(tokenizer, built, [True] * (len(built.segments) - 1) + [False])
    assert untrained[-1] == IGNORED


@both
@given(trajectories())
def test_the_first_token_of_the_response_is_trained_and_the_prompt_never(tokenizer: Any, built: Trajectory) -> None:
    ids, labels, prompt = tokenised(tokenizer, built, [True] * len(built.segments))
    assert labels == [IGNORED] * prompt + ids[prompt:]


@both
@given(trajectories(), st.data())
def test_a_token_is_trained_exactly_when_its_last_character_is(tokenizer: Any, built: Trajectory, data: Any) -> None:
    trained = data.draw(st.lists(st.booleans(), min_size=len(built.segments), max_size=len(built.segments)).filter(any))
    ids, labels, prompt = tokenised(tokenizer, built, trained)
    response = ids[prompt:-1]
    for at, whole in enumerate(offsets_by_decoding(tokenizer, response)):
        # A token that ends inside a character counts to that character.
        is_split = tokenizer.decode(response[: at + 1]).endswith("\ufffd")
        last = whole if is_split else whole - 1
        owner = next(
            bit for segment, bit in zip(built.segments, trained, strict=True) if segment.start <= last < segment.end
        )
        assert labels[prompt + at] == (response[at] if owner else IGNORED)


@both
@given(trajectories())
def test_wrong_attempts_are_not_trained_and_everything_else_is(tokenizer: Any, built: Trajectory) -> None:
    """A token across the edge of two segments counts to the second: of a BPE one may lack its last character."""
    mask = s2r_mask(built)
    _, labels, _ = tokenised(tokenizer, built, mask)
    text = tokenizer.decode([label for label in labels if label != IGNORED])
    bodies = [built.text[segment.start : segment.end] for segment in built.segments]
    for number, (body, trained) in enumerate(zip(bodies, mask, strict=True)):
        is_attempt = number % 2 == 0
        assert not is_attempt or (f"boxed{{{90 + number // 2}" in text) is trained
        assert not trained or body[:-1] in text
    if tokenizer.bos_token is None:
        assert (
            text == "".join(body for body, trained in zip(bodies, mask, strict=True) if trained) + tokenizer.eos_token
        )


def test_the_bpe_has_tokens_across_the_edge_of_segments_and_inside_characters() -> None:
    """Or the tests above would not show what they are for."""
    built = assemble([Round("\\boxed{90}", "€\nTherefore, the answer is correct.")])
    encoded = TOKENIZERS["bpe"](built.text, add_special_tokens=False, return_offsets_mapping=True)
    edge = built.segments[0].end
    assert any(start < edge < end for start, end in encoded["offset_mapping"])
    euro = built.text.index("€")
    assert encoded["offset_mapping"].count((euro, euro + 1)) > 1


@both
@given(trajectories())
def test_an_end_token_that_the_engine_gave_belongs_to_the_last_segment_in_rl(tokenizer: Any, built: Trajectory) -> None:
    encoded = tokenizer(built.text, add_special_tokens=False, return_offsets_mapping=True)
    ends = [*(end for _, end in encoded["offset_mapping"]), len(built.text)]
    segments = [ScoredSegment(kind=SegmentKind(s.kind.value), start=s.start, end=s.end) for s in built.segments]
    found = token_segments(ends, segments)
    assert len(found) == len(ends)
    assert found == sorted(found)
    assert found[-1] == len(segments) - 1
    for end, segment in zip(ends, found, strict=True):
        assert segments[segment].start < end <= segments[segment].end
    observed = [segment.model_copy(update={"kind": SegmentKind.OBSERVE}) for segment in segments]
    assert set(token_segments(ends, observed)) == {UNTRAINED}


@pytest.fixture(scope="module")
def model_directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model of a few thousand parameters for each tokenizer."""
    directories = {}
    for name, tokenizer in TOKENIZERS.items():
        directories[name] = tmp_path_factory.mktemp(name)
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=2, max_position_embeddings=512, pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id, bos_token_id=tokenizer.bos_token_id, initializer_range=0.1,
        )  # fmt: skip
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(directories[name])
        tokenizer.save_pretrained(directories[name])
    return directories


@pytest.mark.parametrize("name", list(TOKENIZERS))
@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("kl_beta", [0.0, 0.1])
def test_the_trainers_loss_is_what_each_token_before_says_of_the_next(
    model_directories: dict[str, Path], tmp_path: Path, name: str, packing: bool, kl_beta: float
) -> None:
    """From the text to the loss, beside a loop: position t predicts token t + 1, over the trained tokens and no others."""
    tokenizer = TOKENIZERS[name]
    slip = Round("2 + 3 = 6\n\\boxed{6}", "6 - 3 = 3, not 2.\nTherefore, the answer is incorrect.")
    right = Round("2 + 3 = 5\n\\boxed{5}", "5 - 3 = 2 ✓\nTherefore, the answer is correct.")
    built = [assemble(rounds) for rounds in ([slip, slip, right], [right], [slip, right])]
    rows = tokenise_rows([row_of(item, s2r_mask(item)) for item in built], tokenizer, 512)
    recipe = SftRecipe(steps=1, batch_size=3, packing=packing, kl_beta=kl_beta)
    trainer = sft_trainer(model_directories[name], recipe, tmp_path, rows)
    model = LlamaForCausalLM.from_pretrained(model_directories[name])
    expected = mean_loss(model, rows)
    trainer.train()
    assert points(trainer)[0]["loss"] == pytest.approx(expected, abs=1e-5)


def mean_loss(model: Any, rows: Tokenised) -> float:
    losses: list[float] = []
    for ids, labels in zip(rows.input_ids, rows.labels, strict=True):
        with torch.no_grad():
            logprobs = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        losses += [-float(logprobs[at - 1, label]) for at, label in enumerate(labels) if label != IGNORED]
    return sum(losses) / len(losses)

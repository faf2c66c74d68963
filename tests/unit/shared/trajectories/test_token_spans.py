"""Token spans of hostile text (emoji, combining marks, no final newline) as a byte-level BPE tokenizer cuts it."""

from functools import cache

from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from shared.trajectories.segments import VERDICT_SENTENCES, ClaimedVerdict, Round, assemble, segment_token_spans

FAMILY, FLAG, COMBINED = "👩‍👩‍👧", "🇨🇭", "é̂ ṩ"
hostile = st.text(alphabet=st.sampled_from(f"{FAMILY}{FLAG}{COMBINED}ab 7\n\u200b\ufeff𝔽漢"), max_size=20)


@cache
def tokenizer() -> Tokenizer:
    """Bytes and some merges: most characters outside ASCII are several tokens."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.post_processor = processors.ByteLevel(trim_offsets=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(
        [*VERDICT_SENTENCES.values(), "Wait, let me recheck my solution. Let me try again."], trainer
    )
    return made


@given(st.lists(st.tuples(hostile, hostile), min_size=1, max_size=3))
@example([(FAMILY, FLAG), (COMBINED, "\ufeff")])
def test_tokens_of_a_segment_are_those_whose_text_ends_in_it(texts: list[tuple[str, str]]) -> None:
    sentences = [VERDICT_SENTENCES[ClaimedVerdict.INCORRECT]] * len(texts)
    trajectory = assemble(
        Round(f"{attempt}\\boxed{{{FAMILY}}}", f"{verification}\n{sentence}")
        for (attempt, verification), sentence in zip(texts, sentences, strict=True)
    )
    encoded = tokenizer().encode(trajectory.text)
    token_ends = [end for _, end in encoded.offsets]
    spans = segment_token_spans(token_ends, trajectory.segments)
    assert [first for first, _ in spans] == [0, *(last for _, last in spans[:-1])]
    assert spans[-1][1] == len(encoded.ids)
    for (first, last), segment in zip(spans, trajectory.segments, strict=True):
        expected = [index for index, end in enumerate(token_ends) if segment.start < end <= segment.end]
        assert list(range(first, last)) == expected
    for (_, last), segment in zip(spans, trajectory.segments, strict=True):
        written = tokenizer().decode(encoded.ids[:last])
        assert written == trajectory.text[: token_ends[last - 1]]
        assert token_ends[last - 1] <= segment.end

"""A byte-level BPE tokenizer trained in memory: tokens of many characters, of parts of one, and across the edges of segments."""

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from shared.trajectories.segments import PROTOCOL_PHRASES

BEGIN, END, PAD = "<begin>", "<stop>", "<pad>"
CHAT_TEMPLATE = (
    f"{BEGIN}{{% for message in messages %}}[{{{{ message['role'] }}}}] {{{{ message['content'] }}}}{END}{{% endfor %}}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
# As Llama 3 and Qwen 2.5 split: punctuation takes the line break after it along, which here is the next segment's.
PATTERN = r"\p{N}|[^\r\n\p{L}\p{N}]?\p{L}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def bpe_tokenizer() -> PreTrainedTokenizerFast:
    """Like a hub model's: asked for text alone it adds a first and a last token of its own."""
    backend = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PATTERN), behavior="isolated")
    bytes_of = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False, trim_offsets=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_of])
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=[PAD, BEGIN, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    sums = [f"{a} + {b} = {a + b}.\nSo the sum is\n\\boxed{{{a + b}}}\n" for a in range(30) for b in range(30)]
    backend.train_from_iterator([*sums, *(f"\n{phrase}\n" for phrase in PROTOCOL_PHRASES * 20)], trainer)
    special = [(token, backend.token_to_id(token)) for token in (BEGIN, END)]
    around = processors.TemplateProcessing(single=f"{BEGIN} $A {END}", special_tokens=special)
    backend.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), around])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )

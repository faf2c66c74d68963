"""The tiny policy: a two-million-parameter Llama and its character tokenizer, made from a seed, nothing downloaded.

The tokenizer knows printable ASCII, the line break and a few signs as single characters; the fixed phrases of the trajectory format
are single, non-special tokens (they decode as text), which halves the length of an answer. Unknown characters become `<unk>`.
Invariant: the same arguments give the same bytes of config, tokenizer and weights.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shared.trajectories.segments import RECHECK_PHRASE, RETRY_PHRASE, VERDICT_SENTENCES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, END, UNKNOWN, USER, ASSISTANT = "<pad>", "<end>", "<unk>", "<user>", "<assistant>"
SPECIAL_TOKENS = (PAD, END, UNKNOWN, USER, ASSISTANT)
PHRASE_TOKENS = (
    f"\n{RECHECK_PHRASE}\n",
    f"\n{RETRY_PHRASE}\n",
    *(f"\n{sentence}" for sentence in VERDICT_SENTENCES.values()),
    "\n\\boxed{",
    "\\boxed{",
    "Calculate ",
)
EXTRA_CHARACTERS = "\n×÷•€£°–’"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    f"{ASSISTANT}{{% generation %}}{{{{ message['content'] }}}}{END}{{% endgeneration %}}"
    "{% else %}"
    f"{USER}{{{{ message['content'] }}}}"
    "{% endif %}"
    "{% endfor %}"
    f"{{% if add_generation_prompt %}}{ASSISTANT}{{% endif %}}"
)


def make_tokenizer() -> "PreTrainedTokenizerFast":
    """The character tokenizer with phrase tokens and chat template."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    characters = [chr(code) for code in range(32, 127)] + list(EXTRA_CHARACTERS)
    vocabulary = {token: index for index, token in enumerate((*SPECIAL_TOKENS, *characters))}
    backend = Tokenizer(models.WordLevel(vocab=vocabulary, unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    backend.add_tokens([AddedToken(phrase, special=False, normalized=False) for phrase in PHRASE_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        additional_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )


def make_tiny_model(
    directory: Path,
    seed: int = 0,
    *,
    hidden_size: int = 192,
    intermediate_size: int = 512,
    layers: int = 4,
    heads: int = 6,
    max_positions: int = 1024,
    initializer_range: float = 0.06,
) -> dict[str, Any]:
    """Write config, tokenizer and freshly initialised float32 safetensors to `directory`; returns sizes for a log line.

    Raises ValueError when the heads do not divide the hidden size.
    """
    if hidden_size % heads:
        raise ValueError(f"hidden_size {hidden_size} is not a multiple of heads {heads}")
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer()
    config = LlamaConfig(
        vocab_size=-(-len(tokenizer) // 16) * 16,
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=max_positions,
        initializer_range=initializer_range,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    directory.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"directory": str(directory), "parameters": parameters, "vocabulary": len(tokenizer), "seed": seed}


def main(
    directory: Annotated[Path, typer.Argument(help="Where the model goes; made if missing.")],
    seed: Annotated[int, typer.Option(help="Seed of the initial weights.")] = 0,
) -> None:
    """Make the tiny policy: a 2M-parameter Llama with a character tokenizer."""
    typer.echo(json.dumps(make_tiny_model(directory, seed)))


if __name__ == "__main__":
    typer.run(main)

"""Runs inside vLLM's workers (`--worker-extension-cls services.generation.engine_extension.EngineExtension`), nowhere else.

Both calls mend vLLM 0.32 on the CPU; on GPUs they change nothing.

- It packs the output head once, at start. `reload_weights` replaces tied embeddings and leaves the packed head as it was,
  so the engine would go on with a mixture of two policies. `reload_checkpoint` reloads and packs the head again.
- Its LoRA layers copy the adapter's whole matrices once for every token, and a token without an adapter takes those of the
  last slot. After `group_adapters` the tokens of one adapter are multiplied together, and the others are left alone.
"""

from collections.abc import Iterator
from typing import Any


class EngineExtension:
    """Methods that vLLM adds to its worker class; called through `/collective_rpc`."""

    model_runner: Any
    reload_weights: Any

    def reload_checkpoint(self, weights_path: str) -> str:
        """Replace the full weights, tied output heads too. Answers how many heads were packed again."""
        from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding

        self.reload_weights(weights_path=weights_path)
        modules = list(self.model_runner.get_model().modules())
        heads = [module for module in modules if isinstance(module, ParallelLMHead)]
        embeddings = [
            module
            for module in modules
            if isinstance(module, VocabParallelEmbedding) and not isinstance(module, ParallelLMHead)
        ]
        if not self.model_runner.model_config.hf_text_config.tie_word_embeddings or len(embeddings) != 1:
            return "0"
        for head in heads:
            head.weight = embeddings[0].weight
            head.quant_method.process_weights_after_loading(head)
        return str(len(heads))

    def group_adapters(self) -> str:
        """Multiply by adapter instead of by token, from the next step on. Again is harmless."""
        from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

        PunicaWrapperCPU.add_lora_linear = _add_lora_linear
        return "grouped"


def _add_lora_linear(
    wrapper: Any,
    y: Any,
    x: Any,
    lora_a_stacked: tuple[Any, ...],
    lora_b_stacked: tuple[Any, ...],
    scale: float,
    output_slices: tuple[int, ...],
    **_: Any,
) -> None:
    """In place of `PunicaWrapperCPU.add_lora_linear`: y[:, slice] += x A^T B^T * scale, with each token's own A and B.

    x: (T, in). y: (T, out), changed in place. A: (slots, 1, rank, in) and B: (slots, 1, size, rank) of each output slice.
    """
    x, y = x.view(-1, x.shape[-1]), y.view(-1, y.shape[-1])
    for slot, rows in _rows_by_slot(wrapper.token_lora_indices):
        inputs, offset = x[rows], 0
        for a, b, size in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
            y[rows, offset : offset + size] += ((inputs @ a[slot, 0].T) * scale) @ b[slot, 0].T
            offset += size


def _rows_by_slot(slot_of_token: Any) -> Iterator[tuple[int, Any]]:
    """The tokens of each adapter slot; -1 is a token without an adapter. All rows are a slice, which copies nothing."""
    slots = slot_of_token.unique().tolist()
    for slot in slots:
        if slot >= 0:
            yield slot, slice(None) if len(slots) == 1 else slot_of_token == slot

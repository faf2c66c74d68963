"""Runs inside vLLM's workers (`--worker-extension-cls services.generation.engine_extension.TiedHeadReload`), nowhere else.

vLLM 0.32 on the CPU packs the output head once, at start. `reload_weights` replaces tied embeddings and leaves the packed
head as it was, so the engine would go on with a mixture of two policies. This call reloads and packs the head again. On
GPUs head and embedding are one tensor, and the call does no more than `reload_weights`.
"""

from typing import Any


class TiedHeadReload:
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

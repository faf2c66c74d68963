"""The SFT trainer: TRL's, with our order of rows and S2R's KL term."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from trl import SFTConfig, SFTTrainer

from services.training import ranks
from services.training.loop import LOGGED_POINTS, RunTrainer, trainer_arguments
from services.training.policies import Loaded, Reference
from services.training.sft.losses import masked_loss, shifted
from services.training.sft.order import batch_order, micro_batch_size
from services.training.sft.packing import PackingCollator
from services.training.sft.rows import IGNORED, Tokenised
from shared.contracts.recipe import SftRecipe
from shared.contracts.runs import RunIn


class MaskedSftTrainer(RunTrainer, SFTTrainer):
    """Masked cross-entropy, plus kl_beta * KL(pi || pi_ref) on the same tokens where there is a reference."""

    order: Sequence[int]
    reference: Reference | None
    kl_beta: float

    def _get_train_sampler(self, _dataset: Any = None) -> Sequence[int]:
        return self.order

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss of one micro-batch; `num_items_in_batch` counts the trained tokens of the whole batch."""
        tokens = inputs.pop("tokens") if "tokens" in inputs else inputs["attention_mask"].sum()
        self.attempt.tokens += int(self._over_ranks(tokens.sum()))
        if self.reference is None:
            loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        else:
            loss = self._loss_with_kl(model, inputs, self.reference, num_items_in_batch)
        self._metrics["train"]["num_tokens"] = [float(self.attempt.tokens)]
        return loss

    def _loss_with_kl(self, model: Any, inputs: dict[str, Tensor], reference: Reference, trained: Any) -> Tensor:
        model_inputs = {name: tensor for name, tensor in inputs.items() if name != "labels"}
        logits_N_V, targets_N = shifted(model(**model_inputs).logits, inputs["labels"], IGNORED)
        # Accelerate wraps the policy in autocast; the reference must compute in the same precision, or they would differ at the start.
        with reference.of(self.accelerator.unwrap_model(model)) as start, self.accelerator.autocast():
            reference_N_V, _ = shifted(start(**model_inputs).logits, inputs["labels"], IGNORED)
        trained = trained if trained is not None else max(targets_N.numel(), 1)
        loss, kl = masked_loss(logits_N_V, targets_N, reference_N_V, self.kl_beta, trained)
        kl, right, seen = self._over_ranks(
            torch.stack([kl, (logits_N_V.argmax(dim=-1) == targets_N).sum().float(), kl.new_tensor(len(targets_N))])
        )
        self._metrics["train"]["kl"].append(float(kl) * self.current_gradient_accumulation_steps)
        self._metrics["train"]["mean_token_accuracy"].append(float(right / seen.clamp(min=1)))
        # `trained` counts the tokens of all ranks, and their gradients are averaged.
        return loss * ranks.processes()

    def _over_ranks(self, values: Tensor) -> Tensor:
        """The sums over the ranks' micro-batches."""
        sums: Tensor = self.accelerator.reduce(values, "sum")
        return sums


def make_sft_trainer(run: RunIn, recipe: SftRecipe, loaded: Loaded, rows: Tokenised, staging: Path) -> MaskedSftTrainer:
    """A trainer over tokenised rows that takes `recipe.steps` steps."""
    micro = micro_batch_size(recipe.batch_size // ranks.processes(), recipe.micro_batch_size)
    arguments = SFTConfig(
        **trainer_arguments(run, recipe, staging, recipe.batch_size, micro),
        logging_steps=max(1, recipe.steps // LOGGED_POINTS),
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
    )
    hidden_size = loaded.model.config.get_text_config().hidden_size
    packing = PackingCollator(loaded.tokenizer.pad_token_id, recipe.max_tokens, hidden_size)
    trainer = MaskedSftTrainer(
        model=loaded.model,
        args=arguments,
        train_dataset=Dataset.from_dict({"input_ids": rows.input_ids, "labels": rows.labels}),
        processing_class=loaded.tokenizer,
        data_collator=packing if recipe.packing else None,
    )
    lengths = [len(ids) for ids in rows.input_ids]
    trainer.order = batch_order(lengths, recipe.batch_size, recipe.steps, run.seed)
    trainer.reference, trainer.kl_beta = trainer.place(loaded.reference), recipe.kl_beta
    return trainer

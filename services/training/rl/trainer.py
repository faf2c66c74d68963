"""The RL trainer: TRL's GRPO loop on rollouts leased from the pool, with S2R's advantages and per-action ratios.

Of GRPOTrainer only the loop is used (batches, accumulation, optimiser, schedule, resuming, the fused LM head): it
generates nothing, scores nothing and loads no reference model.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets import Dataset
from torch import Tensor
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import add_fused_lm_head

from services.training import ranks
from services.training.loop import RunTrainer, trainer_arguments
from services.training.policies import Loaded, Reference
from services.training.rl.actions import UNTRAINED
from services.training.rl.advantages import BatchBaseline, RunningBaseline
from services.training.rl.batches import plan_batch
from services.training.rl.losses import clip_range, clipped_surrogate, kl_advantages
from services.training.rl.ratios import log_ratios
from services.training.rl.rows import Plan
from services.training.rl.source import BatchSource
from services.training.rl.statistics import LogProbs, Statistics, statistics, step_metrics
from services.training.rl.tensors import by_length, pad_rows, share, trim
from services.training.sft.order import micro_batch_size
from services.training.sft.rows import IGNORED
from shared.contracts.recipe import RatioUnit, RlRecipe
from shared.contracts.runs import RunIn


class RolloutTrainer(RunTrainer, GRPOTrainer):
    """One optimiser step a plan: of a leased batch, unless `plan_step` says another way."""

    recipe: RlRecipe
    plan_step: Callable[[int], Plan]
    source: BatchSource
    baseline: BatchBaseline | RunningBaseline
    reference: Reference | None
    checkpointed: Callable[[int], None]
    resumed: Callable[[int], None]
    _is_empty: bool
    _statistics: list[Statistics]
    _buffered_inputs: list[dict[str, Tensor]]

    def checkpoint_is_due(self, step: int) -> bool:
        """A version is published from a checkpoint, so that a published version is never trained again differently."""
        is_published = self.attempt.run.order_id is not None and step % self.recipe.publish_every_steps == 0
        return super().checkpoint_is_due(step) or is_published

    def after_checkpoint(self, step: int) -> None:
        """Acknowledge and publish."""
        self.checkpointed(step)

    def after_resume(self, step: int) -> None:
        """Give back what was leased after the checkpoint."""
        self.resumed(step)

    def _generate_and_score_completions(self, _inputs: Any) -> dict[str, Tensor]:
        """This rank's share of the step's rows as tensors; called once a step, before its first micro-batch."""
        plan = ranks.first(lambda: self.plan_step(self.state.global_step))
        for name, value in plan.metrics.items():
            self._metrics["train"][name].append(value)
        self._statistics, self._is_empty = [], not plan.rows
        rows = share(plan.rows, ranks.rank(), ranks.processes())
        tensors = pad_rows(rows, self._tokenizer.pad_token_id, self.args.gradient_accumulation_steps)
        self.attempt.tokens += sum(row.tokens for row in plan.rows)
        return {name: tensor.to(self.accelerator.device) for name, tensor in tensors.items()}

    def plan_lease(self, step: int) -> Plan:
        """The step's rows out of a leased batch; a checkpoint after this step has to know the lease and the baseline."""
        batch, waited_s = self.source.next_batch(step)
        version, is_as_published = self.source.policy_version, step % self.recipe.publish_every_steps == 0
        plan = plan_batch(batch.groups, self.recipe, self.baseline, version, is_as_published=is_as_published)
        plan.metrics |= {"wait_s": waited_s, "dropped_stale": float(batch.dropped_stale)}
        state = self.attempt.state
        state["unacknowledged"] = [[str(batch_id), of_step] for batch_id, of_step in self.source.unacknowledged]
        if isinstance(self.baseline, RunningBaseline):
            state["baseline"] = self.baseline.dump()
        return plan

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Tensor]:
        """The next micro-batch. TRL shuffles a step's rows before it cuts them; here rows of like length go together."""
        is_first = self._step % self.args.steps_per_generation == 0
        inputs: dict[str, Tensor] = super()._prepare_inputs(generation_batch)
        if is_first:
            self._buffered_inputs = by_length(self._buffered_inputs)
            inputs = self._buffered_inputs[0]
        return inputs

    def _compute_loss(self, model: Any, inputs: dict[str, Tensor]) -> Tensor:
        """The loss of one micro-batch; the weights of a whole batch, over all ranks, sum to 1, so micro-batches add up."""
        batch = trim(inputs)
        logprobs = self._logprobs(model, batch)
        # Column t of the log-probabilities is about token t + 1.
        actions_B_T, weights_B_A, advantages_B_A = (
            batch["actions_B_T"][:, 1:],
            batch["weights_B_A"],
            batch["advantages_B_A"],
        )
        if logprobs.reference is not None:
            beta = self.recipe.kl_beta
            advantages_B_A = kl_advantages(advantages_B_A, logprobs.trained, logprobs.reference, actions_B_T, beta)
        log_ratios_B_A = log_ratios(
            logprobs.trained,
            logprobs.engine,
            actions_B_T,
            weights_B_A.shape[1],
            is_length_normalised=self.recipe.ratio is RatioUnit.SEQUENCE,
        )
        surrogate = clipped_surrogate(log_ratios_B_A, advantages_B_A, weights_B_A, clip_range(self.recipe))
        is_fresh_B = batch["is_fresh_B"]
        self._statistics.append(statistics(surrogate, weights_B_A, logprobs, actions_B_T, is_fresh_B))
        # The gradients of the ranks are averaged.
        return surrogate.loss * ranks.processes()

    def _clip_grad_norm(self, model: Any) -> Any:
        """The norm; after a batch that teaches nothing no gradient is left, or the optimiser would go on with its momentum."""
        norm = super()._clip_grad_norm(model)
        if self._is_empty:
            model.zero_grad()
        return norm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the step's ratio, clip and KL figures."""
        of_ranks = ranks.gather([item.on_cpu() for item in self._statistics])
        logs |= step_metrics([item for of_rank in of_ranks for item in of_rank])
        self._statistics = []
        super().log(logs, start_time)

    def _logprobs(self, model: Any, batch: dict[str, Tensor]) -> LogProbs:
        trained_B_T, reference_B_T = self._token_logprobs(model, batch), None
        if self.reference is not None:
            with self.reference.of(self.accelerator.unwrap_model(model)) as reference:
                reference_B_T = self._token_logprobs(reference, batch)
        return LogProbs(trained_B_T, batch["old_logprobs_B_T"][:, 1:], reference_B_T)

    def _token_logprobs(self, model: Any, batch: dict[str, Tensor]) -> Tensor:
        """logprobs_B_T of tokens 1..T-1, zero where no action is."""
        input_ids_B_T = batch["input_ids_B_T"]
        labels_B_T = input_ids_B_T.masked_fill(batch["actions_B_T"] == UNTRAINED, IGNORED)
        with self.accelerator.autocast():
            output = model(
                input_ids=input_ids_B_T,
                attention_mask=batch["attention_mask_B_T"],
                labels=labels_B_T,
                fused_lm_head=True,
            )
        logprobs_B_T: Tensor = output.log_probs.float()
        return logprobs_B_T


def rewards_come_with_the_batch(**_: Any) -> list[float]:
    """TRL asks for a reward function; it is never called."""
    raise NotImplementedError


def make_rl_trainer(run: RunIn, recipe: RlRecipe, loaded: Loaded, staging: Path) -> RolloutTrainer:
    """A trainer that takes `recipe.steps` steps of groups_per_step * k responses."""
    responses = recipe.groups_per_step * recipe.k
    micro = micro_batch_size(responses // ranks.processes(), recipe.micro_batch_size)
    arguments = GRPOConfig(
        **trainer_arguments(run, recipe, staging, responses, micro),
        logging_steps=1,
        num_generations=recipe.k,
        beta=0.0,
        shuffle_dataset=False,
        # The engine's log-probabilities are those of the untempered distribution.
        temperature=1.0,
        remove_unused_columns=False,
        # The engine samples without dropout: with it in training, ratios would be noise from the first step on.
        disable_dropout=True,
    )
    # TRL wants a data set of prompts; ours come with the batches, so it only counts.
    numbers = Dataset.from_dict({"prompt": [""] * (recipe.steps * recipe.groups_per_step)})
    trainer = RolloutTrainer(
        model=loaded.model,
        reward_funcs=rewards_come_with_the_batch,
        args=arguments,
        train_dataset=numbers,
        processing_class=loaded.tokenizer,
    )
    if loaded.reference is not None and loaded.reference.frozen is not None:
        frozen = loaded.reference.frozen
        add_fused_lm_head(frozen.get_base_model() if hasattr(frozen, "get_base_model") else frozen)
    for module in trainer.model.modules():
        if getattr(module, "attention_dropout", 0.0):
            module.attention_dropout = 0.0
    trainer.recipe, trainer.reference = recipe, trainer.place(loaded.reference)
    trainer.plan_step = trainer.plan_lease
    trainer.checkpointed = trainer.resumed = lambda _step: None
    return trainer

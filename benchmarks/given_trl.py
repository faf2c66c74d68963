"""TRL's `GRPOTrainer` on given groups: it generates and scores nothing, and corrects for the given log-probabilities."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import pad

from benchmarks.given_groups import Given
from services.training.loop import trainer_arguments
from services.training.policies import Loaded
from services.training.rl.advantages import group_relative
from services.training.rl.trainer import rewards_come_with_the_batch
from services.training.sft.order import micro_batch_size
from shared.contracts.recipe import RlRecipe
from shared.contracts.runs import RunIn


class GivenTrainer(GRPOTrainer):  # type: ignore[misc, unused-ignore]
    """Everything but where the groups come from is TRL's."""

    groups: Sequence[Sequence[Given]]

    def _generate_and_score_completions(self, _inputs: Any) -> dict[str, torch.Tensor]:
        """The same groups at every step, as TRL makes tensors of what it generated."""
        responses = [response for group in self.groups for response in group]
        prompts = [torch.tensor(response.prompt_ids) for response in responses]
        completions = [torch.tensor(response.token_ids) for response in responses]
        logprobs = [torch.tensor(response.logprobs) for response in responses]
        rewards = [[response.reward for response in group] for group in self.groups]
        advantages = [value for of_group in rewards for value in group_relative(of_group, standardise=True)]
        completion_mask = pad([torch.ones_like(ids) for ids in completions], 0, "right")
        return {
            "prompt_ids": pad(prompts, self._tokenizer.pad_token_id, "left"),
            "prompt_mask": pad([torch.ones_like(ids) for ids in prompts], 0, "left"),
            "completion_ids": pad(completions, self._tokenizer.pad_token_id, "right"),
            "completion_mask": completion_mask,
            "advantages": torch.tensor(advantages),
            "old_per_token_logps": pad(logprobs, 0, "right"),
            "num_items_in_batch": completion_mask.sum(),
        }


def make_given_trainer(
    run: RunIn, recipe: RlRecipe, loaded: Loaded, groups: Sequence[Sequence[Given]], staging: Path
) -> GivenTrainer:
    """A trainer with the arguments that ours has, and TRL's defaults for the rest."""
    responses = recipe.groups_per_step * recipe.k
    micro = micro_batch_size(responses, recipe.micro_batch_size)
    arguments = GRPOConfig(
        **trainer_arguments(run, recipe, staging, responses, micro),
        num_generations=recipe.k,
        remove_unused_columns=False,
    )
    trainer = GivenTrainer(
        model=loaded.model,
        reward_funcs=rewards_come_with_the_batch,
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": [""] * (recipe.steps * recipe.groups_per_step)}),
        processing_class=loaded.tokenizer,
    )
    trainer.groups = groups
    return trainer

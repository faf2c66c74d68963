"""What every trainer of a run does beside its loss: progress, logged points, checkpoints, and stopping at NaN.

A mixin over transformers' Trainer (through TRL's): the loop itself, optimiser, schedule, accumulation and resuming are
theirs. A checkpoint holds everything that the next step depends on; `headwater.json` in it has what is ours. In a trainer of
several ranks every one of them runs this; they split the rows of a step, and the first one alone reports and keeps checkpoints.
"""

import json
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback
from trl.models import prepare_fsdp

from services.training import ranks
from services.training.checkpoints import CheckpointStore
from services.training.failures import RunError, RunPausedError
from services.training.lease import RunLease
from services.training.optimizers import muon
from services.training.policies import Reference, Start
from services.training.settings import TrainingSettings
from services.training.trackers import tracker_callbacks
from shared.contracts.recipe import Optimizer, RlRecipe, SftRecipe
from shared.contracts.runs import RunFailure, RunIn

log = logging.getLogger(__name__)
STATE_FILE = "headwater.json"
LOGGED_POINTS = 200


@dataclass
class Attempt:
    """One attempt of a run inside the trainer: what it was given, and the state that goes into its checkpoints."""

    lease: RunLease
    settings: TrainingSettings
    run: RunIn
    start: Start
    store: CheckpointStore
    artifacts_url: str
    tokens: int = 0
    state: dict[str, Any] = field(default_factory=dict)

    def load_state(self, directory: Path) -> None:
        """Take over what is ours from a checkpoint."""
        content = json.loads((directory / STATE_FILE).read_text())
        self.tokens, self.state = int(content["tokens"]), content["state"]

    def save_state(self, directory: Path) -> None:
        """Put what is ours into a checkpoint."""
        (directory / STATE_FILE).write_text(json.dumps({"tokens": self.tokens, "state": self.state}))

    def keep(self, written: Path, step: int) -> None:
        """Make `written` the checkpoint of `step`, if this attempt still holds the lease in the moment it appears."""
        self.store.prepare(written)
        self.store.upload(written, step)
        self.lease.while_held(lambda: self.store.commit(written, step), step)
        self.store.prune()

    def give_up_step(self, step: int) -> None:
        """Remove every checkpoint that holds what step `step` (counted from 0) trained on."""
        self.lease.while_held(lambda: self.store.discard_after(step))


def trainer_arguments(run: RunIn, recipe: SftRecipe | RlRecipe, staging: Path, rows: int, micro: int) -> dict[str, Any]:
    """What SFTConfig and GRPOConfig have in common: `rows` a step in micro-batches of `micro` a rank, no saving of their own."""
    return {
        "output_dir": str(staging),
        "max_steps": recipe.steps,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": rows // (micro * ranks.processes()),
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": recipe.schedule,
        "warmup_steps": round(recipe.warmup_fraction * recipe.steps),
        "weight_decay": recipe.weight_decay,
        "adam_beta2": recipe.adam_beta2,
        "max_grad_norm": recipe.max_grad_norm,
        # A frozen bf16 base under an adapter needs no autocast.
        "bf16": recipe.bf16 and recipe.lora is None,
        "use_cpu": not torch.cuda.is_available(),
        "seed": run.seed % 2**32,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "gradient_checkpointing": recipe.gradient_checkpointing,
        "fsdp": recipe.distributed.fsdp,
        "fsdp_config": {"state_dict_type": "FULL_STATE_DICT"} if recipe.distributed.fsdp else None,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "logging_nan_inf_filter": False,
        "logging_first_step": True,
    }


class _Reports(TrainerCallback):
    """Progress and logged points go to the lease; checkpoints happen when they are due."""

    def __init__(self, trainer: "RunTrainer") -> None:
        self._trainer, self._attempt = trainer, trainer.attempt
        self._last = (time.monotonic(), self._attempt.tokens)

    def on_train_begin(self, _args: Any, _state: Any, control: Any, **_: Any) -> Any:
        """The first logged point is about the same steps as if training had never stopped."""
        self._last = (time.monotonic(), self._attempt.tokens)
        self._trainer.restore_window()
        return control

    def on_step_begin(self, _args: Any, _state: Any, control: Any, **_: Any) -> Any:
        """The place to pause: nothing of the next step has begun."""
        ranks.first(self._attempt.lease.check_pause)
        return control

    def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Progress; is a checkpoint due?"""
        self._attempt.lease.work_pauses()
        self._attempt.lease.report(state.global_step, self._attempt.tokens)
        control.should_save = self._trainer.checkpoint_is_due(state.global_step)
        return control

    def on_log(self, _args: Any, state: Any, _control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """One logged point."""
        if not logs or "train_runtime" in logs:
            return
        values = {name: value for name, value in logs.items() if isinstance(value, (int, float)) and name != "epoch"}
        now, tokens = time.monotonic(), self._attempt.tokens
        values["tokens_per_s"] = (tokens - self._last[1]) / max(now - self._last[0], 1e-9)
        self._last = (now, tokens)
        self._attempt.lease.log(state.global_step, values)


class RunTrainer(Trainer):  # type: ignore[misc, unused-ignore]
    """Mixin: put it before a TRL trainer, and call `follow` once after construction."""

    attempt: Attempt
    checkpoint_every_steps: int
    optimizer: torch.optim.Optimizer | None
    _kept_step: int = 0
    # The Trainer's and TRL's sums since the last logged point.
    _metrics: dict[str, dict[str, list[float]]]
    _tr_loss: torch.Tensor
    _globalstep_last_logged: int

    def follow(self, attempt: Attempt, checkpoint_every_steps: int) -> None:
        """Report to this attempt's lease. Raises: RunError `crashed` when its model cannot be split here."""
        recipe = attempt.run.recipe
        if recipe is not None and recipe.distributed.fsdp and not self.is_fsdp_enabled:
            raise RunError(
                RunFailure.CRASHED,
                "distributed.fsdp splits a model over GPUs, and this worker has none: give the training worker as many as "
                "distributed.processes says, or create a campaign without 'fsdp'.",
            )
        self.attempt, self.checkpoint_every_steps = attempt, checkpoint_every_steps
        self.remove_callback(PrinterCallback)
        self.add_callback(_Reports(self))
        self.args.run_name = attempt.run.publish_name
        trackers = attempt.settings.training_report_to if ranks.is_first() else ""
        for tracker in tracker_callbacks(trackers, attempt.store.tracker_directory):
            self.add_callback(tracker)

    def place(self, reference: Reference | None) -> Reference | None:
        """The reference where the model in training is, and split over the ranks when that is."""
        if reference is None or reference.frozen is None:
            return reference
        if self.is_fsdp_enabled:
            return Reference(prepare_fsdp(reference.frozen, self.accelerator))
        return Reference(reference.frozen.to(self.accelerator.device))

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The optimiser that the recipe names; AdamW is the Trainer's own."""
        recipe = self.attempt.run.recipe
        if self.optimizer is None and recipe is not None and recipe.optimizer is Optimizer.MUON:
            betas = (self.args.adam_beta1, self.args.adam_beta2)
            self.optimizer = muon(model or self.model, recipe.learning_rate, recipe.weight_decay, betas)
        created: torch.optim.Optimizer = super().create_optimizer(model)
        return created

    def checkpoint_is_due(self, step: int) -> bool:
        """Whether the state after `step` steps is kept."""
        return step % self.checkpoint_every_steps == 0 or step == self.args.max_steps

    def after_checkpoint(self, step: int) -> None:
        """Called when the checkpoint of `step` is durable."""

    def train_to_the_end(self) -> None:
        """Train from the newest checkpoint, or from the start; afterwards the last checkpoint is durable.

        Raises: RunPausedError, with the checkpoint of the last whole step written.
        """
        try:
            self._train_from_newest()
        except RunPausedError:
            if self.state.global_step > self._kept_step:
                self._save_checkpoint(self.model, None)
            raise

    def _train_from_newest(self) -> None:
        newest = ranks.first(self.attempt.store.latest)
        if newest is None:
            self.train()
            return
        log.info("run %s goes on from step %d", self.attempt.lease.run_id, newest.step)
        self.attempt.load_state(newest.directory)
        self.attempt.lease.report(newest.step, self.attempt.tokens)
        self._load_from_checkpoint(str(newest.directory))
        self._kept_step = newest.step
        self.after_resume(newest.step)
        if newest.step < self.args.max_steps:
            self.train(resume_from_checkpoint=str(newest.directory))

    def after_resume(self, step: int) -> None:
        """Called with the weights of the checkpoint of `step` loaded, before training goes on."""

    def _remember_window(self) -> None:
        """What the next logged point has gathered so far: it is a mean over steps on both sides of the checkpoint.

        Each rank has a loss of its own; the metrics of the first are logged.
        """
        metrics = {name: list(values) for name, values in self._metrics["train"].items()}
        losses = ranks.gather(float(self._tr_loss))
        self.attempt.state["point"] = [self._globalstep_last_logged, losses, metrics]

    def restore_window(self) -> None:
        """Go on with the logged point that the checkpoint had begun."""
        if "point" in self.attempt.state:
            self._globalstep_last_logged, losses, metrics = self.attempt.state["point"]
            self._tr_loss += losses[ranks.rank()]
            self._metrics["train"].update(metrics)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """One micro-batch; its loss must be a number."""
        self.attempt.lease.work_begins()
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        if not torch.isfinite(loss):
            raise self._not_a_number("loss", float(loss))
        return loss

    def _clip_grad_norm(self, model: Any) -> Any:
        norm = super()._clip_grad_norm(model)
        if norm is not None and not torch.isfinite(torch.as_tensor(norm)):
            raise self._not_a_number("gradient", float(norm))
        return norm

    def _not_a_number(self, what: str, value: float) -> RunError:
        return RunError(
            RunFailure.NOT_A_NUMBER,
            f"The {what} of step {self.state.global_step + 1} is {value}. Lower learning_rate or max_grad_norm.",
        )

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step = self.state.global_step
        staging = ranks.first(self.attempt.store.clear_staging)
        self.args.output_dir = str(staging)
        Trainer._save_checkpoint(self, model, trial)  # noqa: SLF001  not TRL's, which writes a model card
        # Here every rank has written its part: this waits for all of them.
        self._remember_window()
        ranks.first(lambda: self._keep(staging / f"checkpoint-{step}", step))
        self._kept_step = step
        self.after_checkpoint(step)

    def _keep(self, written: Path, step: int) -> None:
        (written / "training_args.bin").unlink(missing_ok=True)
        self.attempt.save_state(written)
        self.attempt.keep(written, step)

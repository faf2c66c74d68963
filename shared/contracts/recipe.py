"""The campaign recipe: what a TOML file says and `POST /v1/campaigns` takes. Strict; every knob has a default and a sentence.

The environment says *where* (shared.settings); the recipe says *what*. What is stored is read back with these types, so a new
check of what comes in belongs to `CampaignIn`.
"""

from enum import StrEnum
from typing import Literal

from pydantic import Field, model_validator

from shared.contracts.base import Contract, Items, TeacherKeyName, Text
from shared.contracts.generation import SamplingParameters
from shared.contracts.weights import QuestionWeights


class ModelRecipe(Contract):
    """The base model. `base`: `tiny`, `smollm2`, a directory or a hub name; the engine must have been started with it."""

    base: str = "tiny"


class TeacherKind(StrEnum):
    """`reference`: the solutions that came with the questions. `openai`: any OpenAI-compatible server."""

    REFERENCE = "reference"
    OPENAI = "openai"


class TeacherRecipe(Contract):
    """Who teaches. `url` and `model` are for kind `openai`; `api_key_env` NAMES an environment variable.

    Its name begins with HEADWATER_TEACHER_KEY, so that no other secret of the generation service can be sent to a `url`.
    """

    kind: TeacherKind = TeacherKind.REFERENCE
    url: Text | None = None
    model: Text | None = None
    api_key_env: TeacherKeyName | None = None

    @model_validator(mode="after")
    def _external_has_address(self) -> "TeacherRecipe":
        if self.kind is TeacherKind.OPENAI and not (self.url and self.model):
            raise ValueError("a teacher of kind 'openai' needs both 'url' and 'model'")
        return self


class TeachRecipe(Contract):
    """teach: who answers how many questions, and what full-format trajectories SFT-0 is made of.

    `fraction`: random share of the training questions (STAgent: a tenth), never fewer than `minimum_questions`.
    `rounds_weights`: relative share of trajectories with 1, 2, 3, ... rounds; a trajectory of r rounds has r - 1 wrong
    attempts (slips of the verified solution, each followed by an 'incorrect' verification). `copies`: trajectories per question.
    `solve_only_fraction`: share of trajectories cut after the first solve, to keep plain solving alive.
    """

    teacher: TeacherRecipe = TeacherRecipe()
    fraction: float = Field(default=0.1, gt=0, le=1)
    minimum_questions: int = Field(default=1, ge=1)
    k: int = Field(default=1, ge=1, le=64)
    sampling: SamplingParameters = SamplingParameters(temperature=0.7)
    rounds_weights: Items[float] = Field(default=(0.5, 0.4, 0.1), min_length=1)
    copies: int = Field(default=1, ge=1, le=64)
    solve_only_fraction: float = Field(default=0.0, ge=0, lt=1)


class ProbeRecipe(Contract):
    """K responses per question: `probe` by SFT-0 for the full QA pool, `reprobe` by SFT-1, since "hard" is relative.

    `fraction` is of the training questions; `probe` also asks every held-out one, for metrics by level.
    """

    k: int = Field(default=8, ge=2, le=64)
    sampling: SamplingParameters = SamplingParameters(temperature=0.7)
    fraction: float = Field(default=1.0, gt=0, le=1)


class ReprobeRecipe(ProbeRecipe):
    """The probe of the next policy. `choose`: a `random` share, or the questions about which asking again tells most (`informative`).

    The budget is `fraction` of the training questions, and at most `max_questions`.
    """

    choose: Literal["random", "informative"] = "random"
    max_questions: int = Field(default=0, ge=0, description="0: no other limit than the fraction")


class RouterRecipe(Contract):
    """Certain / hard / noise / trivial by mean and variance of the 0/1 rewards (algorithms: STAgent's split).

    mean <= noise_below -> noise; mean >= trivial_from -> trivial; mean >= certain_from -> certain; else hard.
    Levels 1 (easy) to 5 (hard) by pass rate, cut at `level_cuts` (descending).
    """

    noise_below: float = Field(default=0.0, ge=0, le=1)
    certain_from: float = Field(default=0.75, ge=0, le=1)
    trivial_from: float = Field(default=1.0, ge=0, le=1)
    level_cuts: tuple[float, float, float, float] = (0.9, 0.7, 0.4, 0.1)

    @model_validator(mode="after")
    def _ordered(self) -> "RouterRecipe":
        if not self.noise_below < self.certain_from <= self.trivial_from:
            raise ValueError("router needs noise_below < certain_from <= trivial_from")
        if list(self.level_cuts) != sorted(set(self.level_cuts), reverse=True):
            raise ValueError("level_cuts must fall strictly from level 1 to level 4")
        return self


class PoolRecipe(Contract):
    """What comes in: when two texts are the same question.

    `near_duplicate_threshold`: the share of word 3-grams in common (Jaccard) from which two texts with the same numbers are
    near; 0 compares exact texts only.
    """

    near_duplicate_threshold: float = Field(default=0.8, ge=0, le=1)

    @model_validator(mode="after")
    def _can_be_found(self) -> "PoolRecipe":
        if 0 < self.near_duplicate_threshold < 0.5:
            raise ValueError("pool needs near_duplicate_threshold = 0 (off) or from 0.5 to 1")
        return self


class VerificationStyle(StrEnum):
    """S2R's two styles of verification."""

    CONFIRMATIVE = "confirmative"
    PROBLEM_SOLVING = "problem-solving"


class VerifyRecipe(Contract):
    """verify: who writes verifications of the policy's own answers (S2R Stage 0), beside the templates of the question's domain.

    `nobody`; the `teacher` of [teach.teacher], of kind 'openai'; or the `policy` itself. `k`: verifications of each distinct answer.
    Those whose verdict is not the truth are never used.
    """

    by: Literal["nobody", "teacher", "policy"] = "nobody"
    style: VerificationStyle = VerificationStyle.CONFIRMATIVE
    k: int = Field(default=1, ge=1, le=4)
    sampling: SamplingParameters = SamplingParameters(temperature=0.7, max_tokens=1024)


class BuildRecipe(Contract):
    """build: S2R trajectories from the policy's own attempts (S2R Stage 0; the table is for K=5 and scales with w/K).

    `keep_probability`: chance to keep a question by its number of rounds as the table gives it.
    `own_verifications`: use verifications that the policy itself wrote where their verdict is right.
    `styles`: relative share of the two styles among template verifications. `balance_verdicts`: trim so that as
    many first verdicts are 'correct' as 'incorrect'. `replay_fraction`: rows of the SFT-0 snapshot mixed in, as a share
    of the built rows. `one_round_fraction`: verified right first attempts added, as a share of the built multi-round rows.
    `max_rows`: 0 means no limit.
    """

    keep_probability: tuple[float, float, float, float] = (0.24, 0.5, 0.5, 0.5)
    own_verifications: bool = True
    styles: dict[VerificationStyle, float] = Field(
        default_factory=lambda: {VerificationStyle.CONFIRMATIVE: 1.0, VerificationStyle.PROBLEM_SOLVING: 0.0}
    )
    balance_verdicts: bool = True
    one_round_fraction: float = Field(default=1.0, ge=0, le=20)
    replay_fraction: float = Field(default=0.25, ge=0, le=20)
    max_rows: int = Field(default=0, ge=0)


class LoraRecipe(Contract):
    """LoRA on all linear layers; `rank` must not exceed the engine's `--max-lora-rank`."""

    rank: int = Field(default=32, ge=1, le=512)
    alpha: int = Field(default=64, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)


class Optimizer(StrEnum):
    """`muon`: Muon for the matrices inside the blocks, AdamW for the rest, at one learning rate."""

    ADAMW = "adamw"
    MUON = "muon"


class DistributedRecipe(Contract):
    """On how many GPUs of one machine a run trains, a process each; the rows of a step are split over them, so that the step is the same.

    `fsdp`: weights, gradients and optimiser state are split over them, too (every process has all of them otherwise).
    """

    processes: int = Field(default=1, ge=1, le=64)
    fsdp: bool = False

    @model_validator(mode="after")
    def _shards_need_processes(self) -> "DistributedRecipe":
        if self.fsdp and self.processes == 1:
            raise ValueError("distributed.fsdp splits a model over several processes; set 'processes', or leave it out")
        return self

    def require_share(self, rows: int, what: str) -> None:
        """Raises: ValueError when the rows of a step cannot be split evenly."""
        if rows % self.processes:
            raise ValueError(
                f"{what} = {rows} rows a step cannot be split evenly over distributed.processes = {self.processes}; make it "
                "a multiple of that"
            )


class SftRecipe(Contract):
    """Supervised fine-tuning: masked cross-entropy + kl_beta * KL(policy || start policy), full vocabulary (S2R Stage 1)."""

    lora: LoraRecipe | None = None
    steps: int = Field(default=300, ge=1)
    batch_size: int = Field(default=32, ge=1)
    micro_batch_size: int = Field(default=0, ge=0, description="rows of a process at once; 0: all of its rows")
    learning_rate: float = Field(default=1e-4, gt=0)
    warmup_fraction: float = Field(default=0.05, ge=0, le=1)
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "cosine"
    optimizer: Optimizer = Optimizer.ADAMW
    weight_decay: float = Field(default=0.0, ge=0)
    adam_beta2: float = Field(default=0.999, gt=0, lt=1)
    max_grad_norm: float = Field(default=1.0, gt=0)
    kl_beta: float = Field(default=0.0, ge=0)
    max_tokens: int = Field(default=512, ge=8, description="prompt + response; a longer row is left out and counted")
    packing: bool = Field(
        default=False, description="trajectories share rows of up to max_tokens, and see nothing of each other"
    )
    bf16: bool = False
    gradient_checkpointing: bool = Field(
        default=False, description="activations are computed again: less memory, more time"
    )
    checkpoint_every_steps: int = Field(default=50, ge=1)
    distributed: DistributedRecipe = DistributedRecipe()

    @model_validator(mode="after")
    def _rows_are_shared(self) -> "SftRecipe":
        self.distributed.require_share(self.batch_size, "batch_size")
        _require_adamw(self.optimizer, self.distributed)
        return self


def _require_adamw(optimizer: Optimizer, distributed: DistributedRecipe) -> None:
    if distributed.fsdp and optimizer is Optimizer.MUON:
        raise ValueError("optimizer = 'muon' needs whole matrices, and distributed.fsdp splits them; use 'adamw'")


class RewardLevel(StrEnum):
    """Where RL's reward is given (S2R Eq. 2-3 / Eq. 4-6)."""

    OUTCOME = "outcome"
    PROCESS = "process"


class AdvantageEstimator(StrEnum):
    """What a response's reward is compared to at the outcome level: the mean of the others, or the group's mean and deviation."""

    LEAVE_ONE_OUT = "leave_one_out"
    GRPO = "grpo"


class RatioUnit(StrEnum):
    """What has one ratio: a `response`, an `action` (segment), a `token`; `sequence`: a response, length-normalised (GSPO)."""

    RESPONSE = "response"
    ACTION = "action"
    TOKEN = "token"  # noqa: S105  a unit, no secret
    SEQUENCE = "sequence"


class RlRecipe(Contract):
    """RL with verified rollouts from the engine under the newest version.

    `groups_per_step` groups of `k` responses make one optimiser step. `publish_every_steps`: a new version goes live.
    `max_staleness`: in versions, checked when the batch is leased. `watermark_groups`: rollouts kept ahead of the trainer. Both say
    nothing with `sync`.
    `weights`: which questions are rolled out more often. `standardise`: of `grpo`. `ratio`: by default what has one reward.
    `clip` bounds the ratio where it would take a step too far, `clip_low` and `clip_high` each side of it;
    `dual_clip` bounds it where a bad action became likelier, which the clip does not.
    """

    lora: LoraRecipe | None = None
    level: RewardLevel = RewardLevel.OUTCOME
    baseline: Literal["batch", "running"] = "batch"
    advantage: AdvantageEstimator = AdvantageEstimator.LEAVE_ONE_OUT
    standardise: bool = True
    ratio: RatioUnit | None = None
    steps: int = Field(default=60, ge=1)
    k: int = Field(default=8, ge=2, le=64)
    groups_per_step: int = Field(default=16, ge=1)
    micro_batch_size: int = Field(default=0, ge=0, description="responses of a process at once; 0: all of them")
    sampling: SamplingParameters = SamplingParameters(temperature=1.0)
    learning_rate: float = Field(default=1e-4, gt=0)
    warmup_fraction: float = Field(default=0.05, ge=0, le=1)
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "constant_with_warmup"
    optimizer: Optimizer = Optimizer.ADAMW
    weight_decay: float = Field(default=0.0, ge=0)
    adam_beta2: float = Field(default=0.999, gt=0, lt=1)
    max_grad_norm: float = Field(default=1.0, gt=0)
    kl_beta: float = Field(default=0.05, ge=0)
    clip: float = Field(default=0.2, gt=0, lt=1)
    clip_low: float | None = Field(default=None, gt=0, lt=1, description="none: `clip`; of a sequence 3e-4")
    clip_high: float | None = Field(default=None, gt=0, lt=1, description="none: `clip`; of a sequence 4e-4")
    dual_clip: float = Field(default=3.0, ge=2, le=100)
    publish_every_steps: int = Field(default=4, ge=1)
    max_staleness: int = Field(default=2, ge=0)
    watermark_groups: int = Field(default=64, ge=1)
    sync: bool = Field(
        default=False,
        description="rollouts are made only while the trainer waits, under the newest version: slower, for comparison",
    )
    states: Items[Literal["candidate", "certain", "hard", "noise", "trivial"]] = ("hard",)
    weights: QuestionWeights = QuestionWeights()
    checkpoint_every_steps: int = Field(default=10, ge=1)
    bf16: bool = False
    gradient_checkpointing: bool = Field(
        default=False, description="activations are computed again: less memory, more time"
    )
    stall_timeout_s: float = Field(
        default=900.0, gt=0, description="no batch for so long fails the run with `no_progress`"
    )
    distributed: DistributedRecipe = DistributedRecipe()

    @model_validator(mode="after")
    def _rows_are_shared(self) -> "RlRecipe":
        self.distributed.require_share(self.groups_per_step * self.k, "groups_per_step * k")
        _require_adamw(self.optimizer, self.distributed)
        return self

    @property
    def groups_ahead(self) -> int:
        """Groups that the run's order keeps ready: `watermark_groups`, or those of one step, made while the trainer waits (`sync`)."""
        return self.groups_per_step if self.sync else self.watermark_groups

    @model_validator(mode="after")
    def _a_batch_can_gather(self) -> "RlRecipe":
        if self.watermark_groups < self.groups_per_step:
            raise ValueError("rl needs watermark_groups >= groups_per_step: a step waits for that many groups")
        return self

    @model_validator(mode="after")
    def _units_agree(self) -> "RlRecipe":
        if self.level is RewardLevel.OUTCOME:
            return self
        if self.advantage is AdvantageEstimator.GRPO:
            raise ValueError(
                "rl.advantage = 'grpo' compares whole responses of a question; with level = 'process' each segment is "
                "compared by rl.baseline: leave 'advantage' out, or use level = 'outcome'"
            )
        if self.ratio in (RatioUnit.RESPONSE, RatioUnit.SEQUENCE):
            raise ValueError(
                f"rl.ratio = '{self.ratio}' gives a response one ratio, but with level = 'process' its segments have "
                "different advantages: use ratio = 'action' or 'token', or level = 'outcome'"
            )
        return self


class EvalRecipe(Contract):
    """eval: k responses per held-out question after every policy."""

    k: int = Field(default=1, ge=1, le=64)
    sampling: SamplingParameters = SamplingParameters(temperature=0.0)


class Recipe(Contract):
    """One campaign. An unknown key is an error. `priority`: of its orders among those of other campaigns, higher first."""

    seed: int = 0
    priority: int = Field(default=0, ge=-1000, le=1000)
    model: ModelRecipe = ModelRecipe()
    pool: PoolRecipe = PoolRecipe()
    teach: TeachRecipe = TeachRecipe()
    sft0: SftRecipe = SftRecipe()
    probe: ProbeRecipe = ProbeRecipe()
    reprobe: ReprobeRecipe = ReprobeRecipe()
    router: RouterRecipe = RouterRecipe()
    verify: VerifyRecipe = VerifyRecipe()
    build: BuildRecipe = BuildRecipe()
    sft1: SftRecipe = SftRecipe()
    rl: RlRecipe = RlRecipe()
    eval: EvalRecipe = EvalRecipe()
    minimum_train_questions: int = Field(default=100, ge=1, description="the campaign waits until so many came in")
    minimum_eval_questions: int = Field(default=50, ge=0)

    @model_validator(mode="after")
    def _a_teacher_can_verify(self) -> "Recipe":
        if self.verify.by == "teacher" and self.teach.teacher.kind is not TeacherKind.OPENAI:
            raise ValueError("verify.by = 'teacher' needs a [teach.teacher] of kind 'openai': solutions verify nothing")
        return self

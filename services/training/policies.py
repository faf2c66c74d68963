"""Policies in the trainer: load the one to start from, keep it as KL reference, publish what was trained.

Weights are safetensors. A published checkpoint has every file of its start but the weights unchanged (tokenizer, chat
template); a published adapter has the same bytes whenever the same weights are published, so registering is idempotent.
"""

import copy
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from sqlalchemy.exc import SQLAlchemyError
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

from services.training import ranks
from services.training.client import Peers
from services.training.failures import RunError
from services.training.lease import RunLease
from shared.artifacts import HASH_FILE, fetch_directory, publish_directory
from shared.contracts.policies import TRAINABLE_KINDS, Policy, PolicyIn, PolicyKind, WeightsState
from shared.contracts.recipe import LoraRecipe
from shared.contracts.runs import RunFailure
from shared.errors import HeadwaterError

Weights = dict[str, torch.Tensor]
log = logging.getLogger(__name__)
_NOT_COPIED = (".safetensors", ".bin", ".pt", ".gguf", ".index.json", HASH_FILE, "README.md")


@dataclass(frozen=True)
class Start:
    """The start policy on this machine: the directory of full weights, and of an adapter when it is one."""

    policy: Policy
    base: Policy
    base_directory: Path
    adapter_directory: Path | None


@dataclass(frozen=True)
class Loaded:
    """A model to train, its tokenizer and its KL reference (None when there is no KL term)."""

    model: Any
    tokenizer: Any
    reference: "Reference | None"


class Reference:
    """pi_ref, the start policy: the model with its new adapter disabled, or a frozen copy."""

    def __init__(self, frozen: Any | None) -> None:
        self.frozen = frozen

    @contextmanager
    def of(self, model: Any) -> Iterator[Any]:
        """The reference model, without gradients; `model` is the one in training."""
        with torch.no_grad():
            if self.frozen is not None:
                yield self.frozen
            else:
                with model.disable_adapter():
                    yield model


async def fetch_start(peers: Peers, policy_id: UUID, cache: Path) -> Start:
    """The start policy from the registry, its files verified. Raises: RunError `bad_model`."""
    try:
        policy = await peers.policy(policy_id)
        if policy.weights is not WeightsState.KEPT:
            raise _bad_model(policy, "its weights were pruned; start from the newest version of its run")
        if policy.kind not in TRAINABLE_KINDS:
            raise _bad_model(policy, f"a policy of kind '{policy.kind}' has no weights; start from one that has")
        base, adapter_directory = policy, None
        if policy.kind is PolicyKind.ADAPTER:
            if policy.base_policy_id is None:
                raise _bad_model(policy, "the adapter names no base policy")
            base = await peers.policy(policy.base_policy_id)
            adapter_directory = fetch_directory(policy.uri, policy.content_hash, cache)
        return Start(policy, base, fetch_directory(base.uri, base.content_hash, cache), adapter_directory)
    except HeadwaterError as error:
        if error.status not in (404, 409):
            raise
        raise RunError(RunFailure.BAD_MODEL, f"Policy {policy_id} cannot be loaded: {error.message}") from error


def load(start: Start, lora: LoraRecipe | None, *, bf16: bool, kl: bool, seed: int) -> Loaded:
    """The start policy ready for training: whole (`lora` None) or with an adapter. Raises: RunError `bad_model`.

    An adapter policy is trained on as that adapter, or merged for full fine-tuning.
    """
    tokenizer = _load_tokenizer(start)
    # A frozen base may stay in bf16; weights in training are float32 (with autocast, when the recipe says bf16).
    dtype = torch.bfloat16 if bf16 and lora is not None else torch.float32
    try:
        model = AutoModelForCausalLM.from_pretrained(start.base_directory, dtype=dtype)
        if start.adapter_directory is not None:
            model = PeftModel.from_pretrained(model, start.adapter_directory, is_trainable=lora is not None)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise _bad_model(start.policy, str(error).splitlines()[0][:300]) from error
    model.config.use_cache = False
    if lora is None:
        if start.adapter_directory is not None:
            # An adapter's base is frozen, also after merging.
            model = model.merge_and_unload().requires_grad_(requires_grad=True)
        return Loaded(model, tokenizer, Reference(_frozen_copy(model)) if kl else None)
    if start.adapter_directory is not None:
        _check_rank(start.policy, model.peft_config["default"], lora)
        return Loaded(model, tokenizer, Reference(_frozen_copy(model)) if kl else None)
    set_seed(seed)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    return Loaded(get_peft_model(model, config), tokenizer, Reference(None) if kl else None)


def whole_weights(model: Any) -> Weights | None:
    """The trained weights that the ranks hold in parts, put together in the first; None for a model that each has as a whole.

    Called in every rank.
    """
    if not any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        return None
    is_adapter = isinstance(model, PeftModel)
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=is_adapter)
    weights: dict[str, Any] = get_model_state_dict(model, options=options)
    # Of tensors with two names (tied embeddings) a published file has the first.
    names = {name for named in (model.named_parameters(), model.named_buffers()) for name, _ in named}
    return {name: tensor for name, tensor in weights.items() if name in names}


def save_policy(model: Any, start: Start, directory: Path, weights: Weights | None = None) -> PolicyKind:
    """Write what is published: an adapter, or the whole model with the start's other files; returns the kind.

    `weights`: those of the model, when it does not have them itself.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if isinstance(model, PeftModel):
        model.save_pretrained(directory, save_embedding_layers=False, state_dict=weights)
        (directory / "README.md").unlink(missing_ok=True)
        path = directory / "adapter_config.json"
        config = json.loads(path.read_text())
        config |= {"base_model_name_or_path": None, "target_modules": sorted(config["target_modules"])}
        path.write_text(json.dumps(config, indent=2, sort_keys=True))
        return PolicyKind.ADAPTER
    model.save_pretrained(directory, state_dict=weights)
    for path in start.base_directory.iterdir():
        if path.is_file() and not path.name.endswith(_NOT_COPIED):
            shutil.copyfile(path, directory / path.name)
    return PolicyKind.CHECKPOINT


@dataclass(frozen=True)
class Publisher:
    """Publishes versions of one run's policy; called in every rank, done by the first.

    A version that this run has published is published: an attempt that goes on from an older checkpoint comes to its step
    again with weights that may differ in their last bits, and takes the version as it is.
    """

    lease: RunLease
    start: Start
    artifacts_url: str
    campaign_id: UUID

    def publish(self, model: Any, name: str, version: int, step: int) -> Policy:
        """Store the model as an artifact and register it, or return the version that was published before.

        Raises: RunError `policy_exists` when the name belongs to another policy.
        """
        weights = whole_weights(model)
        return ranks.first(lambda: self._publish(model, weights, name, version, step))

    def _publish(self, model: Any, weights: Weights | None, name: str, version: int, step: int) -> Policy:
        known = self._published(name)
        if known is None:
            return self._register(self._write(model, weights, name), name, version, step)
        if (known.run_id, known.version, known.step) != (self.lease.run_id, version, step):
            raise RunError(
                RunFailure.POLICY_EXISTS,
                f"The campaign has a policy called '{name}' already (version {known.version}, of run {known.run_id}), and "
                "policies never change; order the run again under another key and with another publish_name.",
            )
        return known

    def prune(self, below_version: int) -> None:
        """Have the weights of this run's versions below `below_version` removed: those that nobody samples with nor starts from.

        What is in use is left for the next time; no run fails for weights that stay.
        """
        ranks.first(lambda: self._prune(below_version))

    def _prune(self, below_version: int) -> None:
        try:
            self._prune_unneeded(below_version)
        except (HeadwaterError, SQLAlchemyError, OSError) as error:
            log.warning("versions of run %s below %d are not pruned yet: %s", self.lease.run_id, below_version, error)

    def _prune_unneeded(self, below_version: int) -> None:
        lease = self.lease
        policies = lease.wait(lease.peers.policies(self.campaign_id))
        old = [policy for policy in policies if policy.run_id == lease.run_id and policy.version < below_version]
        old = [policy for policy in old if policy.weights is not WeightsState.PRUNED]
        if not old:
            return
        needed = lease.wait(lease.peers.sampled_policies(self.campaign_id)) | lease.open_starts()
        for policy in old:
            if policy.id in needed:
                continue
            try:
                lease.wait(lease.peers.prune(policy.id))
            except HeadwaterError as error:
                log.info("version %d of run %s is not pruned yet: %s", policy.version, lease.run_id, error.message)

    def _published(self, name: str) -> Policy | None:
        policies = self.lease.wait(self.lease.peers.policies(self.campaign_id))
        return next((policy for policy in policies if policy.name == name), None)

    def _write(self, model: Any, weights: Weights | None, name: str) -> tuple[PolicyKind, str, str]:
        """Store the model as an artifact; returns kind, uri and content hash."""
        with tempfile.TemporaryDirectory(prefix="headwater-policy-") as scratch:
            kind = save_policy(model, self.start, Path(scratch), weights)
            uri, content_hash = publish_directory(
                Path(scratch), self.artifacts_url, f"policies/{self.campaign_id}/{name}"
            )
        return kind, uri, content_hash

    def _register(self, written: tuple[PolicyKind, str, str], name: str, version: int, step: int) -> Policy:
        """Register what `_write` stored; again is harmless."""
        kind, uri, content_hash = written
        policy = PolicyIn(
            campaign_id=self.campaign_id,
            name=name,
            kind=kind,
            version=version,
            uri=uri,
            content_hash=content_hash,
            base_policy_id=self.start.base.id if kind is PolicyKind.ADAPTER else None,
            parent_policy_id=self.start.policy.id,
            run_id=self.lease.run_id,
            step=step,
        )
        return self.lease.wait(self.lease.peers.register(policy))


def _load_tokenizer(start: Start) -> Any:
    try:
        tokenizer = AutoTokenizer.from_pretrained(start.base_directory)
    except (OSError, ValueError, KeyError) as error:
        raise _bad_model(start.policy, f"its tokenizer: {str(error).splitlines()[0][:300]}") from error
    if not tokenizer.chat_template:
        raise _bad_model(start.policy, "its tokenizer has no chat template")
    if tokenizer.eos_token_id is None:
        raise _bad_model(start.policy, "its tokenizer has no end-of-sequence token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _frozen_copy(model: Any) -> Any:
    frozen = copy.deepcopy(model)
    frozen.requires_grad_(requires_grad=False)
    return frozen.eval()


def _check_rank(policy: Policy, config: Any, lora: LoraRecipe) -> None:
    if (config.r, config.lora_alpha) != (lora.rank, lora.alpha):
        raise _bad_model(
            policy,
            f"its adapter has rank {config.r} and alpha {config.lora_alpha}, the recipe says {lora.rank} and "
            f"{lora.alpha}; use the same in every stage, or leave 'lora' out to merge it",
        )


def _bad_model(policy: Policy, why: str) -> RunError:
    return RunError(RunFailure.BAD_MODEL, f"Policy '{policy.name}' at {policy.uri} cannot be trained: {why}.")

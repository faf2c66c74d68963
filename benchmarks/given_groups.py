"""Groups to train on, given: trajectories by the project's own builder with the log-probabilities that the start policy has for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.trainers import trajectories
from services.training.sft.rows import question_of, response_of, tokenise_prompt
from shared.contracts.generation import FinishReason
from shared.contracts.recipe import TeachRecipe
from shared.contracts.verdicts import ScoredSegment, SegmentKind, Verdict, VerdictOutcome
from shared.packed import PackedResponse


@dataclass(frozen=True)
class Given:
    """One response: `token_ends` has the character offset after each token of `text`."""

    prompt_ids: list[int]
    text: str
    token_ids: list[int]
    token_ends: list[int]
    logprobs: list[float]
    segments: tuple[ScoredSegment, ...]
    reward: float

    def packed(self) -> PackedResponse:
        """As sampling hands it in."""
        outcome = VerdictOutcome.CORRECT if self.reward > 0 else VerdictOutcome.INCORRECT
        return PackedResponse(
            text=self.text,
            finish_reason=FinishReason.STOP,
            token_ids=np.array(self.token_ids, np.int32).tobytes(),
            logprobs=np.array(self.logprobs, np.float32).tobytes(),
            token_ends=np.array(self.token_ends, np.int32).tobytes(),
            judgement=Verdict(outcome=outcome, segments=self.segments, verifier="numeric@1", milliseconds=0.4),
        )


def make_groups(groups: int, k: int, model: Any, tokenizer: Any) -> list[list[Given]]:
    """Groups of k responses of different lengths to one question each; every second response is called right."""
    teach = TeachRecipe(rounds_weights=(0.5, 0.35, 0.15), copies=k)
    # Some slips come to nothing, and leave a question with fewer trajectories.
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in trajectories(2 * groups, 0, teach):
        rows.setdefault(row["question_id"], []).append(row)
    whole = [of_question for of_question in rows.values() if len(of_question) == k]
    if len(whole) < groups:
        raise RuntimeError(f"only {len(whole)} of {len(rows)} questions have {k} trajectories, {groups} are needed")
    return [_group(of_question, model, tokenizer) for of_question in whole[:groups]]


def _group(rows: Sequence[dict[str, Any]], model: Any, tokenizer: Any) -> list[Given]:
    prompt_ids, responses = tokenise_prompt(tokenizer, question_of(rows[0])), []
    for number, row in enumerate(rows):
        text = response_of(row)
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        token_ids = [*encoded["input_ids"], tokenizer.eos_token_id]
        reward = 1.0 if number % 2 else -1.0
        segments = tuple(
            ScoredSegment(kind=SegmentKind(item["kind"]), start=item["start"], end=item["end"], reward=reward)
            for item in row["segments"]
        )
        ends = [*(end for _, end in encoded["offset_mapping"]), len(text)]
        logprobs = _logprobs(model, prompt_ids, token_ids)
        responses.append(Given(prompt_ids, text, token_ids, ends, logprobs, segments, reward))
    return responses


def _logprobs(model: Any, prompt_ids: list[int], token_ids: list[int]) -> list[float]:
    model.eval()
    with torch.no_grad():
        logits = model(torch.tensor([prompt_ids + token_ids])).logits[0, len(prompt_ids) - 1 : -1].float()
    found: list[float] = logits.log_softmax(-1).gather(1, torch.tensor(token_ids)[:, None])[:, 0].tolist()
    return found

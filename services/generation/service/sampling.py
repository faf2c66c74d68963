"""Samples: n answers a prompt under one policy, each prompt on its own, within the request's deadline.

A prompt that cannot be answered is a line with a named error and never a sample. Leaving the stream cancels everything
that still runs, also in the engine.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from enum import StrEnum

from services.generation.client.choice import Choice
from services.generation.client.engine_errors import EngineDownError, EngineRefusedError
from services.generation.client.external import ExternalClient, ExternalError
from services.generation.metrics import PROMPTS, TOKENS
from services.generation.service.fleet import Fleet
from services.generation.service.loading import Serving, Target
from services.generation.service.offsets import token_ends
from services.generation.service.policies import PolicyService
from services.generation.service.replica import ReplacedError, Replica
from shared.contracts.base import pack_float32, pack_int32
from shared.contracts.generation import FinishReason, Prompt, PromptSamples, Sample, SampleRequest
from shared.contracts.policies import Policy, PolicyKind
from shared.errors import ConflictError

Answer = Callable[[Prompt], Awaitable[PromptSamples]]
_NOT_FOUND = 404


class PromptError(StrEnum):
    """Why a prompt has no samples; external servers add their own `external-…` codes."""

    DEADLINE = "deadline"
    ENGINE_DOWN = "engine-down"
    ENGINE_REFUSED = "engine-refused"
    POLICY_NOT_LOADABLE = "policy-not-loadable"
    PROMPT_TOO_LONG = "prompt-too-long"
    WEIGHTS_REPLACED = "weights-replaced"
    NO_REFERENCE_SOLUTION = "no-reference-solution"


class SamplingService:
    """Answers sample requests for every kind of policy."""

    def __init__(self, policies: PolicyService, fleet: Fleet, external: ExternalClient) -> None:
        self._policies = policies
        self._fleet = fleet
        self._external = external

    async def start(self, request: SampleRequest) -> AsyncGenerator[PromptSamples, None]:
        """The stream of answers, in the order in which prompts finish.

        Raises before the stream starts: NotFoundError, OverloadedError, HeadwaterError on missing or damaged weights.
        """
        policy = await self._policies.get(request.policy_id)
        answer = await self._answer(policy, request)
        deadline = asyncio.get_running_loop().time() + request.deadline_s
        return _stream([_bounded(answer, prompt, deadline) for prompt in request.prompts])

    async def _answer(self, policy: Policy, request: SampleRequest) -> Answer:
        if policy.kind is PolicyKind.REFERENCE:
            return lambda prompt: _reference(prompt, request.n)
        if policy.kind is PolicyKind.EXTERNAL:
            return lambda prompt: self._ask(policy, prompt, request)
        self._fleet.admit(len(request.prompts))
        target = await self._policies.target(policy)
        return lambda prompt: self._sample(target, prompt, request)

    async def _ask(self, policy: Policy, prompt: Prompt, request: SampleRequest) -> PromptSamples:
        samples = await self._external.answers(
            policy.uri, policy.model or "", policy.api_key_env, prompt.text, request.n, request.sampling
        )
        return PromptSamples(id=prompt.id, samples=samples)

    async def _sample(self, target: Target, prompt: Prompt, request: SampleRequest) -> PromptSamples:
        replica = await self._fleet.choose(target)
        try:
            async with replica.slot(), replica.loading.serving(target) as serving:
                answer = await replica.health.while_up(_complete(replica, serving, prompt, request))
                await replica.confirm(serving)
        except (EngineDownError, ReplacedError) as error:
            self._fleet.suspect(replica, error)
            raise
        return answer


async def _complete(replica: Replica, serving: Serving, prompt: Prompt, request: SampleRequest) -> PromptSamples:
    token_ids = await replica.prompts.token_ids(prompt.text)
    room = replica.loading.max_model_tokens - len(token_ids)
    if room < 1:
        sentence = f"The prompt has {len(token_ids)} tokens; the engine takes {replica.loading.max_model_tokens} with the answer."
        return _failed(prompt, PromptError.PROMPT_TOO_LONG, sentence)
    sampling = request.sampling.model_copy(update={"max_tokens": min(request.sampling.max_tokens, room)})
    try:
        choices = await replica.client.complete(serving.model, token_ids, request.n, sampling, request.deadline_s)
    except EngineRefusedError as error:
        if error.status == _NOT_FOUND:
            replica.loading.forget_adapter(serving.model)
        raise
    TOKENS.inc(sum(len(choice.token_ids) for choice in choices))
    samples = tuple(_sample_of(choice) for choice in choices)
    return PromptSamples(id=prompt.id, prompt_token_ids=pack_int32(token_ids), samples=samples)


def _sample_of(choice: Choice) -> Sample:
    ends = token_ends(choice.tokens, choice.text, ends_with_stop_token=choice.ends_with_stop_token)
    return Sample(
        text=choice.text,
        finish_reason=FinishReason(choice.finish_reason),
        token_ids=pack_int32(choice.token_ids),
        logprobs=pack_float32(choice.logprobs),
        token_ends=pack_int32(ends),
    )


async def _reference(prompt: Prompt, n: int) -> PromptSamples:
    if prompt.reference_solution is None:
        return _failed(prompt, PromptError.NO_REFERENCE_SOLUTION, "The question came without a reference solution.")
    sample = Sample(text=prompt.reference_solution, finish_reason=FinishReason.REFERENCE)
    return PromptSamples(id=prompt.id, samples=(sample,) * n)


async def _bounded(answer: Answer, prompt: Prompt, deadline: float) -> PromptSamples:
    """One prompt's line, whatever happens to it."""
    line = await _named(answer, prompt, deadline)
    PROMPTS.labels(line.error or "answered").inc()
    return line


async def _named(answer: Answer, prompt: Prompt, deadline: float) -> PromptSamples:
    try:
        async with asyncio.timeout_at(deadline):
            return await answer(prompt)
    except TimeoutError:
        return _failed(prompt, PromptError.DEADLINE, "The prompt was not answered within the request's deadline_s.")
    except EngineDownError as error:
        return _failed(prompt, PromptError.ENGINE_DOWN, str(error))
    except EngineRefusedError as error:
        return _failed(prompt, PromptError.ENGINE_REFUSED, error.reason)
    except ReplacedError as error:
        return _failed(prompt, PromptError.WEIGHTS_REPLACED, str(error))
    except ConflictError as error:
        return _failed(prompt, PromptError.POLICY_NOT_LOADABLE, error.message)
    except ExternalError as error:
        return _failed(prompt, error.code, error.message)


def _failed(prompt: Prompt, error: str, message: str) -> PromptSamples:
    return PromptSamples(id=prompt.id, error=str(error), message=message)


async def _stream(answers: list[Awaitable[PromptSamples]]) -> AsyncGenerator[PromptSamples, None]:
    tasks = [asyncio.ensure_future(answer) for answer in answers]
    try:
        for finished in asyncio.as_completed(tasks):
            yield await finished
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

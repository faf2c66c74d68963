"""Talk to any policy: the OpenAI endpoints, passed through to the engine or the external server under the policy's name."""

import asyncio
import json
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, TypeVar

from services.generation.client.engine_errors import EngineDownError, EngineRefusedError
from services.generation.client.external import ExternalClient, ExternalError
from services.generation.service.chat_stream import ChatStream
from services.generation.service.fleet import Fleet
from services.generation.service.loading import Target
from services.generation.service.policies import PolicyService
from services.generation.service.replica import ReplacedError, Replica
from shared.contracts.policies import Policy, PolicyKind
from shared.errors import ConflictError, HeadwaterError, UnavailableError

COMPLETIONS = "completions"
TIMEOUT_S = 600.0
SILENCE_S = 300.0  # of an external server in the middle of an answer: some think for minutes and say nothing
_OWN_TROUBLE = 500
T = TypeVar("T")


class ChatService:
    """One request at a time; a `seed` is left out, because one can kill the CPU engine. `endpoint`: CHAT or COMPLETIONS."""

    def __init__(self, policies: PolicyService, fleet: Fleet, external: ExternalClient) -> None:
        self._policies = policies
        self._fleet = fleet
        self._external = external

    async def complete(self, endpoint: str, body: dict[str, Any]) -> dict[str, Any]:
        """The whole answer. Raises HeadwaterError as the engine or the external server named it."""
        policy = await self._chatty(body)
        try:
            if policy.kind is PolicyKind.EXTERNAL:
                asked = {**body, "model": policy.model}
                async with asyncio.timeout(TIMEOUT_S):
                    answer = await self._external.pass_on(endpoint, policy.uri, policy.api_key_env, asked)
            else:
                answer = await self._engine_answer(endpoint, await self._policies.target(policy), body)
        except (ExternalError, TimeoutError) as error:
            raise _external_trouble(policy.uri, error) from error
        return {**answer, "model": body["model"]}

    async def stream(self, endpoint: str, body: dict[str, Any]) -> ChatStream:
        """A streamed answer that the server has begun; the caller closes it. Raises as `complete`."""
        policy = await self._chatty(body)
        begin = self._begin_external if policy.kind is PolicyKind.EXTERNAL else self._begin_engine
        held = AsyncExitStack()
        try:
            return await begin(held, endpoint, policy, body)
        except BaseException:
            await held.aclose()
            raise

    async def _begin_external(
        self, held: AsyncExitStack, endpoint: str, policy: Policy, body: dict[str, Any]
    ) -> ChatStream:
        asked = {**body, "model": policy.model}
        request = self._external.pass_on_stream(endpoint, policy.uri, policy.api_key_env, asked)
        try:
            async with asyncio.timeout(SILENCE_S):
                lines = await held.enter_async_context(request)
        except (ExternalError, TimeoutError) as error:
            raise _external_trouble(policy.uri, error) from error
        named = partial(_external_trouble, policy.uri)
        return ChatStream(held, lines, body["model"], _as_it_is, named, silence_s=SILENCE_S, timeout_s=TIMEOUT_S)

    async def _begin_engine(
        self, held: AsyncExitStack, endpoint: str, policy: Policy, body: dict[str, Any]
    ) -> ChatStream:
        target = await self._policies.target(policy)
        try:
            replica = await self._enter(held, target)
            serving = await held.enter_async_context(replica.loading.serving(target))
            request = replica.client.pass_on_stream(endpoint, _for_engine(body, serving.model), TIMEOUT_S)
            lines = await replica.health.while_up(held.enter_async_context(request))
        except (EngineDownError, EngineRefusedError) as error:
            raise _engine_trouble(error) from error
        # How long an engine may be silent is for its health to say.
        silence_s = TIMEOUT_S
        return ChatStream(
            held,
            lines,
            body["model"],
            replica.health.while_up,
            _engine_trouble,
            silence_s=silence_s,
            timeout_s=TIMEOUT_S,
        )

    async def _chatty(self, body: dict[str, Any]) -> Policy:
        model = body.get("model")
        if not isinstance(model, str):
            raise HeadwaterError("model_missing", "The request needs 'model': the id of a policy, or its name.", 422)
        _require_sendable(body)
        policy = await self._policies.find(model)
        if policy.kind is PolicyKind.REFERENCE:
            raise ConflictError(
                "reference_cannot_chat", f"{policy.name} only repeats the solutions that came with questions."
            )
        return policy

    async def _enter(self, stack: AsyncExitStack, target: Target) -> Replica:
        self._fleet.admit(1)
        replica = await self._fleet.choose(target)
        await stack.enter_async_context(replica.slot())
        return replica

    async def _engine_answer(self, endpoint: str, target: Target, body: dict[str, Any]) -> dict[str, Any]:
        try:
            async with AsyncExitStack() as stack:
                replica = await self._enter(stack, target)
                serving = await stack.enter_async_context(replica.loading.serving(target))
                work = replica.client.pass_on(endpoint, _for_engine(body, serving.model), TIMEOUT_S)
                answer = await replica.health.while_up(work)
                await replica.confirm(serving)
        except (EngineDownError, EngineRefusedError, ReplacedError) as error:
            raise _engine_trouble(error) from error
        return answer


def _require_sendable(body: dict[str, Any]) -> None:
    """Raises HeadwaterError `body_invalid` for what JSON lets in and neither the database nor a server takes."""
    try:
        written = json.dumps(body, allow_nan=False, ensure_ascii=False)
        written.encode()
    except (ValueError, RecursionError) as error:
        sentence = "The request has a number that is not finite, a lone surrogate, or too many levels; leave that out."
        raise HeadwaterError("body_invalid", sentence, 422) from error
    if "\\u0000" in written.replace("\\\\", ""):
        raise HeadwaterError("body_invalid", "The request has a NUL character; leave it out.", 422)


def _for_engine(body: dict[str, Any], model: str) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key != "seed"} | {"model": model}


async def _as_it_is(work: Coroutine[Any, Any, T]) -> T:
    return await work


def _external_trouble(url: str, error: Exception) -> HeadwaterError:
    if isinstance(error, ExternalError):
        return UnavailableError(error.code.replace("-", "_"), error.message)
    return UnavailableError("external_timeout", f"{url} did not answer in time; ask again.")


def _engine_trouble(error: Exception) -> HeadwaterError:
    if isinstance(error, EngineRefusedError) and error.status < _OWN_TROUBLE:
        return HeadwaterError("engine_refused", error.reason, error.status)
    return UnavailableError("engine_down", str(error) or f"The engine took longer than {TIMEOUT_S:.0f} s; ask again.")

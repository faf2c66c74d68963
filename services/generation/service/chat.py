"""Talk to any policy: the OpenAI endpoints, passed through to the engine or the external server under the policy's name."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

from services.generation.client.engine import EngineDownError, EngineRefusedError
from services.generation.client.external import ExternalClient, ExternalError
from services.generation.service.fleet import Fleet
from services.generation.service.policies import PolicyService
from services.generation.service.replica import ReplacedError, Replica, Target
from shared.contracts.policies import Policy, PolicyKind
from shared.errors import ConflictError, HeadwaterError, UnavailableError

COMPLETIONS = "completions"
TIMEOUT_S = 600.0


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
        except ExternalError as error:
            raise _unavailable(error) from error
        except TimeoutError as error:
            raise _late(policy.uri) from error
        return {**answer, "model": body["model"]}

    async def stream(self, endpoint: str, body: dict[str, Any]) -> AsyncIterator[str]:
        """Server-sent events, one `data: …` block at a time. Errors before the first event are raised here."""
        policy = await self._chatty(body)
        stack = AsyncExitStack()
        try:
            if policy.kind is PolicyKind.EXTERNAL:
                asked = {**body, "model": policy.model}
                request = self._external.pass_on_stream(endpoint, policy.uri, policy.api_key_env, asked)
            else:
                target = await self._policies.target(policy)
                replica = await self._enter(stack, target)
                serving = await stack.enter_async_context(replica.serving(target))
                request = replica.client.pass_on_stream(endpoint, _for_engine(body, serving.model), TIMEOUT_S)
            async with asyncio.timeout(TIMEOUT_S):
                lines = await stack.enter_async_context(request)
        except BaseException as error:
            await stack.aclose()
            if isinstance(error, EngineDownError | EngineRefusedError):
                raise _named(error) from error
            if isinstance(error, ExternalError):
                raise _unavailable(error) from error
            if isinstance(error, TimeoutError):
                raise _late(policy.uri) from error
            raise
        return _events(stack, lines, body["model"])

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
                serving = await stack.enter_async_context(replica.serving(target))
                work = replica.client.pass_on(endpoint, _for_engine(body, serving.model), TIMEOUT_S)
                answer = await replica.while_up(work)
                await replica.confirm(serving)
        except (EngineDownError, EngineRefusedError, ReplacedError) as error:
            raise _named(error) from error
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


def _unavailable(error: ExternalError) -> HeadwaterError:
    return UnavailableError(error.code.replace("-", "_"), error.message)


def _late(url: str) -> HeadwaterError:
    return UnavailableError("external_timeout", f"{url} did not answer within {TIMEOUT_S:.0f} s; ask again.")


def _named(error: Exception) -> HeadwaterError:
    if isinstance(error, EngineRefusedError) and error.status < 500:
        return HeadwaterError("engine_refused", error.reason, error.status)
    return UnavailableError("engine_down", str(error))


async def _events(stack: AsyncExitStack, lines: AsyncIterator[str], model: str) -> AsyncIterator[str]:
    """Events until the last, or until TIMEOUT_S are over; a stream that breaks or is late ends with an event `error`."""
    try:
        async with stack, asyncio.timeout(TIMEOUT_S):
            async for line in lines:
                if line.startswith("data: {"):
                    event = json.loads(line.removeprefix("data: "))
                    yield f"data: {json.dumps(event | {'model': model}, ensure_ascii=False)}\n\n"
                elif line:
                    yield f"{line}\n\n"
    except (TimeoutError, ExternalError, EngineDownError, ValueError, RecursionError) as error:
        message = str(error) or f"The answer took longer than {TIMEOUT_S:.0f} s."
        yield f"data: {json.dumps({'error': {'code': 'stream_broken', 'message': message}})}\n\n"

"""HTTP to somebody else's OpenAI-compatible server: teachers and judges. It answers text; there are no tokens to keep."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx

from shared.contracts.generation import FinishReason, Sample, SamplingParameters
from shared.errors import HeadwaterError
from shared.settings import address

CHAT = "chat/completions"
REQUESTS_AT_ONCE = 16
CHECK_TIMEOUT_S = 10.0
_RETRYABLE = frozenset({429, 502, 503, 504})
_FINISH_REASONS = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}


class ExternalError(Exception):
    """A named failure of an external server. `code` is stable, the text is one sentence with the URL and the way out."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class ExternalClient:
    """One connection pool for all external servers. The caller sets the deadline."""

    def __init__(self, own_addresses: Collection[tuple[str, int | None]]) -> None:
        self._own_addresses = own_addresses
        self._http = httpx.AsyncClient(timeout=httpx.Timeout(None, connect=10.0), follow_redirects=False)
        self._slots: dict[str, asyncio.Semaphore] = {}

    async def close(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    def require_address(self, url: str) -> None:
        """Raises HeadwaterError `address_invalid` for a URL that is none of an external server: what is sent there may be a key."""
        try:
            parts, (host, port) = urlsplit(url), address(url)
            httpx.URL(url)
        except (ValueError, httpx.InvalidURL) as error:
            raise _invalid(url, f"cannot be read ({error})") from error
        if parts.scheme not in ("http", "https") or not host:
            raise _invalid(url, "is no http(s) URL with a host")
        if any(mark in url for mark in "?#@\\") or not url.isascii() or not url.isprintable() or " " in url:
            raise _invalid(url, "has a query, a fragment, a user name or a character that is none of a URL")
        if (host, port) in self._own_addresses:
            raise _invalid(url, "is an address of Headwater's own")

    async def check(self, url: str, api_key_env: str | None) -> None:
        """Raises ExternalError unless the server answers at all, and wholly, within `CHECK_TIMEOUT_S`."""
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                await self._http.get(f"{root(url)}/models", headers=_headers(url, api_key_env))
        except (httpx.RequestError, TimeoutError) as error:
            raise _unavailable(url, type(error).__name__) from error

    async def answers(
        self, url: str, model: str, api_key_env: str | None, text: str, n: int, sampling: SamplingParameters
    ) -> tuple[Sample, ...]:
        """`n` answers to one user message. A server that ignores `n` is asked again for the rest."""
        samples: list[Sample] = []
        async with self._slots.setdefault(url, asyncio.Semaphore(REQUESTS_AT_ONCE)):
            while len(samples) < n:
                body: dict[str, Any] = {
                    "model": model,
                    "messages": [{"role": "user", "content": text}],
                    "n": n - len(samples),
                    "temperature": sampling.temperature,
                    "top_p": sampling.top_p,
                    "max_tokens": sampling.max_tokens,
                }
                if sampling.stop:
                    body["stop"] = list(sampling.stop)
                samples.extend(_samples(url, await self.pass_on(CHAT, url, api_key_env, body)))
        return tuple(samples[:n])

    async def pass_on(
        self, endpoint: str, url: str, api_key_env: str | None, body: Mapping[str, Any]
    ) -> dict[str, Any]:
        """One whole completion; an overloaded server is asked again, with growing pauses, until the caller's deadline."""
        pause_s = 1.0
        while True:
            try:
                response = await self._http.post(
                    f"{root(url)}/{endpoint}", json=dict(body), headers=_headers(url, api_key_env)
                )
            except httpx.RequestError as error:
                raise _unavailable(url, type(error).__name__) from error
            if response.status_code not in _RETRYABLE:
                return _body(url, api_key_env, response)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, 30.0)

    @asynccontextmanager
    async def pass_on_stream(
        self, endpoint: str, url: str, api_key_env: str | None, body: Mapping[str, Any]
    ) -> AsyncIterator[AsyncIterator[str]]:
        """The lines of a streamed one; an overloaded server is the asker's to ask again. Raises, also between lines: ExternalError."""
        try:
            request = self._http.stream(
                "POST", f"{root(url)}/{endpoint}", json=dict(body), headers=_headers(url, api_key_env)
            )
            async with request as response:
                if not response.is_success:
                    await response.aread()
                    _body(url, api_key_env, response)
                yield _lines(url, response)
        except httpx.RequestError as error:
            raise _unavailable(url, type(error).__name__) from error


async def _lines(url: str, response: httpx.Response) -> AsyncIterator[str]:
    try:
        async for line in response.aiter_lines():
            yield line
    except httpx.RequestError as error:
        raise _unavailable(url, type(error).__name__) from error


def root(url: str) -> str:
    """The address that `/chat/completions` follows: `http://host` and `http://host/v1` mean the same."""
    trimmed = url.rstrip("/")
    return trimmed if urlsplit(trimmed).path else f"{trimmed}/v1"


def _headers(url: str, api_key_env: str | None) -> dict[str, str]:
    if api_key_env is None:
        return {}
    key = os.environ.get(api_key_env)
    if not key:
        sentence = f"The key for {url} should be in the environment variable {api_key_env}, which is not set; set it and restart."
        raise ExternalError("external-key-missing", sentence)
    return {"Authorization": f"Bearer {key}"}


def _invalid(url: str, why: str) -> HeadwaterError:
    sentence = f"The external server's address {url[:200]!a} {why[:200]}; name one such as https://host/v1."
    return HeadwaterError("address_invalid", sentence, 422)


def _unavailable(url: str, why: str) -> ExternalError:
    return ExternalError(
        "external-unavailable", f"{url} does not answer ({why}); start it or correct the policy's URL."
    )


def _body(url: str, api_key_env: str | None, response: httpx.Response) -> dict[str, Any]:
    if response.status_code in (401, 403):
        key = f"check the key in {api_key_env}" if api_key_env else "name the variable with its key in api_key_env"
        raise ExternalError("external-unauthorized", f"{url} refuses access ({response.status_code}); {key}.")
    if not response.is_success:
        reason = " ".join(response.text.split())[:300]
        raise ExternalError("external-refused", f"{url} answered {response.status_code}: {reason}")
    try:
        body = response.json()
        # A number that is not finite or a lone surrogate could not be passed on.
        json.dumps(body, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise _nonsense(url) from error
    if not isinstance(body, dict):
        raise _nonsense(url)
    return body


def _samples(url: str, body: Mapping[str, Any]) -> list[Sample]:
    try:
        samples = [_sample(url, choice) for choice in body["choices"]]
    except (KeyError, TypeError) as error:
        raise _nonsense(url) from error
    if not samples:
        raise _nonsense(url)
    return samples


def _sample(url: str, choice: Mapping[str, Any]) -> Sample:
    text, reason = choice["message"]["content"], _FINISH_REASONS.get(choice["finish_reason"])
    if reason is None or not isinstance(text, str):
        raise ExternalError(
            "external-refused", f"{url} ended an answer with {choice['finish_reason']!r} and no usable text."
        )
    return Sample(text=text, finish_reason=reason)


def _nonsense(url: str) -> ExternalError:
    return ExternalError(
        "external-invalid-answer", f"{url} answered something that is no chat completion; check the URL."
    )

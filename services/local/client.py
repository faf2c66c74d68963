"""The gateway as the command line uses it. Whatever goes wrong is one sentence (LocalError), never a stack trace."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from services.local.errors import LocalError
from shared.contracts.campaigns import Campaign, Report
from shared.contracts.lineage import MAX_RETRACTED_AT_ONCE, Retractions
from shared.contracts.listing import QuestionPage, SnapshotPage
from shared.contracts.problems import ProblemBody
from shared.contracts.questions import IngestReport, NearDuplicate, Quarantine, Question, Refusal
from shared.contracts.runs import Run, RunList, RunMetric
from shared.contracts.snapshots import Snapshot
from shared.layout import is_array

if TYPE_CHECKING:
    from types import TracebackType

Answer = TypeVar("Answer", bound=BaseModel)
Read = TypeVar("Read")
Listed = TypeVar("Listed", NearDuplicate, Quarantine)
SHOWN_DETAILS = 20
TIMEOUT_S = 60.0
MAX_RUNS = 1000
POINTS_PAGE = 10_000
_BATCH_LINES = 1000
_BATCH_BYTES = 4 << 20


class UnreachableError(LocalError):
    """The gateway does not answer; it may be starting again."""


class OtherContentError(LocalError):
    """It is there already, with other content."""


class Gateway:
    """A connection to one gateway with one API key; use it in a `with` block."""

    def __init__(self, url: str, api_key: str, transport: httpx.BaseTransport | None = None) -> None:
        self._url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=self._url,
            headers={"Authorization": f"Bearer {api_key}"},
            timeout=TIMEOUT_S,
            trust_env=False,
            transport=transport,
        )

    def __enter__(self) -> Gateway:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def create_campaign(self, recipe: str) -> Campaign:
        """The campaign of a recipe in TOML, made if it isn't there; another recipe under the same `name` is refused."""
        headers = {"Content-Type": "application/toml"}
        return self._call(Campaign, "POST", "/v1/campaigns", content=recipe.encode(), headers=headers)

    def campaigns(self) -> list[Campaign]:
        """All campaigns."""
        return self._read(TypeAdapter(list[Campaign]), "/v1/campaigns", self._send("GET", "/v1/campaigns"))

    def campaign(self, name_or_id: str) -> Campaign:
        """One campaign, by its name or its id."""
        if is_uuid(name_or_id):
            return self._call(Campaign, "GET", f"/v1/campaigns/{name_or_id}")
        found = next((campaign for campaign in self.campaigns() if campaign.name == name_or_id), None)
        if found is None:
            raise LocalError(f"There is no campaign {name_or_id!r}; `headwater campaign list` names them all.")
        return found

    def cancel(self, campaign_id: UUID) -> Campaign:
        """Stop a campaign for good; what it made stays."""
        return self._call(Campaign, "POST", f"/v1/campaigns/{campaign_id}/cancel")

    def resume(self, campaign_id: UUID) -> Campaign:
        """Go on with a failed campaign, at the stage that failed."""
        return self._call(Campaign, "POST", f"/v1/campaigns/{campaign_id}/resume")

    def report(self, campaign_id: UUID) -> Report:
        """The report as far as the campaign has come."""
        return self._call(Report, "GET", f"/v1/campaigns/{campaign_id}/report")

    def runs(self, campaign_id: UUID) -> tuple[Run, ...]:
        """The runs of a campaign, oldest first, also those that belong to no stage."""
        params = {"campaign": str(campaign_id), "limit": MAX_RUNS}
        return self._call(RunList, "GET", "/v1/runs", params=params).items

    def run(self, run_id: UUID) -> Run:
        """One run."""
        return self._call(Run, "GET", f"/v1/runs/{run_id}")

    def points(self, run_id: UUID) -> Iterator[RunMetric]:
        """Every logged point of a run in the order of their steps, read page by page."""
        after = -1
        while True:
            path, params = f"/v1/runs/{run_id}/metrics", {"after": after, "limit": POINTS_PAGE}
            page = self._read(TypeAdapter(list[RunMetric]), path, self._send("GET", path, params=params))
            yield from page
            if len(page) < POINTS_PAGE:
                return
            after = page[-1].step

    def submit(self, path: Path, campaign_id: UUID) -> Iterator[IngestReport]:
        """Send a file of questions (NDJSON, or one JSON array) in batches; yields the answer to each, by line of the file.

        Repeating it is harmless: questions are known by their content.
        """
        for first_line, media_type, body in _batches(path):
            report = self._call(
                IngestReport,
                "POST",
                "/v1/questions",
                params={"campaign": str(campaign_id)},
                content=body,
                headers={"Content-Type": media_type},
            )
            moved = tuple(_at_line(refusal, first_line + refusal.line) for refusal in report.refusals)
            yield report.model_copy(
                update={
                    "refusals": moved,
                    "near_duplicates": tuple(_moved(near, first_line) for near in report.near_duplicates),
                    "quarantines": tuple(_moved(gone, first_line) for gone in report.quarantines),
                }
            )

    def retract(self, reason: str, ids: Sequence[UUID]) -> Iterator[Retractions]:
        """Leave these questions out from now on; yields the answer to each piece of them."""
        for first in range(0, len(ids), MAX_RETRACTED_AT_ONCE):
            piece = [str(one) for one in ids[first : first + MAX_RETRACTED_AT_ONCE]]
            yield self._retract({"reason": reason, "ids": piece})

    def retract_source(self, reason: str, campaign_id: UUID, source: str) -> Iterator[Retractions]:
        """Leave every question of a campaign's source out from now on; yields the answer to each piece of them."""
        more = True
        while more:
            answer = self._retract({"reason": reason, "campaign": str(campaign_id), "source": source})
            yield answer
            more = answer.more

    def _retract(self, body: dict[str, Any]) -> Retractions:
        return self._call(Retractions, "POST", "/v1/questions/retract", json=body)

    def snapshots(self, campaign_id: UUID) -> Iterator[Snapshot]:
        """Every snapshot of a campaign, oldest first."""
        after: str | None = None
        while True:
            params = {"campaign": str(campaign_id)} | ({"after": after} if after else {})
            page = self._call(SnapshotPage, "GET", "/v1/snapshots", params=params)
            yield from page.items
            if (after := page.next) is None:
                return

    def snapshot(self, snapshot_id: str) -> Snapshot:
        """One snapshot, by its id."""
        if not is_uuid(snapshot_id):
            raise LocalError(f"{snapshot_id!r} is no id of a snapshot; name its campaign, too, to find it by its key.")
        return self._call(Snapshot, "GET", f"/v1/snapshots/{snapshot_id}")

    @contextmanager
    def export(self, snapshot_id: UUID, file_format: str) -> Iterator[tuple[int | None, Iterator[bytes]]]:
        """A snapshot's rows as a file: its size where it is known, and its bytes as they come."""
        path = f"/v1/snapshots/{snapshot_id}/export"
        try:
            with self._http.stream("GET", path, params={"format": file_format}) as response:
                if not response.is_success:
                    response.read()
                    raise _error(response)
                size = response.headers.get("content-length")
                yield int(size) if size else None, response.iter_bytes()
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise UnreachableError(f"{self._url} ended the answer before it was whole ({reason}).") from error

    def questions(self, campaign_id: UUID, page: int, filters: dict[str, Any]) -> Iterator[Question]:
        """The questions of a campaign that these filters leave, read `page` at a time."""
        after: dict[str, str] = {}
        while True:
            where = {"campaign": str(campaign_id), "limit": page, **filters, **after}
            answer = self._call(QuestionPage, "GET", "/v1/questions", params=where)
            yield from answer.items
            if answer.next is None:
                return
            after = {"after": answer.next}

    def _call(self, answer: type[Answer], method: str, path: str, **request: Any) -> Answer:
        return self._read(TypeAdapter(answer), path, self._send(method, path, **request))

    def _read(self, answer: TypeAdapter[Read], path: str, response: httpx.Response) -> Read:
        try:
            return answer.validate_json(response.content)
        except ValidationError as error:
            raise LocalError(f"{self._url}{path} gave an answer that this version does not know: {error}") from error

    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **request)
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise UnreachableError(f"{self._url} does not answer ({reason}): is it up? `headwater status`") from error
        if not response.is_success:
            raise _error(response)
        return response


def _error(response: httpx.Response) -> LocalError:
    """What went wrong, as the gateway says it."""
    if response.status_code in (502, 503, 504):
        return UnreachableError(_sentence(response))
    return (OtherContentError if response.status_code == 409 else LocalError)(_sentence(response))


def _sentence(response: httpx.Response) -> str:
    try:
        problem = ProblemBody.model_validate_json(response.content).error
    except ValidationError:
        return f"{response.request.url} answered {response.status_code}: {response.text[:200]}"
    lines = [problem.message]
    details = [detail for detail in problem.details if detail.message not in problem.message]
    for detail in details[:SHOWN_DETAILS]:
        where = " ".join(part for part in (detail.item, detail.field) if part)
        lines.append(f"  {where}: {detail.message}" if where else f"  {detail.message}")
    if len(details) > SHOWN_DETAILS:
        lines.append(f"  … and {len(details) - SHOWN_DETAILS} more")
    return "\n".join(lines)


def is_uuid(text: str) -> bool:
    """Whether a name is an id."""
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _at_line(refusal: Refusal, line: int) -> Refusal:
    message = refusal.message.replace(f"Item {refusal.line} ", f"Item {line} ", 1)  # it counted within its batch
    return refusal.model_copy(update={"line": line, "message": message})


def _moved(item: Listed, lines_before: int) -> Listed:
    return item.model_copy(update={"line": item.line + lines_before})


def _batches(path: Path) -> Iterator[tuple[int, str, bytes]]:
    """(lines before the batch, media type, body). A JSON array is one batch; bytes go out as they are in the file."""
    try:
        with path.open("rb") as file:
            begin = len(codecs.BOM_UTF8) if file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8 else 0
            file.seek(begin)
            is_array = _is_array(file)
            file.seek(begin)
            if is_array:
                yield 0, "application/json", file.read()
                return
            batch: list[bytes] = []
            before = size_bytes = 0
            for line in file:
                if batch and (len(batch) >= _BATCH_LINES or size_bytes + len(line) > _BATCH_BYTES):
                    yield before, "application/x-ndjson", b"".join(batch)
                    before, size_bytes, batch = before + len(batch), 0, []
                batch.append(line)
                size_bytes += len(line)
            if batch:
                yield before, "application/x-ndjson", b"".join(batch)
    except OSError as error:
        raise LocalError(f"The file {path} cannot be read: {error.strerror}.") from error


def _is_array(lines: Iterable[bytes]) -> bool:
    written = (line.strip() for line in lines if line.strip())
    first = next(written, b"")
    return is_array(first, is_alone=next(written, None) is None)

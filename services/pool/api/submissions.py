"""Campaign settings, and questions on their way in: JSON, NDJSON, Arrow, each gzip or not."""

from collections.abc import AsyncIterator
from uuid import UUID

from fastapi import APIRouter, Request
from starlette.datastructures import FormData, UploadFile

from services.pool.service import arrow
from services.pool.service.blocks import Block, of_lines
from services.pool.service.bodies import peeked, received, unpacked, unpacked_file
from services.pool.service.ingest import Ingest
from services.pool.service.lines import Layout, items
from services.pool.service.questions import Questions
from shared.contracts.base import Contract
from shared.contracts.questions import IngestReport
from shared.contracts.recipe import PoolRecipe, RouterRecipe
from shared.errors import HeadwaterError

READ_BYTES = 1 << 18
LINE_TYPES = ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines")
FORM_TYPE = "multipart/form-data"


class CampaignSettings(Contract):
    """PUT /v1/campaigns/{id}/settings, made by the cascade."""

    name: str
    router: RouterRecipe = RouterRecipe()
    pool: PoolRecipe = PoolRecipe()


def create_router(questions: Questions, ingest: Ingest) -> APIRouter:
    """The routes."""
    router = APIRouter(tags=["questions"])

    @router.put("/campaigns/{campaign_id}/settings")
    async def put_campaign_settings(campaign_id: UUID, body: CampaignSettings) -> CampaignSettings:
        await questions.put_campaign(campaign_id, body.name, body.router, body.pool)
        return body

    @router.post("/questions")
    async def submit_questions(campaign: UUID, request: Request) -> IngestReport:
        """Questions as JSON (an object or a list), NDJSON, an Arrow IPC stream, or one uploaded file of these; gzip or not.

        A bad one is refused by its number; one that is known is counted.
        """
        threshold = await ingest.threshold(campaign)
        kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
        encoding = request.headers.get("content-encoding", "").strip().lower()
        if kind != FORM_TYPE:
            return await ingest.take(campaign, threshold, _blocks(unpacked(received(request.stream()), encoding), kind))
        if encoding:
            raise HeadwaterError(
                "unsupported_encoding", "A form has no Content-Encoding of its own; put a gzip file into it.", 415
            )
        async with request.form(max_files=1) as form:
            return await ingest.take(campaign, threshold, _file_blocks(form))

    return router


def _blocks(stream: AsyncIterator[bytes], kind: str) -> AsyncIterator[Block]:
    """The items of a body of a content type. Raises: HeadwaterError `unsupported_type`."""
    if kind == arrow.MEDIA_TYPE:
        return arrow.blocks(stream)
    if kind == "application/json":
        return of_lines(items(stream, Layout.DOCUMENT))
    if kind in LINE_TYPES:
        return of_lines(items(stream, Layout.LINES))
    raise HeadwaterError(
        "unsupported_type",
        f"Questions cannot be read from content type {kind[:100] or '(none)'!r}; send application/json, "
        f"application/x-ndjson, {arrow.MEDIA_TYPE}, or a file as multipart/form-data.",
        415,
    )


def _file_blocks(form: FormData) -> AsyncIterator[Block]:
    """The items of the one file of a form, which says itself what it is. Raises: HeadwaterError `no_file`."""
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    if len(files) != 1:
        raise HeadwaterError("no_file", "The form has no file; send one NDJSON, JSON or Arrow file in it.", 422)
    return _read_file(unpacked_file(_chunks(files[0])))


async def _read_file(stream: AsyncIterator[bytes]) -> AsyncIterator[Block]:
    head, whole = await peeked(stream, len(arrow.BEGINNING))
    is_arrow = head.startswith(arrow.BEGINNING)
    async for block in arrow.blocks(whole) if is_arrow else of_lines(items(whole, Layout.FILE)):
        yield block


async def _chunks(file: UploadFile) -> AsyncIterator[bytes]:
    while chunk := await file.read(READ_BYTES):
        yield chunk

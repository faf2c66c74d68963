"""Campaign settings, questions and pool counts."""

from collections.abc import AsyncIterator
from uuid import UUID

from fastapi import APIRouter, Request
from starlette.datastructures import FormData, UploadFile

from services.pool.service.lines import Item, Layout, items
from services.pool.service.questions import Questions
from shared.contracts.base import Contract
from shared.contracts.questions import IngestReport, PoolCounts, Question
from shared.contracts.recipe import RouterRecipe
from shared.errors import HeadwaterError

READ_BYTES = 1 << 18
LINE_TYPES = ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines")


class CampaignSettings(Contract):
    """PUT /v1/campaigns/{id}/settings, made by the cascade."""

    name: str
    router: RouterRecipe = RouterRecipe()


def create_router(questions: Questions) -> APIRouter:
    """The routes."""
    router = APIRouter(tags=["questions"])

    @router.put("/campaigns/{campaign_id}/settings")
    async def put_campaign_settings(campaign_id: UUID, body: CampaignSettings) -> CampaignSettings:
        await questions.put_campaign(campaign_id, body.name, body.router)
        return body

    @router.post("/questions")
    async def submit_questions(campaign: UUID, request: Request) -> IngestReport:
        """Questions as JSON (an object or a list), NDJSON or one uploaded file. A bad one is refused by its number."""
        await questions.require_campaign(campaign)
        kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
        if kind == "application/json":
            return await questions.ingest(campaign, items(request.stream(), Layout.DOCUMENT))
        if kind in LINE_TYPES:
            return await questions.ingest(campaign, items(request.stream(), Layout.LINES))
        if kind != "multipart/form-data":
            raise HeadwaterError(
                "unsupported_type",
                f"Questions cannot be read from content type {kind or '(none)'!r}; send application/json, "
                "application/x-ndjson, or a file as multipart/form-data.",
                415,
            )
        async with request.form(max_files=1) as form:
            return await questions.ingest(campaign, _file_items(form))

    @router.get("/questions/{question_id}")
    async def get_question(question_id: UUID) -> Question:
        return await questions.get(question_id)

    @router.get("/pools")
    async def get_pool_counts(campaign: UUID) -> PoolCounts:
        return await questions.counts(campaign)

    return router


def _file_items(form: FormData) -> AsyncIterator[Item]:
    """The items of the one file of a form. Raises: HeadwaterError `no_file`."""
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    if len(files) != 1:
        raise HeadwaterError("no_file", "The form has no file; send one NDJSON or JSON file in it.", 422)
    return items(_chunks(files[0]), Layout.FILE)


async def _chunks(file: UploadFile) -> AsyncIterator[bytes]:
    while chunk := await file.read(READ_BYTES):
        yield chunk

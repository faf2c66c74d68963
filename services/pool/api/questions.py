"""Campaign settings, questions and pool counts."""

from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request
from starlette.datastructures import FormData, UploadFile

from services.pool.service.lines import Item, Layout, items
from services.pool.service.questions import Questions
from shared.contracts.base import Contract
from shared.contracts.questions import IngestReport, PoolCounts, Question, QuestionState, Split
from shared.contracts.recipe import RouterRecipe
from shared.errors import HeadwaterError

READ_BYTES = 1 << 18
LINE_TYPES = ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines")


class CampaignSettings(Contract):
    """PUT /v1/campaigns/{id}/settings, made by the cascade."""

    name: str
    router: RouterRecipe = RouterRecipe()


class QuestionPage(Contract):
    """Some questions; `next` is the cursor of those behind them."""

    items: tuple[Question, ...]
    next: str | None


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

    @router.get("/questions")
    async def list_questions(
        campaign: UUID,
        split: Split | None = None,
        state: QuestionState | None = None,
        level: Annotated[int | None, Query(ge=1, le=5)] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        after: Annotated[int, Query(ge=0)] = 0,
    ) -> QuestionPage:
        found, following = await questions.page(campaign, split, state, level, after, limit)
        return QuestionPage.model_construct(items=tuple(found), next=None if following is None else str(following))

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

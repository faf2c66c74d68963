"""Groups: handed in by sampling workers, read by people and the console."""

from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request

from services.pool.api import bodies
from services.pool.service.groups import Groups
from shared import arrow
from shared.contracts.orders import Group, GroupBatch, GroupBatchResult


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """A JSON schema without references, for a place of a document that has no definitions."""
    definitions = schema.pop("$defs", {})

    def resolved(node: Any) -> Any:
        if isinstance(node, list):
            return [resolved(child) for child in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return resolved(definitions[node["$ref"].rpartition("/")[2]])
        return {key: resolved(child) for key, child in node.items()}

    inlined: dict[str, Any] = resolved(schema)
    return inlined


HAND_IN = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": _inlined(GroupBatch.model_json_schema())},
            arrow.MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


def create_router(groups: Groups) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/groups", tags=["groups"])

    @router.post("", openapi_extra=HAND_IN)
    async def store_groups(request: Request) -> GroupBatchResult:
        """Groups as JSON or as an Arrow IPC stream (one row a group, see `shared/arrow`), as they are or gzip.

        All of a request is stored, or nothing; the receipts say of each group whether it was stored, late, a duplicate or refused.
        """
        return await groups.store(bodies.groups(request))

    @router.get("/{group_id}")
    async def get_group(group_id: UUID) -> Group:
        return (await groups.get(group_id)).contract()

    return router

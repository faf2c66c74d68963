"""What the document says of the bodies that the routes read as streams."""

from services.pool.service.arrow import MEDIA_TYPE
from shared.contracts.orders import GroupBatch
from shared.contracts.questions import QuestionIn
from shared.openapi import BYTES, RequestBodies

_FILE = {"type": "object", "properties": {"file": BYTES}, "required": ["file"]}

# A JSON array of questions is read as well; said here, generated clients could not tell it from the other types.
REQUEST_BODIES: RequestBodies = {
    "submit_questions": {
        "application/json": QuestionIn,
        MEDIA_TYPE: BYTES,
        "application/x-ndjson": BYTES,  # after Arrow: generated clients send bytes as the last type that takes them
        "multipart/form-data": _FILE,
    },
    "store_groups": {"application/json": GroupBatch, MEDIA_TYPE: BYTES},
}

"""HTTP in, by subject."""

from fastapi import APIRouter

from services.pool.api import assignments as assignments_api
from services.pool.api import batches as batches_api
from services.pool.api import difficulty as difficulty_api
from services.pool.api import groups as groups_api
from services.pool.api import lineage as lineage_api
from services.pool.api import lists as lists_api
from services.pool.api import orders as orders_api
from services.pool.api import questions as questions_api
from services.pool.api import reverification as reverification_api
from services.pool.api import snapshots as snapshots_api
from services.pool.api import submissions as submissions_api
from services.pool.api import verifications as verifications_api
from services.pool.service.assignments import Assignments
from services.pool.service.batches import Batches
from services.pool.service.difficulty import Difficulty
from services.pool.service.groups import Groups
from services.pool.service.ingest import Ingest
from services.pool.service.lineage import Lineage
from services.pool.service.listing import Lists
from services.pool.service.orders import Orders
from services.pool.service.questions import Questions
from services.pool.service.retraction import Retractions
from services.pool.service.reverification import Reverifications
from services.pool.service.snapshots import Snapshots
from services.pool.service.verifications import Verifications


def create_router(
    questions: Questions,
    ingest: Ingest,
    orders: Orders,
    assignments: Assignments,
    groups: Groups,
    snapshots: Snapshots,
    batches: Batches,
    difficulty: Difficulty,
    lists: Lists,
    lineage: Lineage,
    retractions: Retractions,
    reverifications: Reverifications,
    verifications: Verifications,
) -> APIRouter:
    """Every route of the pool."""
    router = APIRouter(prefix="/v1")
    router.include_router(submissions_api.create_router(questions, ingest))
    router.include_router(lists_api.create_router(lists))
    router.include_router(questions_api.create_router(questions))
    router.include_router(orders_api.create_router(orders))
    router.include_router(assignments_api.create_router(assignments))
    router.include_router(groups_api.create_router(groups))
    router.include_router(snapshots_api.create_router(snapshots))
    router.include_router(batches_api.create_router(batches))
    router.include_router(difficulty_api.create_router(difficulty))
    router.include_router(lineage_api.create_router(lineage, retractions))
    router.include_router(reverification_api.create_router(reverifications, orders))
    router.include_router(verifications_api.create_router(verifications, orders))
    return router

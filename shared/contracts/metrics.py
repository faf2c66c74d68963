"""Metrics of one order's responses: computed by the pool, read by the cascade's report (algorithms: S2R metrics)."""

from uuid import UUID

from shared.contracts.base import Contract


class Estimate(Contract):
    """A value with its 95 % interval and the count it rests on; `value` None where nothing was counted."""

    value: float | None
    low: float | None
    high: float | None
    n: int


class TrajectoryMetrics(Contract):
    """All S2R metrics over one set of scored responses.

    Rates are in [0, 1] with Wilson intervals; means have normal intervals. `final_accuracy` / `first_accuracy`: last /
    first answer right. `verification_accuracy`: verdict equals the truth. `error_recall`: of the wrong attempts with a
    readable verdict, the share called incorrect; a wrong attempt without one is in neither count. `correct_precision`:
    share of attempts called correct that are right. `wrong_to_right` / `right_to_wrong`: first wrong and last right /
    first right and last wrong, over all responses.
    """

    n: int
    unscored: int
    final_accuracy: Estimate
    first_accuracy: Estimate
    verification_accuracy: Estimate
    error_recall: Estimate
    correct_precision: Estimate
    wrong_to_right: Estimate
    right_to_wrong: Estimate
    mean_rounds: Estimate
    mean_tokens: Estimate
    unparsed_rate: Estimate


class OrderMetrics(Contract):
    """GET /v1/orders/{id}/metrics: over all questions and by the question's level.

    The level is the one that the newest probe gave; a question that was never probed is only in `overall`.
    """

    order_id: UUID
    overall: TrajectoryMetrics
    by_level: dict[int, TrajectoryMetrics]
    tokens_sampled: int

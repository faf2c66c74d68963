"""Training's settings: the addresses of everything, and how long a silent trainer keeps its run."""

from pydantic import Field

from shared.settings import Settings


class TrainingSettings(Settings):
    """`HEADWATER_TRAINING_*` beside the common addresses.

    A trainer that stays silent for `training_lease_s` loses its run to the next worker. `training_attempts` is the
    number of attempts in a row that may end without a new checkpoint before the run fails.
    """

    training_threads: int = Field(default=2, ge=1)
    training_lease_s: float = Field(default=30.0, gt=0)
    training_launch_s: float = Field(
        default=120.0,
        gt=0,
        description="the first lease of a trainer of several processes, until the first of them keeps it",
    )
    training_heartbeat_s: float = Field(default=1.0, gt=0)
    training_step_timeout_s: float = Field(
        default=1800.0, gt=0, description="a trainer that works on one micro-batch for longer hangs, and is ended"
    )
    training_attempts: int = Field(default=5, ge=1)
    training_backoff_s: float = Field(default=2.0, ge=0)
    training_disk_full_attempts: int = Field(
        default=144, ge=1, description="as training_attempts, while the disk is full"
    )
    training_disk_full_backoff_s: float = Field(default=600.0, ge=0, description="how long a full disk is left alone")
    training_report_to: str = Field(
        default="", description="trackers beside our own, comma-separated: tensorboard, trackio, wandb, mlflow"
    )
    training_peer_deadline_s: float = Field(
        default=300.0, gt=0, description="how long a peer that does not answer is asked again"
    )

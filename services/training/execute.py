"""The trainer: one attempt of one run, in a process of its own. Started by a training worker, never by hand.

`python -m services.training.execute RUN_ID --fence N`. Trains from the newest checkpoint, publishes the policy, marks the
run succeeded. Ends with the process that started it, and at once when its lease is lost.
"""

import argparse
import logging
import os
import sys
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from uuid import UUID

from services.training import ranks
from services.training.attempt import trainer_environment
from services.training.failures import EXIT_FAILED, RunError, RunPausedError, name_failure
from services.training.lease import RunLease
from services.training.processes import die_with
from services.training.settings import TrainingSettings
from shared.contracts.runs import RunMethod
from shared.log import configure_logging

log = logging.getLogger(__name__)


def absolute(artifacts_url: str) -> str:
    """The artifact store as other processes see it, wherever they run."""
    return artifacts_url if "://" in artifacts_url else str(Path(artifacts_url).resolve())


def leave_vllm_out() -> None:
    """TRL imports vLLM wherever it is installed; the trainer never uses it, and it costs seconds and 160 MB."""
    import_module("trl.import_utils").is_vllm_available = lambda *_, **__: False  # type: ignore[attr-defined]


def see_one_gpu() -> None:
    """A trainer of one process on a machine with several: the Trainer would spread its micro-batches over all of them."""
    os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]


def train_and_publish(lease: RunLease, settings: TrainingSettings) -> None:
    """Train the leased run to its end, publish its policy, mark it succeeded; or to a pause, when somebody asks for one.

    Called in every rank; only the first one's `lease` is entered.
    """
    leave_vllm_out()
    import torch
    import transformers

    from services.training.checkpoints import CheckpointStore, default_cache
    from services.training.loop import Attempt
    from services.training.policies import Publisher, fetch_start
    from services.training.rl.train import final_version, train_rl
    from services.training.sft.train import train_sft

    torch.set_num_threads(settings.training_threads)
    transformers.utils.logging.disable_progress_bar()
    ranks.meet(settings.training_step_timeout_s)
    run = ranks.first(lease.spec)
    cache = default_cache()
    artifacts_url = absolute(settings.artifacts_url)
    start = ranks.first(lambda: lease.wait(fetch_start(lease.peers, run.start_policy_id, cache)))
    store = CheckpointStore(artifacts_url, lease.run_id, lease.fence, cache)
    attempt = Attempt(lease, settings, run, start, store, artifacts_url)
    publisher = Publisher(lease, start, artifacts_url, run.campaign_id)
    try:
        if run.method is RunMethod.SFT:
            model, version = train_sft(attempt), run.first_version
        else:
            model, version = train_rl(attempt, publisher), final_version(run)
    except RunPausedError:
        ranks.first(lease.pause)
        log.info("run %s is paused after step %d", lease.run_id, lease.step)
        return
    policy = publisher.publish(model, run.publish_name, version, lease.step)
    publisher.prune(version)
    ranks.first(lambda: lease.succeed(policy.id, policy.version))
    log.info("run %s published '%s' version %d", lease.run_id, policy.name, policy.version)


def main() -> None:
    """Parse, train, and leave a named reason when it fails."""
    parser = argparse.ArgumentParser(prog="python -m services.training.execute", description=__doc__)
    parser.add_argument("run_id", type=UUID)
    parser.add_argument("--fence", type=int, required=True)
    parser.add_argument("--result", type=Path, help="where the reason of a failure is written")
    parser.add_argument("--parent", type=int, help="process id to end with")
    arguments = parser.parse_args()
    if arguments.parent is not None:
        die_with(arguments.parent)
    settings = TrainingSettings()
    os.environ.update(trainer_environment(settings.training_threads))
    configure_logging()
    if ranks.processes() == 1:
        see_one_gpu()
    if not ranks.is_first():
        logging.getLogger().setLevel(logging.WARNING)
    try:
        lease = RunLease(settings, arguments.run_id, arguments.fence)
        with lease if ranks.is_first() else nullcontext():
            train_and_publish(lease, settings)
        ranks.part()
    except Exception as error:
        failure = name_failure(error)
        if isinstance(error, RunError):
            log.error("run %s failed: %s", arguments.run_id, failure.sentence)  # noqa: TRY400  a named failure says all
        else:
            log.exception("run %s failed: %s", arguments.run_id, failure.sentence)
        if arguments.result is not None:
            failure.write(arguments.result)
        if ranks.processes() > 1:
            os._exit(EXIT_FAILED)  # torch would wait at its exit for ranks that wait for this one
        sys.exit(EXIT_FAILED)


if __name__ == "__main__":
    main()

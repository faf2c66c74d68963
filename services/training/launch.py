"""A trainer of several processes: `accelerate launch` with them, watched, and a named reason when one of them ends.

`python -m services.training.launch --processes N --result FILE --parent PID -- COMMAND...`, started by a training worker. Every
process runs the command. When one ends, so do the others; they die with this one, and this one with its parent.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from accelerate.commands.launch import launch_command, launch_command_parser
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from services.training.failures import EXIT_FAILED, EXIT_HUNG, EXIT_LOST, Failure, judge_exit
from services.training.processes import die_with
from services.training.settings import TrainingSettings
from shared.contracts.runs import RunFailure

# How the launcher itself ends the processes that are left; nothing that says why.
_ENDED_BY_US = -15


def first_cause(exit_codes: Mapping[int, int]) -> tuple[int, int]:
    """(rank, exit code) of the one that ended first, as far as exit codes say: the others failed because it was gone."""
    causes = {rank: code for rank, code in exit_codes.items() if code not in (0, _ENDED_BY_US)} or exit_codes

    def order(rank: int) -> tuple[bool, bool, bool]:
        code = causes[rank]
        return code != EXIT_LOST, code != EXIT_HUNG, code >= 0

    rank = min(causes, key=order)
    return rank, causes[rank]


def arguments_of_accelerate(processes: int, threads: int, command: Sequence[str]) -> list[str]:
    """What `accelerate launch` is told; whatever a configuration file of the user says about it does not count."""
    where = ["--multi_gpu", "--num_machines", "1", "--gpu_ids", "all", "--main_process_port", "0"]
    how = ["--mixed_precision", "no", "--dynamo_backend", "no", "--num_cpu_threads_per_process", str(threads)]
    program, *arguments = command
    return [*where, "--num_processes", str(processes), *how, "--no_python", program, *arguments]


def too_few_gpus(processes: int) -> Failure | None:
    """Named before NCCL would stumble over it; a machine without any trains on its CPU."""
    import torch

    gpus = torch.cuda.device_count()
    if not torch.cuda.is_available() or gpus >= processes:
        return None
    return Failure(
        RunFailure.CRASHED,
        f"This worker has {gpus} GPUs, and the recipe's distributed.processes says {processes}: give the training worker as "
        "many, or create a campaign with fewer processes.",
    )


def main() -> None:
    """Launch, wait, and leave a named reason when a process was killed."""
    parser = argparse.ArgumentParser(prog="python -m services.training.launch", description=__doc__)
    parser.add_argument("--processes", type=int, required=True)
    parser.add_argument("--result", type=Path, required=True, help="where the reason of a failure is written")
    parser.add_argument("--parent", type=int, required=True, help="process id to end with")
    parser.add_argument("command", nargs="+")
    given = parser.parse_args()
    die_with(given.parent)
    # Everything stays on this machine. A process that does not end when it is asked to is killed soon.
    os.environ |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "3"}
    failure = too_few_gpus(given.processes)
    if failure is not None:
        failure.write(given.result)
        sys.exit(EXIT_FAILED)
    command = [*given.command, "--parent", str(os.getpid())]
    told = arguments_of_accelerate(given.processes, TrainingSettings().training_threads, command)
    try:
        launch_command(launch_command_parser().parse_args(told))
    except SignalException as stopped:
        sys.exit(128 + int(stopped.sigval))
    except ChildFailedError as ended:
        rank, exit_code = first_cause({rank: failure.exitcode for rank, failure in ended.failures.items()})
        if exit_code in (EXIT_FAILED, EXIT_LOST, EXIT_HUNG):
            sys.exit(exit_code)
        killed = judge_exit(exit_code, None)
        sentence = f"Process {rank + 1} of {given.processes} ended, and the others with it. {killed.sentence}"
        given.result.unlink(missing_ok=True)
        Failure(killed.reason, sentence).write(given.result)
        sys.exit(EXIT_FAILED)


if __name__ == "__main__":
    main()

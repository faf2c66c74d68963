"""What the launcher tells accelerate, and what it makes of processes that end."""

from pathlib import Path

import pytest
from accelerate.commands.launch import launch_command_parser

from services.training.attempt import launched
from services.training.failures import EXIT_FAILED, EXIT_HUNG, EXIT_LOST
from services.training.launch import arguments_of_accelerate, first_cause

COMMAND = ["python", "-m", "services.training.execute", "a-run", "--fence", "3"]


@pytest.mark.parametrize(
    ("exit_codes", "cause"),
    [
        ({0: -15, 1: -9}, (1, -9)),
        # The first stumbled over the second, which was killed; both were seen at once.
        ({0: EXIT_FAILED, 1: -9}, (1, -9)),
        ({0: EXIT_FAILED, 1: -15}, (0, EXIT_FAILED)),
        ({0: EXIT_HUNG, 1: EXIT_FAILED, 2: -15}, (0, EXIT_HUNG)),
        ({1: EXIT_FAILED, 0: EXIT_LOST}, (0, EXIT_LOST)),
        ({0: -15, 1: -15}, (0, -15)),
    ],
)
def test_the_cause_is_the_process_that_ended_by_itself(exit_codes: dict[int, int], cause: tuple[int, int]) -> None:
    assert first_cause(exit_codes) == cause


def test_accelerate_is_told_everything_and_runs_the_command_as_it_is() -> None:
    told = launch_command_parser().parse_args(arguments_of_accelerate(8, 2, COMMAND))
    assert (told.multi_gpu, told.num_processes, told.num_machines, told.main_process_port) == (True, 8, 1, 0)
    assert (told.mixed_precision, told.num_cpu_threads_per_process, told.no_python) == ("no", 2, True)
    assert [told.training_script, *told.training_script_args] == COMMAND


def test_one_process_needs_no_launcher() -> None:
    assert launched(COMMAND, 1, Path("result.json")) == COMMAND
    eight = launched(COMMAND, 8, Path("result.json"))
    assert eight[2:5] == ["services.training.launch", "--processes", "8"]
    assert eight[-len(COMMAND) - 1 :] == ["--", *COMMAND]

"""`make setup` is done again for another build of torch, and for nothing else."""

import os
import subprocess
from pathlib import Path

from tests.unit.deploy.deployment import ROOT


def commands(venv: Path, **variables: str) -> str:
    """What `make setup` would do."""
    outer = ("UV_TORCH_BACKEND", "MAKEFLAGS", "MAKELEVEL")  # of a `make test` that runs this
    environment = {name: value for name, value in os.environ.items() if name not in outer} | variables
    command = ["make", "--dry-run", "setup", f"VENV={venv}", "FIND_LINKS="]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout


def test_another_build_of_torch_is_installed_after_a_set_up_and_stays(tmp_path: Path):
    assert "--torch-backend=cpu" in commands(tmp_path)
    cpu = tmp_path / ".headwater-setup-cpu"
    cpu.touch()
    assert "uv pip install" not in commands(tmp_path)
    assert "uv pip install" not in commands(tmp_path, UV_TORCH_BACKEND="cpu")
    again = commands(tmp_path, UV_TORCH_BACKEND="cu130")
    assert "--torch-backend=cu130 --reinstall-package torch" in again, "torch 2.13.0+cpu is torch 2.13.0 to uv"
    assert f"rm -f {cpu}\n" in again
    cpu.rename(tmp_path / ".headwater-setup-cu130")
    assert "uv pip install" not in commands(tmp_path)


def test_torch_stays_when_only_the_requirements_changed(tmp_path: Path):
    stamp = tmp_path / ".headwater-setup-cu130"
    stamp.touch()
    os.utime(stamp, (0, 0))
    again = commands(tmp_path)
    assert "uv pip install" in again
    assert "--reinstall-package" not in again
    assert "rm -f \n" in again, "an installation that is interrupted forgets no build"

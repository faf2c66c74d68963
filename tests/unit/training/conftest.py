"""A model that trains in milliseconds."""

from pathlib import Path

import pytest

from services.training.execute import leave_vllm_out
from services.training.tiny import make_tiny_model

leave_vllm_out()


@pytest.fixture(scope="session")
def tiny_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a model of a few thousand parameters."""
    directory = tmp_path_factory.mktemp("tiny")
    make_tiny_model(directory, hidden_size=32, intermediate_size=64, layers=2, heads=2, max_positions=128)
    return directory

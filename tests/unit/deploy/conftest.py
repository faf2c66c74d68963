"""One rendering a session of everything that is deployed."""

from typing import Any

import pytest

from tests.unit.deploy import deployment


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """The documents of the base and of each overlay."""
    directory = tmp_path_factory.mktemp("k8s")
    return {overlay: deployment.render(overlay, directory) for overlay in ("base", "overlays/dev")}


@pytest.fixture(scope="session", params=["compose", "base", "overlays/dev"])
def deployed(
    request: pytest.FixtureRequest, rendered: dict[str, list[dict[str, Any]]]
) -> dict[str, deployment.Process]:
    """The processes of one description by name."""
    if request.param == "compose":
        return deployment.compose_processes()
    return deployment.kubernetes_processes(rendered[request.param])

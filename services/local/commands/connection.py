"""Options that several commands share, and the way from them to the gateway."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.local.directory import DataDirectory
from services.local.errors import LocalError

if TYPE_CHECKING:
    from services.local.client import Gateway

DataDir = Annotated[Path, typer.Option("--data-dir", envvar="HEADWATER_DATA_DIR", help="Where everything is kept.")]
DEFAULT_DATA_DIR = Path(".headwater")


def gateway(data_dir: Path) -> Gateway:
    """The gateway of HEADWATER_GATEWAY_URL and HEADWATER_API_KEY, else of the stack that runs on the data directory.

    Raises:
        LocalError: nothing runs there yet, or there is no key.
    """
    from services.local.client import Gateway
    from services.local.stack import running

    directory = DataDirectory.at(data_dir)
    url = os.environ.get("HEADWATER_GATEWAY_URL")
    if not url:
        state = running(directory)
        if state is None:
            raise LocalError(
                f"Headwater does not run on {directory.root}: start it with `headwater up`, "
                "or name a gateway with HEADWATER_GATEWAY_URL."
            )
        if not state.urls:
            raise LocalError(
                f"Headwater on {directory.root} still prepares its model; `headwater status` says when it is up."
            )
        url = state.urls["gateway"]
    return Gateway(url, api_key(directory))


def api_key(directory: DataDirectory) -> str:
    """HEADWATER_API_KEY, or the key that set-up made.

    Raises:
        LocalError: there is neither.
    """
    key = os.environ.get("HEADWATER_API_KEY")
    if key:
        return key
    try:
        return directory.api_key.read_text().strip()
    except OSError as error:
        raise LocalError(
            f"There is no API key: {directory.api_key} cannot be read ({error.strerror}) and HEADWATER_API_KEY is not set."
        ) from error

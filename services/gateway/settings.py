"""What only the gateway is told by the environment."""

from pathlib import Path

from shared.settings import Settings


class GatewaySettings(Settings):
    """`api_key_file` (HEADWATER_API_KEY_FILE): where `bootstrap` writes the first API key."""

    api_key_file: Path | None = None

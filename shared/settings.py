"""Where things are: the environment (`HEADWATER_*`), read once in each service's `main`. What to do is the recipe's."""

from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Addresses of everything. Unset addresses have the defaults of `headwater up`.

    `engine_model`: directory of the base weights that the engine was started with; `engine_model_name`: what the user
    called it (`tiny`, `smollm2`, a path or a hub name), as in the recipe's `model.base`. `token_retention_days`: how long the
    pool keeps token ids and log-probabilities that no trainer waits for; 0 for ever.
    """

    model_config = SettingsConfigDict(env_prefix="HEADWATER_", extra="ignore", frozen=True)

    database_url: str = "postgresql+asyncpg://headwater@127.0.0.1:5432/headwater"
    redis_url: str = "redis://127.0.0.1:6379/0"
    gateway_url: str = "http://127.0.0.1:8400"
    pool_url: str = "http://127.0.0.1:8401"
    generation_url: str = "http://127.0.0.1:8402"
    verification_url: str = "http://127.0.0.1:8403"
    training_url: str = "http://127.0.0.1:8404"
    cascade_url: str = "http://127.0.0.1:8405"
    engine_urls: str = "http://127.0.0.1:8500"
    engine_model: str = ""
    engine_model_name: str = "tiny"
    artifacts_url: str = str(Path(".headwater/artifacts"))
    token_retention_days: float = Field(default=14.0, ge=0.0)
    service_token: SecretStr = Field(default=SecretStr(""))

    def engines(self) -> tuple[str, ...]:
        """The engine base URLs, one per replica."""
        return tuple(url.strip().rstrip("/") for url in self.engine_urls.split(",") if url.strip())

    def addresses(self) -> frozenset[tuple[str, int | None]]:
        """(host, port) of our own services and engines."""
        services = (self.gateway_url, self.pool_url, self.generation_url, self.verification_url, self.training_url)
        return frozenset(map(address, (*services, self.cascade_url, *self.engines())))


_DEFAULT_PORTS = {"http": 80, "https": 443}
_LOOPBACK_HOSTS = frozenset({"localhost", "::1", "0.0.0.0", "::"})  # noqa: S104 (names of this machine to compare with)


def address(url: str) -> tuple[str, int | None]:
    """Host and port of a URL, comparable: this machine has one name. Raises ValueError for a URL that cannot be read."""
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    is_here = host in _LOOPBACK_HOSTS or host.startswith("127.") or host.endswith(".localhost")
    return "127.0.0.1" if is_here else host, parts.port or _DEFAULT_PORTS.get(parts.scheme)

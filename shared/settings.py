"""Where things are: the environment (`HEADWATER_*`), read once in each service's `main`. What to do is the recipe's."""

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Addresses of everything. Unset addresses have the defaults of `headwater up`.

    `engine_model`: directory of the base weights that the engine was started with; `engine_model_name`: what the user
    called it (`tiny`, `smollm2`, a path or a hub name), as in the recipe's `model.base`.
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
    service_token: SecretStr = Field(default=SecretStr(""))

    def engines(self) -> tuple[str, ...]:
        """The engine base URLs, one per replica."""
        return tuple(url.strip().rstrip("/") for url in self.engine_urls.split(",") if url.strip())

"""The engine behind generation: made by generation, read by the cascade and the CLI."""

from shared.contracts.base import Contract


class EngineInfo(Contract):
    """GET /v1/engine. `uri` and `content_hash` are those of the base weights it was started with."""

    model_name: str
    uri: str
    content_hash: str
    max_model_tokens: int
    replicas: int
    ready_replicas: int

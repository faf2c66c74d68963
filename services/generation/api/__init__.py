"""HTTP in. `Services` is what the routes need, made once in `main` and kept in `app.state`."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from services.generation.service.chat import ChatService
from services.generation.service.engines import EngineService
from services.generation.service.policies import PolicyService
from services.generation.service.pruning import PruningService
from services.generation.service.sampling import SamplingService


@dataclass(frozen=True)
class Services:
    """The decisions, by subject."""

    policies: PolicyService
    sampling: SamplingService
    chat: ChatService
    engines: EngineService
    pruning: PruningService


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesDependency = Annotated[Services, Depends(_services)]

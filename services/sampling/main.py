"""Wiring of the sampling worker: one drain with HTTP clients made inside its event loop."""

import os
import socket
from collections.abc import Callable

from services.sampling.client import GenerationClient, PoolClient, VerificationClient
from services.sampling.service.drain import Drain, DrainReport
from services.sampling.settings import SamplingSettings
from shared.settings import Settings
from shared.web import service_client


async def drain_once(settings: Settings, own: SamplingSettings, stopping: Callable[[], bool]) -> DrainReport:
    """One drain against the services that the environment names."""
    async with (
        service_client(settings.pool_url, settings) as pool,
        service_client(settings.generation_url, settings) as generation,
        service_client(settings.verification_url, settings) as verification,
    ):
        worker = f"{socket.gethostname()}:{os.getpid()}"
        clients = PoolClient(pool), GenerationClient(generation), VerificationClient(verification)
        return await Drain(*clients, own, worker, stopping).run()

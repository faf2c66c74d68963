# One image a service: docker build --build-arg SERVICE=pool --tag headwater-pool:0.1.0 .
# The engine is vLLM's own image. What an image runs is said by docker-compose.yml and k8s/, which tests hold against the
# process table of `headwater up` (services/local/processes.py).
FROM python:3.11-slim-bookworm AS build
ARG SERVICE
# uv's name of a torch build (cpu, cu130, …); only the training image has torch in it.
ARG TORCH_BACKEND=cpu
RUN pip install --no-cache-dir uv==0.13.9
WORKDIR /build
COPY pyproject.toml ./
COPY requirements ./requirements
RUN : "${SERVICE:?name one, e.g. docker build --build-arg SERVICE=pool .}" \
    && uv venv /opt/venv \
    && uv pip install --python /opt/venv/bin/python --no-cache --compile-bytecode --torch-backend="${TORCH_BACKEND}" \
        --constraint requirements/locked.txt --constraint requirements/torch.txt \
        --requirements pyproject.toml --extra "${SERVICE}"

FROM python:3.11-slim-bookworm
ARG SERVICE
LABEL org.opencontainers.image.title="headwater-${SERVICE}"
# 2000 is also the user `vllm` of vLLM's image: the engine may read what training writes (safetensors are written 0600).
# /artifacts and /keys exist so that an empty volume mounted there belongs to it.
RUN groupadd --gid 2000 headwater \
    && useradd --uid 2000 --gid headwater --create-home headwater \
    && install --directory --owner=headwater --group=headwater /artifacts /keys
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY alembic.ini ./
COPY migrations ./migrations
COPY shared ./shared
COPY services ./services
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 2000:2000
# An API says where it answers (HEALTH_URL); workers have a health check of their own in docker-compose.yml.
ENV HEALTH_URL=""
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --start-interval=1s \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(os.environ['HEALTH_URL'], timeout=4)"]

# syntax=docker/dockerfile:1
# One image for every process: `python -m producer`, `python -m consumer`, ... The last stage is what production runs;
# `--target simulator` adds the provider's simulator. No secret is needed to build it, and none stays in it.
ARG PYTHON_IMAGE=python:3.13-slim-trixie

FROM ${PYTHON_IMAGE} AS packages
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/venv
COPY requirements.txt /tmp/requirements.txt
# wheels alone: nothing is compiled, so the image needs no compiler and runs no setup script
RUN /opt/venv/bin/pip install --require-hashes --only-binary :all: -r /tmp/requirements.txt

FROM ${PYTHON_IMAGE} AS house
# 10001: a number of no account on usual hosts; the folder's owner becomes that of a new volume mounted there
RUN groupadd --gid 10001 scenewire \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin scenewire \
    && install -d -o scenewire -g scenewire -m 0750 /var/lib/scenewire/pictures
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /srv/scenewire
COPY schemas schemas
COPY telemetry telemetry
COPY web web
COPY storage storage
COPY messaging messaging
COPY media media
COPY producer producer
COPY consumer consumer
COPY notifier notifier
COPY client/studio/page client/studio/page

FROM house AS simulator
COPY --from=packages /opt/venv /opt/venv
COPY local/__init__.py local/__init__.py
COPY local/modelslab local/modelslab
# compiled here: the root file system is read-only where it runs
RUN python -m compileall -q .
USER 10001:10001
CMD ["python", "-m", "local.modelslab", "--host", "0.0.0.0"]

FROM house AS scenewire
COPY --from=packages /opt/venv /opt/venv
RUN python -m compileall -q .
USER 10001:10001
# which process it is says the command: see compose.yaml
CMD ["python", "-m", "producer", "--host", "0.0.0.0"]

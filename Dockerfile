# syntax=docker/dockerfile:1
# The service with its models: serving dependencies only, no compiler, no training code, no root.
#
#   docker build --tag digits .                                    PyTorch's CPU build
#   docker build --tag digits-gpu --build-arg TORCH_INDEX= .       PyPI's build, with CUDA: several GB larger

ARG PYTHON_VERSION=3.13

FROM python:${PYTHON_VERSION}-slim AS build
# The package index of torch; empty for PyPI.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
RUN python -m venv /opt/venv
COPY constraints.txt ./
# A layer of its own: the largest by far, and the one that changes least.
RUN /opt/venv/bin/pip install --constraint constraints.txt --no-deps ${TORCH_INDEX:+--index-url "${TORCH_INDEX}"} torch
COPY pyproject.toml README.md LICENSE ./
COPY app ./app
# Extras of the service, such as tracing.
ARG EXTRAS=
RUN /opt/venv/bin/pip install --constraint constraints.txt ".${EXTRAS:+[${EXTRAS}]}"

FROM python:${PYTHON_VERSION}-slim
COPY --from=build /opt/venv /opt/venv
COPY models /srv/models
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    DIGITS_HOST=0.0.0.0 \
    DIGITS_PORT=8000 \
    DIGITS_MODELS_DIR=/srv/models
WORKDIR /srv
# A number, so that Kubernetes can see that it is not root.
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ['DIGITS_PORT']}/readyz\", timeout=2)"]
CMD ["python", "-m", "app"]

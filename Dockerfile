# syntax=docker/dockerfile:1
# The service with its models: serving dependencies only, no compiler, no training code, no root.
#
#   docker build --tag digits .
#   docker build --tag digits --build-arg TORCH_INDEX=<index of CPU builds, see the README> .

ARG PYTHON_VERSION=3.13

FROM python:${PYTHON_VERSION}-slim AS build
# Empty: torch as PyPI has it, which brings CUDA. An index of CPU builds makes the image several GB smaller.
ARG TORCH_INDEX=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
RUN python -m venv /opt/venv
# Torch first and by itself: the largest layer by far, and the one that changes least.
RUN if [ -n "${TORCH_INDEX}" ]; then \
        /opt/venv/bin/pip install "torch>=2.9" --index-url "${TORCH_INDEX}"; \
    else \
        /opt/venv/bin/pip install "torch>=2.9"; \
    fi
COPY pyproject.toml README.md LICENSE ./
COPY app ./app
RUN /opt/venv/bin/pip install .

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

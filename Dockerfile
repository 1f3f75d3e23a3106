# The gateway. Its model container has its own file, modal_backend/Dockerfile; docker-compose.yml joins the two.
#   docker build -t modal-gateway .
#   docker build -t modal-gateway --build-arg EXTRAS=modal .
#   docker run -p 127.0.0.1:8000:8000 -e GATEWAY_API_KEY -v ./config:/app/config:ro modal-gateway

# Which lock is installed. server: what a gateway needs with PostgreSQL, Redis, traces, tokenizers and an identity
# provider. modal: the Modal SDK too, for `kind: modal`.
ARG EXTRAS=server

FROM python:3.13.9-slim-bookworm AS build
ARG EXTRAS
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python -m venv /venv
COPY requirements-${EXTRAS}.lock requirements-build.lock ./
# What builds the wheel stays out of the environment that runs it.
RUN /venv/bin/pip install --require-hashes --no-deps -r "requirements-${EXTRAS}.lock" \
    && pip install --require-hashes --no-deps -r requirements-build.lock
COPY pyproject.toml README.md ./
COPY gateway gateway
COPY modal_backend modal_backend
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /venv/bin/pip install --no-deps --no-index /wheels/*.whl \
    && /venv/bin/pip uninstall --yes pip

FROM python:3.13.9-slim-bookworm
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin gateway \
    && install --directory --owner=gateway /data
COPY --from=build /venv /venv
COPY config/gateway.yaml config/compose.yaml /app/config/
# Keys and the ledger lie on a volume: all else may be mounted read-only.
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    GATEWAY_DATABASE_URL=sqlite:////data/gateway.db GATEWAY_SPOOL=/data/spool
WORKDIR /app
USER 10001
VOLUME /data
EXPOSE 8000
# Not urllib, which would send this through a proxy that the environment names.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["python", "-c", \
    "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8000, timeout=4); c.request('GET', '/health/live'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["modal-gateway"]
CMD ["serve", "--config", "/app/config/gateway.yaml", "--host", "0.0.0.0"]

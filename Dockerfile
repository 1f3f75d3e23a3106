# The gateway. Its model container has its own file, modal_backend/Dockerfile; docker-compose.yml joins the two.
#   docker build -t modal-gateway .
#   docker run -p 127.0.0.1:8000:8000 -e GATEWAY_API_KEY -v ./config:/app/config:ro modal-gateway

FROM python:3.13.9-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python -m venv /venv
COPY requirements.lock requirements-build.lock ./
RUN /venv/bin/pip install --require-hashes --no-deps -r requirements.lock
# What builds the wheel stays out of the environment that runs it.
RUN pip install --require-hashes --no-deps -r requirements-build.lock
COPY pyproject.toml README.md ./
COPY gateway gateway
COPY modal_backend modal_backend
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /venv/bin/pip install --no-deps --no-index /wheels/*.whl

FROM python:3.13.9-slim-bookworm
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin gateway \
    && install --directory --owner=gateway /data
COPY --from=build /venv /venv
COPY config /app/config
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
USER 10001
# For a store such as sqlite:////data/gateway.db: all else may be mounted read-only.
VOLUME /data
EXPOSE 8000
# Not urllib, which would send this through a proxy that the environment names.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["python", "-c", \
    "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8000, timeout=4); c.request('GET', '/health/live'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["modal-gateway"]
CMD ["serve", "--config", "/app/config/gateway.yaml", "--host", "0.0.0.0"]

# One image for the hub (default) and, built with `--build-arg EXTRAS=worker,train`, for a worker.
FROM python:3.11-slim

ARG EXTRAS=server
RUN apt-get update \
 && apt-get install --yes --no-install-recommends git \
 && rm -rf /var/lib/apt/lists/*

WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY server server
COPY ah_cli ah_cli
COPY worker worker
COPY train_template train_template
COPY migrations migrations
RUN pip install --no-cache-dir -c constraints.txt ".[${EXTRAS}]"

# An unprivileged user owns the volumes of data and of a worker's caches.
RUN useradd --create-home --uid 10001 agenthub \
 && mkdir /data /home/agenthub/.cache \
 && chown agenthub /data /home/agenthub/.cache
USER agenthub
VOLUME /data
EXPOSE 8080
ENV AGENTHUB_DATA=/data AGENTHUB_LISTEN=:8080 PYTHONUNBUFFERED=1

CMD ["agenthub", "serve"]

# One image for every process of ours: the API, the worker and the commands (`python -m tools …`).
FROM python:3.11.15-slim AS packages
COPY requirements/runtime.txt /runtime.txt
RUN python -m venv /venv \
    && /venv/bin/pip install --no-cache-dir --no-deps --require-hashes --only-binary :all: -r /runtime.txt

FROM python:3.11.15-slim
RUN useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin holdfast \
    && install --directory --owner holdfast --group holdfast --mode 0700 /keys /seal /checkpoints /prices
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY --from=packages /venv /venv
WORKDIR /app
COPY . .
# Each run of a workflow loads its file again, in a sandbox of its own: without bytecode it is compiled each time.
RUN python -m compileall -q --invalidation-mode unchecked-hash .
USER 10001:10001
CMD ["python", "-m", "api"]

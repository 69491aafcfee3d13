# The daemon, for a PostgreSQL of yours: set COORDINATOR_DATABASE_URL. Built without the embedded server.
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md ./
COPY coordinator ./coordinator
COPY sql ./sql
ENV PIP_CONSTRAINT=/src/constraints.txt PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/coordinator && /opt/coordinator/bin/pip install --quiet .

FROM python:3.13-slim
RUN useradd --system --uid 10001 --no-create-home coordinator
COPY --from=build /opt/coordinator /opt/coordinator
ENV PATH=/opt/coordinator/bin:$PATH PYTHONUNBUFFERED=1
USER 10001
EXPOSE 7420
STOPSIGNAL SIGTERM
ENTRYPOINT ["coordinator"]
CMD ["serve", "--host", "0.0.0.0"]

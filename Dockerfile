# The daemon, the sidecar and the command line. Set COORDINATOR_DATABASE_URL to your PostgreSQL; or build with
# --build-arg EXTRAS=embedded, which adds a private PostgreSQL, and mount a volume for its data at /var/lib/coordinator.
# The container runs as 10001:10001 on a read-only root file system and needs no capability.
FROM python:3.13-slim AS build
ARG EXTRAS=""
WORKDIR /src
COPY pyproject.toml constraints.txt README.md ./
COPY coordinator ./coordinator
COPY sql ./sql
ENV PIP_CONSTRAINT=/src/constraints.txt PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# The running image installs nothing, so its environment has no pip.
RUN python -m venv --without-pip /opt/coordinator \
 && python -m pip --python /opt/coordinator/bin/python install --quiet ".${EXTRAS:+[$EXTRAS]}"

FROM python:3.13-slim
RUN groupadd --gid 10001 coordinator \
 && useradd --uid 10001 --gid 10001 --no-log-init --no-create-home --home-dir /var/lib/coordinator coordinator \
 && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/coordinator
COPY --from=build /opt/coordinator /opt/coordinator
ENV PATH=/opt/coordinator/bin:$PATH PYTHONUNBUFFERED=1 COORDINATOR_DATA_DIR=/var/lib/coordinator
USER 10001:10001
EXPOSE 7420
STOPSIGNAL SIGTERM
ENTRYPOINT ["coordinator"]
CMD ["serve", "--host", "0.0.0.0"]

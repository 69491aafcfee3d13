# The daemon, the sidecar and the command line. Set COORDINATOR_DATABASE_URL to your PostgreSQL; or build with
# --build-arg EXTRAS=embedded, which adds a private PostgreSQL, and mount a volume for its data at /var/lib/coordinator. Extras mcp, otel,
# s3 and top are built in the same way: --build-arg EXTRAS="mcp s3".
# The container runs as 10001:10001 on a read-only root file system and needs no capability.
#
# Packages are those of deploy/image/*.txt, with their hashes. The base has a tag: write its digest behind it (@sha256:…) once you have
# chosen one.
FROM python:3.13 AS build
ARG EXTRAS=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY deploy/image ./deploy/image
# The running image installs nothing, so its environment has no pip. What builds has an environment of its own.
RUN python -m venv --without-pip /opt/build \
 && python -m venv --without-pip /opt/coordinator \
 && python -m pip --python /opt/build/bin/python install --quiet --require-hashes --only-binary=:all: \
      --requirement deploy/image/build.txt \
 && for each in run $EXTRAS; do \
      python -m pip --python /opt/coordinator/bin/python install --quiet --require-hashes --only-binary=:all: --no-deps \
        --requirement "deploy/image/$each.txt" || exit 1; \
    done
COPY pyproject.toml README.md ./
COPY coordinator ./coordinator
COPY sql ./sql
# Half of what the packages bring is symbols for debuggers.
RUN python -m pip --python /opt/build/bin/python wheel --quiet --no-deps --no-index --no-build-isolation --wheel-dir /tmp/wheel . \
 && python -m pip --python /opt/coordinator/bin/python install --quiet --no-deps --no-index /tmp/wheel/*.whl \
 && install -D --mode=0644 deploy/image/healthcheck.py /opt/coordinator/share/healthcheck.py \
 && python -m pip --python /opt/coordinator/bin/python check \
 && find /opt/coordinator -path '*/pginstall*' -prune -o -name '*.so' -exec strip --strip-unneeded {} + \
 && /opt/build/bin/cyclonedx-py environment --output-reproducible --output-file /opt/coordinator/share/sbom.cdx.json \
      /opt/coordinator/bin/python

FROM python:3.13-slim
RUN groupadd --gid 10001 coordinator \
 && useradd --uid 10001 --gid 10001 --no-log-init --no-create-home --home-dir /var/lib/coordinator coordinator \
 && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/coordinator
COPY --from=build /opt/coordinator /opt/coordinator
ENV PATH=/opt/coordinator/bin:$PATH PYTHONUNBUFFERED=1 COORDINATOR_DATA_DIR=/var/lib/coordinator
USER 10001:10001
EXPOSE 7420
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=90s CMD ["python", "/opt/coordinator/share/healthcheck.py"]
ENTRYPOINT ["coordinator"]
CMD ["serve", "--host", "0.0.0.0"]

# Build: docker build -t tracardi-lite .
# Run:   docker run -p 8686:8686 -v tracardi-lite:/data tracardi-lite
# Settings come as environment variables (docs/settings.md); a port is better set by TRACARDI_LITE_PORT than by
# --port, since the health check reads the same environment.
FROM python:3.11-slim AS build
WORKDIR /source
RUN python -m venv /opt/tracardi-lite
COPY pyproject.toml setup.cfg README.md LICENSE ./
COPY src src
# src/tracardi_lite/backends is a link to it.
COPY backends backends
# Client libraries of served backends, by the names in setup.cfg: --build-arg EXTRAS=redis,pulsar
ARG EXTRAS=""
RUN /opt/tracardi-lite/bin/pip install --no-cache-dir ".${EXTRAS:+[$EXTRAS]}"

FROM python:3.11-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin tracardi-lite \
 && install --directory --owner=10001 --group=tracardi-lite /data
COPY --from=build /opt/tracardi-lite /opt/tracardi-lite
ENV PATH=/opt/tracardi-lite/bin:$PATH \
    TRACARDI_LITE_HOST=0.0.0.0 \
    TRACARDI_LITE_DATA_DIR=/data
USER 10001
WORKDIR /data
VOLUME /data
EXPOSE 8686
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=6s --start-period=20s --retries=3 CMD ["tracardi-lite", "healthcheck"]
ENTRYPOINT ["tracardi-lite"]
CMD ["serve"]

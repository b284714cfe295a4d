# The gateway as a container image: compiled in a first stage, without a compiler in the second.
#
#   docker build -t tokenhub .
#   docker run -p 127.0.0.1:8080:8080 -e TOKENHUB_ADMIN_TOKEN -e OPENAI_API_KEY -v tokenhub:/var/lib/tokenhub tokenhub
#
# See docs/deployment.md. Any Debian-based image of Python 3.11, 3.12 or 3.13 can be the base, such as
# --build-arg BASE=python:3.13-slim-trixie; the repository tests 3.11.

ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
# The compiler stays in this stage, so any version of the distribution is fine.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY deploy/docker/build.txt deploy/docker/runtime.txt ./deploy/docker/
# An environment for the interpreter at the same path in the final stage, without a pip of its own.
RUN python -m venv --without-pip /opt/tokenhub \
 && pip install -r deploy/docker/build.txt \
 && pip --python /opt/tokenhub/bin/python install --only-binary :all: -r deploy/docker/runtime.txt
COPY setup.py setup.cfg pyproject.toml README.md LICENSE ./
COPY proxy ./proxy
# =1: a failed compilation is an error and not a slower image.
RUN TOKENHUB_COMPILE=1 pip wheel --no-deps --no-build-isolation -w /wheel . \
 && pip --python /opt/tokenhub/bin/python install --no-deps /wheel/*.whl \
 && /opt/tokenhub/bin/tokenhub --version

FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=
ARG CREATED=
LABEL org.opencontainers.image.title="TokenHub" \
      org.opencontainers.image.description="A self-hosted gateway for LLM APIs that streams bodies through" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
RUN install -d -o 65532 -g 65532 -m 0700 /var/lib/tokenhub
COPY --from=build /opt/tokenhub /opt/tokenhub
COPY deploy/docker/config /etc/tokenhub
# This is the name of a file and not a secret.
# hadolint ignore=DL3064
ENV PATH=/opt/tokenhub/bin:$PATH TOKENHUB_CONFIG=/etc/tokenhub/routes.toml
# A number, so that Kubernetes can see that it is not root (runAsNonRoot).
USER 65532:65532
WORKDIR /var/lib/tokenhub
# Keys, totals, the ledger.
VOLUME ["/var/lib/tokenhub"]
EXPOSE 8080 8081
# Checks that the process is alive; /readyz says whether it can serve. Override it if [server] listen has another port
# than 8080.
HEALTHCHECK --interval=30s --timeout=3s --start-period=20s CMD ["python", "-ISc", "\
from http.client import HTTPConnection\n\
ask = HTTPConnection('127.0.0.1', 8080, timeout=2)\n\
ask.request('GET', '/healthz')\n\
raise SystemExit(ask.getresponse().status != 200)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["tokenhub"]
CMD ["serve"]

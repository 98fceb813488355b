# A small image: the pinned versions of the modern stack, CPU wheels, a user without rights.
#
#   docker build -t cpuaccel --build-arg TORCH_INDEX=URL .
#
# URL is the index of torch's CPU builds, which PyTorch's "Get Started" page names.
FROM python:3.11-slim AS build
ARG TORCH_INDEX
RUN test -n "$TORCH_INDEX" || { echo "pass --build-arg TORCH_INDEX=URL: see the Dockerfile"; exit 1; }
RUN python -m venv /venv
COPY requirements/modern.txt /constraints.txt
# Only torch comes from that index, which does not have the pinned versions of what it needs.
RUN /venv/bin/pip install --no-cache-dir --no-deps -c /constraints.txt --index-url "$TORCH_INDEX" torch
COPY . /source
RUN /venv/bin/pip install --no-cache-dir -c /constraints.txt "/source[transformers,openvino]"

FROM python:3.11-slim
# Backends that generate compile their kernels once. The base image decides about Debian's versions.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends g++ libjemalloc2 \
  && rm -rf /var/lib/apt/lists/* \
  && useradd --create-home --uid 1000 cpuaccel
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1
# A number, so that a cluster can check that it is not root.
USER 1000
WORKDIR /home/cpuaccel
ENTRYPOINT ["cpuaccel"]
CMD ["doctor"]

# zo in a container: docker build -t zo . ; docker run --rm -v "$PWD/runs:/work/runs" zo run task=sentiment
# For a GPU, give a base image that has CUDA and Python 3.11 (--build-arg BASE=...), and run with --gpus all.
ARG BASE=python:3.11-slim
FROM ${BASE}

# The native kernels are compiled at their first use.
RUN apt-get update && apt-get install -y --no-install-recommends g++ git && rm -rf /var/lib/apt/lists/*

COPY . /src
RUN pip install --no-cache-dir --constraint /src/constraints.txt "/src[experiments,report]" && rm -rf /src

WORKDIR /work
ENTRYPOINT ["zo"]
CMD ["doctor"]

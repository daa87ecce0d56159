# The service, without PyTorch:
#
#   docker build -t gradserve .
#   docker run --rm -p 127.0.0.1:8000:8000 -v "$PWD/artifacts:/app/artifacts:ro" gradserve
#
# With what artifacts from an object store (s3://…) and traces (GRADSERVE_OTLP_ENDPOINT) need:
#
#   docker build --build-arg LOCK=s3 -t gradserve .
#
# The image holds no artifact. The training jobs have an image of their own, Dockerfile.train: in
# one file with this one, a builder without BuildKit would install PyTorch on its way here.

ARG BASE_IMAGE=python:3.11-slim

FROM ${BASE_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv --without-pip /opt/venv
WORKDIR /build
# The packages before the code, so that a change of the code does not install them anew.
COPY locks/build.txt locks/service.txt locks/s3.txt locks/
ARG LOCK=service
RUN python -m pip --python /opt/venv/bin/python install --no-deps --require-hashes -r locks/${LOCK}.txt
# A third of that is never run here: the packages' own tests, what others are compiled with, NumPy's
# build tools (distutils up to Python 3.11), ONNX Runtime's model converters, its second copy of itself
# for programs written in C, and protobuf, which it asks for and does not import (what sends traces does).
RUN cd /opt/venv/lib/python3*/site-packages \
 && rm -r numpy/f2py onnxruntime/transformers onnxruntime/quantization onnxruntime/tools \
          onnxruntime/capi/libonnxruntime.so.* \
 && rm -rf numpy/distutils \
 && if [ "$LOCK" = service ]; then rm -r google/protobuf google/_upb; fi \
 && find . -type d -name tests -prune -exec rm -r {} + \
 && find . -type f \( -name "*.pyi" -o -name "*.pyx" -o -name "*.px[di]" -o -name "*.[ach]" \) -delete
# What `pip install gradserve` gives: the wheel's own files. Their modes come from here, not from a clone
# under umask 077, in which only the owner may read them. (COPY --chmod would need BuildKit.)
COPY . .
RUN touch README.md \
 && python -m venv /opt/build \
 && /opt/build/bin/python -m pip install --no-deps --require-hashes -r locks/build.txt \
 && /opt/build/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
 && python -m pip --python /opt/venv/bin/python install --no-deps --no-index dist/*.whl \
 && /opt/venv/bin/python -m compileall -q /opt/venv/lib \
 && chmod -R a+rX /opt/venv

FROM ${BASE_IMAGE} AS api
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
COPY --from=build /opt/venv /opt/venv
USER 10001:10001
EXPOSE 8000
# http.client takes no notice of a proxy in the environment, as urllib would.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["python", "-c", \
    "import http.client as h, sys; c = h.HTTPConnection('127.0.0.1', 8000, timeout=4); c.request('GET', '/health/ready'); sys.exit(c.getresponse().status != 200)"]
CMD ["gradserve", "serve", "--host", "0.0.0.0", "--port", "8000"]

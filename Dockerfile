# One image for every worker and the API. EXTRA=gpu adds torch and all that trains and serves.
# The first stage has the C compiler that the readers are built with.
FROM python:3.13 AS built
ARG EXTRA=""
WORKDIR /rillfold
COPY setup/uv.txt setup/uv.txt
RUN pip install --no-cache-dir --require-hashes --target /opt/uv -r setup/uv.txt
COPY . .
# The lock constrains: each version is the locked one, each file has a locked hash.
RUN /opt/uv/bin/uv venv /opt/rillfold \
 && /opt/uv/bin/uv pip install --python /opt/rillfold --no-cache --constraint requirements.lock ".${EXTRA:+[$EXTRA]}"

FROM python:3.13-slim
COPY --from=built /opt/rillfold /opt/rillfold
ENV PATH=/opt/rillfold/bin:$PATH
RUN useradd --create-home rillfold && install --directory --owner rillfold /data
USER rillfold
WORKDIR /data
VOLUME /data
ENTRYPOINT ["rillfold"]

# One image for every worker and the API. EXTRA=gpu adds torch and all that trains and serves.
FROM python:3.13-slim
ARG EXTRA=""
WORKDIR /rillfold
COPY setup/uv.txt setup/uv.txt
RUN pip install --no-cache-dir --require-hashes --target /opt/uv -r setup/uv.txt
COPY . .
# The lock constrains: each version is the locked one, each file has a locked hash.
RUN /opt/uv/bin/uv pip install --system --no-cache --constraint requirements.lock ".${EXTRA:+[$EXTRA]}" \
 && useradd --create-home rillfold && install --directory --owner rillfold /data
USER rillfold
WORKDIR /data
VOLUME /data
ENTRYPOINT ["rillfold"]

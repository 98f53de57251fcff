"""llama.cpp's own server out of the package xllamacpp, in a process of its own; ends when whoever started it does.

Given its settings as one JSON object on the command line.
"""

import json
import sys
from collections.abc import Mapping
from typing import Any

import xllamacpp


def serve(told: Mapping[str, Any]) -> None:
    settings = xllamacpp.CommonParams()
    settings.model.path = told["model"]
    settings.port = told["port"]
    settings.n_parallel, settings.n_ctx = told["rows"], told["context"]
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = told["threads"]
    settings.lora_init_without_apply = True
    settings.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(file, 0.0) for file in told["adapters"]]
    if told["float32"]:
        settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(settings)
    sys.stdin.read()
    del server


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))

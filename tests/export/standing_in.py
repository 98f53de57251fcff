"""Not llama-server, but its options, read as it reads them, and llama.cpp behind them."""

import argparse

from gpu_workers.export.llama_child import serve

parser = argparse.ArgumentParser(allow_abbrev=False)
for name in ("--host", "--model"):
    parser.add_argument(name, required=True)
for name in ("--port", "--ctx-size", "--parallel", "--threads"):
    parser.add_argument(name, type=int, required=True)
for name in ("--jinja", "--lora-init-without-apply"):
    parser.add_argument(name, action="store_true", required=True)
parser.add_argument("--lora", action="append", default=[])
for name in ("--cache-type-k", "--cache-type-v"):
    parser.add_argument(name, choices=["f32", "f16"], default="f16")
parser.add_argument("--flash-attn", choices=["on", "off", "auto"], default="auto")
told = parser.parse_args()
given = {"model": told.model, "adapters": told.lora, "port": told.port, "threads": told.threads}
given["float32"] = (told.cache_type_k, told.cache_type_v, told.flash_attn) == ("f32", "f32", "off")
serve(given | {"rows": told.parallel, "context": told.ctx_size})

"""llama.cpp for Python programs: a base and adapters that were exported, started, asked and stopped.

with LlamaCppClient("out/smollm2-135m-instruct-F32.gguf", {"acme/default": "out/adapter.gguf"}) as llama:
    print(llama.chat([{"role": "user", "content": "Refund 12 euros."}], tools, adapter="acme/default"))
"""

from collections.abc import Mapping
from pathlib import Path

from gpu_workers.export.llama_chat import LlamaChat
from gpu_workers.export.llama_server import LlamaSetup
from rillfold.settings import from_env


class LlamaCppClient(LlamaChat):
    """`llama-server` under LLAMA_CPP_PATH, else the package xllamacpp, in a process of its own."""

    def __init__(
        self,
        model_path: str | Path,
        adapters: Mapping[str, str | Path] | None = None,
        *,
        llama_cpp_path: str | Path | None = None,
        port: int = 0,
        context: int = LlamaSetup.context,
        rows: int = LlamaSetup.rows,
        threads: int = LlamaSetup.threads,
        seconds: float = LlamaSetup.seconds,
        float32: bool = LlamaSetup.float32,
    ) -> None:
        """`adapters`: GGUF files by the name that a question gives. `context`: tokens of a question and its answer;
        `rows`: questions answered at once; `seconds`: so long a start, or an answer, may take; `float32`: keys,
        values and attention as well, for who compares token by token."""
        given = adapters or {}
        program = Path(llama_cpp_path) if llama_cpp_path else from_env().llama_cpp_path
        files = tuple(Path(file) for file in given.values())
        numbers = (port, context, rows, threads, seconds, float32)
        super().__init__(LlamaSetup(Path(model_path), files, program, *numbers), [*given])

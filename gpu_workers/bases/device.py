"""Where tensors live, in which precision, and everything about the machine that decides an adapter's bytes."""

from __future__ import annotations

import platform
import resource
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from gpu_workers.bases.host import host_memory

LIBRARIES = ("torch", "transformers", "peft", "tokenizers", "safetensors")


@dataclass(frozen=True)
class Device:
    """Threads are part of it: the same run with another count gives other bytes."""

    kind: str
    dtype: str
    threads: int
    tf32: bool = False
    """Of a GPU: products of float32 numbers are rounded to 10 bits before they are multiplied."""

    @classmethod
    def best(cls, threads: int | None = None) -> Device:
        """bf16 on a GPU that has it, f32 elsewhere."""
        threads = threads or torch.get_num_threads()
        if torch.cuda.is_available():
            return cls("cuda", "bfloat16" if torch.cuda.is_bf16_supported() else "float32", threads)
        return cls("cpu", "float32", threads)

    @property
    def torch_dtype(self) -> torch.dtype:
        dtype = getattr(torch, self.dtype)
        assert isinstance(dtype, torch.dtype)
        return dtype

    def named(self) -> str:
        """For whoever has to look at it."""
        return f"{self.kind} ({self._hardware()})"

    def _hardware(self) -> str:
        return torch.cuda.get_device_name() if self.kind == "cuda" else platform.machine()

    def held(self) -> int:
        """Bytes that this process has of the memory in which its models lie. A page that several processes map counts
        as a share of it."""
        if self.kind == "cuda":
            return torch.cuda.memory_reserved()
        if (pages := Path("/proc/self/smaps_rollup")).exists():
            return (
                next(int(line.split()[1]) for line in pages.read_text().splitlines() if line.startswith("Pss:")) << 10
            )
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most << 10

    def free(self) -> int | None:
        """Bytes that this process may still have there, also of what it took before and holds nothing in; None: nobody
        tells."""
        if self.kind == "cuda":
            return torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        if not (told := Path("/proc/meminfo")).exists():
            return None
        available = next(
            int(line.split()[1]) << 10 for line in told.read_text().splitlines() if line.startswith("MemAvailable:")
        )
        return max(0, min(available, host_memory() - self.held()))

    def keep_to(self, share: float) -> None:
        """This process takes no more than such a share of a GPU's memory: what would be more is out of memory. Of a
        CPU's memory nothing is bounded here."""
        if self.kind == "cuda":
            torch.cuda.set_per_process_memory_fraction(share)

    def pin(self) -> None:
        """Fix what can vary between two runs on one machine."""
        torch.set_num_threads(self.threads)
        torch.use_deterministic_algorithms(True)
        # A debugging aid that costs time.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = False
        torch.backends.cuda.matmul.allow_tf32 = self.tf32
        if self.kind == "cuda":
            torch.backends.cuda.enable_flash_sdp(False)
            torch.backends.cuda.enable_mem_efficient_sdp(False)

    def identity(self) -> dict[str, object]:
        """Two machines that agree on all of this give the same bytes."""
        return {
            "device": self._hardware(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "dtype": "tf32" if self.tf32 else self.dtype,
            "threads": self.threads,
            "python": platform.python_version(),
            "libraries": {name: version(name) for name in LIBRARIES},
        }

"""What agents on one model are configured by: seven AOS_* variables, and beneath them the settings of serving."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec

from rillfold.settings import Settings, given_by

PREFIX = "AOS_"
PORT = 8702
"""Beside the serving worker's, which may run on the same machine."""

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Count = Annotated[int, msgspec.Meta(ge=1)]
InFlight = Annotated[int, msgspec.Meta(ge=1, le=1024)]
Share = Annotated[float, msgspec.Meta(gt=0, le=1)]


class LoRAxConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What one engine with its adapters may take."""

    base_model: str | None = None
    """A packaged name, a name of RILLFOLD_BASE_MODELS, or a folder. None: what RILLFOLD_BASE_MODEL says."""
    port: Port = PORT
    """0: any free one."""
    adapter_cache_size: Count = 100
    max_concurrent_requests: InFlight = 128
    max_batch_size: Count = 32
    gpu_memory_utilization: Share = 0.9
    """The share of a GPU's memory that this process may take; no GPU, no bound."""

    def over(self, settings: Settings) -> Settings:
        """The settings of an engine that serves agents: their roles are one operator's, so none bounds another's
        adapters."""
        return msgspec.structs.replace(
            settings,
            base_model=self.base_model or settings.base_model,
            serve_port=self.port,
            serve_rows=self.max_batch_size,
            serve_adapters=self.adapter_cache_size,
            serve_company_adapters=self.adapter_cache_size,
        )


STANDARD = LoRAxConfig()


class MLConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Each field is read from AOS_<FIELD>."""

    enable_lorax: bool = True
    """False: `start_lorax_server` refuses, so that one variable keeps a machine free of models."""
    lorax_base_model: str | None = None
    lorax_port: Port = STANDARD.port
    lorax_adapter_cache_size: Count = STANDARD.adapter_cache_size
    lorax_max_concurrent_requests: InFlight = STANDARD.max_concurrent_requests
    lorax_max_batch_size: Count = STANDARD.max_batch_size
    lorax_gpu_memory_utilization: Share = STANDARD.gpu_memory_utilization

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> MLConfig:
        """A value that cannot be used stops the program with the variable's name."""
        return cls(**given_by(cls, PREFIX, environ))  # type: ignore[arg-type]

    def lorax(self) -> LoRAxConfig:
        given = msgspec.structs.asdict(self)
        return LoRAxConfig(**{name: given[f"lorax_{name}"] for name in LoRAxConfig.__struct_fields__})

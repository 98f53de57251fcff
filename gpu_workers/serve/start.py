"""Puts the embedded engine together: base model, decoder, template, and how adapters are read."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from gpu_workers import base_model
from gpu_workers.artifacts import ArtifactStore, verify
from gpu_workers.base_files import Progress, silent
from gpu_workers.chat import Chat
from gpu_workers.device import Device
from gpu_workers.errors import ArtifactMissing
from gpu_workers.serve.adapter_file import LoraWeights, read_adapter
from gpu_workers.serve.admission import Bounds
from gpu_workers.serve.decoder import Decoder
from gpu_workers.serve.embedded import Base, EmbeddedEngine, Read
from gpu_workers.serve.engine import Engine
from gpu_workers.serve.errors import AdapterUnreadable, BaseMismatch, UnusableAdapter
from gpu_workers.serve.port import AdapterSpec
from gpu_workers.serve.proof import Proof
from gpu_workers.serve.schedule import Limits


@dataclass(frozen=True)
class Serving:
    """How much the engine holds at once."""

    device: Device = field(default_factory=Device.best)
    limits: Limits = field(default_factory=Limits)
    capacity: int = 100
    """Adapters in memory."""
    company_adapters: int = 0
    company_waiting: int = 0

    @classmethod
    def of(cls, dtype: str, threads: int, rows: int, **bounds: int) -> Serving:
        """auto and 0 mean: what suits this machine."""
        device = Device.best(threads or os.cpu_count())
        if dtype != "auto":
            device = replace(device, dtype=dtype)
        return cls(device, Limits(rows=rows), **bounds)

    def bounds(self) -> Bounds:
        return Bounds.of(self.capacity, self.limits.waiting, self.company_adapters, self.company_waiting)


def embedded(
    name_or_path: str,
    cache: Path,
    serving: Serving,
    store: ArtifactStore | None = None,
    progress: Progress = silent,
    name: str | None = None,
) -> EmbeddedEngine:
    """Reads the base model: seconds. The engine works inside `async with`."""
    model, tokenizer, identity = base_model.load(name_or_path, cache, serving.device, progress, name)
    decoder, chat = Decoder(model), Chat.of(tokenizer)
    stops = frozenset({chat.end, *_end_tokens(model.generation_config.eos_token_id)})

    def make_engine() -> Engine:
        torch.set_num_threads(serving.device.threads)  # counts for the calling thread: the engine's own
        return Engine(decoder, stops, serving.limits)

    longest = decoder.cache(serving.limits.halves()[1].cells).usable
    base = Base(identity.name, identity.sha256, min(decoder.context, longest))
    read = _reader(decoder, Proof(model), base, store)
    return EmbeddedEngine(make_engine, base, chat, read, serving.bounds())


def _reader(decoder: Decoder, prove: Proof, base: Base, store: ArtifactStore | None) -> Read:
    def read(spec: AdapterSpec) -> LoraWeights:
        if spec.base_sha256 not in (None, base.sha256):
            raise BaseMismatch(
                f"adapter {spec.key} was trained on base {spec.base_sha256}, here is {base.name} with {base.sha256}."
            )
        weights = read_adapter(_verified(spec, store), decoder.embedding.dtype, str(decoder.embedding.device))
        _check_fit(spec, weights, decoder)
        prove(weights)
        return weights

    def named(spec: AdapterSpec) -> LoraWeights:
        """The world is in the way, and may get out of it; everything else is the adapter's fault."""
        try:
            return read(spec)
        except UnusableAdapter:
            raise
        except (ArtifactMissing, OSError, MemoryError, torch.OutOfMemoryError) as error:
            raise AdapterUnreadable(f"adapter {spec.key} cannot be read now: {error}. Ask again.") from error
        except Exception as error:
            raise UnusableAdapter(f"adapter {spec.key}: {error}") from error

    return named


def _verified(spec: AdapterSpec, store: ArtifactStore | None) -> Path:
    if spec.folder is not None:
        if spec.sha256 is not None:
            verify(spec.folder, spec.sha256)
        return spec.folder
    if store is None or spec.sha256 is None:
        raise UnusableAdapter(f"adapter {spec.key}: neither a folder nor a hash in a store says where its files are.")
    return store.get(spec.sha256).folder


def _check_fit(spec: AdapterSpec, weights: LoraWeights, decoder: Decoder) -> None:
    """Every matrix has a place in this base: one that had none would be left out in silence."""
    shapes = decoder.shapes()
    for module, (a, b) in weights.pairs.items():
        if shapes.get(module) != (b.shape[0], a.shape[1]):
            raise UnusableAdapter(
                f"adapter {spec.key}: {module} of {b.shape[0]} x {a.shape[1]} has no place in this base model, "
                f"which has {shapes.get(module, 'no such module')} there."
            )


def _end_tokens(eos: int | list[int] | None) -> list[int]:
    return eos if isinstance(eos, list) else [] if eos is None else [eos]

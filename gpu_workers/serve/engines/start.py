"""Puts the embedded engine together: base model, decoder, template, and how adapters are read."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import torch

from gpu_workers.adapters.check import DTYPES, MAX_HEADER, TENSORS, shapes_of
from gpu_workers.adapters.config import MAX_RANK
from gpu_workers.adapters.own_copy import own_copy
from gpu_workers.adapters.port import AdapterStore
from gpu_workers.adapters.weights import LoraWeights, read_adapter
from gpu_workers.bases import load as base_model
from gpu_workers.bases import nf4
from gpu_workers.bases.chat import Chat
from gpu_workers.bases.device import Device
from gpu_workers.bases.files import NF4, BaseIdentity, Progress, silent
from gpu_workers.refused import AdapterUnreadable, BaseMismatch, UnusableAdapter
from gpu_workers.serve.admission import EngineBounds
from gpu_workers.serve.engine.decoder import Decoder
from gpu_workers.serve.engine.engine import Engine
from gpu_workers.serve.engine.trial import Trial
from gpu_workers.serve.engines.asked import Base
from gpu_workers.serve.engines.embedded import EmbeddedEngine, Read
from gpu_workers.serve.engines.memory import pages_for
from gpu_workers.serve.engines.public import declared
from gpu_workers.serve.port import AdapterSpec
from gpu_workers.serve.schedule.pages import PAGE
from gpu_workers.serve.schedule.rows import Limits
from schemas.errors import Retry

GPU_CHUNK = 256
"""Tokens of prompts beside answers in a step: there a step costs what it reads of the weights, up to about so many."""
MOST_PROVEN = 10_000
"""Adapters of which it is remembered that they passed their trial."""
WIDEST = max(width for width, _ in DTYPES.values())


@dataclass(frozen=True)
class EngineSetup:
    """How much the engine holds at once."""

    device: Device = field(default_factory=Device.best)
    limits: Limits = field(default_factory=Limits)
    capacity: int = 100
    """Adapters in memory."""
    company_adapters: int = 0
    company_waiting: int = 0
    company_tokens: int = 0
    memory: int = 0
    """MiB for keys and values; 0: what suits the machine, as `gpu_share` says where there is a GPU."""
    gpu_share: float = 0.9
    in_four_bits: bool = False
    """The base is the one that adapters were trained on by qlora, and another than the one it is made from."""
    public: Path | None = None
    """The file of prompts' beginnings that all companies share."""

    @classmethod
    def of(cls, dtype: str, threads: int, rows: int, **more: Any) -> EngineSetup:
        """auto and 0 mean: what suits this machine."""
        device = Device.best(threads or os.cpu_count())
        if dtype == "nf4":
            more["in_four_bits"] = True
        elif dtype != "auto":
            device = replace(device, dtype=dtype)
        chunk = GPU_CHUNK if device.kind == "cuda" else Limits.chunk
        return cls(device, Limits(rows=rows, chunk=chunk), **more)

    def bounds(self) -> EngineBounds:
        """Where the operator says nothing, one company has half of the adapters and a quarter of the questions."""
        return EngineBounds(
            self.capacity,
            self.company_adapters or max(1, self.capacity // 2),
            self.limits.waiting,
            self.company_waiting or max(1, self.limits.waiting // 4),
            self.company_tokens,
        )


def embedded(
    name_or_path: str,
    cache: Path,
    serving: EngineSetup,
    store: AdapterStore | None = None,
    progress: Progress = silent,
    name: str | None = None,
) -> EmbeddedEngine:
    """Reads the base model: seconds. The engine works inside `async with`."""
    model, tokenizer, identity = base_model.load(name_or_path, cache, serving.device, progress, name)
    if serving.in_four_bits:
        nf4.roundly(model)
        identity = identity.quantised()
    decoder, chat = Decoder(model), Chat.of(tokenizer, model.generation_config.eos_token_id)
    pages = pages_for(decoder, serving.limits.rows, serving.memory, serving.gpu_share)

    def make_engine() -> Engine:
        torch.set_num_threads(serving.device.threads)  # counts for the calling thread: the engine's own
        return Engine(decoder, chat.ends, replace(serving.limits, pages=pages))

    context = min(decoder.context, (pages - 1) * PAGE)
    base = Base(identity.name, identity.sha256, context, declared(serving.public, chat), identity.weights_sha256)
    read = _reader(decoder, Trial(decoder), identity, store)
    return EmbeddedEngine(make_engine, base, chat, read, serving.bounds())


def _reader(decoder: Decoder, prove: Trial, base: BaseIdentity, store: AdapterStore | None) -> Read:
    proven: dict[str, None] = {}

    def as_is(folder: Path, spec: AdapterSpec) -> LoraWeights:
        return read_adapter(folder, decoder.embedding.dtype, str(decoder.embedding.device), spec.sha256)

    def read(spec: AdapterSpec) -> LoraWeights:
        _check_base(spec, base)
        folder = _folder(spec, store)
        if (tensors := folder / TENSORS).is_file():
            _check_fit(spec, tensors, decoder)
        if spec.sha256 is None:
            weights = as_is(folder, spec)
        else:
            with own_copy(folder, spec.sha256, spec.company) as (own, facts):
                _check_base(msgspec.structs.replace(spec, base_sha256=facts.base_sha256), base)
                _check_fit(spec, own / TENSORS, decoder)
                weights = as_is(own, spec)
        _check_trigger(spec, weights, decoder.embedding.shape[0])
        if spec.sha256 not in proven:
            prove(weights)
        if spec.sha256 is not None:  # what a hash stands for never changes: evicted and read again, it is as it was
            proven[spec.sha256] = None
        while len(proven) > MOST_PROVEN:
            proven.pop(next(iter(proven)), None)
        return weights

    def named(spec: AdapterSpec) -> LoraWeights:
        """The world is in the way, and may get out of it; everything else is the adapter's fault."""
        try:
            return read(spec)
        except UnusableAdapter as error:
            raise error if str(spec.key) in str(error) else UnusableAdapter(f"adapter {spec.key}: {error}") from error
        except (Retry, OSError, MemoryError, torch.OutOfMemoryError) as error:
            raise AdapterUnreadable(f"adapter {spec.key} cannot be read now: {error}. Ask again.") from error
        except Exception as error:
            raise UnusableAdapter(f"adapter {spec.key}: {error}") from error

    return named


def _check_base(spec: AdapterSpec, base: BaseIdentity) -> None:
    """By either of its names: all of it, or, as older releases had it, weights and tokenizer alone."""
    if spec.base_sha256 in (None, base.sha256, base.weights_sha256):
        return
    four_bits = base.quantised()
    if spec.base_sha256 in (four_bits.sha256, four_bits.weights_sha256):
        raise BaseMismatch(
            f"adapter {spec.key} was trained on {four_bits.name}, this base held in four bits ({NF4}), and here it is "
            f"served in {base.dtype}: it would answer otherwise. Serve it with RILLFOLD_SERVE_DTYPE=nf4."
        )
    raise BaseMismatch(
        f"adapter {spec.key} was trained on base {spec.base_sha256}, here is {base.name} with {base.sha256}."
    )


def _folder(spec: AdapterSpec, store: AdapterStore | None) -> Path:
    if spec.folder is not None:
        return spec.folder
    if store is None or spec.sha256 is None:
        raise UnusableAdapter(f"adapter {spec.key}: neither a folder nor a hash in a store says where its files are.")
    return store.place(spec.sha256)


def _check_fit(spec: AdapterSpec, tensors: Path, decoder: Decoder) -> None:
    """By its size and its header, before a tensor is read. Every matrix has a place in this base: one that had none
    would be left out in silence."""
    shapes = decoder.shapes()
    most = MAX_HEADER + sum(out + in_ for out, in_ in shapes.values()) * MAX_RANK * WIDEST
    if (size := tensors.stat().st_size) > most:
        raise UnusableAdapter(f"adapter {spec.key}: has {size} bytes, and no adapter of this base has over {most}.")
    for module, (out, in_) in shapes_of(tensors).items():
        if shapes.get(module) != (out, in_):
            raise UnusableAdapter(
                f"adapter {spec.key}: {module} of {out} x {in_} has no place in this base model, "
                f"which has {shapes.get(module, 'no such module')} there."
            )


def _check_trigger(spec: AdapterSpec, weights: LoraWeights, vocabulary: int) -> None:
    if strays := [token for token in weights.activation or () if token >= vocabulary]:
        raise UnusableAdapter(
            f"adapter {spec.key}: is switched on by token {strays[0]}, and this base has {vocabulary} of them. "
            "Train it on this base, or serve it with its own."
        )

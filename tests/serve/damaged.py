"""Adapters by dice that are wrong in one way each. All else about them is right, so what refuses them is that way's own
guard: whoever damages the bytes of a header here also writes its manifest anew and has a key that counts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

import msgspec
import numpy as np

from gpu_workers.adapters.check import CONFIG, TENSORS
from gpu_workers.adapters.keys import CARD, PROVENANCE, AdapterKeys
from gpu_workers.adapters.signature import SIGNATURE, PrivateKey, sign
from gpu_workers.adapters.store import MANIFEST, ArtifactManifest, Facts, File
from gpu_workers.serve.port import AdapterKey, AdapterSpec

PREFIX = "base_model.model."
Shapes = Mapping[str, tuple[int, ...]]
NOT_HASHES = ("", ".", "..", "../../x", "/etc/passwd", "~", "F" * 64, "f" * 63 + "\n", "\0" * 64, "f" * 62 + "/x")


@dataclass(frozen=True)
class Forger:
    """Writes into a store's folder as its owner could."""

    root: Path
    base_sha256: str
    module: str
    out: int
    into: int
    listed: PrivateKey
    unlisted: PrivateKey

    def shapes(self, rank: int = 2) -> dict[str, tuple[int, ...]]:
        return {self.tensor("A"): (rank, self.into), self.tensor("B"): (self.out, rank)}

    def tensor(self, side: str, module: str = "") -> str:
        return f"{PREFIX}{module or self.module}.lora_{side}.weight"

    def keep(self, files: Mapping[str, bytes], key: PrivateKey | None = None, base: str = "", **listed: bytes) -> str:
        """With a manifest that is true of them, and a signature over all."""
        said = {name: File(sha256=_sha256(body), size=len(body)) for name, body in (files | listed).items()}
        facts = Facts(company="acme", base_model="tiny", base_sha256=base or self.base_sha256, tools_in_prompt=False)
        manifest = msgspec.json.encode(ArtifactManifest(facts=facts, files=said), order="sorted")
        sha256 = _sha256(manifest)
        (folder := self.root / "sha256" / sha256).mkdir(parents=True)
        for name, body in {**files, MANIFEST: manifest}.items():
            (folder / name).write_bytes(body)
        (papers := self.root / "papers" / "sha256" / sha256).mkdir(parents=True)
        content = {CARD: b"# acme", PROVENANCE: b"{}"}
        hashes = {name: each.sha256 for name, each in said.items()} | {MANIFEST: sha256}
        for name, body in AdapterKeys(own=lambda: key or self.listed).signed("acme/x", hashes, content).items():
            (papers / name).write_bytes(body)
        return sha256


def plain(it: Forger, dice: Random) -> dict[str, bytes]:
    return {CONFIG: config(dice), TENSORS: tensors(it.shapes(), dice)}


def config(dice: Random) -> bytes:
    """No two are the same."""
    said = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    return json.dumps({**said, "revision": f"{dice.getrandbits(64):x}"}).encode()


def tensors(shapes: Shapes, dice: Random, head: Callable[[bytes], bytes] = bytes) -> bytes:
    header, data = {}, b""
    for name, shape in shapes.items():
        body = np.frombuffer(dice.randbytes(shape[0] * shape[1]), np.int8).astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(body)]}
        data += body
    text = head(json.dumps(header).encode())
    return len(text).to_bytes(8, "little") + text + data


def other_bytes(it: Forger, dice: Random) -> str:
    sha256 = it.keep(plain(it, dice))
    file = it.root / dice.choice([f"sha256/{sha256}/{name}" for name in (CONFIG, TENSORS, MANIFEST)]
                                 + [f"papers/sha256/{sha256}/{name}" for name in (CARD, PROVENANCE)])  # fmt: skip
    body = bytearray(file.read_bytes())
    body[dice.randrange(len(body))] ^= 1 << dice.randrange(8)
    file.write_bytes(body)
    return sha256


def other_header(it: Forger, dice: Random) -> str:
    name = it.tensor("A").encode()
    heads: list[Callable[[bytes], bytes]] = [
        lambda text: text[: dice.randrange(1, len(text))],
        lambda text: text.replace(b'"F32"', dice.choice([b'"I64"', b'"F64"', b"4", b'"BOOL"']), 1),
        lambda text: text.replace(b'"data_offsets": [0,', b'"data_offsets": [%d,' % dice.choice([-4, 4, 1 << 62])),
        lambda text: text.replace(b'"shape": [2', b'"shape": [%d' % dice.choice([-2, 0, 3, 1 << 40])),
        lambda text: text[:-1] + b', "' + name + b'": {}}',
        lambda text: b"[" * dice.randrange(1_000, 60_000),
        lambda text: b"",
        lambda text: text.replace(b'"shape"', b'"form"', 1),
    ]
    whole = tensors(it.shapes(), dice, dice.choice(heads))
    if dice.random() < 0.2:
        whole = dice.choice([0, 1, 1 << 40, (1 << 64) - 1]).to_bytes(8, "little") + whole[8:]
    return it.keep({CONFIG: config(dice), TENSORS: whole})


def other_names(it: Forger, dice: Random) -> str:
    layer, _, last = it.module.rpartition(".")
    odd = dice.choice(["lm_head", "model.embed_tokens", "../../x", f"{layer}.up_proj", f"model.layers.99.{last}",
                       it.module.upper(), f"{it.module}.{last}", "", "model.layers.٣.self_attn.q_proj"])  # fmt: skip
    shapes = {it.tensor("A", odd or "."): (2, it.into), it.tensor("B", odd or "."): (it.out, 2)}
    if dice.random() < 0.3:
        shapes = dict([dice.choice(list(it.shapes().items()))])
    return it.keep({CONFIG: config(dice), TENSORS: tensors(shapes, dice)})


def other_sizes(it: Forger, dice: Random) -> str:
    more = dice.choice([1, 2, 7, 64])
    odd: dict[str, tuple[int, ...]] = dice.choice(
        [
            it.shapes(2 + more),
            it.shapes() | {it.tensor("A"): (2, it.into + more)},
            it.shapes() | {it.tensor("B"): (it.out + more, 2)},
            it.shapes() | {it.tensor("B"): (it.out, 2 + more)},
        ]
    )
    whole = tensors(odd, dice)
    if dice.random() < 0.4:
        whole = tensors(it.shapes(), dice)
        whole = dice.choice([whole[: -dice.randrange(1, 60)], whole + bytes(dice.randrange(1, 60)), whole[:4], b""])
    return it.keep({CONFIG: config(dice), TENSORS: whole})


def other_paths(it: Forger, dice: Random) -> str:
    if dice.random() < 0.3:
        return dice.choice(NOT_HASHES)
    if dice.random() < 0.3:
        return it.keep(plain(it, dice), **{dice.choice(["../../x", "/etc/passwd", "a.py", "README.md"]): b"x"})
    folder = it.root / "sha256" / (sha256 := it.keep(plain(it, dice)))
    name = dice.choice([CONFIG, TENSORS, MANIFEST])
    match dice.randrange(4):
        case 0:
            (folder / dice.choice(["evil.py", ".x", "adapter_model.bin", "model.sig"])).write_bytes(b"x")
        case 1:
            (folder / name).rename(kept := it.root / f"away-{sha256}")
            (folder / name).symlink_to(kept)
        case 2:
            (folder / name).unlink()
            (folder / name).mkdir()
        case 3:
            (folder / name).rename(folder / f" {name}")
    return sha256


def other_signature(it: Forger, dice: Random) -> str:
    sha256 = it.keep(files := plain(it, dice))
    file = it.root / "papers" / "sha256" / sha256 / SIGNATURE
    body = bytearray(file.read_bytes())
    match dice.randrange(5):
        case 0:
            file.unlink()
        case 1:  # of the payload or the signature itself, whose letters all count
            at = body.index(dice.choice([b'"payload":"', b'"sig":"'])) + dice.randrange(12, 60)
            body[at] = ord("A") if body[at] != ord("A") else ord("B")
            file.write_bytes(body)
        case 2:
            file.write_bytes(body[: dice.randrange(len(body))])
        case 3:
            other = it.keep(plain(it, dice))
            file.write_bytes((it.root / "papers" / "sha256" / other / SIGNATURE).read_bytes())
        case 4:
            file.write_bytes(sign({name: _sha256(each) for name, each in files.items()}, "x", it.listed))
    return sha256


def other_key(it: Forger, dice: Random) -> str:
    return it.keep(plain(it, dice), it.unlisted)


def other_base(it: Forger, dice: Random) -> str:
    if dice.random() < 0.5:
        return it.keep(plain(it, dice), base=f"{dice.getrandbits(256):064x}")
    wide = {it.tensor("A"): (2, it.into * 2), it.tensor("B"): (it.out * 2, 2)}
    return it.keep({CONFIG: config(dice), TENSORS: tensors(wide, dice)})


KINDS: Mapping[str, Callable[[Forger, Random], str]] = {
    "bytes": other_bytes,
    "header": other_header,
    "names": other_names,
    "sizes": other_sizes,
    "paths": other_paths,
    "signature": other_signature,
    "key": other_key,
    "base": other_base,
}


def spec_of(it: Forger, kind: str, number: int, sha256: str) -> AdapterSpec:
    """As the log would tell of it. Of the bases, some are told truly, so that the hash alone refuses them."""
    base = it.base_sha256 if kind != "base" or number % 3 else "f" * 64
    key = AdapterKey(f"acme/{kind}", number)
    return AdapterSpec(key=key, sha256=sha256, base_sha256=base, company="acme", tools_in_prompt=False)


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()

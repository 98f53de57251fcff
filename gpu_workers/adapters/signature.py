"""Signatures as OpenSSF model signing has them: a sigstore bundle whose payload lists files with their hashes.

`model-signing verify key` takes what is written here, and what it wrote is read here. Its own package is not used:
it brings a client of public transparency logs into every process that serves.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gpu_workers.errors import BadKey, NotSigned, SignerUnknown

SIGNATURE = "model.sig"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
IN_TOTO = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://model_signing/signature/v1.0"
SERIALIZATION = {
    "method": "files",
    "hash_type": "sha256",
    "allow_symlinks": False,
    "ignore_paths": [SIGNATURE, ".github", ".gitignore", ".gitattributes", ".git"],
}
HASHES: Mapping[int, type[hashes.HashAlgorithm]] = {256: hashes.SHA256, 384: hashes.SHA384, 521: hashes.SHA512}
"""By the bits of a curve: P-256, P-384 and P-521, as the format has it."""
PrivateKey = ec.EllipticCurvePrivateKey
PublicKey = ec.EllipticCurvePublicKey


class SignedFiles(NamedTuple):
    signer: str
    """The id of the key."""
    files: Mapping[str, str]
    """The sha256 of each, by its name."""


class _KeyHint(msgspec.Struct, frozen=True):
    hint: str


class _Material(msgspec.Struct, frozen=True, rename="camel"):
    public_key: _KeyHint
    tlog_entries: tuple[msgspec.Raw, ...] = ()


class _Signed(msgspec.Struct, frozen=True):
    sig: str
    keyid: str = ""


class _Envelope(msgspec.Struct, frozen=True, rename="camel"):
    payload: str
    payload_type: str
    signatures: tuple[_Signed, ...]


class _Bundle(msgspec.Struct, frozen=True, rename="camel"):
    media_type: str
    verification_material: _Material
    dsse_envelope: _Envelope


class _Resource(msgspec.Struct, frozen=True):
    name: str
    digest: str
    algorithm: str


class _Predicate(msgspec.Struct, frozen=True):
    resources: tuple[_Resource, ...]
    serialization: dict[str, object]


class _Subject(msgspec.Struct, frozen=True):
    name: str
    digest: dict[str, str]


class _Statement(msgspec.Struct, frozen=True, rename={"kind": "_type", "predicate_type": "predicateType"}):
    kind: str
    subject: tuple[_Subject, ...]
    predicate_type: str
    predicate: _Predicate


def new_key() -> str:
    """A private key of P-256, as PEM."""
    form, nothing = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(serialization.Encoding.PEM, form, nothing).decode()


def private_key(pem: str, where: object) -> PrivateKey:
    try:
        key = serialization.load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadKey(f"{where} is no private key (PEM, without a password): {error}.") from error
    if not isinstance(key, PrivateKey) or key.curve.key_size not in HASHES:
        raise BadKey(f"{where} is no private key of the curve P-256, P-384 or P-521. Give one that is.")
    return key


def public_key(pem: bytes, where: object) -> PublicKey:
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadKey(f"{where} is no public key (PEM): {error}. `adapters.pub` in a data folder is one.") from error
    if not isinstance(key, PublicKey) or key.curve.key_size not in HASHES:
        raise BadKey(f"{where} is no public key of the curve P-256, P-384 or P-521. Give one that is.")
    return key


def pem_of(key: PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def key_id(key: PublicKey) -> str:
    """What a signature calls its key by: the hash of its PEM."""
    return hashlib.sha256(pem_of(key)).hexdigest()


def sign(files: Mapping[str, str], name: str, key: PrivateKey) -> bytes:
    """`files`: the sha256 of each by its name. The same files and key give the same bytes."""
    payload = msgspec.json.encode(_stated(files, name))
    curve = HASHES[key.curve.key_size]()
    signed = key.sign(_authenticated(payload), ec.ECDSA(curve, deterministic_signing=True))
    envelope = _Envelope(_text(payload), IN_TOTO, (_Signed(_text(signed)),))
    return msgspec.json.encode(_Bundle(BUNDLE, _Material(_KeyHint(key_id(key.public_key()))), envelope))


def signed_files(bundle: bytes, keys: Mapping[str, PublicKey]) -> SignedFiles:
    """For which one of the keys stands. Raises `NotSigned` with what is wrong."""
    read = _read(bundle)
    signer = read.verification_material.public_key.hint
    if (key := keys.get(signer)) is None:
        raise SignerUnknown(f"it is signed by the key {signer:.64}, which is none of {len(keys)} that are known here")
    envelope = read.dsse_envelope
    payload = _bytes(envelope.payload)
    if envelope.payload_type != IN_TOTO or len(envelope.signatures) != 1:
        raise NotSigned(f"its signature holds {envelope.payload_type!r:.80} with {len(envelope.signatures)} signatures")
    try:
        algorithm = ec.ECDSA(HASHES[key.curve.key_size]())
        key.verify(_bytes(envelope.signatures[0].sig), _authenticated(payload), algorithm)
    except InvalidSignature as error:
        raise NotSigned(f"its signature is not of the key {signer} that it names") from error
    return SignedFiles(signer, _files_of(payload))


def _files_of(payload: bytes) -> Mapping[str, str]:
    try:
        said = msgspec.json.decode(payload, type=_Statement)
    except (msgspec.DecodeError, RecursionError) as error:
        raise NotSigned(f"what is signed is no list of files: {error}") from error
    resources = said.predicate.resources
    files = {each.name: each.digest for each in resources if each.algorithm == "sha256"}
    if (said.kind, said.predicate_type) != (STATEMENT, PREDICATE) or len(files) != len(resources):
        raise NotSigned(f"what is signed is {said.predicate_type!r:.80}, and no list of files by sha256")
    if [each.digest for each in said.subject] != [{"sha256": _root([each.digest for each in resources])}]:
        raise NotSigned("what is signed contradicts itself: its files have another hash together")
    return files


def _stated(files: Mapping[str, str], name: str) -> _Statement:
    resources = tuple(_Resource(each, files[each], "sha256") for each in sorted(files))
    subject = _Subject(name, {"sha256": _root([each.digest for each in resources])})
    return _Statement(STATEMENT, (subject,), PREDICATE, _Predicate(resources, SERIALIZATION))


def _root(digests: Sequence[str]) -> str:
    try:
        return hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()
    except ValueError as error:
        raise NotSigned(f"what is signed names a hash that is none: {error}") from error


def _authenticated(payload: bytes) -> bytes:
    """What DSSE signs: the payload, and what kind it is of."""
    return f"DSSEv1 {len(IN_TOTO)} {IN_TOTO} {len(payload)} ".encode() + payload


def _read(bundle: bytes) -> _Bundle:
    try:
        return msgspec.json.decode(bundle, type=_Bundle)
    except (msgspec.DecodeError, RecursionError) as error:
        raise NotSigned(f"its signature is no bundle of model signing: {error}") from error


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise NotSigned(f"its signature is not in base64: {error}") from error

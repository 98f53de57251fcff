"""The decoder under coverage-guided fuzzing, for as long as you like: python tests/codec/fuzz_decoder.py CORPUS"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[2]))

with atheris.instrument_imports(include=["schemas"]):
    from schemas.codec.catalog import catalog
    from schemas.codec.codec import decode, encode
    from schemas.codec.reader import compiled, reader
    from schemas.envelope import Event, Origin
    from schemas.rejected import REASONS, Rejected

ORIGIN = Origin("company-data", 0, 0)
FINGERPRINTS = list(catalog().by_fingerprint)
READERS = {
    fingerprint: (reader(entry.plan), compiled(entry.plan)) for fingerprint, entry in catalog().by_fingerprint.items()
}
IDS = dict(enumerate(catalog().by_fingerprint.values()))


def one_input(data: bytes) -> None:
    """The first byte may choose a schema, so that the fuzzer need not guess eight bytes of fingerprint."""
    values = [data]
    if data[:1] < b"\x80":
        values.append(b"\xc3\x01" + FINGERPRINTS[(data or b"\0")[0] % len(FINGERPRINTS)] + data[1:])
    for value in values:
        decoded = decode(value, ORIGIN, 0, ids=IDS)
        if isinstance(decoded, Rejected):
            assert decoded.reason in REASONS
        else:
            assert isinstance(decoded, Event)
            assert repr(decode(encode(decoded), ORIGIN, 0)) == repr(decoded)
            if value[2:10] in READERS:
                in_c, in_python = READERS[value[2:10]]
                assert repr(in_c(value, 10)) == repr(in_python(value, 10))


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()

"""Which partition a key belongs to: murmur2, as Kafka's Java client and aiokafka do it."""

from functools import lru_cache
from struct import unpack_from

_M = 0x5BD1E995
_MASK = 0xFFFFFFFF


def partition_of(key: bytes, partitions: int) -> int:
    return _murmur2(key) % partitions


@lru_cache(maxsize=65536)
def _murmur2(key: bytes) -> int:
    """The hash without its sign bit. Cached: a log has far fewer keys than records."""
    length = len(key)
    words = length >> 2
    h = 0x9747B28C ^ length
    for word in unpack_from(f"<{words}I", key):
        k = (word * _M) & _MASK
        h = (h * _M & _MASK) ^ ((k ^ (k >> 24)) * _M & _MASK)
    if length & 3:
        h = ((h ^ int.from_bytes(key[words << 2 :], "little")) * _M) & _MASK
    h = ((h ^ (h >> 13)) * _M) & _MASK
    return (h ^ (h >> 15)) & 0x7FFFFFFF

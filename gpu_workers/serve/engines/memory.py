"""How many pages of keys and values there is memory for. They are taken once, at the start, and never exceeded."""

import torch

from gpu_workers.bases.host import host_memory
from gpu_workers.serve.engine.decoder import Decoder
from gpu_workers.serve.schedule.pages import PAGE
from schemas.errors import Stop

MIB = 1 << 20
HOST_SHARE = 8
"""One in so many bytes of a machine without a GPU, where nothing else is said."""
BESIDE_SHARE = 4
"""One in so many of the bytes that a GPU has beside the weights is no KV's: there are the adapters in memory, the lanes
of those that run, and what a step computes."""


def pages_for(decoder: Decoder, rows: int, mebibytes: int, gpu_share: float) -> int:
    """Page 0, which holds nobody's, among them; no more than all rows could ever fill."""
    memory = mebibytes * MIB or _suits(decoder.embedding.device, gpu_share)
    pages = memory // decoder.page_bytes(PAGE)
    if pages < 2:
        raise Stop(
            f"There are {memory // MIB} MiB for keys and values, and a page of {PAGE} tokens of this base model takes "
            f"{decoder.page_bytes(PAGE) // 1024} KiB; two are the least. Set RILLFOLD_SERVE_MEMORY to more MiB."
        )
    return min(pages, 1 + rows * -(-decoder.context // PAGE))


def _suits(device: torch.device, gpu_share: float) -> int:
    """Asked after the base model is there."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return max(0, int(free - (1 - gpu_share) * total)) * (BESIDE_SHARE - 1) // BESIDE_SHARE
    return host_memory() // HOST_SHARE

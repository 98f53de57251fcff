"""A body that is a file: kept on the disk until it is there whole, and handed on piece by piece."""

from typing import IO

from starlette.types import Message, Receive

from processors.tuning.names import FILE_BYTES
from rillfold.http.errors import ApiError
from rillfold.http.limits import FILE_SECONDS, read_body

PIECE = 256 << 10


async def spool(receive: Receive, file: IO[bytes]) -> int:
    """How many bytes there are. Raises as `body_of` does, and where the disk has no room for them."""
    try:
        size = await read_body(receive, file.write, FILE_BYTES, FILE_SECONDS)
        file.seek(0)
    except OSError as error:
        told = f"There is no room here for a file of this size ({error.strerror}): send it later."
        raise ApiError(503, "no_room", told, Retry_After="30") from error
    return size


def from_file(file: IO[bytes], receive: Receive) -> Receive:
    """What the app receives: the file's pieces, then whatever the server has to say."""
    told = False

    async def received() -> Message:
        nonlocal told
        if told:
            return await receive()
        piece = file.read(PIECE)
        told = len(piece) < PIECE
        return {"type": "http.request", "body": piece, "more_body": not told}

    return received

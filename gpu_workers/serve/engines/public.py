"""Beginnings of prompts that are no company's own, such as a long catalogue of tools: read once, used by all."""

from pathlib import Path

import msgspec

from gpu_workers.bases.chat import Chat
from schemas.company import Message
from schemas.errors import Stop


class Beginning(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of the file."""

    messages: tuple[Message, ...] = ()
    tools: list[msgspec.Raw] | None = None


def declared(file: Path | None, chat: Chat) -> tuple[tuple[int, ...], ...]:
    """Raises Stop for a file that is not there or cannot be read, and says where."""
    if file is None:
        return ()
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise Stop(f"RILLFOLD_SERVE_PUBLIC names {file}, which cannot be read: {error.strerror}.") from error
    return tuple(_tokens(f"{file}:{number}", line, chat) for number, line in enumerate(lines, 1) if line.strip())


def _tokens(where: str, line: bytes, chat: Chat) -> tuple[int, ...]:
    try:
        beginning = msgspec.json.decode(line, type=Beginning)
        tools = msgspec.json.encode(beginning.tools).decode() if beginning.tools else None
        return tuple(chat.history(beginning.messages, tools))
    except Exception as error:
        raise Stop(
            f'{where}: no beginning of a prompt: {error}. A line is {{"messages": [...], "tools": [...]}}.'
        ) from error

"""How prompts share the room of one step."""

from collections.abc import Hashable, Sequence


def portions(wanted: Sequence[tuple[Hashable, int]], room: int, step: int = 0) -> list[int]:
    """Each owner has the same, what one does not need is for the others. `wanted`: owner and tokens, oldest first.

    When there are more owners than room, as many as it has room for get on, others in each step.
    """
    rows: dict[Hashable, list[int]] = {}
    for row, (owner, _) in enumerate(wanted):
        rows.setdefault(owner, []).append(row)
    if len(rows) > room:
        owners = list(rows)
        rows = {owner: rows[owner] for owner in (owners[(step * room + at) % len(owners)] for at in range(room))}
    needs = {owner: sum(wanted[row][1] for row in those) for owner, those in rows.items()}
    given = [0] * len(wanted)
    for done, owner in enumerate(sorted(rows, key=needs.__getitem__)):
        share = min(needs[owner], room // (len(rows) - done))
        room -= share
        for row, tokens in _within(rows[owner], [wanted[row][1] for row in rows[owner]], share):
            given[row] += tokens
    return given


def _within(rows: list[int], needs: list[int], share: int) -> list[tuple[int, int]]:
    """Half is for the oldest, so that it gets on; the rest for the shortest, so that they need not wait for it."""
    first = min(needs[0], (share + 1) // 2)
    parts, share = [(rows[0], first)], share - first
    left = [needs[0] - first, *needs[1:]]
    for at in sorted(range(len(rows)), key=left.__getitem__):
        if not share:
            break
        part = min(left[at], share)
        parts.append((rows[at], part))
        share -= part
    return parts

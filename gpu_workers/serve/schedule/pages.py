"""The memory of keys and values, in pages: who holds which, and what full ones may be read again for.

A page is free, held by rows, or remembered: full, held by nobody, and evicted when its room is wanted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple

PAGE = 16
"""Tokens in one page."""


class Sharer(Enum):
    ANYBODY = "anybody"


PUBLIC: Final = Sharer.ANYBODY
"""Who may share a public page: no owner is named like this."""


class Label(NamedTuple):
    """What the KV of a full page comes from, beside the pages before it. Compared whole: nothing can collide."""

    sharer: Hashable
    """An owner, or PUBLIC."""
    under: Hashable
    """None: the base model; else which adapter, and from which token of the page on."""
    tokens: bytes
    """Bytes, whose hash nobody can foresee, so that nobody makes many that are slow to tell apart."""


@dataclass(eq=False, slots=True)
class Node:
    """A full page in the tree of all prefixes."""

    page: int
    parent: Node | None = None
    label: Label | None = None
    children: dict[Label, Node] = field(default_factory=dict)
    gone: bool = False


class Pages:
    """`count` pages, page 0 among them: it is always zero, is given to nobody, and fills up block tables.

    A row that holds a page holds all of its prefix, and gives the last one back first. So among the remembered ones a
    child always comes before its parent: what is evicted is a leaf, and all that is remembered can be had.
    """

    def __init__(self, count: int, size: int = PAGE) -> None:
        self.count, self.size = count, size
        self.root = Node(0)
        self._free = list(range(count - 1, 0, -1))
        self._holders = [0] * count
        self._nodes: dict[int, Node] = {}
        self._remembered: OrderedDict[int, Node] = OrderedDict()

    @property
    def usable(self) -> int:
        return self.count - 1

    @property
    def left(self) -> int:
        """Pages that can be had now."""
        return len(self._free) + len(self._remembered)

    @property
    def remembered(self) -> int:
        return len(self._remembered)

    def of(self, tokens: int) -> int:
        """Pages for so many tokens."""
        return -(-tokens // self.size)

    def take(self, wanted: int) -> list[int] | None:
        """Some that nobody holds, the least recently used remembered ones at last; None: there are not so many."""
        if wanted > self.left:
            return None
        while len(self._free) < wanted:
            self.forget(next(iter(self._remembered.values())))
        taken = [self._free.pop() for _ in range(wanted)]
        self._hold(taken)
        return taken

    def give(self, pages: list[int]) -> None:
        """One who held these holds them no more."""
        for page in reversed(pages):
            self._holders[page] -= 1
            if self._holders[page]:
                continue
            if (node := self._nodes.get(page)) is not None:
                self._remembered[page] = node
            else:
                self._free.append(page)

    def holders(self, page: int) -> int:
        return self._holders[page]

    def share(self, nodes: Iterable[Node]) -> list[int]:
        """One more row holds this prefix."""
        pages = [node.page for node in nodes]
        self._hold(pages)
        for page in pages:
            self._remembered.pop(page, None)
        return pages

    def find(self, labels: Iterable[Label | None], under: Node | None = None) -> list[Node]:
        """The longest prefix of these that is there, of all or of what follows a page."""
        found, node = [], under or self.root
        for label in labels:
            if label is None or (child := node.children.get(label)) is None:
                break
            found.append(node := child)
        return found

    def remember(self, parent: Node, label: Label, page: int) -> Node | None:
        """A held page is full, and can be found. Where it is known already the row holds that one instead of its own.

        None: its prefix was forgotten, so nobody could find it.
        """
        if parent.gone:
            return None
        if (known := parent.children.get(label)) is not None:
            self.share([known])
            self.give([page])
            return known
        node = self._nodes[page] = parent.children[label] = Node(page, parent, label)
        return node

    def forget(self, node: Node) -> None:
        """Nobody finds this page any more, nor what was computed on it. Who holds one goes on with it."""
        if node.gone or node.parent is None or node.label is None:
            return
        del node.parent.children[node.label]
        lost = [node]
        while lost:
            each = lost.pop()
            lost += each.children.values()
            each.children.clear()
            each.gone = True
            del self._nodes[each.page]
            if self._remembered.pop(each.page, None) is not None:
                self._free.append(each.page)

    def _hold(self, pages: list[int]) -> None:
        for page in pages:
            self._holders[page] += 1

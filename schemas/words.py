"""The kinds of words that may stand in an event. Each is bounded here, once; readers, writers and JSON hold to it.

A field's annotation names its kind (`role: Name`), and so does the stored schema, as the attribute `word`.
"""

import re
from collections.abc import Mapping
from typing import Annotated, NamedTuple

DEEPEST = 64
"""Levels of brackets. The JSON parsers in use end at about 1,000."""


class Word(NamedTuple):
    """One kind. `most` is in characters for what is short, and in bytes of UTF-8 for the rest."""

    kind: str
    made_of: str
    """printable, plain, company, text, json or document: what the readers in C and in Python know how to check."""
    least: int
    most: int
    reason: str = "bad_word"

    @property
    def says(self) -> str:
        return SAYS[self.made_of].format(self, deepest=DEEPEST)


SAYS = {
    "printable": "{0.least} to {0.most} printable characters",
    "plain": "{0.least} to {0.most} letters, digits, _ . - or blanks, and not . - or a blank first",
    "company": "{0.least} to {0.most} letters, digits, dots, _ or -",
    "text": "at most {0.most} bytes",
    "json": "at most {0.most} bytes of JSON, at most {deepest} deep",
    "document": "anything",
}

ID = Word("id", "printable", 1, 128, "bad_id")
COMPANY = Word("company", "company", 1, 128, "bad_company")
NAME = Word("name", "plain", 1, 64)
REGISTERED = r"^[A-Za-z_][A-Za-z0-9_.-]{0,63}$"
"""The names under which tools and roles are registered: every model and every client can spell them. Older ones in the
log are as NAME has it."""
LABEL = Word("label", "printable", 1, 128)
NOTE = Word("note", "printable", 0, 128)
ADAPTER = Word("adapter", "printable", 1, 193)
ADDRESS = Word("address", "printable", 1, 2_000)
TEXT = Word("text", "text", 0, 64 << 10)
JSON = Word("json", "json", 0, 256 << 10)
DOCUMENT = Word("document", "document", 0, 0)

WORDS: Mapping[str, Word] = {
    word.kind: word for word in (ID, COMPANY, NAME, LABEL, NOTE, ADAPTER, ADDRESS, TEXT, JSON, DOCUMENT)
}

Id = Annotated[str, ID]
"""Names one event, run, job or call."""
Company = Annotated[str, COMPANY]
"""Whose it is. The one word that every key begins with."""
Name = Annotated[str, NAME]
"""What becomes a part of keys, addresses and metric labels: a role, an agent, a tool."""
Label = Annotated[str, LABEL]
"""A short name of something: a memory, a kind of record, an entity, a session; a reason for machines."""
Note = Annotated[str, NOTE]
"""What somebody calls something, and no key is made of: an agent, a source, an entity. It may be empty."""
Adapter = Annotated[str, ADAPTER]
"""company/role"""
Address = Annotated[str, ADDRESS]
"""Where something lies."""
Text = Annotated[str, TEXT]
"""What people read: a description, a detail, a memory, who asks."""
Json = Annotated[str, JSON]
"""JSON that travels as text. Whether it is JSON at all, whoever uses it finds out."""
Document = Annotated[str, DOCUMENT]
"""Bounded by the record alone."""

# Controls, blanks but the plain one, formats (bidirectional ones too), surrogates, private use. Written out, since the
# tables of two Python versions differ: a word is the same wherever a log is folded. What no table knows yet passes.
HIDDEN = (
    "\x00-\x1f\x7f-\xa0\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u1680\u180e\u2000-\u200f\u2028-\u202f"
    "\u205f-\u2064\u2066-\u206f\u3000\ud800-\uf8ff\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f\U000f0000-\U000ffffd"
    "\U00100000-\U0010fffd"
)
hides = re.compile(f"[{HIDDEN}]").search
sane_company = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}").fullmatch
halves = re.compile("[\ud800-\udfff]").search
plain = re.compile(r"(?:\w|[^\x00-\x7f])(?:[\w. -]|[^\x00-\x7f])*", re.ASCII).fullmatch
# An open string takes all that follows it.
STRINGS = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
BRACKETS = re.compile(r"[\[\]{}]")


def printable(value: str) -> bool:
    return value.isprintable() or not hides(value)


def depth(value: str) -> int:
    """The most brackets that stand open at once, outside of strings."""
    most = now = 0
    for bracket in BRACKETS.findall(STRINGS.sub("", value)):
        now = now + 1 if bracket in "[{" else max(0, now - 1)
        most = max(most, now)
    return most


def shallow(value: str) -> bool:
    return value.count("[") + value.count("{") <= DEEPEST or depth(value) <= DEEPEST


def size(value: str) -> int:
    """In bytes of UTF-8."""
    return len(value) if value.isascii() else len(value.encode(errors="surrogatepass"))


def fits(word: Word, value: str) -> bool:
    """Whether a field of this kind may hold it. Half a surrogate pair, which JSON parsers let pass, none may."""
    match word.made_of:
        case "printable":
            return word.least <= len(value) <= word.most and printable(value)
        case "plain":
            return word.least <= len(value) <= word.most and bool(plain(value)) and printable(value)
        case "company":
            return bool(sane_company(value))
    if not value.isascii() and halves(value):
        return False
    return word.made_of == "document" or (size(value) <= word.most and (word.made_of == "text" or shallow(value)))


def shortened(value: str, most: int = TEXT.most) -> str:
    """For what is said of foreign words: as many bytes as may be, and nothing that is no UTF-8."""
    return value.encode(errors="replace")[:most].decode(errors="ignore")

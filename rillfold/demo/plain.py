"""What people say to the demo's agents that no tool is for: idle talk, and wishes that no tool fulfils. Pure, seeded.

An adapter that has only ever seen calls makes one of a good morning, too.
"""

from collections.abc import Iterator
from itertools import islice
from random import Random

from processors.dataset.turns import is_held_out
from processors.synthetic.idle import DO, NO_TOOL, TALK, THINGS, WHAT, WISHES, Reply
from rillfold.demo.data import PLAIN, DemoCompany, draw
from schemas.company import Message


def plain(company: DemoCompany, count: int = PLAIN, wishes: float = 0.25) -> list[tuple[Message, ...]]:
    """Talk to learn from in which words are the right answer; a share of it wishes for what no tool does."""
    random = Random(f"{company.id}/plain/0")  # noqa: S311 - repeatable, not secret
    return list(islice(_talks(random, wishes), count))


def _talks(random: Random, wishes: float) -> Iterator[tuple[Message, ...]]:
    """Endless, no sentence twice, none that the dataset's rule holds out."""
    seen: set[str] = set()
    while True:
        text, reply = _wish(random) if random.random() < wishes else _talk(random)
        if text not in seen and not is_held_out(text):
            seen.add(text)
            yield Message(role="user", content=text), Message(role="assistant", content=reply)


def _wish(random: Random) -> tuple[str, Reply]:
    text = _filled(random.choice(WISHES), random)
    return text[0].upper() + text[1:], NO_TOOL


def _talk(random: Random) -> tuple[str, Reply]:
    reply, texts = random.choice(TALK)
    return _filled(random.choice(texts), random), reply


def _filled(text: str, random: Random) -> str:
    person = draw("person", random, side=0)
    thing, other = random.sample(THINGS.split("|"), 2)
    return text.format(
        person=person,
        first=person.split()[0],
        site=draw("site", random, side=0),
        number=random.randrange(2, 90),
        thing=thing,
        other=other,
        do=random.choice(DO.split("|")),
        what=random.choice(WHAT.split("|")),
    )

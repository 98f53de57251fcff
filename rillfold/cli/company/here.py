"""What the API sees from where it runs, in lines: what is well, and what is not, with the remedy."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rillfold.cli.company.asking import Json
from rillfold.processes import WORKERS

LEAST_FREE, LEAST_SHARE = 1 << 30, 0.05
"""Of the disk: a broker or a database that runs out of it stops."""
GIB = 1 << 30


class StatusLine(NamedTuple):
    what: str
    told: str
    wrong: bool = False


def lines(told: Json, behind: int) -> Iterator[StatusLine]:
    """Of the answer of `/status`. `behind`: how many events the projections do not know yet."""
    yield from _workers(told["workers"])
    yield from _missing(told, behind)
    yield from _log(told["waiting"])
    yield _letters(told["letters"])
    yield _disk(told)


def kind_of(name: str) -> str:
    """By the name that a worker has unless somebody gave it another: `fold-1`, `serve`."""
    return name.partition("-")[0]


def _workers(workers: Sequence[Json]) -> Iterator[StatusLine]:
    well = [each for each in workers if each["answers"] and each["ready"]]
    if well:
        yield StatusLine("workers", f"{', '.join(map(_named, well))} at work")
    for each in workers:
        name, kind = each["name"], kind_of(each["name"])
        start = f" (`rillfold worker {kind}`)" if kind in WORKERS else ""
        if not each["answers"]:
            away = f"if it is to stay away, delete run/{name}.json in the data folder."
            told = f"{name} does not answer at {each['url']}: it was killed, or hangs. Start it again{start}; {away}"
            yield StatusLine("workers", told, wrong=True)
        elif not each["ready"]:
            why = each["why"].rstrip(".")
            told = f"{name} is not ready: {why}. If that stays, its log says more (docs/operations.md)."
            yield StatusLine("workers", told, wrong=True)


def _named(worker: Json) -> str:
    more = [f"{worker['behind']} behind"] if worker["behind"] else []
    more += [f"stood still {worker['stalls']} times since it began"] if worker["stalls"] else []
    return f"{worker['name']} ({', '.join(more)})" if more else str(worker["name"])


def _missing(told: Json, behind: int) -> Iterator[StatusLine]:
    """Where all is on one machine, who is not here is nowhere. What waits for nobody is wrong, and nothing else is."""
    here = {kind_of(each["name"]) for each in told["workers"]}
    waiting = {each["worker"]: (each["behind"], each["topic"]) for each in told["waiting"]}
    waiting |= dict.fromkeys(("fold", "sink"), (behind, "the projections"))
    # What waits for reactions only their application knows.
    missing = [kind for kind in WORKERS if kind not in here and kind in waiting]
    if missing and told["provider"] != "embedded":
        them = ", ".join(missing)
        yield StatusLine("workers", f"no {them} on the API's data folder; one elsewhere is not seen from here")
        missing = []
    for kind in missing:
        count, where = waiting[kind]
        if count:
            lacks = f"no {kind} worker runs, and {count} events of {where} wait for one"
            yield StatusLine("workers", f"{lacks}: start it (`rillfold worker {kind}`).", wrong=True)
    if idle := [kind for kind in missing if waiting[kind][0] == 0]:
        yield StatusLine("workers", f"no {', '.join(idle)} runs, and nothing waits for one")


def _log(waiting: Sequence[Json]) -> Iterator[StatusLine]:
    """Wherever the workers are, the log knows what no group of theirs has committed."""
    some = [f"{each['behind']} of {each['topic']}" for each in waiting if each["behind"]]
    if some:
        yield StatusLine("log", f"events that wait for a worker, or are in its hands: {', '.join(some)}")
    if any(each["behind"] is None for each in waiting):
        lacks = "how much waits for workers is not known: the API's Kafka user may not ask how far their groups are"
        yield StatusLine("log", f"{lacks} (deploy/kafka-roles)")


def _letters(letters: Json) -> StatusLine:
    if letters["waiting"] is None:
        told = f"{letters['records']:,} records are on the dead-letter topic, too many to look through here"
    elif not letters["waiting"]:
        return StatusLine("letters", "none waits")
    else:
        told = f"{letters['waiting']} records were refused and not sent again"
    return StatusLine("letters", f"{told}: `rillfold dlq list` says why")


def _disk(told: Json) -> StatusLine:
    disk = told["disk"]
    free = f"{disk['free'] / GIB:.1f} of {disk['total'] / GIB:.1f} GiB are free under {disk['folder']}"
    if disk["free"] < max(LEAST_FREE, LEAST_SHARE * disk["total"]):
        return StatusLine("disk", f"{free}: make room, or servers there will stop.", wrong=True)
    if told["provider"] != "embedded":
        free += "; the disks of Kafka and Postgres are not seen from here"
    return StatusLine("disk", free)

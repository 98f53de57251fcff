"""What can go wrong between us and the log."""

from collections.abc import Collection, Sequence

from schemas.errors import Poison, Retry, Stop, one_line

NAMED = {"named": True}
"""With a line of the log that names one of many, and that nobody says again: it is never left out as a repeat."""
RETRY_SECONDS = 1.0
"""So long after a `Retry` the same is tried again."""


class MissingOffsets(Stop):
    """Records that were asked for are not in the log."""

    def __init__(self, topic: str, partition: int, start: int, stop: int | None, first: int, end: int) -> None:
        wanted = f"[{start}, {'end' if stop is None else stop})"
        super().__init__(
            f"{topic}/{partition} holds offsets [{first}, {end}), not all of {wanted}. Raise the topic's retention "
            f"(`rillfold topics check`), restore the records from a backup, or ask for a range that is there."
        )
        self.place, self.start, self.first, self.end = (topic, partition), start, first, end


class TooMuchData(Stop):
    """A dataset larger than whoever builds it will hold."""

    def __init__(self, company: str, origin: object, most_bytes: float) -> None:
        super().__init__(
            f"The rows of {company} are more than {most_bytes:.0f} bytes at {origin}. Name ranges that hold less, or "
            f"raise RILLFOLD_TRAIN_MAX_BYTES."
        )


class Fenced(Retry):
    """The partition belongs to another member by now: drop what was in hand and poll again."""

    def __init__(self, group: str, partitions: object) -> None:
        super().__init__(
            f"Group {group} no longer gives us {partitions}: nothing was committed. Whoever owns the partition now "
            f"gets the records again; poll goes on."
        )


class ShutOut(Stop):
    """Somebody else has begun the very same since."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"Another process has begun {name} after this one: what this one still had to write was refused, and "
            f"nothing of it stands in the log. Let the other one end, and ask again: what it did is not done twice."
        )


class UnknownTopic(Stop):
    """The broker has no such topic."""

    def __init__(self, topic: str, where: str) -> None:
        super().__init__(f"Topic {topic} does not exist on {where}. Make it with `rillfold topics create`.")


class TooLarge(Poison):
    """A record above the broker's limit."""

    def __init__(self, topic: str, size: int, limit: int) -> None:
        super().__init__(
            f"A record of {size} bytes for {topic} is above the limit of {limit}. Store the content elsewhere and "
            f"send a document.ingested event that points to it."
        )


class Unreachable(Retry):
    """No broker answers."""

    def __init__(self, where: str, detail: object) -> None:
        super().__init__(
            f"Kafka at {where} does not answer ({detail}). Start it with `rillfold up`, or name "
            f"one that runs by RILLFOLD_PROVIDER=external and RILLFOLD_BOOTSTRAP_SERVERS."
        )


class AppendFailed(Retry):
    """The broker did not take what was sent."""

    def __init__(self, topic: str, detail: str) -> None:
        super().__init__(
            f"Records for {topic} were not acknowledged ({detail}); some may stand in the log. "
            f"Append them again: their ids tell repeats apart."
        )


class SecretRefused(Poison):
    """A tool's credential may not be used. The message never holds the credential."""

    def __init__(self, company: str, ref: str, detail: str) -> None:
        super().__init__(
            f"Secret {ref[:64]!a} of company {company} is refused: {detail}. Register the tool again with its "
            f"credential."
        )


class EndpointRefused(Poison):
    """A tool's address may not be called from here."""

    def __init__(self, url: str, detail: str) -> None:
        super().__init__(f"{url} is refused: {detail}.")


class TooManyTools(Poison):
    """More than a job could carry."""

    def __init__(self, company: str, count: int, size: int, most: int, largest: int) -> None:
        super().__init__(
            f"Company {company} would have {count} tools of {size} bytes; a job is offered at most {most} of {largest} "
            f"bytes. Revoke tools that are not used, or shorten descriptions and parameters."
        )


class ToolsBehind(Retry):
    """The log is longer than a request may wait."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"The companies' tools are not read to the end of the log within {seconds:.0f} s. Send it again in a "
            f"moment: the reading goes on."
        )


class NameUnanswered(Retry):
    """A host name has no address just now."""

    def __init__(self, host: str, detail: str) -> None:
        super().__init__(
            f"{host[:200]!a} cannot be called now: {detail}. It is tried again; check the name and the resolver."
        )


class OwnershipLost(Stop):
    """Another worker has claimed a changelog partition that this one thought its own."""

    def __init__(self, topic: str, partition: int) -> None:
        super().__init__(
            f"Another worker has claimed {topic}/{partition}; nothing of this batch was written. The process ends so "
            f"that its supervisor starts it anew and it joins the group again."
        )


class FoldedElsewhere(Stop):
    """Two groups that would write one changelog."""

    def __init__(self, group: str, others: Collection[str], projections: Collection[str]) -> None:
        super().__init__(
            f"Group {', '.join(others)} is at work, and folds some of what {group} is to fold "
            f"({', '.join(sorted(projections))}): a changelog has one group. Stop its workers, or name by `--only` "
            f"what it does not fold; `rillfold worker fold` alone folds every projection."
        )


class ChangelogFailed(Stop):
    """It is not known whether a batch reached the changelog."""

    def __init__(self, topic: str, partition: int, detail: object) -> None:
        super().__init__(
            f"A batch for {topic}/{partition} was not acknowledged ({detail!r}). The process ends: a restart reads the "
            f"changelog and goes on from what is there."
        )


class NotContiguous(Stop):
    """Records between what was folded and what was delivered are missing."""

    def __init__(self, topic: str, partition: int, folded: int, start: int) -> None:
        super().__init__(
            f"{topic}/{partition} is folded up to {folded}, but the batch at hand begins at {start}. The process ends: "
            f"a restart reads from {folded}, or says by name that it is deleted."
        )


Span = tuple[int, int]
"""[first, end)."""


class SourceLost(Stop):
    """What a projection was folded up to is not in its source any more. No reset policy decides what that means."""

    def __init__(
        self, place: str, words: Collection[str], lowest: int, now: Span, once: Span, unfit: Collection[str] = ()
    ) -> None:
        """`words`: also of where those stand who have read further than the markers; between may be no record.
        `once`: what it held when that was first seen. `unfit`: what an operator has said of it, and does not apply."""
        (first, end), on = now, "OFFSET"
        if lowest < first:
            how, where, on = f"[{lowest}, {first}) was deleted before it was folded", f"at {first}", f"{first}"
        else:
            how = "its topic was made anew, or the broker has lost its end"
            where = (
                f"at {first} where it was made anew, where the end is lost at the first offset that was written since "
                f"(not above {min(once[1], lowest)})"
            )
        if once != now:
            how = f"it held [{once[0]}, {once[1]}) when that was seen, and {how}"
        accept = ", ".join(f'"{word}": {on}' for word in words)
        super().__init__(
            f"{place} is folded up to {lowest} and holds [{first}, {end}): {how}. It stands still, other partitions go "
            f"on. To keep the rows and go on {where}, start it with RILLFOLD_ACCEPT_LOSS='{{{accept}}}'; or bring the "
            f"records back, and start it so with the offset behind the @; or fold anew what is left: "
            f"docs/operations.md.{''.join(f' Its {each} does not apply.' for each in unfit)}"
        )


class SourceUnread(Stop):
    """A topic that the group has folded, and that the broker does not know, or not yet again."""

    def __init__(self, topic: str, group: str) -> None:
        super().__init__(
            f"{topic} was deleted while group {group} was at work, or is there for less than half a minute: none of "
            f"its workers reads it. It stands still, other topics go on. Bring it back, or make it anew with `rillfold "
            f"topics create`: half a minute on the fold says what of it is lost; a fold that is started again does "
            f"so at once."
        )


class ChangelogCut(Stop):
    """The beginning of a changelog is gone, and with it rows that nobody here holds."""

    def __init__(self, changelog: str, partition: int, needed: int, first: int) -> None:
        super().__init__(
            f"{changelog}/{partition} begins at {first}, and our copy of it needs {needed}: rows in between are lost. "
            f"Set its cleanup.policy to compact alone, and fold its projection anew: docs/operations.md."
        )


class EverythingRefused(Stop):
    """Events of several companies in a row that a projection's code raises for."""

    def __init__(self, changelog: str, partition: int, count: int, companies: int, reason: str, detail: str) -> None:
        super().__init__(
            f"{changelog}/{partition}: {count} events in a row, of {companies} companies, would be refused ({reason}, "
            f"{detail}), and none was taken in between: a fault of this release, not of the events. They are not "
            f"passed. Put the last release back or mend the projection, and start it again: it goes on with them."
        )


class RowsUnreadable(Stop):
    """Rows that were written whole, and that this release does not understand."""

    def __init__(self, changelog: str, partition: int, state: str, companies: int) -> None:
        super().__init__(
            f"{changelog}/{partition} holds rows of at least {companies} companies that cannot be read as {state}: its "
            f"fields were changed under the same version, or a newer release wrote them. Nothing was passed. Start the "
            f"release that wrote them, or raise the projection's version."
        )


class SourcesRenamed(Stop):
    """Rows were folded from topics that have another name now, or are others."""

    def __init__(self, changelog: str, partition: int, before: Sequence[str], now: Sequence[str]) -> None:
        super().__init__(
            f"{changelog}/{partition} was folded from {', '.join(before)}, and the topic map names "
            f"{', '.join(now)} now. Nothing was folded over these rows. Put RILLFOLD_TOPIC_MAP back; or, to fold the "
            f"new topics from their beginning, delete the changelog, the worker's `tables` folder for it and the "
            f"sink's schema."
        )


class Misconfigured(Stop):
    """Topics or settings under which the fold cannot be exact."""


class SourceGrown(Misconfigured):
    """A source has another number of partitions than its rows were folded from."""

    def __init__(self, source: str, partitions: str, changelog: str, folded: int) -> None:
        super().__init__(
            f"{source} has {partitions} partitions, and {changelog} was folded from {folded}. The key decides the "
            f"partition by their number: later events of a key stand in another than its earlier ones, and its row "
            f"would be split, in every version of the projection. Nothing is folded. Copy the events into topics that "
            f"are made with the new number, under another RILLFOLD_TOPIC_PREFIX: docs/topics.md."
        )


class DirectoryInUse(Stop):
    """Two workers on one directory."""

    def __init__(self, path: object) -> None:
        super().__init__(
            f"{path} is in use by another process. Give each worker a directory of its own: `--name`, or "
            f"RILLFOLD_DATA_DIR."
        )


class StoreDamaged(Stop):
    """What a worker keeps on its disk is not what it wrote."""

    def __init__(self, path: object, detail: object) -> None:
        super().__init__(
            f"{path} is damaged ({detail}). The process ends; a restart puts the folder aside and reads the changelog."
        )


class StoreFailed(Stop):
    """What a worker keeps on its disk could not be read or written."""

    def __init__(self, path: object, detail: object) -> None:
        super().__init__(
            f"RocksDB in {path} failed ({detail}). The process ends; see to the disk (full? read-only?) or the limit "
            f"of open files (`ulimit -n`), and start it again: it goes on at its markers."
        )


class RegistryDown(Retry):
    """The schema registry gave no answer that says anything about a schema. The record waits; it is not poison."""

    def __init__(self, url: str, what: str, error: Exception) -> None:
        super().__init__(
            f"The schema registry at {url} did not answer for {what}: {error}. Records that need it wait and are tried "
            f"again; if it lasts, check RILLFOLD_SCHEMA_REGISTRY and the registry."
        )


class RegistryRefused(Stop):
    """The schema registry turned us away, or one of our schemas."""

    def __init__(self, url: str, what: str, error: Exception) -> None:
        super().__init__(
            f"The schema registry at {url} refused {what}: {error}. Correct the credentials in "
            f"RILLFOLD_SCHEMA_REGISTRY, or the compatibility rule or the foreign schema of that subject."
        )


class DatabaseAway(Retry):
    """Postgres does not answer, or has dropped the connection."""

    def __init__(self, detail: object) -> None:
        super().__init__(
            f"Postgres does not answer ({one_line(detail)}). Start it with `rillfold up`, or name "
            f"one that runs by RILLFOLD_PROVIDER=external and RILLFOLD_POSTGRES_DSN."
        )


class UnreadableDsn(Stop):
    """What should say where Postgres is says nothing."""

    def __init__(self) -> None:
        super().__init__(
            "RILLFOLD_POSTGRES_DSN is no connection string. Write postgresql://USER:PASSWORD@HOST:PORT/DATABASE, or "
            "host=... port=... dbname=... user=... password=..."
        )


class DatabaseCannot(Retry):
    """Postgres answers, and cannot do it now."""

    def __init__(self, state: str, detail: object) -> None:
        super().__init__(
            f"Postgres answers, and cannot ({state}: {one_line(detail)}). It is tried again; see to its disk, its "
            f"memory, its connections and its locks."
        )


class ReadModelBroken(Stop):
    """Postgres lets us not do what the read model needs."""

    def __init__(self, state: str, detail: object) -> None:
        super().__init__(
            f"Postgres refuses the read model's statements ({state}: {one_line(detail)}). Give the user of "
            f"RILLFOLD_POSTGRES_DSN its rights back; a restart makes tables that are gone."
        )


class TableBroken(ReadModelBroken):
    """A table takes no row at all, be it ours or one that stands in it: no row of a company is to blame."""

    def __init__(self, table: str, state: str, detail: object) -> None:
        Stop.__init__(
            self,
            f"Table {table} of the read model takes no row any more, not even one that would fit or stands there "
            f"({state}: {one_line(detail)}). Nothing was written and no row was set aside. Take back what was "
            f"altered about the table (columns, types, constraints, triggers) and start the sink again: it goes on "
            f"where it was.",
        )


class ViewInUse(ReadModelBroken):
    """A view of the read model has to be made anew, and somebody's view stands on it."""

    def __init__(self, view: str) -> None:
        Stop.__init__(
            self,
            f"A column of view {view} has another type now, and a view of somebody else's stands on it. Nothing was "
            f"altered. Drop that one, start the sink, and make it again.",
        )


class NoReadModel(Retry):
    """The database is there, and no sink has written to it yet."""

    def __init__(self, schema: str) -> None:
        super().__init__(f"Schema {schema} lacks that table. Start `rillfold worker sink`; an app's with RILLFOLD_APP.")

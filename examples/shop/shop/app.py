"""Orders that were paid, what came in on each day, and what the company's agents are to know of it, and to learn."""

import hmac
from collections.abc import Iterator

import msgspec

from rillfold import App, Emit, Talk, ToolRequest
from schemas.company import Message
from schemas.memory import MemoryNoted

app = App("shop")
LARGE = 100_000


@app.event("order.paid")
class OrderPaid:
    """Somebody has paid for an order."""

    order: str
    day: str
    cents: int


class Revenue(msgspec.Struct, frozen=True):
    """What came in on one day."""

    orders: int = 0
    cents: int = 0


app.topic("parcels")
"""Scanners say much: apart from what the company says of itself."""


@app.event("parcel.scanned", topic="parcels")
class ParcelScanned:
    """A parcel has passed somewhere."""

    parcel: str
    at: str


class Parcel(msgspec.Struct, frozen=True):
    """Where a parcel was seen last."""

    at: str = ""
    scans: int = 0


@app.projection("parcels", key=lambda event: event.parcel)
def parcels(state: Parcel, event: ParcelScanned) -> Parcel:
    """The last scan is where it is."""
    return Parcel(at=event.at, scans=state.scans + 1)


@app.projection("revenue", key=lambda event: event.day)
def revenue(state: Revenue, event: OrderPaid) -> Revenue:
    """Money that goes out is no revenue: the event is refused."""
    if event.cents < 0:
        raise ValueError("an order that was paid has cents of at least 0")
    return Revenue(orders=state.orders + 1, cents=state.cents + event.cents)


@app.reaction()
async def note(event: OrderPaid, emit: Emit) -> None:
    """Agents of the company know of large orders."""
    if event.cents >= LARGE:
        emit(MemoryNoted, memory=event.order, text=f"order {event.order} came to {event.cents} cents", source="shop")


@app.rule("orders")
def orders(event: OrderPaid) -> Iterator[Talk]:
    """The company's agents learn to answer what an order came to."""
    if event.cents >= 0:
        asked = Message(role="user", content=f"What did order {event.order} come to?")
        yield Talk(agent="shop", messages=(asked, Message(role="assistant", content=came_to(event.cents))))


def came_to(cents: int) -> str:
    return f"It came to {cents // 100}.{cents % 100:02}."


@app.auth("signed")
def signed(secret: str, request: ToolRequest, now: int) -> dict[str, str]:
    """As the shop's till has it: what is asked, and when, under a secret that both sides know."""
    second = str(now // 1_000_000)
    said = "\n".join((request.method, request.url, second, "")).encode() + request.body
    return {"X-Till-Time": second, "X-Till-Signature": hmac.digest(secret.encode(), said, "sha256").hex()}

"""Orders that were paid, what came in on each day, and what the company's agents are to know of it, and to learn."""

from collections.abc import Iterator

import msgspec

from rillfold import App, Emit, Talk
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

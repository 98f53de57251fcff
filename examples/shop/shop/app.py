"""Orders that were paid, and what came in on each day."""

import msgspec

from rillfold import App

app = App("shop")


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

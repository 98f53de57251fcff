"""Words from outside, as a terminal may have them."""


def plain(text: str) -> str:
    """What is no character to be read could move the cursor, or type for whoever reads: it shows as �."""
    return "".join(c if c.isprintable() or c in "\n\t\u200d" else "\ufffd" for c in text)


def marked(text: object) -> str:
    """The same for rich, which would read brackets as its own markup."""
    from rich.markup import escape

    return escape(plain(str(text)))

"""What arguments are filled with, by what their names let expect."""

from collections.abc import Callable
from string import ascii_uppercase

from processors.synthetic.lots import Lots

FIRST = """
    Maria Tom Aisha Jonas Elena Peter Grace Omar Lucia Henrik Nadia Paul Ingrid Diego Sofia Marcus Anton Emily
    Hanna Ivan Julia Laura Miguel Nora Oscar Rosa Samuel Teresa Victor Adam Carlos Erik Gabriel Helen Isabel
    Olivia Rachel Stefan Clara Walter
"""
LAST = """
    Lopez Weber Khan Rossi Novak Silva Meyer Larsen Hansen Costa Fischer Moreau Adams Carter Diaz Garcia Jensen
    Lambert Martin Patel Quinn Santos Taylor Wagner Young Bauer Chen Evans Hughes Jordan Keller Neumann Richter
    Schneider Torres Walker Petrov Murphy Romano Collins
"""
STREETS = """
    Harbour Mill Station River Castle Garden Market Bridge Forest Church Tower Valley Meadow Orchard Park Hill
    Lake Temple Palace Factory School Museum Island Summit Beach Chapel College Fountain Maple North Oak Pine
    Queen Rose South Union Willow Lighthouse Abbey Canal
"""
KINDS_OF_STREET = """
    Road Street Lane Square Avenue Drive Place Court
"""
CITIES = """
    Lisbon Vienna Oslo Madrid Dublin Prague Athens Warsaw Helsinki Geneva Porto Bergen Lyon Turin Leipzig Gdansk
    Ghent Bristol Malmo Seville Cork Basel Graz Utrecht Aarhus Naples Bremen Nantes Riga Zagreb
"""
COUNTRIES = """
    Portugal Austria Norway Spain Ireland Greece Poland Finland Italy Sweden Denmark Belgium Croatia Latvia Chile
    Peru Kenya Japan Canada Mexico
"""
QUALITIES = """
    red blue green silver wooden small large heavy old new round broken spare quiet bright soft narrow double
    plain golden
"""
THINGS = """
    lamp table chair ladder kettle window door carpet shelf engine bicycle pump cable basket mirror clock curtain
    bottle wagon bench valve filter motor blanket drawer
"""
HAPPENED = (
    "arrived late|is too small|does not fit|was damaged|has to be replaced|makes a noise|is missing a part|"
    "looks fine|needs a new cover|leaks a little"
)
DOMAINS = """
    example.org example.com example.net
"""


def person(lots: Lots) -> str:
    return f"{lots.one(FIRST.split())} {lots.one(LAST.split())}"


def code(lots: Lots) -> str:
    return f"{lots.one(ascii_uppercase)}-{lots.between(10_000, 99_999)}"


def site(lots: Lots) -> str:
    return f"{lots.between(2, 98)} {lots.one(STREETS.split())} {lots.one(KINDS_OF_STREET.split())}"


def date(lots: Lots) -> str:
    return f"{lots.between(2026, 2028)}-{lots.between(1, 12):02}-{lots.between(1, 28):02}"


def clock(lots: Lots) -> str:
    return f"{lots.between(6, 21):02}:{lots.between(0, 11) * 5:02}"


def moment(lots: Lots) -> str:
    return f"{date(lots)}T{clock(lots)}:00Z"


def email(lots: Lots) -> str:
    return f"{lots.one(FIRST.split())}.{lots.one(LAST.split())}@{lots.one(DOMAINS.split())}".lower()


def phone(lots: Lots) -> str:
    return f"+49 30 {lots.between(100_000, 999_999)}"


def url(lots: Lots) -> str:
    return f"https://{lots.one(DOMAINS.split())}/{lots.one(THINGS.split())}/{lots.between(100, 9_999)}"


def uuid(lots: Lots) -> str:
    letters = "".join(lots.one("0123456789abcdef") for _ in range(32))
    return f"{letters[:8]}-{letters[8:12]}-4{letters[13:16]}-a{letters[17:20]}-{letters[20:]}"


def address(lots: Lots) -> str:
    return ".".join(str(lots.between(1, 250)) for _ in range(4))


def thing(lots: Lots) -> str:
    return f"{lots.one(QUALITIES.split())} {lots.one(QUALITIES.split())} {lots.one(THINGS.split())}"


def sentence(lots: Lots) -> str:
    return f"the {lots.one(QUALITIES.split())} {lots.one(THINGS.split())} {lots.one(HAPPENED.split('|'))}"


def city(lots: Lots) -> str:
    return lots.one(CITIES.split())


def country(lots: Lots) -> str:
    return lots.one(COUNTRIES.split())


Filler = Callable[[Lots], str]

BY_FORMAT: dict[str, Filler] = {
    "date": date,
    "time": lambda lots: f"{clock(lots)}:00Z",
    "date-time": moment,
    "email": email,
    "uri": url,
    "uuid": uuid,
    "ipv4": address,
    "hostname": lambda lots: f"{lots.one(THINGS.split())}.{lots.one(DOMAINS.split())}",
}
BY_WORD: tuple[tuple[str, Filler], ...] = (
    ("id ids number code ref reference sku key ticket order account invoice booking policy", code),
    ("email mail", email),
    ("phone mobile", phone),
    ("url uri link website", url),
    ("date day deadline due until since", date),
    ("time hour clock", clock),
    ("address street site venue", site),
    ("city town destination origin from to location place station", city),
    ("country", country),
    (
        "name customer person contact guest driver recipient patient employee owner author user client tenant "
        "attendee sender member",
        person,
    ),
    (
        "text message note notes reason comment title subject description body query question topic issue problem",
        sentence,
    ),
)


def by_word(words: list[str]) -> Filler:
    """The last word of an argument's name says most: a customer id is an id."""
    for word in reversed(words):
        for known, filler in BY_WORD:
            if word in known.split():
                return filler
    return thing

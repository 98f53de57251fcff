"""Cutting files into rows: the same rows however the bytes arrive."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rillfold.produce.rows import MAX_ROW_BYTES, CsvFields, FileRow, Ids, NoColumns, Rows, csv_cells, header_of
from schemas.codec.json_form import json_fields
from schemas.rejected import Unusable
from schemas.topics import BY_NAME


def rows_of(chunks: list[bytes], *, quoted: bool = False) -> list[FileRow]:
    rows = Rows(quoted=quoted)
    return [row for chunk in chunks for row in rows.feed(chunk)] + list(rows.close())


def test_lines_are_counted_and_blank_ones_skipped() -> None:
    assert rows_of([b"a\n\n  \r\nb\r\nc"]) == [FileRow(1, b"a"), FileRow(4, b"b"), FileRow(5, b"c")]


def test_a_quoted_cell_may_hold_line_ends() -> None:
    text = b'x,"one\ntwo ""2""\r\nthree"\ny,"z"\n'
    assert rows_of([text], quoted=True) == [FileRow(1, b'x,"one\ntwo ""2""\r\nthree"'), FileRow(4, b'y,"z"')]


@given(st.lists(st.sampled_from([b"a", b'"', b"\n", b"\r\n", b",", b"\xc3", b" "])), st.data())
def test_where_the_chunks_end_does_not_matter(pieces: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    chunks = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    for quoted in (False, True):
        assert rows_of(chunks, quoted=quoted) == rows_of([whole], quoted=quoted)


def test_a_row_too_long_is_given_up_in_bounded_memory_and_the_next_is_read() -> None:
    chunk = b"x" * 65536
    rows = Rows(quoted=False)
    tracemalloc.start()
    for _ in range(16 * MAX_ROW_BYTES // len(chunk)):
        assert list(rows.feed(chunk)) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * MAX_ROW_BYTES
    assert list(rows.feed(b"\nnext\n")) == [FileRow(1, None), FileRow(2, b"next")]


def test_a_quote_that_nobody_closes_costs_one_row_not_the_file() -> None:
    rows = rows_of([b'a,"open\n', *[b"x" * 65535 + b"\n"] * 70, b'b,"closed"\n', b"c,d\n"], quoted=True)
    assert rows[0] == FileRow(1, None)
    assert rows[-2:] == [FileRow(72, b'b,"closed"'), FileRow(73, b"c,d")]


def test_csv_cells_are_typed_by_the_events_fields() -> None:
    fields = CsvFields(["type", "job", "ok", "status", "body", "reason"], {"company": "acme"})
    assert fields(b'tool.returned,007,true,200,"{""a"": 1}",') == {
        "company": "acme",
        "type": "tool.returned",
        "job": "007",
        "ok": True,
        "status": 200,
        "body": '{"a": 1}',
    }


def header(text: str, **defaults: str) -> list[str]:
    return header_of(FileRow(1, text.encode()), BY_NAME["company-data"], defaults)


def test_a_header_that_names_a_column_twice_is_refused() -> None:
    """The last cell that is not empty would win, without a word."""
    with pytest.raises(NoColumns, match="names text twice"):
        header("text,entity,text")


def test_a_first_row_that_is_no_header_is_refused_with_the_names_that_there_are() -> None:
    """It would be taken for one, and lost without a word."""
    with pytest.raises(NoColumns, match=r"'order', 'o-1', '{}': no field of record.ingested.*data, entity, id, kind"):
        header('order,o-1,"{}"', type="record.ingested")
    with pytest.raises(NoColumns, match=r"'entiti': no field of record.ingested\. Is 'entity' meant\?"):
        header("kind,entiti", type="record.ingested")
    with pytest.raises(NoColumns, match="'hello': no field of events of company-data"):
        header("hello")
    with pytest.raises(Unusable, match="too_large"):
        header_of(FileRow(1, None), BY_NAME["company-data"], {})


def test_a_header_may_name_what_its_rows_can_be() -> None:
    """By the type that is given, or of any event where rows name their own. A column without a name may stay empty."""
    assert header("kind,entity,data,", type="record.ingested") == ["kind", "entity", "data", ""]
    assert header("kind,prompt") == ["kind", "prompt"]
    assert header("type,prompt", type="record.ingested") == ["type", "prompt"]
    with pytest.raises(NoColumns, match="'prompt'"):
        header("kind,prompt", type="record.ingested")


def test_csv_cells_of_structured_fields_hold_json() -> None:
    fields = CsvFields(["messages"], {"type": "conversation.ingested"})
    assert fields(b'"[{""role"":""user"",""content"":""hi""}]"')["messages"] == [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"a,b,c", "wrong_type"),
        (b'"a"b,c', "invalid_csv"),
        (b"a,\xff", "bad_utf8"),
        (b"tool.returned,maybe", "wrong_type"),
    ],
)
def test_bad_csv_rows_say_why(text: bytes, reason: str) -> None:
    with pytest.raises(Unusable) as caught:
        CsvFields(["type", "ok"], {})(text)
    assert caught.value.reason == reason


@given(st.binary())
def test_no_bytes_get_another_error_out_of_a_row(text: bytes) -> None:
    for parse in (json_fields, csv_cells):
        try:
            parse(text)
        except Unusable as error:
            assert error.reason in ("bad_utf8", "invalid_json", "too_deep", "invalid_csv")


def ids_of(name: str, *texts: bytes, company: str = "acme") -> list[str]:
    ids, found = Ids(name), []
    for number, text in enumerate(texts, 1):
        ids.read(FileRow(number, text))
        found.append(ids.last(company))
    return found


def test_the_same_file_gives_the_same_ids_and_growing_it_keeps_them() -> None:
    assert ids_of("f", b"a", b"b") == ids_of("f", b"a", b"b", b"c")[:2]


def test_other_rows_other_files_and_repeated_rows_give_other_ids() -> None:
    ids = [*ids_of("f", b"a", b"a", b"a"), *ids_of("f", b"b", b"a"), *ids_of("g", b"a")]
    assert len(set(ids)) == len(ids)


@given(st.lists(st.sampled_from([b"a", b"b"]), min_size=1, max_size=6))
def test_two_companies_that_send_one_file_and_two_identical_lines_never_share_an_id(texts: list[bytes]) -> None:
    companies = ("acme", "acme.x", "a", "cme")
    ids = [id_ for company in companies for id_ in ids_of("f", *texts, company=company)]
    assert len(set(ids)) == len(companies) * len(texts)

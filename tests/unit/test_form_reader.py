"""Forms are read in pieces of any size, as browsers, curl and the SDKs write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.files.multipart import FormReader, PartBegins, PartData, PartEnds
from jobs.contract.errors import InvalidRequestError

TYPE = "multipart/form-data; boundary=xyz"
Parts = list[tuple[str, str | None, bytes]]


def read(body: bytes, sizes: list[int], content_type: str = TYPE) -> Parts:
    reader, parts = FormReader(content_type), []
    at = 0
    while at < len(body):
        size = sizes[at % len(sizes)]
        for event in reader.feed(body[at : at + size]):
            if isinstance(event, PartBegins):
                parts.append((event.name, event.filename, b""))
            elif isinstance(event, PartData):
                name, filename, data = parts[-1]
                parts[-1] = (name, filename, data + event.data)
            else:
                assert isinstance(event, PartEnds)
        at += size
    reader.close()
    return parts


def form(*parts: tuple[str, bytes]) -> bytes:
    body = b"".join(
        b"--xyz\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" % (head.encode(), data)
        for head, data in parts
    )
    return body + b"--xyz--\r\n"


CONTENT = st.lists(st.sampled_from([b"\r\n", b"--xyz", b"-", b"\r", b"a", b"\n--xy"])).map(b"".join)


@given(CONTENT, CONTENT, st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_a_form_is_the_same_in_whatever_pieces_it_comes(
    first: bytes, second: bytes, sizes: list[int]
) -> None:
    first, second = (data.replace(b"\r\n--xyz", b"") for data in (first, second))
    first, second = (data.replace(b"\r\n--xyz", b"") for data in (first, second))
    if b"\r\n--xyz" in first + second or (first + second).startswith(b"--xyz"):
        return
    body = form(('name="purpose"', first), ('name="file"; filename="a.jsonl"', second))
    expected: Parts = [("purpose", None, first), ("file", "a.jsonl", second)]
    assert read(body, sizes) == expected


@pytest.mark.parametrize(
    ("head", "filename"),
    [
        ('name="file"; filename="a b.jsonl"', "a b.jsonl"),
        ('name="file"; filename="a\\"b\\\\c"', 'a"b\\c'),  # curl
        ('name="file"; filename="a%22b"', 'a"b'),  # browsers and httpx
        ("name=file; filename=plain.txt", "plain.txt"),
        ('name="file"; filename="x"; filename*=UTF-8\'\'%C3%BCber.txt', "über.txt"),
        ('name="file"; filename="über.txt"', "über.txt"),
        ('name="file"', None),
        ('name="file"; filename=""', ""),
    ],
)
def test_names_of_files_are_read_as_clients_write_them(head: str, filename: str | None) -> None:
    assert read(form((head, b"x")), [7]) == [("file", filename, b"x")]


def test_a_preamble_blanks_behind_a_boundary_and_an_epilogue_mean_nothing() -> None:
    body = b'pre\r\n--xyz  \r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--xyz--\r\nend'
    assert read(body, [5]) == [("a", None, b"1")]


def test_a_quoted_boundary_is_one() -> None:
    quoted = 'multipart/form-data; charset=utf-8; boundary="xyz"'
    assert read(form(('name="a"', b"1")), [9], quoted) == [("a", None, b"1")]


@pytest.mark.parametrize(
    "content_type",
    ["", "application/json", "multipart/form-data", "multipart/mixed; boundary=xyz"],
)
def test_what_is_no_form_is_refused(content_type: str) -> None:
    with pytest.raises(InvalidRequestError, match="multipart/form-data with a boundary"):
        FormReader(content_type)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--xyz",
        form(('name="a"', b"1"))[:-6],
        b"--xyz\r\n\r\nno head\r\n--xyz--",
        b"--xyz\r\nContent-Type: text/plain\r\n\r\nno name\r\n--xyz--",
        b'--xyz\r\nContent-Disposition: form-data; filename="x"\r\n\r\nno name\r\n--xyz--',
        b"--xyz\r\nX: " + b"x" * 20_000,
        b"x" * 70_000,
    ],
)
def test_a_broken_form_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        read(body, [1000])

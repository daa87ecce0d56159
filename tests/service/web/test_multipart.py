"""Forms as clients write them, and as nobody should."""

import pytest

from service.web.errors import Malformed
from service.web.multipart import MAX_PARTS, parse

TYPE = 'multipart/form-data; boundary="b"'


def form(*parts: bytes, before: bytes = b"", after: bytes = b"") -> bytes:
    body = b"".join(b"--b\r\n" + part + b"\r\n" for part in parts)
    return before + body + b"--b--\r\n" + after


def part(name: bytes = b"file", content: bytes = b"x") -> bytes:
    return b'Content-Disposition: form-data; name="' + name + b'"\r\n\r\n' + content


def test_finds_the_parts_in_order() -> None:
    found = parse(form(part(b"a", b"1"), part(b"b", b""), part(b"a", b"\n--b\r\n--c\r\n-b")), TYPE)
    assert [(p.name, bytes(p.content)) for p in found] == [
        ("a", b"1"),
        ("b", b""),
        ("a", b"\n--b\r\n--c\r\n-b"),
    ]


def test_allows_text_around_and_headers_in_any_order_and_case() -> None:
    odd = (
        b'Content-Type: image/png\r\ncontent-DISPOSITION:form-data; filename="a\\"b.png"; name=file'
        b"\r\n\r\nx"
    )
    (found,) = parse(form(odd, before=b"preamble\r\n", after=b"epilogue"), TYPE)
    assert found == ("file", b"x")


def test_an_empty_form_has_no_parts() -> None:
    assert parse(b"--b--", TYPE) == []


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", TYPE),
        (b"--b", TYPE),
        (b"--b\r\n", TYPE),
        (b"--b\r\n\r\n", TYPE),
        (b"--b\r\n" + part(), TYPE),
        (b"--bb\r\n" + part() + b"\r\n--bb--", TYPE),
        (form(b"\r\nno headers"), TYPE),
        (form(b"Content-Disposition: attachment\r\n\r\nx"), TYPE),
        (form(b"X: " + b"y" * 10_000 + b"\r\n" + part()), TYPE),
        (form(*[part()] * (MAX_PARTS + 1)), TYPE),
        (b"\r\n" * 100_000, TYPE),
        (form(b"Content-Disposition: form-data; name=file" + b";" * 17 + b"\r\n\r\nx"), TYPE),
        (form(part()), TYPE + ";" * 17),
        (form(part()), "multipart/form-data"),
        (form(part()), "multipart/form-data; boundary="),
        (form(part()), "multipart/form-data; boundary=" + "b" * 71),
        (form(part()), 'multipart/form-data; boundary="b\x00"'),
    ],
)
def test_refuses(body: bytes, content_type: str) -> None:
    with pytest.raises(Malformed):
        parse(body, content_type)

"""Everything that JSON allows and forbids, sent to the real server."""

import json

import pytest

from tests.hostile import documents
from tests.hostile.wire import CANARY, check_good, check_rule, exchange, post
from tests.server_process import ServerProcess

V2_PATH = "/v2/models/curve-mlp/infer"
PATHS = ["/predict", "/gradient", "/w10-gradient", V2_PATH]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("case", documents.MALFORMED)
def test_what_is_not_json_is_malformed(server: ServerProcess, path: str, case: str) -> None:
    answer = exchange(server.port, post(path, documents.MALFORMED[case]))
    check_rule(answer)
    # Nesting may be refused as a value of the wrong type before its end is looked for.
    assert answer.status in ({400, 422} if case.startswith("deep") else {400})
    check_good(server)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("case", documents.MEANINGLESS)
def test_what_is_no_question_is_invalid(server: ServerProcess, path: str, case: str) -> None:
    answer = exchange(server.port, post(path, documents.MEANINGLESS[case]))
    check_rule(answer)
    # Whether a lone surrogate is JSON at all, RFC 8259 leaves open.
    assert answer.status in ({400, 422} if "surrogate" in case else {422})
    check_good(server)


@pytest.mark.parametrize("case", documents.NUMBERS)
def test_numbers(server: ServerProcess, case: str) -> None:
    text, statuses = documents.NUMBERS[case]
    answer = exchange(server.port, post("/predict", documents.x(text)))
    check_rule(answer)
    assert answer.status in statuses
    if answer.status == 200:
        given = json.loads(text)
        wanted = given if isinstance(given, list) else [given]
        document = json.loads(answer.body)
        assert document["x"] == wanted
        assert document["y"] == pytest.approx([v**3 - 2 * v for v in wanted])
    check_good(server)


@pytest.mark.parametrize("case", documents.BODIES)
def test_bodies(server: ServerProcess, case: str) -> None:
    body, statuses = documents.BODIES[case]
    answer = exchange(server.port, post("/predict", body))
    check_rule(answer)
    assert answer.status in statuses
    check_good(server)


@pytest.mark.parametrize(("order", "statuses"), documents.ORDERS)
def test_orders(server: ServerProcess, order: str, statuses: set[int]) -> None:
    body = b'{"x": 2, "order": ' + order.encode() + b"}"
    answer = exchange(server.port, post("/gradient", body))
    check_rule(answer)
    assert answer.status in statuses


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", documents.CONTENT_TYPES)
def test_content_types(server: ServerProcess, path: str, kind: str) -> None:
    answer = exchange(server.port, post(path, b'{"x": 1}', kind))
    check_rule(answer)
    # Clients of the protocol behind /v2 send JSON with another type, or without one.
    read = path == V2_PATH and not kind.partition(";")[0]
    assert answer.status == (422 if read else 415)


COMPRESSED = [
    *PATHS,
    "/classify",
    "/explain",
    "/evaluate",
    "/umbridge/Evaluate",
    "/umbridge/InputSizes",
    "/tesseract/curve-mlp/apply",
]


@pytest.mark.parametrize("path", COMPRESSED)
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", CANARY])
def test_compressed_bodies_are_refused(server: ServerProcess, path: str, encoding: str) -> None:
    answer = exchange(
        server.port,
        post(path, b"\x1f\x8b\x08", "application/json", f"Content-Encoding: {encoding}"),
    )
    check_rule(answer)
    if path == V2_PATH and encoding in {"gzip", "deflate"}:
        assert answer.status == 400  # read there, and damaged
        return
    assert answer.status == (400 if path.startswith("/umbridge/") else 415)
    assert b"Content-Encoding" in answer.body


@pytest.mark.parametrize("case", documents.W10)
def test_w10(server: ServerProcess, case: str) -> None:
    answer = exchange(server.port, post("/w10-gradient", documents.W10[case]))
    check_rule(answer)
    assert answer.status == 422


@pytest.mark.parametrize("case", documents.V2)
def test_v2(server: ServerProcess, case: str) -> None:
    answer = exchange(server.port, post(V2_PATH, documents.V2[case]))
    check_rule(answer)
    assert answer.status == 422
    check_good(server)

"""The rule as a property: whatever is sent, no 5xx, no hang, a short problem, and on it goes."""

import json
from typing import Any

import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.hostile import documents
from tests.hostile.pictures import refused
from tests.hostile.wire import CANARY, MAX_ERROR_BYTES, check_good, check_rule, exchange, post
from tests.server_process import ServerProcess
from tests.tiny_artifacts import encoded, png

EXAMPLES = settings(
    max_examples=120, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)
JSON_PATHS = ["/predict", "/gradient", "/w10-gradient", "/v2/models/curve-mlp/infer"]

numbers = st.one_of(
    st.floats(),
    st.integers(),
    st.integers(10**300, 10**400),
    st.sampled_from([0.0, -0.0, 5e-324, 1e308, -1e308, 2**53 + 1]),
)
# With surrogates, controls and whatever else Unicode has; the canary shows what is repeated.
texts = st.one_of(st.text(max_size=20), st.text(max_size=5).map(lambda t: t + CANARY))
values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=20,
)
names = st.one_of(
    st.sampled_from(
        ["x", "model", "order", "input", "kernel", "weights", "label", "naming", "inputs", "id",
         "outputs", "parameters", "__class__", "__proto__"]
    ),
    texts,
)  # fmt: skip
questions = st.one_of(values, st.dictionaries(names, values, max_size=6))


@EXAMPLES
@given(path=st.sampled_from(JSON_PATHS), question=questions)
def test_any_json(server: ServerProcess, path: str, question: Any) -> None:
    # Lone surrogates go as escapes, NaN and Infinity as Python writes them.
    check_rule(exchange(server.port, post(path, json.dumps(question).encode())))
    check_good(server)


GOOD = [
    b'{"x": [0.5, 1.5, 2.5], "model": "curve-mlp", "order": 2}',
    documents.w10_changed("label", 0.5),
    documents.v2_changed(),
]


@EXAMPLES
@given(path=st.sampled_from(JSON_PATHS), good=st.sampled_from(GOOD), data=st.data())
def test_good_questions_with_bytes_changed(
    server: ServerProcess, path: str, good: bytes, data: st.DataObject
) -> None:
    body = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    check_rule(exchange(server.port, post(path, bytes(body))))
    check_good(server)


FILES = [png((250, 5, 5)), *(content for _, content, _ in refused() if len(content) < 100_000)]
KINDS = ["image/png", "application/octet-stream", "multipart/form-data; boundary=b"]


@EXAMPLES
@given(
    path=st.sampled_from(["/classify", "/explain"]),
    kind=st.sampled_from(KINDS),
    file=st.sampled_from(FILES),
    data=st.data(),
)
def test_pictures_with_bytes_changed(
    server: ServerProcess, path: str, kind: str, file: bytes, data: st.DataObject
) -> None:
    body = bytearray(file)
    if kind.startswith("multipart"):
        start = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
        body[:0] = start
        body += b"\r\n--b--"
    for _ in range(data.draw(st.integers(0, 4)) if body else 0):
        # Heads are where most of the meaning is.
        last = len(body) - 1
        at = data.draw(st.one_of(st.integers(0, min(60, last)), st.integers(0, last)))
        body[at : at + 1] = data.draw(st.binary(min_size=1, max_size=2))
    check_rule(exchange(server.port, post(path, bytes(body), kind)))
    check_good(server)


header_text = st.text(st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=30)


@settings(EXAMPLES, max_examples=80)
@given(
    method=st.sampled_from(["GET", "POST", "HEAD", "OPTIONS", "get", "PROPFIND"]),
    path=st.one_of(
        header_text.map(lambda text: "/" + text),
        st.sampled_from(["/predict", "/models/", "/v2/models/", "/static/", "/health/", "*"]),
    ),
    headers=st.lists(
        st.tuples(
            st.sampled_from(["Host", "Content-Type", "Content-Length", "Transfer-Encoding", "Range",
                             "Expect", "Connection", "Upgrade", "X-Request-Id", "Cookie", "Accept",
                             "Origin", "Authorization", "If-None-Match", "If-Modified-Since"]),
            st.one_of(header_text, st.sampled_from(["chunked", "0", "9", "100-continue", "close",
                                                    "websocket", "upgrade"])),
        ),
        max_size=6,
    ),
)  # fmt: skip
def test_any_head(
    server: ServerProcess, method: str, path: str, headers: list[tuple[str, str]]
) -> None:
    lines = [f"{method} {path} HTTP/1.1", "Host: a", *(f"{n}: {v}" for n, v in headers), "", ""]
    # What follows cuts short whatever body was announced, without waiting for its deadline.
    sent = "\r\n".join(lines).encode("latin-1") + b"\r\n" * 200
    answer = exchange(server.port, sent, method)
    if method == "HEAD":
        assert answer.status < 500
    else:
        check_rule(answer)
    check_good(server)


@settings(EXAMPLES, max_examples=60)
@given(data=st.data())
def test_what_our_own_openapi_forbids(server: ServerProcess, data: st.DataObject) -> None:
    schema = _schema(server)
    operations = [result.ok() for result in schema.get_all_operations()]
    operation = data.draw(st.sampled_from(operations))
    mode = data.draw(st.sampled_from(list(schemathesis.GenerationMode)))
    try:
        strategy = operation.as_strategy(generation_mode=mode)
        case = data.draw(strategy)
    except (schemathesis.errors.SchemathesisError, TypeError):
        return  # nothing can be wrong about an operation that takes nothing
    answer = case.call(timeout=20)
    assert answer.status_code < 500, case.as_curl_command()
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == ["application/problem+json"]
        assert len(answer.content) < MAX_ERROR_BYTES
        assert json.loads(answer.content)["status"] == answer.status_code
    check_good(server)


_schemas: dict[int, schemathesis.BaseSchema] = {}


def _schema(server: ServerProcess) -> schemathesis.BaseSchema:
    """Read once for each server."""
    if server.port not in _schemas:
        url = f"http://127.0.0.1:{server.port}/openapi.json"
        _schemas[server.port] = schemathesis.openapi.from_url(url)
    return _schemas[server.port]


def test_the_surviving_server_still_knows_its_colours(server: ServerProcess) -> None:
    from PIL import Image

    for colour, label in (("red", "red"), ("lime", "green"), ("blue", "blue")):
        status, answer = server.classify(encoded(Image.new("RGB", (40, 40), colour), "JPEG"))
        assert (status, answer["results"][0]["top"][0]["label"]) == (200, label)

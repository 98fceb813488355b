"""The application: its routes return what the libraries return, and faults get their status."""

import asyncio
import base64
import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")
transformers = pytest.importorskip("transformers", minversion="5")

from sentence_transformers import CrossEncoder, SentenceTransformer  # noqa: E402

from cpuaccel.errors import CpuaccelError  # noqa: E402
from cpuaccel.integrations.http import JsonFormatter, Limits, create_app  # noqa: E402
from tests.integrations.parts import TEXTS  # noqa: E402

Use = Callable[[Any], Awaitable[None]]


def use(app: Any, test: Use) -> None:
    async def main() -> None:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            await test(client)
        await app.state.cpuaccel.drain(10)

    asyncio.run(main())


def once(app: Any, path: str, body: Any) -> Any:
    responses = []

    async def test(client: Any) -> None:
        responses.append(await client.post(path, json=body))

    use(app, test)
    return responses[0]


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_embeddings(embedder: Any, folders: dict[str, Path], encoding: str) -> None:
    body = {"input": TEXTS, "encoding_format": encoding, "model": "default", "user": "me"}
    response = once(create_app(embeddings=embedder), "/v1/embeddings", body)
    assert response.status_code == 200, response.text
    answer = response.json()
    expected = SentenceTransformer(str(folders["embeddings"]), device="cpu").encode(TEXTS)
    for index, item in enumerate(answer["data"]):
        assert item["index"] == index
        values = item["embedding"]
        if encoding == "base64":
            values = np.frombuffer(base64.b64decode(values), "<f4")
        np.testing.assert_allclose(values, expected[index], atol=1e-5)
    tokens = sum(row.tokens for row in embedder.encode(TEXTS))
    assert answer["usage"] == {
        "prompt_tokens": tokens,
        "completion_tokens": 0,
        "total_tokens": tokens,
    }


def test_one_text(embedder: Any) -> None:
    response = once(create_app(embeddings=embedder), "/v1/embeddings", {"input": "one"})
    assert len(response.json()["data"]) == 1


def test_rerank(reranker: Any, folders: dict[str, Path]) -> None:
    body = {"query": "fox", "documents": TEXTS, "top_n": 3, "return_documents": True}
    answer = once(create_app(rerank=reranker), "/v1/rerank", body).json()
    pairs = [("fox", text) for text in TEXTS]
    scores = CrossEncoder(str(folders["rerank"]), device="cpu").predict(pairs)
    best = np.argsort(-scores)[:3]
    assert [result["index"] for result in answer["results"]] == best.tolist()
    found = [result["relevance_score"] for result in answer["results"]]
    np.testing.assert_allclose(found, scores[best], atol=1e-5)
    assert [r["document"]["text"] for r in answer["results"]] == [TEXTS[n] for n in best]


MESSAGES = [{"role": "user", "content": "w3 w14 w15"}]


def expected_chat(folder: Path, tokens: int) -> str:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer.apply_chat_template(
        MESSAGES, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    ids = inputs["input_ids"]
    output = model.generate(
        ids, attention_mask=inputs["attention_mask"], max_new_tokens=tokens, pad_token_id=0
    )
    return str(tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True))


def test_chat(chatter: Any, folders: dict[str, Path]) -> None:
    body = {"messages": MESSAGES, "max_tokens": 7, "temperature": 0}
    response = once(create_app(chat=chatter), "/v1/chat/completions", body)
    assert response.status_code == 200, response.text
    choice = response.json()["choices"][0]
    assert choice["message"]["content"] == expected_chat(folders["chat"], 7)
    assert choice["finish_reason"] == "length"
    assert response.json()["usage"]["completion_tokens"] == 7


def events(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def test_a_streamed_chat_is_the_same_text_in_pieces(chatter: Any, folders: dict[str, Path]) -> None:
    body = {"messages": MESSAGES, "stream": True, "stream_options": {"include_usage": True}}
    response = once(create_app(chat=chatter), "/v1/chat/completions", body)
    assert response.headers["content-type"].startswith("text/event-stream")
    *chunks, usage = events(response.text)
    pieces = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
    assert len(pieces) > 3
    assert "".join(pieces) == expected_chat(folders["chat"], 12)
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert usage["usage"]["completion_tokens"] == 12


def test_a_left_stream_ends_its_generation_and_gives_its_place_back(chatter: Any) -> None:
    app = create_app(chat=chatter)
    streams = app.state.cpuaccel.streams

    async def main() -> None:
        from cpuaccel.integrations.http.streams import Completion

        ids = streams.tokenize(MESSAGES)
        pieces = streams.stream(Completion(ids.shape[1]), ids, {"max_new_tokens": 2000})
        await anext(pieces)
        await anext(pieces)
        assert streams.calls == 1
        await pieces.aclose()
        assert streams.calls == 0
        assert await streams.close(60)

    asyncio.run(main())


def test_chats_over_the_room_get_429(chatter: Any) -> None:
    app = create_app(chat=chatter)
    app.state.cpuaccel.streams.room = 2

    async def test(client: Any) -> None:
        calls = [client.post("/v1/chat/completions", json={"messages": MESSAGES}) for _ in range(5)]
        answers = await asyncio.gather(*calls)
        codes = sorted(answer.status_code for answer in answers)
        assert codes == [200, 200, 429, 429, 429]
        assert all("retry-after" in a.headers for a in answers if a.status_code == 429)

    use(app, test)


MALFORMED: list[Any] = [
    {},
    {"input": []},
    {"input": ""},
    {"input": 7},
    {"input": [1, 2]},
    {"input": "a", "dimensions": 8},
    {"input": "a", "encoding_format": "hex"},
    ["input"],
]


@pytest.mark.parametrize("body", MALFORMED, ids=str)
def test_malformed(embedder: Any, body: Any) -> None:
    response = once(create_app(embeddings=embedder), "/v1/embeddings", body)
    assert response.status_code == 422
    assert response.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b'{"input": "\\ud800"}', b""])
def test_malformed_bytes(embedder: Any, content: bytes) -> None:
    async def test(client: Any) -> None:
        headers = {"content-type": "application/json"}
        answer = await client.post("/v1/embeddings", content=content, headers=headers)
        assert answer.status_code in (400, 422), answer.text
        assert (await client.post("/v1/embeddings", json={"input": "a"})).status_code == 200

    use(create_app(embeddings=embedder), test)


UNSERVED: list[dict[str, Any]] = [
    {"n": 2},
    {"tools": []},
    {"logprobs": True},
    {"messages": [{"role": "robot", "content": "w1"}]},
    {"messages": []},
    {"temperature": -1},
]


@pytest.mark.parametrize("change", UNSERVED, ids=str)
def test_what_is_not_served_is_refused(chatter: Any, change: dict[str, Any]) -> None:
    body = {"messages": MESSAGES, **change}
    response = once(create_app(chat=chatter), "/v1/chat/completions", body)
    assert response.status_code == 422


def test_another_model_and_another_route(embedder: Any) -> None:
    app = create_app(embeddings=embedder, name="mine")
    assert once(app, "/v1/embeddings", {"input": "a", "model": "yours"}).status_code == 404
    app = create_app(embeddings=embedder)
    assert once(app, "/v1/rerank", {"query": "a", "documents": ["b"]}).status_code == 404


def test_limits(embedder: Any, chatter: Any) -> None:
    limits = Limits(max_bytes=300, max_texts=2, max_prompt_tokens=8, max_new_tokens=5)

    async def test(client: Any) -> None:
        async def status(path: str, body: Any) -> int:
            return (await client.post(path, json=body)).status_code

        chats = "/v1/chat/completions"
        assert await status("/v1/embeddings", {"input": ["a", "b"]}) == 200
        assert await status("/v1/embeddings", {"input": ["a", "b", "c"]}) == 413
        assert await status("/v1/embeddings", {"input": "a" * 400}) == 413
        assert await status(chats, {"messages": MESSAGES, "max_tokens": 5}) == 200
        assert await status(chats, {"messages": MESSAGES, "max_tokens": 6}) == 413
        long = [{"role": "user", "content": "w1 w2 w3 w4 w5 w6 w7 w8 w9"}]
        assert await status(chats, {"messages": long, "max_tokens": 5}) == 413
        usual = (await client.post(chats, json={"messages": MESSAGES})).json()
        assert usual["usage"]["completion_tokens"] <= 5 < chatter.options["max_new_tokens"]

    use(create_app(embeddings=embedder, chat=chatter, limits=limits), test)


def test_chats_end_where_the_model_has_no_more_positions(chatter: Any) -> None:
    positions = chatter.model.config.max_position_embeddings

    async def test(client: Any) -> None:
        body = {"messages": MESSAGES, "max_tokens": positions}
        answer = await client.post("/v1/chat/completions", json=body)
        assert answer.status_code == 413
        assert f"<= {positions} with the" in answer.json()["error"]["message"]

    use(create_app(chat=chatter, limits=Limits(max_new_tokens=10 * positions)), test)


def test_a_body_without_a_declared_size_is_limited(embedder: Any) -> None:
    async def chunks() -> Any:
        for _ in range(100):
            yield b"x" * 100

    async def test(client: Any) -> None:
        assert (await client.post("/v1/embeddings", content=chunks())).status_code == 413

    use(create_app(embeddings=embedder, limits=Limits(max_bytes=1000)), test)


def test_a_slow_body_gets_408(embedder: Any) -> None:
    async def chunks() -> Any:
        yield b"{"
        await asyncio.sleep(60)

    async def test(client: Any) -> None:
        assert (await client.post("/v1/embeddings", content=chunks())).status_code == 408

    use(create_app(embeddings=embedder, limits=Limits(body_timeout=0.05)), test)


def test_overload_gets_429_and_no_answer_in_time_504(embedder: Any) -> None:
    app = create_app(embeddings=embedder, tokens=8, limits=Limits(timeout=0.2))
    batcher = app.state.cpuaccel.batchers["embeddings"]
    batcher.queue = 8
    import threading

    go = threading.Event()
    run = embedder.run
    embedder.run = lambda rows: go.wait() and run(rows)

    async def test(client: Any) -> None:
        held = asyncio.create_task(client.post("/v1/embeddings", json={"input": "a"}))
        while not batcher.stats.requests or batcher.waiting[0]:
            await asyncio.sleep(0.001)
        waits = asyncio.create_task(client.post("/v1/embeddings", json={"input": "abc"}))
        while not batcher.waiting[0]:
            await asyncio.sleep(0.001)
        full = await client.post("/v1/embeddings", json={"input": "abcdef"})
        assert full.status_code == 429
        assert int(full.headers["retry-after"]) >= 1
        assert [(await held).status_code, (await waits).status_code] == [504, 504]
        assert batcher.waiting == (0, 0)
        go.set()
        assert (await client.post("/v1/embeddings", json={"input": "a"})).status_code == 200

    use(app, test)


def test_draining_answers_what_waits_and_refuses_the_rest(embedder: Any, chatter: Any) -> None:
    app = create_app(embeddings=embedder, chat=chatter, tokens=16)

    async def test(client: Any) -> None:
        calls = [
            asyncio.create_task(client.post("/v1/embeddings", json={"input": f"text {n}"}))
            for n in range(20)
        ]
        while app.state.cpuaccel.batchers["embeddings"].stats.requests < 20:
            await asyncio.sleep(0.001)
        await app.state.cpuaccel.drain(60)
        assert {(await call).status_code for call in calls} == {200}
        assert (await client.post("/v1/embeddings", json={"input": "a"})).status_code == 503
        chat = await client.post("/v1/chat/completions", json={"messages": MESSAGES})
        assert chat.status_code == 503
        health = await client.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "draining")

    use(app, test)


def test_health_fails_when_a_variant_is_switched_off(
    embedder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(client: Any) -> None:
        assert (await client.get("/health")).json() == {"status": "ok"}
        for variant in embedder.model.variants:
            monkeypatch.setattr(variant, "off", "too many faults")
        health = await client.get("/health")
        assert health.status_code == 503
        assert "too many faults" in health.text
        answer = await client.post("/v1/embeddings", json={"input": "a"})  # by the original
        assert answer.status_code == 200
        assert (
            'cpuaccel_calls_total{key="fallback:switched_off"'
            in (await client.get("/metrics")).text
        )

    use(create_app(embeddings=embedder), test)


def test_metrics(embedder: Any) -> None:
    async def test(client: Any) -> None:
        await client.post("/v1/embeddings", json={"input": ["a", "b"]})
        await client.post("/v1/embeddings", json={})
        await client.get("/no/such/page")
        text = (await client.get("/metrics")).text
        assert 'cpuaccel_http_requests_total{path="/v1/embeddings",status="200"} 1.0' in text
        assert 'cpuaccel_http_requests_total{path="/v1/embeddings",status="422"} 1.0' in text
        assert 'cpuaccel_http_requests_total{path="unknown",status="404"} 1.0' in text
        assert 'cpuaccel_batcher_rows_total{batcher="embeddings"} 2.0' in text
        assert 'cpuaccel_calls_total{key="optimized",task="embeddings"}' in text

    use(create_app(embeddings=embedder), test)


def test_an_error_is_a_500_that_touches_no_other_request(embedder: Any) -> None:
    run = embedder.run

    def fails_on_seven(rows: Any) -> Any:
        if any(row.tokens == 7 + 2 for row in rows):
            raise RuntimeError("a bad row")
        return run(rows)

    embedder.run = fails_on_seven

    async def test(client: Any) -> None:
        calls = [client.post("/v1/embeddings", json={"input": "x" * n}) for n in range(1, 20)]
        codes = [answer.status_code for answer in await asyncio.gather(*calls)]
        assert codes == [500 if n == 7 else 200 for n in range(1, 20)]

    use(create_app(embeddings=embedder), test)


def test_each_request_has_a_log_line_in_json(
    embedder: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "cpuaccel.http"):
        response = once(create_app(embeddings=embedder), "/v1/embeddings", {"input": "a"})
    record = next(r for r in caplog.records if r.name == "cpuaccel.http")
    line = json.loads(JsonFormatter().format(record))
    assert (line["method"], line["path"], line["status"]) == ("POST", "/v1/embeddings", 200)
    assert line["request_id"] == response.headers["x-request-id"]
    assert line["level"] == "INFO"


def test_exceptions_in_log_lines() -> None:
    try:
        raise ValueError("of the test")
    except ValueError:
        import sys

        record = logging.LogRecord("x", logging.ERROR, "", 1, "%s", ("ü",), sys.exc_info())
    line = json.loads(JsonFormatter().format(record))
    assert line["message"] == "ü"
    assert "ValueError: of the test" in line["exception"]


def test_nothing_to_serve() -> None:
    with pytest.raises(CpuaccelError, match="nothing to serve"):
        create_app()

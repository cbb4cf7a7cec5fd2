"""A server on this machine that speaks OpenAI's chat completions, and fails as it is told to."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from taming_core.vlm import chat_server

Reply = tuple[int, bytes] | float | None  # status and body; seconds to wait before the usual answer; hanging up


@dataclass
class FakeApi:
    """A server on this machine, what it was sent, and what it replies to the next requests."""

    answer: Callable[[str], Any]  # prompt -> content
    url: str = ""
    requests: list[tuple[dict[str, Any], Any]] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    open_until: int = 10**6  # requests; 503 for those after them


def handler(api: FakeApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply(200, json.dumps({"data": [{"id": "tiny"}]}).encode())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            api.requests.append((dict(self.headers), body))
            reply = api.replies.pop(0) if api.replies else 0.0
            if len(api.requests) > api.open_until:
                reply = (503, b"overloaded")
            if reply is None:
                self.close_connection = True
                return
            if isinstance(reply, float):
                time.sleep(reply)
                content = api.answer(body["messages"][0]["content"][-1]["text"])
                reply = 200, json.dumps({"choices": [{"message": {"content": content}}]}).encode()
            self.reply(*reply)

        def reply(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


def serving(monkeypatch: pytest.MonkeyPatch, answer: Callable[[str], Any]) -> Iterator[FakeApi]:
    """The body of a fixture: a server that runs for a test."""
    monkeypatch.setattr(chat_server, "FIRST_WAIT", 0.01)
    made = FakeApi(answer)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(made))
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that gave up
    made.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield made
    server.shutdown()
    server.server_close()
    thread.join()

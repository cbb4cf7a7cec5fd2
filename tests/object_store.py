"""An S3-compatible object store on loopback: moto's server in a process of its own, which fails as it is told to.

A test takes the fixture `bucket`, and with it everything that reads AWS_* of the environment, in this process and in
those that it starts, talks to that server.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from upath import UPath

CONTROL = "/_faults"


@dataclass
class Faults:
    """What happens to the next requests whose method and path contain `match`."""

    after: int = 0  # requests that are served before
    refused: int = 0  # requests that are answered 503 Slow Down
    cut: int = 0  # requests after those whose connection ends in the middle of the answer's body, or before it
    match: str = ""  # such as "GET /bucket/photos"; of listings it is "GET /bucket?list"
    seen: list[str] = field(default_factory=list)  # method and path of every request since this was set
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self, request: str) -> str:
        """What happens to a request: `refuse`, `cut` or `serve`."""
        with self.lock:
            self.seen.append(request)
            for fault, name in (("serve", "after"), ("refuse", "refused"), ("cut", "cut")):
                if self.match in request and getattr(self, name):
                    setattr(self, name, getattr(self, name) - 1)
                    return fault
            return "serve"


class ObjectStore:
    """A running server."""

    def __init__(self) -> None:
        self.process = subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.endpoint = f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which s3fs and botocore find it; no file of the user's account is read."""
        absent = str(Path(__file__).with_name("absent"))
        return {
            "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": self.endpoint, "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": absent, "AWS_SHARED_CREDENTIALS_FILE": absent,
            "AWS_MAX_ATTEMPTS": "2",  # of botocore; s3fs tries each five times, and tests of failures end in time
        }  # fmt: skip

    def fail(self, refused: int = 0, cut: int = 0, match: str = "", after: int = 0) -> None:
        """Have requests fail: `refused` of them answered with 503, then `cut` ones cut; `fail()` ends it."""
        self._control({"after": after, "refused": refused, "cut": cut, "match": match})

    def requests(self) -> list[str]:
        """Method and path of every request since the last call of `fail`."""
        return self._control(None)

    def _control(self, faults: dict[str, Any] | None) -> list[str]:
        request = urllib.request.Request(self.endpoint + CONTROL, json.dumps(faults).encode())
        with urllib.request.urlopen(request) as reply:
            return json.load(reply)

    def kill(self) -> None:
        """End the server at once, as a network that is gone; what it holds is lost."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def upload(folder: Path, to: UPath) -> UPath:
    """Copy the files below a folder into a store; returns `to`."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            to.joinpath(*path.relative_to(folder).parts).write_bytes(path.read_bytes())
    return to


@pytest.fixture(scope="session")
def object_store() -> Iterator[ObjectStore]:
    """A server for the tests of a session."""
    store = ObjectStore()
    yield store
    store.kill()


@pytest.fixture
def bucket(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> UPath:
    """An empty bucket that the environment leads to."""
    import s3fs

    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    object_store.fail()
    s3fs.S3FileSystem.clear_instance_cache()  # they keep the environment and the listings of earlier tests
    path = UPath(f"s3://test-{uuid.uuid4().hex}")
    path.mkdir()
    return path


def with_faults(serve: Callable[..., Iterable[bytes]], faults: Faults) -> Callable[..., Iterable[bytes]]:
    """A WSGI application that has a server's requests fail."""

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path, query = environ["REQUEST_URI"].partition("?")[::2]
        if path == CONTROL:
            told = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
            seen = json.dumps(faults.seen).encode()
            if told is not None:
                faults.seen.clear()
                vars(faults).update(told)
            start_response("200 OK", [("Content-Length", str(len(seen)))])
            return [seen]
        match faults.next(f"{environ['REQUEST_METHOD']} {path}{'?' if query else ''}{query}"):
            case "refuse":
                body = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
                start_response("503 Slow Down", [("Content-Length", str(len(body))), ("Connection", "close")])
                return [body]
            case "cut":
                return _half(serve(environ, start_response), environ["werkzeug.socket"])
            case _:
                return serve(environ, start_response)

    return application


def _half(body: Iterable[bytes], connection: socket.socket) -> Iterator[bytes]:
    """The first half of an answer, and then the end of the connection; at once where the answer has no body."""
    whole = b"".join(body)
    if whole:
        yield whole[: len(whole) // 2]
    connection.shutdown(socket.SHUT_RDWR)
    raise ConnectionResetError("cut on purpose")


def main() -> None:
    """Serve on a free port, which is printed, until the process is ended or its parent is gone."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    class Quiet(MotoRequestHandler):
        protocol_version = "HTTP/1.1"  # keeps connections, as real stores do

        def log(self, *_: Any) -> None:
            pass

    backend = with_faults(DomainDispatcherApplication(create_backend_app), Faults())
    server = make_server("127.0.0.1", 0, backend, threaded=True, request_handler=Quiet)
    print(server.port, flush=True)
    parent = os.getppid()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while os.getppid() == parent:  # an interrupted test run leaves no server behind
        threading.Event().wait(1)


if __name__ == "__main__":
    main()

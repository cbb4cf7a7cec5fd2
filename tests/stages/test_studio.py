"""`taming studio`: what it needs, what it prints, whom it serves."""

import http.client
import socket
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from studios import printed, studio

import stages.studio
from taming_core.errors import TamingError
from taming_core.params import arguments

needs_gradio = pytest.mark.skipif(find_spec("gradio") is None, reason="gradio is not installed")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path, Path]]:
    """The address of a studio, its project and its log."""
    folder = tmp_path_factory.mktemp("studio")
    (project := folder / "my <b>project").mkdir()
    with studio(project, folder / "log") as address:
        yield address, project, folder / "log"


def answer(address: str, path: str = "/", method: str = "GET", **headers: str) -> tuple[int, str, dict[str, str]]:
    """Status, body and headers of an answer; also to requests that no browser would send."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    connection.request(method, path, headers={"Host": urlsplit(address).netloc, **headers})
    response = connection.getresponse()
    return response.status, response.read().decode(errors="replace"), {k.lower(): v for k, v in response.getheaders()}


def test_a_missing_folder_or_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TamingError, match=r"There is no folder .*absent\. Name a project, or create one"):
        stages.studio.studio(tmp_path / "absent")
    monkeypatch.setattr(arguments, "find_spec", lambda _: None)
    with pytest.raises(TamingError, match=r"needs the package gradio\. Run `pip install 'taming\[studio\]'`\."):
        stages.studio.studio(tmp_path)


@needs_gradio
def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(TamingError, match=rf"Port {port} cannot be used: Address already in use\. Name another"):
            stages.studio.studio(tmp_path, port)


@needs_gradio
def test_it_prints_its_address_alone(served: tuple[str, Path, Path]) -> None:
    _, project, log = served
    assert printed(log) == [f"http://127.0.0.1:PORT shows {project}; Ctrl-C ends it"]


@needs_gradio
def test_names_are_escaped_and_the_policy_allows_nothing_from_outside(served: tuple[str, Path, Path]) -> None:
    status, page, headers = answer(served[0])
    assert status == 200
    assert "<b>project" not in page
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy
    assert "*" not in policy


@needs_gradio
@pytest.mark.parametrize(
    ("path", "method", "headers"),
    [
        ("/", "GET", {"Host": "rebound.example"}),
        ("/", "GET", {"Host": "rebound.example", "Origin": "http://rebound.example"}),
        ("/gradio_api/queue/join", "POST", {"Origin": "http://other.example"}),
        ("/gradio_api/queue/join", "POST", {"Origin": "null"}),
        ("/gradio_api/queue/join", "POST", {"Origin": "http://127.0.0.1:1"}),
        ("/gradio_api/file=https://example.org/a.png", "GET", {}),
        ("/gradio_api/file=/etc/passwd", "GET", {}),
        ("/gradio_api/file=../../etc/passwd", "GET", {}),
        ("/gradio_api/file=params.yaml", "GET", {}),
    ],
)
def test_others_and_files_outside_are_refused(
    served: tuple[str, Path, Path], path: str, method: str, headers: dict[str, str]
) -> None:
    address, project, _ = served
    (project / "params.yaml").write_text("")
    assert answer(address, path, method, **headers)[0] == 403


@needs_gradio
def test_an_upload_beyond_the_limit_is_refused(served: tuple[str, Path, Path]) -> None:
    address, project, _ = served
    end = b"\r\n--B--\r\n"
    head = b'--B\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    for size, status in ((1 << 10, 200), (65 << 20, 413)):
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
        body = head + bytes(size) + end
        connection.request("POST", "/gradio_api/upload", body, {"Content-Type": "multipart/form-data; boundary=B"})
        assert connection.getresponse().status == status
    assert [p.stat().st_size for p in (project / "runs/studio").rglob("a.png")] == [1 << 10]

"""Answers about photos from a server that speaks OpenAI's chat completions, as vLLM, llama.cpp and Ollama do."""

import base64
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from io import BytesIO
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from PIL import Image

from taming_core.errors import TamingError
from taming_core.params.caption import VlmParams

AT_ONCE = 16  # requests
FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0  # seconds before a request is sent again, twice as long each time
BUSY = (408, 409, 425, 429)  # statuses that may be another one later, as may those from 500 on
JPEG_QUALITY = 90
SHOWN = 200  # letters of a server's message


class NoAnswerError(Exception):
    """The server did not answer this time."""


@dataclass(frozen=True)
class ChatServer:
    """A model behind a URL that ends in /v1; calling it answers prompts about photos."""

    url: str
    model: str
    p: VlmParams
    max_new_tokens: int

    def __call__(self, photos: Sequence[Image.Image], prompts: Sequence[str]) -> list[str]:
        """One answer per photo and prompt, without sampling.

        Raises:
            TamingError: the server refuses a request, or does not answer it in `retries` + 1 tries.
        """
        with ThreadPoolExecutor(AT_ONCE) as pool:
            pending = [pool.submit(self._answer, *pair) for pair in zip(photos, prompts, strict=True)]
            try:
                return [future.result() for future in pending]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _answer(self, photo: Image.Image, prompt: str) -> str:
        """The answer of the first try that has one."""
        body, reason = self._body(photo, prompt), ""
        for number in range(self.p.retries + 1):
            if number:
                time.sleep(min(FIRST_WAIT * 2 ** (number - 1), LONGEST_WAIT))
            try:
                return self._send(body)
            except NoAnswerError as error:
                reason = str(error)
        raise TamingError(f"{self.url} gave no answer in {self.p.retries + 1} tries: {reason}. See that it runs, and "
                          "start the same command again; what is captioned is kept.")  # fmt: skip

    def _body(self, photo: Image.Image, prompt: str) -> bytes:
        content = [
            {"type": "image_url", "image_url": {"url": data_url(photo)}},
            {"type": "text", "text": prompt},
        ]
        return json.dumps({
            "model": self.model, "messages": [{"role": "user", "content": content}],
            "max_tokens": self.max_new_tokens, "temperature": 0, "seed": 0,
        }).encode()  # fmt: skip

    def _send(self, body: bytes) -> str:
        """The answer to one request.

        Raises:
            NoAnswerError: there is none, but may be later.
            TamingError: the server refuses the request.
        """
        try:
            return text_of(fetch(f"{self.url}/chat/completions", self.p.api_key_env, self.p.timeout, body))
        except HTTPError as error:
            message = self._one_line(error.read().decode("utf-8", "replace"))
            if error.code in BUSY or error.code >= 500:
                raise NoAnswerError(f"{error.code} {message}") from error
            raise TamingError(f"{self.url} refuses the model {self.model}: {error.code} {message}. Correct "
                              "caption.captioner or caption.vlm.") from error  # fmt: skip
        except (OSError, HTTPException, ValueError) as error:  # no connection, timeout, or no JSON
            raise NoAnswerError(self._one_line(str(error) or type(error).__name__)) from error

    def _one_line(self, message: str) -> str:
        """The beginning of a message in one line, without the API key, which a server may repeat."""
        key = api_key(self.p.api_key_env)
        return " ".join((message.replace(key, "***") if key else message).split())[:SHOWN]


def fetch(url: str, api_key_env: str | None, timeout: float, body: bytes | None = None) -> Any:
    """The JSON behind a URL; `body` is posted, and `api_key_env` names the environment variable of the API key.

    Raises:
        OSError: there is no connection, no answer in `timeout` seconds, or, as HTTPError, an error status.
        ValueError: the answer is no JSON.
    """
    key = api_key(api_key_env)
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    with urlopen(Request(url, body, headers), timeout=timeout) as response:
        return json.loads(response.read())


def api_key(name: str | None) -> str | None:
    """The API key in an environment variable; None without one."""
    return os.environ.get(name) if name else None


def served_models(url: str, api_key_env: str | None, timeout: float = 5.0) -> list[str]:
    """The names of a server's models; raises as `fetch` does."""
    reply = fetch(f"{url}/models", api_key_env, timeout)
    return [str(model["id"]) for model in reply["data"]]


def data_url(photo: Image.Image) -> str:
    """A photo as a JPEG file in a URL."""
    file = BytesIO()
    photo.convert("RGB").save(file, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def text_of(reply: Any) -> str:
    """The words of a reply; "" for a reply without any, as a refusal is.

    Raises:
        NoAnswerError: it is not a chat completion.
    """
    try:
        content = reply["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError) as error:
        raise NoAnswerError(f"its reply is no chat completion: {json.dumps(reply)[:SHOWN]}") from error
    return content if isinstance(content, str) else ""

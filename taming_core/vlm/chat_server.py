"""Answers about pictures from a server that speaks OpenAI's chat completions, as vLLM, llama.cpp and Ollama do."""

import base64
import json
import os
import time
from dataclasses import dataclass
from http.client import HTTPException
from io import BytesIO
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request as UrlRequest
from urllib.request import urlopen

from PIL import Image

from taming_core.errors import TamingError
from taming_core.fingerprints import digest
from taming_core.params.vlm import ChatParams
from taming_core.vlm.questions import Question

FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0  # seconds before a request is sent again, twice as long each time
BUSY = (408, 409, 425, 429)  # statuses that may be another one later, as may those from 500 on
INVALID = 400  # status of a request that asks for what there is not
FILTERS = ("content_filter", "content_policy_violation")  # codes of such a request whose question is held unfit
OPTIONAL = ("temperature", "seed")  # of a request; without them answers may vary
JPEG_QUALITY = 90
SHOWN = 200  # letters of a server's message

Request = dict[str, Any]  # of a chat completion


class NoAnswerError(Exception):
    """The server did not answer this time."""


@dataclass(frozen=True)
class ChatServer:
    """A model behind a URL that ends in /v1; calling it answers a question, without sampling."""

    url: str
    model: str
    p: ChatParams
    max_new_tokens: int
    keys: str  # of the params, that name it
    kept: str  # what a command that is started again has
    at_once: int = 16  # requests

    def fingerprint(self) -> str:
        """16 hex digits of the model's name and place, which say nothing of what the server does behind them."""
        return digest([json.dumps([self.url, self.model, self.max_new_tokens, JPEG_QUALITY]).encode()])

    def __call__(self, question: Question) -> str:
        """The answer of the first try that has one.

        Raises:
            TamingError: the server refuses the request, or does not answer it in `retries` + 1 tries.
        """
        body, reason = self._body(question), ""
        for number in range(self.p.retries + 1):
            if number:
                time.sleep(min(FIRST_WAIT * 2 ** (number - 1), LONGEST_WAIT))
            try:
                return self._send(body)
            except NoAnswerError as error:
                reason = str(error)
        raise TamingError(f"{self.url} gave no answer in {self.p.retries + 1} tries: {reason}. See that it runs, and "
                          f"start the same command again; {self.kept} is kept.")  # fmt: skip

    def _body(self, question: Question) -> Request:
        content = [
            *({"type": "image_url", "image_url": {"url": data_url(image)}} for image in question.shown),
            {"type": "text", "text": question.prompt},
        ]
        return {
            "model": self.model, "messages": [{"role": "user", "content": content}],
            "max_tokens": self.max_new_tokens, "temperature": 0, "seed": 0,
        }  # fmt: skip

    def _send(self, body: Request) -> str:
        """The answer to one request; "" if a filter of the server withholds it.

        Raises:
            NoAnswerError: there is none, but may be later.
            TamingError: the server refuses the request.
        """
        try:
            return text_of(fetch(f"{self.url}/chat/completions", self.p.api_key_env, self.p.timeout, body))
        except HTTPError as error:
            text = error.read().decode("utf-8", "replace")
            if error.code == INVALID and any(name in text for name in FILTERS):
                return ""
            if error.code == INVALID and (other := without_refused(body, text)) != body:
                return self._send(other)
            message = self._one_line(text)
            if error.code in BUSY or error.code >= 500:
                raise NoAnswerError(f"{error.code} {message}") from error
            raise TamingError(f"{self.url} refuses the model {self.model}: {error.code} {message}. Correct "
                              f"{self.keys}.") from error  # fmt: skip
        except (OSError, HTTPException, ValueError) as error:  # no connection, timeout, or no JSON
            raise NoAnswerError(self._one_line(str(error) or type(error).__name__)) from error

    def _one_line(self, message: str) -> str:
        """The beginning of a message in one line, without the API key, which a server may repeat."""
        key = api_key(self.p.api_key_env)
        return " ".join((message.replace(key, "***") if key else message).split())[:SHOWN]


def without_refused(body: Request, message: str) -> Request:
    """The request without what a message refuses of it, as newer models of OpenAI do.

    >>> without_refused({"max_tokens": 9, "seed": 0}, "'max_tokens' is not supported. Use 'max_completion_tokens'.")
    {'seed': 0, 'max_completion_tokens': 9}
    >>> without_refused({"temperature": 0, "seed": 0}, "'temperature' does not support 0 with this model.")
    {'seed': 0}
    """
    kept = {key: value for key, value in body.items() if key not in OPTIONAL or f"'{key}'" not in message}
    if "'max_completion_tokens'" in message and "max_tokens" in body:
        del kept["max_tokens"]
        kept["max_completion_tokens"] = body["max_tokens"]
    return kept


def fetch(url: str, api_key_env: str | None, timeout: float, body: Request | None = None) -> Any:
    """The JSON behind a URL; `body` is posted, and `api_key_env` names the environment variable of the API key.

    Raises:
        OSError: there is no connection, no answer in `timeout` seconds, or, as HTTPError, an error status.
        ValueError: the answer is no JSON.
    """
    key = api_key(api_key_env)
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    data = None if body is None else json.dumps(body).encode()
    with urlopen(UrlRequest(url, data, headers), timeout=timeout) as response:
        return json.loads(response.read())


def api_key(name: str | None) -> str | None:
    """The API key in an environment variable; None without one."""
    return os.environ.get(name) if name else None


def served_models(url: str, api_key_env: str | None, timeout: float = 5.0) -> list[str]:
    """The names of a server's models; raises as `fetch` does."""
    reply = fetch(f"{url}/models", api_key_env, timeout)
    return [str(model["id"]) for model in reply["data"]]


def require_running(url: str, api_key_env: str | None, key: str) -> None:
    """Raises TamingError if nothing answers behind the URL; `key` of the params names it. Any answer will do."""
    try:
        fetch(f"{url}/models", api_key_env, 5.0)
    except (HTTPError, ValueError):
        return
    except (OSError, HTTPException) as error:
        raise TamingError(f"{url} does not answer: {error}. Start the server, or correct {key}.") from error


def data_url(image: Image.Image) -> str:
    """A picture (RGB) as a JPEG file in a URL."""
    file = BytesIO()
    image.save(file, "JPEG", quality=JPEG_QUALITY)
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

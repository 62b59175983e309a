"""Answers that were recorded from Claude, or written by hand, for FakeClaude to give again: a file of JSON lines."""

from __future__ import annotations

import json
import re
import threading
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tierline.errors import ConfigurationError, TierlineError
from tierline.testing._answer import Reply
from tierline.testing._prompt import canonical, latest_text

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from tierline.testing._log import Received

_API: Final = "https://api.anthropic.com"
_KEY: Final = re.compile(r"sk-ant-[A-Za-z0-9_-]+")
_ASKED_CHARS: Final = 200
"""Most characters of a prompt's last turn that a recorded line shows, for whoever reads the file."""
_IRRELEVANT: Final = ("stream", "metadata", "service_tier", "inference_geo")
"""Fields of a body that change nothing of what is answered."""
_TIMEOUT: Final = 600.0
"""Seconds that an answer may take: it is not streamed."""


class NotRecordedError(TierlineError):
    """There is no answer to a request in the file."""


class RecordedAnswers:
    """Answers by request, from a file: `FakeClaude(answer=RecordedAnswers("answers.jsonl"))`.

    A line that was recorded has the `key` of its request: a hash of model, system, messages, tools and all else that
    can change the answer. One that is written by hand has the last turn of the user, and a `model` where it is for that
    one alone::

        {"asked": "Are you open on Saturday?", "answer": "Yes, from 9 to 5."}
        {"asked": "Is this clause valid?", "model": "claude-opus-5-5", "answer": "No: it names no date."}

    Where there is no line, the call fails with a 500 that says so and is not retried, and `missing` names it. With an
    `api_key` Claude is asked instead, at `upstream`, and the answer is written down: that costs money. Nothing but
    content, stop reason and usage is kept of an answer, and of the request the hash, the model and the first 200
    characters of its last turn: no header, and no key, also where one stands in a text. Both are texts: do not record
    what must not be in your repository.

    What Tierline asks for itself is not recorded: `FakeClaude(verdict=…)` says what is answered to that.

    ConfigurationError for a file that cannot be read, with its line.
    """

    def __init__(self, path: str | os.PathLike[str], *, api_key: str | None = None, upstream: str = _API) -> None:
        self.path = Path(path)
        self.missing: dict[str, str] = {}
        """Requests that had no answer: the model of each, by its key."""
        self._api_key = api_key
        self._upstream = upstream.rstrip("/")
        self._lock = threading.Lock()
        self._by_key: dict[str, Reply] = {}
        self._by_text: dict[tuple[str, str | None], Reply] = {}
        if self.path.exists():
            # Not splitlines: texts may have separators of their own.
            for number, line in enumerate(self.path.read_text(encoding="utf-8").split("\n"), start=1):
                if line.strip():
                    self._read(line, f"{self.path}, line {number}")
        elif api_key is None:
            raise ConfigurationError(
                f"there is no {self.path}: write it by hand, or record it (`pytest --tierline-record` with a key)"
            )

    def __repr__(self) -> str:
        return f"RecordedAnswers({str(self.path)!r}, {len(self._by_key) + len(self._by_text)} answers)"

    def __call__(self, received: Received) -> Reply:
        """The answer to a request, as `FakeClaude(answer=…)` asks for it. NotRecordedError where there is none."""
        body: Mapping[str, Any] = received.body
        key, asked, model = key_of(body), latest_text(body), body.get("model")
        with self._lock:
            for found in (self._by_key.get(key), self._by_text.get((asked, model)), self._by_text.get((asked, None))):
                if found is not None:
                    return found
            if self._api_key is None:
                self.missing[key] = str(model)
                raise NotRecordedError(
                    f"{self.path} has no answer of {model} to this request (key {key}): record it, or write a line "
                    "for it by hand"
                )
            return self._record(received, key, asked)

    def _read(self, line: str, where: str) -> None:
        try:
            found = json.loads(line)
            reply = _reply(found["answer"])
            key, asked, model = found.get("key"), found.get("asked"), found.get("model")
            if not isinstance(key if key is not None else asked, str):
                raise TypeError  # noqa: TRY301  (told below, as all that is wrong with a line)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ConfigurationError(
                f'{where}: write {{"asked": "the last turn of the user", "answer": "…"}}, or record it anew'
            ) from None
        if key is not None:
            self._by_key[key] = reply
        else:
            self._by_text[asked, model] = reply

    def _record(self, received: Received, key: str, asked: str) -> Reply:
        """Ask Claude, and write its answer down."""
        message = self._ask(received)
        answer = {name: message.get(name) for name in ("content", "stop_reason", "stop_sequence", "usage")}
        line = {"key": key, "model": received.body.get("model"), "asked": asked[:_ASKED_CHARS], "answer": answer}
        text = _KEY.sub("[redacted]", json.dumps(line, ensure_ascii=False))
        if self._api_key:
            text = text.replace(self._api_key, "[redacted]")
        reply = _reply(json.loads(text)["answer"])
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text.encode("utf-8", "replace").decode() + "\n")
        self._by_key[key] = reply
        return reply

    def _ask(self, received: Received) -> dict[str, Any]:
        import httpx2  # noqa: PLC0415  (only who records needs it)
        from anthropic import Anthropic, APIError, APIStatusError  # noqa: PLC0415

        from tierline.testing._offline import direct  # noqa: PLC0415

        body = {name: value for name, value in received.body.items() if name != "stream"}
        betas = {name: value for name, value in received.headers.items() if name == "anthropic-beta"}
        http = httpx2.Client(transport=direct(), timeout=_TIMEOUT)
        try:
            with Anthropic(api_key=self._api_key, base_url=self._upstream, http_client=http) as client:
                response = client.post("/v1/messages", body=body, options={"headers": betas}, cast_to=httpx2.Response)
                found = response.json()
        except APIError as error:
            said = f"{error.status_code} {error.type}" if isinstance(error, APIStatusError) else type(error).__name__
            raise NotRecordedError(f"nothing was recorded: {self._upstream} answered {said}") from None
        except ValueError:
            raise NotRecordedError(f"nothing was recorded: {self._upstream} answered no JSON") from None
        return dict(found)


def key_of(body: Mapping[str, Any]) -> str:
    """The hash of what can change an answer: equal for equal requests, on every machine."""
    kept = {name: value for name, value in body.items() if name not in _IRRELEVANT}
    return blake2b(canonical(kept).encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def _reply(answer: Any) -> Reply:
    """A recorded answer as the fake gives it. TypeError, KeyError or AttributeError for what is none."""
    if isinstance(answer, str):
        return Reply(text=answer)
    usage = answer.get("usage") or {}
    prompt = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    content = answer["content"]
    if not isinstance(content, list) or not all(isinstance(block, dict) and "type" in block for block in content):
        raise TypeError
    return Reply(
        content=tuple(content),
        stop_reason=answer.get("stop_reason"),
        stop_sequence=answer.get("stop_sequence"),
        input_tokens=sum(usage.get(name) or 0 for name in prompt) or None,
        output_tokens=usage.get("output_tokens"),
        web_searches=(usage.get("server_tool_use") or {}).get("web_search_requests") or 0,
    )

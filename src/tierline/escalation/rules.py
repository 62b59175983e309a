"""What an answer is checked for: `policy(escalate=…)`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

from tierline.errors import ConfigurationError
from tierline.numeric import is_number, is_whole

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

HOLD: Final = 160
"""Characters of a stream's text that are held until it is known how the answer begins."""
MOST_HELD: Final = 4_000
CHECK_TIMEOUT: Final = 5.0
"""Seconds that a check of the app's own may take."""
THRESHOLD: Final = 3
_SWITCHES: Final = ("json", "truncated", "refusals", "unsure", "graded")


@dataclass(frozen=True)
class Escalate:
    """A cheaper tier answers first. Where its answer fails a check, the next tier answers.

    `policy(escalate=True)` is `policy(escalate=Escalate())`. The first seven cost nothing:

    - `json`: the text of an answer must be JSON as it stands, with no fence around it, also where the request does not
      ask for it. Where it does (`output_config`, `output_format`, `messages.parse`), that is checked anyhow
    - `schema`: a JSON Schema that it must meet, beside the request's own; a mapping, kept as JSON text. It implies
      `json`. See `tierline.escalation.schema` for the keywords that are read
    - `truncated`: an answer that `max_tokens` cut off fails
    - `refusals`: a `stop_reason` of `"refusal"` fails, and an answer that begins like one ("I can't help with …")
    - `unsure`: an answer that begins by saying that it does not know fails ("I'm not sure", "I don't know")
    - `phrases`: further words that must not be in the first 400 characters of an answer, upper or lower case: for
      other languages
    - `min_confidence`: the least number (0 to 1) that the field `confidence_field` at the top of a JSON answer may
      have; one that is missing, or is no number, says nothing. None: no such field is looked at
    - `check`: a function or coroutine function of the app's own. It is given the answer as the SDK's `Message`, a copy,
      and says True (good), False (poor) or None (no opinion). One that raises, says something else or takes more than
      `check_timeout` seconds has no opinion, and a reason of the decision tells of it. A plain function runs in a
      thread
    - `graded`: whether the cheapest tier grades what has passed, from 1 to 5, at the cost of a short question;
      `threshold` is the least grade (2 to 5) that is good enough
    - `hold`: of a stream, at most so many characters (0 to 4,000) are held until it is known how the answer begins.
      With 0 streams do not escalate

    Texts that are JSON are not searched for phrases. Of a stream only its beginning is checked, unless it ends within
    it: then `check` and `graded` say nothing. Hashable; ConfigurationError for values that cannot be.
    """

    json: bool = False
    schema: Mapping[str, Any] | str | None = None
    truncated: bool = True
    refusals: bool = True
    unsure: bool = True
    phrases: tuple[str, ...] = ()
    min_confidence: float | None = None
    confidence_field: str = "confidence"
    check: Callable[[Any], bool | Awaitable[bool | None] | None] | None = None
    check_timeout: float = CHECK_TIMEOUT
    graded: bool = False
    threshold: int = THRESHOLD
    hold: int = HOLD

    def __post_init__(self) -> None:
        for name in _SWITCHES:
            if not isinstance(value := getattr(self, name), bool):
                raise ConfigurationError(f"Escalate: {name} must be True or False, got {value!r:.80}")
        object.__setattr__(self, "schema", _schema(self.schema))
        phrases: object = self.phrases
        if not isinstance(phrases, (tuple, list)) or not all(isinstance(p, str) and p.strip() for p in phrases):
            raise ConfigurationError(
                f'Escalate: phrases must be texts, such as ("weiß ich nicht",), got {phrases!r:.80}'
            )
        object.__setattr__(self, "phrases", tuple(phrases))
        if self.check is not None and not callable(self.check):
            raise ConfigurationError(f"Escalate: check must be a function of the message, got {self.check!r:.80}")
        if not isinstance(self.confidence_field, str) or not self.confidence_field:
            raise ConfigurationError(f"Escalate: confidence_field must be a name, got {self.confidence_field!r:.80}")
        _number("min_confidence", self.min_confidence, 0, 1)
        _number("check_timeout", self.check_timeout, 0.001, 600)
        _whole("threshold", self.threshold, 2, 5)
        _whole("hold", self.hold, 0, MOST_HELD)
        try:
            hash(self)
        except TypeError as error:
            raise ConfigurationError(f"Escalate: all that is in it must be hashable: {error}") from None

    def __repr__(self) -> str:
        changed = ((f.name, getattr(self, f.name)) for f in fields(self) if getattr(self, f.name) != f.default)
        return f"Escalate({', '.join(f'{name}={value!r:.80}' for name, value in changed)})"


def check_escalate(value: object) -> None:
    """ConfigurationError for what `policy(escalate=…)` cannot be."""
    if value is not None and not isinstance(value, (bool, Escalate)):
        raise ConfigurationError(f"policy: escalate must be True, False or Escalate(…), got {value!r:.80}")


def rules_of(value: bool | Escalate | None) -> Escalate | None:
    """What `policy(escalate=…)` means; None where nothing escalates."""
    return _USUAL if value is True else value or None


def _schema(given: object) -> str | None:
    """A schema as JSON text: the same for the same schema."""
    if given is None:
        return None
    try:
        schema = json.loads(given) if isinstance(given, str) else given
        if isinstance(schema, Mapping):
            return json.dumps(dict(schema), sort_keys=True)
    except (TypeError, ValueError, RecursionError):
        pass
    raise ConfigurationError(f"Escalate: schema must be a JSON Schema, as a mapping, got {type(given).__name__}")


def _number(name: str, value: object, least: float, most: float) -> None:
    if value is None and name == "min_confidence":
        return
    if not is_number(value, least, most):
        raise ConfigurationError(f"Escalate: {name} must be a number from {least:g} to {most:g}, got {value!r:.80}")


def _whole(name: str, value: object, least: int, most: int) -> None:
    if not is_whole(value, least, most):
        raise ConfigurationError(f"Escalate: {name} must be a whole number from {least} to {most}, got {value!r:.80}")


_USUAL: Final = Escalate()

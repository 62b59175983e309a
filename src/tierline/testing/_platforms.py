"""Where a request came in: at the API itself, or at a platform that serves it under paths and ids of its own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from tierline.testing import _eventstream, _sse
from tierline.testing._problem import Problem
from tierline.testing._rules import DATED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Platform = Literal["anthropic", "hosted", "bedrock", "vertex"]
"""`hosted` is the API behind `/anthropic`, as on Microsoft Foundry and Bedrock's Mantle."""

_BEDROCK: Final = re.compile(r"/model/(?P<model>.+)/invoke(?P<stream>-with-response-stream)?")
_VERTEX: Final = re.compile(
    r"(?:/v1)?/projects/[^/]+/locations/(?P<region>[^/]+)/publishers/anthropic/models/(?P<model>[^/]+):"
    r"(?P<stream>stream)?rawPredict",
    re.IGNORECASE,
)
_BEDROCK_ID: Final = re.compile(r"(?:arn:.*/)?(?:[a-z-]+\.)?anthropic\.(claude-[a-z0-9-]+?)(?:-v\d+(?::\d+)?)?")
_ERRORS: Final = {
    400: "ValidationException", 401: "UnrecognizedClientException", 403: "AccessDeniedException",
    404: "ResourceNotFoundException", 429: "ThrottlingException", 500: "InternalServerException",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Door:
    """Where a request came in. `path` is the one that the API itself has for it.

    `model` and `streamed` are what the platform's path says of them, None where the body says it.
    """

    path: str
    platform: Platform = "anthropic"
    model: str | None = None
    streamed: bool | None = None
    region: str = ""

    @property
    def encode(self) -> Callable[[Mapping[str, Any]], bytes]:
        """How an event of a stream is written here."""
        return _eventstream.encode if self.platform == "bedrock" else _sse.encode

    def whole(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The body as the API itself would have got it. Raises a 400 where the platform's own field is missing."""
        if self.platform not in ("bedrock", "vertex"):
            return dict(body)
        if "anthropic_version" not in body:
            raise Problem(400, "anthropic_version: Field required")
        found = {key: value for key, value in body.items() if not key.startswith("anthropic_")}
        if self.model is not None:
            found |= {"model": self.model, "stream": self.streamed}
        return found

    def names(self, model: object) -> dict[str, str]:
        """The model that an id of this platform means. Raises the platform's error for an id that it does not have."""
        if self.platform == "anthropic" or not isinstance(model, str):
            return {}
        found = _BEDROCK_ID.fullmatch(model)
        if self.platform == "vertex":
            name = model.replace("@", "-")
        elif found is not None:
            name = found[1]
        elif self.platform == "bedrock":
            raise Problem(400, "The provided model identifier is invalid.")
        else:
            return {}
        return {model: DATED.get(name, re.sub(r"-(20\d{6}|default)$", "", name))}

    def dearer(self, model: str) -> bool:
        """Whether the request stays in a region, which costs a tenth more."""
        if self.platform == "vertex":
            return self.region != "global"
        return "anthropic." in model and "global.anthropic." not in model

    def error(self, problem: Problem, request_id: str) -> tuple[dict[str, Any], tuple[tuple[str, str], ...]]:
        """The JSON of an error, and its headers."""
        if self.platform != "bedrock":
            return problem.body(request_id), problem.headers
        kind = _ERRORS.get(problem.status, "ServiceUnavailableException")
        return {"message": problem.message}, (*problem.headers, ("x-amzn-errortype", kind))


def door_of(path: str) -> Door:
    """The door that a path leads to."""
    if found := _BEDROCK.fullmatch(path):
        return Door("/v1/messages", "bedrock", found["model"], found["stream"] is not None)
    if found := _VERTEX.fullmatch(path):
        if found["model"] == "count-tokens":
            return Door("/v1/messages/count_tokens", "vertex", region=found["region"])
        return Door("/v1/messages", "vertex", found["model"], found["stream"] is not None, found["region"])
    if path.startswith("/anthropic/"):
        return Door(path.removeprefix("/anthropic"), "hosted")
    return Door(path)

"""Three libraries that take a client of the SDK, each asked the same four things in its own way."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import instructor
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel, SecretStr
from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.providers.anthropic import AnthropicProvider

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic

QUESTION = "Where is it warm?"
LIMIT = 2_000


class City(BaseModel):
    """A city."""

    name: str
    people: int


class Weather(BaseModel):
    """The weather of a city."""

    kind: Literal["weather"] = "weather"
    city: str


def weather(city: str) -> str:
    """The weather of a city."""
    return f"20 degrees in {city}"


class PydanticAI:
    """pydantic-ai takes the client in its provider."""

    def __init__(self, client: AsyncAnthropic, model: str) -> None:
        self.model = AnthropicModel(
            model, provider=AnthropicProvider(anthropic_client=client), settings={"max_tokens": LIMIT}
        )

    async def plain(self) -> str:
        return (await Agent(self.model).run(QUESTION)).output

    async def stream(self) -> str:
        async with Agent(self.model).run_stream(QUESTION) as result:
            return "".join([text async for text in result.stream_text(delta=True)])

    async def tools(self) -> str:
        return (await Agent(self.model, tools=[weather]).run(QUESTION)).output

    async def structured(self) -> City:
        return (await Agent(self.model, output_type=City).run(QUESTION)).output


class LangChain:
    """ChatAnthropic makes its client itself, so a subclass gives it ours."""

    def __init__(self, client: AsyncAnthropic, model: str) -> None:
        class RoutedChat(ChatAnthropic):
            @cached_property
            def _async_client(self) -> AsyncAnthropic:
                return client

        self.chat = RoutedChat(model=model, max_tokens=LIMIT, api_key=SecretStr("unused"))

    async def plain(self) -> str:
        return (await self.chat.ainvoke(QUESTION)).text

    async def stream(self) -> str:
        return "".join([chunk.text async for chunk in self.chat.astream(QUESTION)])

    async def tools(self) -> str:
        known = tool(weather)
        asked = self.chat.bind_tools([known])
        messages: list[Any] = [HumanMessage(QUESTION)]
        while True:
            answer: Any = await asked.ainvoke(messages)
            messages.append(answer)
            if not answer.tool_calls:
                return answer.text
            messages += [ToolMessage(known.invoke(call["args"]), tool_call_id=call["id"]) for call in answer.tool_calls]

    async def structured(self) -> City:
        return await self.chat.with_structured_output(City, method="json_schema").ainvoke(QUESTION)  # type: ignore[return-value]


class Instructor:
    """instructor wraps the client."""

    def __init__(self, client: AsyncAnthropic, model: str) -> None:
        self.client = client
        self.asked: Any = {
            "model": model,
            "max_tokens": LIMIT,
            "messages": [{"role": "user", "content": QUESTION}],
            "max_retries": 0,
        }

    async def plain(self) -> str:
        message: Any = await instructor.from_anthropic(self.client).create(**self.asked, response_model=None)
        return message.content[-1].text

    async def stream(self) -> str:
        client = instructor.from_anthropic(self.client, mode=instructor.Mode.JSON)
        *_, last = [city async for city in client.create_partial(**self.asked, response_model=City)]
        return last.name

    async def tools(self) -> str:
        """Instructor has no loop of its own: the tool is what it is to fill in."""
        client = instructor.from_anthropic(self.client, mode=instructor.Mode.TOOLS)
        return (await client.create(**self.asked, response_model=Weather)).city

    async def structured(self) -> City:
        client = instructor.from_anthropic(self.client, mode=instructor.Mode.JSON)
        return await client.create(**self.asked, response_model=City)

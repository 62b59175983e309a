"""Runs in LiteLLM's own environment: prompts as a JSON list on stdin, needs and microseconds as JSON on stdout."""

import json
import sys
import time
from unittest.mock import MagicMock

from litellm.router_strategy.complexity_router.complexity_router import ComplexityRouter


def heuristic():
    router = ComplexityRouter("auto", MagicMock(), {})
    return lambda prompt: router.classify(prompt)[1]


def heuristic_v2():
    router = ComplexityRouter("auto", MagicMock(), {"classifier_type": "heuristic_v2"})

    def need(prompt):
        said = router._classify_with_heuristic_v2(prompt)  # noqa: SLF001  (it has no public name)
        chances = said.heuristic_v2_forecast["probabilities"]
        return chances["REASONING"] - chances["SIMPLE"]

    return need


def main():
    prompts = json.load(sys.stdin)
    needs, times = [], []
    for make in (heuristic, heuristic_v2):
        rank = make()
        found, took = [], []
        for prompt in prompts:
            began = time.perf_counter()
            found.append(rank(prompt))
            took.append((time.perf_counter() - began) * 1e6)
        needs.append(found)
        times.append(took)
    print(json.dumps([needs, times]))


main()

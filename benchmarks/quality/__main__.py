"""Everything that docs/quality.md says, measured anew and written there.

    make quality DATA=DIR            (python -m benchmarks.quality --data DIR)

Deterministic but for the times: seeds are fixed. It takes about half an hour on two cores, most of it intervals.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from benchmarks.quality import peers
from benchmarks.quality.writing import MARK, peers_section

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "quality.md"
PARTS: Final = (
    ("Text alone", "text", "What `LocalClassifier` makes of prompts that it has not seen."),
    ("By route", "routes", "What `OutcomeModel` makes of the route and the text, on prompts that it has not seen."),
    ("An app, simulated", "simulation", "Cost, quality and regret over the first calls of an app with routes."),
)
"""Modules that print Markdown: `python -m benchmarks.quality.NAME --data DIR`."""

_HEAD: Final = """# How well tiers are chosen

Written by `make quality DATA=DIR` on {date}: commit {commit}, Python {python}, {system}, genai-prices {prices}.

**These are benchmark prompts, answered by older models** (Claude 3, Mixtral, GPT-4, open models of 2024). They tell
routers apart; they do not tell what your app would save. That is what [`tierline eval`](evaluation.md) on your own
traffic is for.

- **APGR** (as in RouteLLM): the area under the recovered quality gap over the share of requests that is sent to the
  strong model. Random is .500; 1 is exceeded where the weak model is sometimes the better one. In brackets is the 95%
  bootstrap interval over prompts.
- **Cost at 95%**: dollars for 95% of the strong model's quality, over sending all there, at the list prices of
  claude-haiku-4-5 and claude-opus-4-5 (1 to 5) and the tokens of the data.
- **{mark}** marks whatever is worse than random: a defect.

The data is described, with sources and licences, in its own README; none of it is part of this project. A sealed set of
other prompts and sources exists, and is scored apart.
"""

_CITED: Final = """RouteLLM's figures are published on other data, and cited, not measured (Ong et al., ICLR 2025,
<https://arxiv.org/abs/2406.18665v4>): its matrix factorisation has an APGR of .802 on MT-bench, with GPT-4 and Mixtral;
against random routing its best routers call GPT-4 3.66 times less often for 95% of its quality there, and 1.41 times
less often for 92% of it on MMLU.
"""


def main() -> None:
    """Run all parts, and write the page once all of them are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the directory of the data")
    parser.add_argument("--without-litellm", action="store_true", help="do not install LiteLLM")
    parser.add_argument("--out", type=Path, default=PAGE)
    options = parser.parse_args()
    page = [_HEAD.format(
        date=f"{datetime.now(UTC):%Y-%m-%d}", commit=_commit(), python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}", prices=version("genai-prices"), mark=MARK.strip(),
    )]  # fmt: skip
    for title, name, about in PARTS:
        if find_spec(f"benchmarks.quality.{name}") is None:
            print(f"{title}: not measured in this version", file=sys.stderr)
            continue
        command = f"python -m benchmarks.quality.{name} --data DIR"
        print(f"{title}: {command}", file=sys.stderr)
        done = subprocess.run(
            [sys.executable, "-m", f"benchmarks.quality.{name}", "--data", str(options.data)],
            check=True, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        page.append(f"## {title}\n\n{about} `{command}`\n\n{done.stdout.strip()}\n")
    print("Beside it", file=sys.stderr)
    found = peers.measured(options.data, litellm=not options.without_litellm)
    page.append(
        "## Beside it\n\n"
        f"Rules that are not trained, on the same prompts; LiteLLM {peers.LITELLM} was installed for the run. "
        f"`python -m benchmarks.quality.peers --data DIR`\n\n{peers_section(found)}\n\n{_CITED}"
    )
    options.out.write_text("\n".join(page), encoding="utf-8")


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], check=False, capture_output=True, text=True, cwd=PAGE.parent
    )
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()

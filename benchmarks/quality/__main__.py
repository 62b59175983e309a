"""Everything that docs/quality.md says, measured anew and written there.

    make quality DATA=DIR            (python -m benchmarks.quality --data DIR)

Deterministic but for the times: seeds are fixed. It takes about half an hour on two idle cores, most of it intervals.
What each part found is kept in a directory (`--keep`, by default `.quality`), with the commit that it is of. So what
was broken off is taken up with `--parts`: those that are named are measured, and the others taken from there.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.quality.figures import Figures, kept, targets
from benchmarks.quality.writing import MARK, commit

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = ROOT / "docs" / "quality.md"


class Part(NamedTuple):
    """A section of the page: `python -m benchmarks.quality.NAME --data DIR` prints it as Markdown."""

    title: str
    name: str
    about: str


PARTS: Final = (
    Part("Text alone", "text", "What `LocalClassifier` makes of prompts that it has not seen."),
    Part(
        "An app's own labels", "labels", "What weights that are fitted to labels make of texts that they have not seen."
    ),
    Part("By route", "routes", "What `OutcomeModel` makes of the route and the text, on prompts that it has not seen."),
    Part("An app, simulated", "simulation", "Cost, quality and regret over the first calls of an app with routes."),
    Part("Time for a decision", "pace", "What the weights of the package take."),
    Part("Beside it", "peers", "Rules that are not trained, on the same prompts."),
)

_HEAD: Final = """# How well tiers are chosen

Written by `make quality DATA=DIR` on {date}: commit {commit}, Python {python}, {system}, genai-prices {prices}.
Parts that were measured at another commit say so, and their figures in the table of targets are of that commit too.

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

_NOTES: Final = """Read them with care.

- Penalties, spreads and other settings of the weights of the package were chosen on the data that these figures are of:
  the folds hide a prompt's outcome from the weights, not from whoever chose. Expect less elsewhere.
- Half of what is said of tools is a rule (length and the number of tools). It was chosen by looking at kinds of tools
  that were left out, so those are no unseen figures.
- That an app's own labels are fitted as an order, by sums of words and of how words begin, was chosen on BIRD's labels:
  which beginnings, on nine foldings of them. Penalties are chosen within each fold, and so are the beginnings in the
  lines that say so: that is what to expect of an app's labels. That weaker penalties are tried, too, was chosen on
  UncommonRoute's. What else was tried beside (pairs of words that are further apart, all parts of words, the lines of
  a text, marks, capitals) gained less than .002 on BIRD's, or lost.
- What bounds the agreement with BIRD's annotators is how many examples there are (see what half of them give), and how
  far people agree: of the pairs of questions that have nearly the same words, one in six has two labels.
- The weights of the package do not read how words begin: with that, the macro over five sets was .636 instead of .638.
- A target is met by the figure itself; only the first asks for the lower bound, too. Of the others, look at the
  interval: its worse end may be beyond the target.
- Where a whole source is left out, the text says little: look at the length alone beside it. A familiarity near 1 does
  not tell that a source is new.
- The mark stands wherever a figure is below .500, also where its interval is not. Of what ships, that is where hard
  maths or all of MMLU is left out, and where the maths of level 5 is a new route. Only of MMLU the interval is below
  .500, too. In hard maths Opus gains most on short prompts (good answers of the shortest third: .49 against .20, of the
  longest .31 against .12), and what other routes teach of length misleads. Its words are about as familiar as theirs,
  and other variances of what is learned change it by .002: nothing tells it apart before it is graded.
  Of MMLU, where it is left out, 98% is taken for ulab's short tasks, and what is hard for the models that were measured
  on those is not what is hard for these.
- "30 graded answers" are of each tier, so 60 a route.
- Times are CPU time, of each prompt the shortest of several runs in a row. In an app, where each text is another one
  and other work goes on, a decision takes longer: with the caches of two cores shared by ten processes, the same code
  took 2.5 times as long, a median of 188 µs, which is more than was aimed at.
"""

_CITED: Final = """RouteLLM's figures are published on other data, and cited, not measured (Ong et al., ICLR 2025,
<https://arxiv.org/abs/2406.18665v4>): its matrix factorisation has an APGR of .802 on MT-bench, with GPT-4 and Mixtral;
against random routing its best routers call GPT-4 3.66 times less often for 95% of its quality there, and 1.41 times
less often for 92% of it on MMLU.
"""


def main() -> None:
    """Run the parts, and write the page once all of them are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the directory of the data")
    parser.add_argument("--without-litellm", action="store_true", help="do not install LiteLLM")
    parser.add_argument("--parts", nargs="+", choices=[part.name for part in PARTS], help="measure these alone")
    parser.add_argument("--keep", type=Path, default=ROOT / ".quality", help="where what was found is kept")
    parser.add_argument("--out", type=Path, default=PAGE)
    options = parser.parse_args()
    options.keep.mkdir(exist_ok=True)
    for part in PARTS:
        if not options.parts or part.name in options.parts:
            measure(part, options.data, options.keep, ["--without-litellm"] if options.without_litellm else [])
    if missing := [part.name for part in PARTS if not (options.keep / f"{part.name}.json").is_file()]:
        sys.exit(f"{', '.join(missing)} not measured yet, so no page was written")
    options.out.write_text(page(options.keep), encoding="utf-8")


def measure(part: Part, data: Path, keep: Path, more: list[str]) -> None:
    """Run a part, and keep what it printed, its figures, and the commit."""
    print(f"{part.title}: python -m benchmarks.quality.{part.name} --data DIR", file=sys.stderr)
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.quality.{part.name}", "--data", str(data),
         *(more if part.name == "peers" else ["--figures", str(keep / f"{part.name}.figures")])],
        check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    found = {"text": done.stdout.strip(), "commit": commit()}
    (keep / f"{part.name}.json").write_text(json.dumps(found), encoding="utf-8")


def page(keep: Path) -> str:
    """The page of what was kept. A part that is of another commit than the latest says so."""
    now, figures = commit(), Figures()
    for file in sorted(keep.glob("*.figures")):
        figures |= kept(file)
    sections = [
        _HEAD.format(
            date=f"{datetime.now(UTC):%Y-%m-%d}", commit=now, python=platform.python_version(),
            system=f"{platform.system()} {platform.machine()}", prices=version("genai-prices"), mark=MARK.strip(),
        ),
        f"## What was aimed at\n\n{targets(figures)}\n\n{_NOTES}",
    ]  # fmt: skip
    for part in PARTS:
        found = json.loads((keep / f"{part.name}.json").read_text(encoding="utf-8"))
        of = "" if found["commit"] == now else f" Measured at commit {found['commit']}."
        command = f"python -m benchmarks.quality.{part.name} --data DIR"
        sections.append(f"## {part.title}\n\n{part.about} `{command}`{of}\n\n{found['text']}\n")
    return "\n".join([*sections, _CITED])


if __name__ == "__main__":
    main()

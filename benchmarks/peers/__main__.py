"""Tierline beside its peers, in one run: writes docs/performance.md, its picture, and the figures that both are of.

    make bench-peers                 (python -m benchmarks.peers --environments .venv/peers)
    python -m benchmarks.peers --page                     (the page and the picture anew, from the kept figures)

It takes about eight minutes on an idle machine; the environments, which are made first where they are missing, one or
two more.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.ledgers import redis_running
from benchmarks.peers import environments, startup
from benchmarks.peers.column import World
from benchmarks.peers.conductor import ROOT, measure, started
from benchmarks.peers.figures import Figures, figures_of, keep, kept
from benchmarks.peers.page import TEMPLATE, page
from benchmarks.peers.plot import plot
from benchmarks.peers.rows import ROWS
from benchmarks.upstream import running

if TYPE_CHECKING:
    from benchmarks.peers.rows import Kind

SECONDS: Final = 280.0
"""Of all rows together; warming up, and the fewest rounds of slow columns, come on top."""
QUICK_SECONDS: Final = 40.0
STARTS: Final = 7
QUICK_STARTS: Final = 2
FIGURES: Final = Path(__file__).with_name("figures.json")
PAGE: Final = ROOT / "docs" / "performance.md"
PICTURE: Final = ROOT / "docs" / "images" / "performance.svg"
_TOLD: Final = (
    "anthropic", "aiohttp", "opentelemetry-sdk", "redis", "uvloop", "litellm", "pydantic-ai-slim", "starlette",
    "slowapi", "opentelemetry-instrumentation-anthropic", "openinference-instrumentation-anthropic",
)  # fmt: skip


def surroundings() -> dict[str, Any]:
    """When, what and on what. The load is that of the last minute, before anything is measured."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], check=False, capture_output=True, text=True, cwd=ROOT
    )
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": commit.stdout.strip() or "unknown",
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": models[0].partition(":")[2].strip() if models else "unknown",
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "versions": {
            name: [f"{package} {version}" for package, version in environments.pins(name).items() if package in _TOLD]
            for name in environments.NAMES
        },
    }


def run(folder: Path, *, quick: bool, wanted: str) -> Figures:
    """Everything, but for rows without `wanted` in their name; start-up comes last."""
    began, about = time.monotonic(), surroundings()
    seconds = QUICK_SECONDS if quick else SECONDS
    pythons = {name: environments.python_of(folder, name) for name in environments.NAMES}
    parts = []
    slow: set[tuple[str, Kind, int]] = set()
    with running() as url, redis_running() as redis, tempfile.TemporaryDirectory() as scratch:
        world = World(url, redis, scratch)
        with started(pythons, world, Path(scratch), print) as workers:
            for row in ROWS:
                if wanted in row.name:
                    print(f"{time.monotonic() - began:4.0f} s  {row.name}", flush=True)
                    parts += measure(row, workers, seconds * row.share, slow)
        print(f"{time.monotonic() - began:4.0f} s  starting up", flush=True)
        starts = {} if wanted else startup.measure(folder, url, QUICK_STARTS if quick else STARTS)
    about["minutes"] = round((time.monotonic() - began) / 60)
    about["how"] = "in a quick run, whose intervals are wide" if quick else "in a whole run"
    return figures_of(parts, about, starts)


def main() -> None:
    """Measure, keep the figures, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environments", type=Path, default=ROOT / ".venv" / "peers", help="made where missing")
    parser.add_argument("--quick", action="store_true", help="three minutes instead of eight")
    parser.add_argument("--row", default="", metavar="TEXT", help="only rows with TEXT in their name; writes no page")
    parser.add_argument("--figures", type=Path, default=FIGURES, help="where the figures are kept")
    parser.add_argument("--page", action="store_true", help="measure nothing: write the page from the kept figures")
    options = parser.parse_args()
    if sys.platform != "linux" and not options.page:
        parser.error("peers are measured on Linux: the CPU time of a proxy is read from a clock that is there only")
    if not options.page:
        for name in environments.missing(options.environments):
            print(f"setting up {options.environments / name}", flush=True)
            environments.make(options.environments, name)
        found = run(options.environments, quick=options.quick, wanted=options.row)
        keep(found, options.figures)
        if options.row:
            return
    figures = kept(options.figures)
    PAGE.write_text(page(figures, TEMPLATE.read_text(encoding="utf-8")), encoding="utf-8")
    plot(figures, PICTURE)
    print(f"written: {PAGE.relative_to(ROOT)}, {PICTURE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()

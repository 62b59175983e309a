"""The ratios as a picture that is read on light and on dark paper."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks.peers.page import columns
from benchmarks.peers.rows import PLAIN, ROWS

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.peers.figures import Figures

_INK: Final = "#808080"
_OURS: Final = "#2a9d8f"
_PEERS: Final = "#c8793b"
_SDK: Final = "#7f8fa6"
_SHOWN: Final = (ROWS[0], ROWS[2], ROWS[4])


def plot(figures: Figures, to: Path) -> None:
    """A bar for each column: its CPU over that of the plain SDK, on a scale of factors, with its interval."""
    import matplotlib as mpl  # noqa: PLC0415  (of the extra `plots`: the tables need none)

    mpl.use("svg")
    mpl.rcParams |= {
        "svg.hashsalt": "tierline", "svg.fonttype": "none", "text.color": _INK, "axes.labelcolor": _INK,
        "axes.edgecolor": _INK, "xtick.color": _INK, "ytick.color": _INK, "axes.titlecolor": _INK,
    }  # fmt: skip
    from matplotlib import pyplot as plt  # noqa: PLC0415
    from matplotlib.ticker import NullFormatter, ScalarFormatter  # noqa: PLC0415

    shown = list(columns(figures))[::-1]
    drawn, axes = plt.subplots(
        1, len(_SHOWN), figsize=(12, 0.9 + 0.26 * len(shown)), layout="constrained", sharey=True
    )  # fmt: skip
    for axis, row in zip(axes, _SHOWN, strict=True):
        for place, (worker, column) in enumerate(shown):
            cell = figures.cell(row.name, worker, column)
            found = cell and cell.over.get(PLAIN)
            if not found:
                continue
            colour = _OURS if column.startswith("Tierline") else _SDK if column.startswith(PLAIN) else _PEERS
            axis.barh(place, found.value - 1, left=1, height=0.7, color=colour)
            axis.plot([found.low, found.high], [place, place], color=_INK, linewidth=1)
            axis.text(max(found.high, 1) * 1.04, place, f"{found.value:.2f}", va="center", fontsize=7)
        axis.axvline(1, color=_INK, linewidth=0.8)
        axis.set(title=row.name, xscale="log", xlim=(0.5, 30))
        axis.set_xticks([0.5, 1, 2, 5, 10, 20])
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.spines[["top", "right"]].set_visible(False)
        axis.patch.set_visible(False)
    axes[0].set_yticks(range(len(shown)), [column for _, column in shown], fontsize=8)
    drawn.supxlabel("CPU of a call, over that of the plain SDK in the same process", fontsize=9)
    drawn.savefig(to, metadata={"Date": None}, transparent=True)
    plt.close(drawn)

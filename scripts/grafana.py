"""Writes docs/monitoring/grafana.json, from what is said of each panel here: `python -m scripts.grafana`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

OUT = Path(__file__).parents[1] / "docs" / "monitoring" / "grafana.json"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
JOB = 'job=~"$job"'
COLUMNS = 24
TALL, FLAT = 8, 4


class Panel(NamedTuple):
    """What a panel shows: queries by legend, and how wide it is (of 24 columns)."""

    title: str
    about: str
    unit: str
    queries: dict[str, str]
    width: int = 8
    kind: str = "timeseries"
    stacked: bool = False


def rate(metric: str, *by: str, where: str = "") -> str:
    """A counter per second, added up but for some labels."""
    return f"sum by ({', '.join(by)}) (rate({metric}{{{JOB}{where}}}[$__rate_interval]))"


def hourly(metric: str, *by: str, where: str = "") -> str:
    """The same per hour."""
    return f"{rate(metric, *by, where=where)} * 3600"


def whole(metric: str, where: str = "") -> str:
    """How much a counter has grown in the time that is shown."""
    return f"sum(increase({metric}{{{JOB}{where}}}[$__range]))"


def share(part: str, of: str) -> str:
    """A part of a whole; 0 where there is no such part yet."""
    return f"({part} or 0 * {of}) / {of}"


def percentiles(metric: str, *by: str) -> dict[str, str]:
    """p50 and p95 of a histogram."""
    legend = " ".join(f"{{{{{label}}}}}" for label in by)
    return {
        f"p{share * 100:.0f} {legend}": f"histogram_quantile({share}, {rate(f'{metric}_bucket', 'le', *by)})"
        for share in (0.5, 0.95)
    }


def latest(metric: str, *by: str, how: str = "max") -> str:
    """A gauge, of all processes."""
    return f"{how} by ({', '.join(by)}) ({metric}{{{JOB}}})"


COST, TOP = "tierline_cost_USD_total", "tierline_cost_top_USD_total"
OF_CALLS = ', tierline_purpose!="shadow"'
SAVED = f"{whole(TOP)} - {whole(COST, OF_CALLS)}"
TIER, ROUTE, BUDGET, MODEL = "tierline_decision_tier", "tierline_route", "tierline_budget", "gen_ai_response_model"
# Each app has budgets of its own, whatever they are called.
EACH = "job", BUDGET
PACE = (
    f"{rate('tierline_budget_spent_USD_total', *EACH)} * {latest('tierline_budget_window_seconds', *EACH)}"
    f" / {latest('tierline_budget_limit_USD', *EACH)}"
)
ATTEMPTS, ATTEMPT_TIER = "tierline_attempts_total", "tierline_attempt_tier"
FAILED = ', error_type!=""'
LOOKUPS, HIT = "tierline_cache_lookups_total", ', tierline_cache_hit="true"'

ROWS: dict[str, list[Panel]] = {
    "Money": [
        Panel("Spend", "All that answers and Tierline's own questions cost in the time shown.", "currencyUSD",
              {"": whole(COST)}, 6, "stat"),
        Panel("All on the top tier", "What the same calls would have cost on the top tier alone.", "currencyUSD",
              {"": whole(TOP)}, 6, "stat"),
        Panel("Saved", "The difference; below 0 where questions cost more than they save. Shadows are left out.",
              "currencyUSD", {"": SAVED}, 6, "stat"),
        Panel("Saved of that", "The share of what the top tier would have cost.", "percentunit",
              {"": f"({SAVED}) / {whole(TOP)}"}, 6, "stat"),
        Panel("Cost by tier", "USD per hour, Tierline's own questions at the tier that answered them.", "currencyUSD",
              {"{{tierline_decision_tier}}": hourly(COST, TIER)}, stacked=True),
        Panel("Cost by purpose", "USD per hour: answers, and what Tierline asks for itself.",
              "currencyUSD", {"{{tierline_purpose}}": hourly(COST, "tierline_purpose")}, stacked=True),
        Panel("Beside all on the top tier", "USD per hour.", "currencyUSD",
              {"as it is": hourly(COST, where=OF_CALLS), "all on the top tier": hourly(TOP)}),
        Panel("Dearest routes", "USD per hour, the ten that cost most.", "currencyUSD",
              {"{{tierline_route}}": f"topk(10, {hourly(COST, ROUTE)})"}, 12),
        Panel("Tokens", "Tokens per second, of prompts (cached ones included) and answers.", "short",
              {"{{gen_ai_token_type}}": rate("gen_ai_client_token_usage_sum", "gen_ai_token_type")}, 12),
    ],
    "Budgets": [
        Panel("Pace", "How fast budgets with one account are spent: at 1, all of it at the end of its window.", "short",
              {"{{tierline_budget}}": PACE}, 6),
        Panel("Fullness", "Share of a budget that is spent and held, at the calls that it admits, over its accounts.",
              "percentunit", percentiles("tierline_budget_utilization", BUDGET), 6),
        Panel("Spend by budget", "USD per hour, over all accounts of it. A call is charged to several budgets.",
              "currencyUSD", {"{{tierline_budget}}": hourly("tierline_budget_spent_USD_total", BUDGET)}, 6),
        Panel("Refused", "Calls per hour that a budget had no room for.", "short",
              {"{{tierline_budget}}": hourly("tierline_refusals_total", BUDGET)}, 6),
    ],
    "Calls": [
        Panel("Calls by tier", "Calls per second.", "reqps",
              {"{{tierline_decision_tier}}": rate("tierline_decisions_total", TIER)}, stacked=True),
        Panel("Calls by source", "Calls per second, by who chose the tier.", "reqps",
              {"{{tierline_decision_source}}": rate("tierline_decisions_total", "tierline_decision_source")},
              stacked=True),
        Panel("Verdict cache", "Share of look-ups that found a verdict, in the worker or in the store.", "percentunit",
              {"hit rate": share(rate(LOOKUPS, where=HIT), rate(LOOKUPS))}),
        Panel("Escalations", "Answers per hour that were not good enough, by what was wrong with them.", "short",
              {"{{tierline_escalation_reason}}": hourly("tierline_escalations_total", "tierline_escalation_reason")}),
        Panel("Further attempts", "Per hour, by role: a retry, a fallback to another tier, an escalation.", "short",
              {"{{tierline_attempt_role}}, {{tierline_attempt_tier}}": hourly(
                  ATTEMPTS, "tierline_attempt_role", ATTEMPT_TIER, where=', tierline_attempt_role!="first"')}),
        Panel("Upgrades withheld", "Calls per hour whose text wanted a dearer tier than its account had left.", "short",
              {"{{tierline_route}}": hourly("tierline_upgrades_withheld_total", ROUTE)}),
    ],
    "Time": [
        Panel("Calls", "Seconds, retries and fallbacks included; of a stream, until it was read.", "s",
              percentiles("gen_ai_client_operation_duration_seconds", MODEL)),
        Panel("First chunk of a stream", "Seconds.", "s",
              percentiles("gen_ai_client_operation_time_to_first_chunk_seconds", MODEL)),
        Panel("Classifying", "Seconds until there was an opinion, by who had it.", "s",
              percentiles("tierline_classifier_duration_seconds", "tierline_decision_source")),
    ],
    "Health": [
        Panel("Errors by tier", "Share of the requests to the API that failed.", "percentunit",
              {"{{tierline_attempt_tier}}": share(rate(ATTEMPTS, ATTEMPT_TIER, where=FAILED),
                                                  rate(ATTEMPTS, ATTEMPT_TIER))}, 6),
        Panel("Errors by type", "Failed requests to the API per hour.", "short",
              {"{{error_type}}": hourly(ATTEMPTS, "error_type", where=FAILED)}, 6),
        Panel("Breakers open", "Breakers that are not closed, over all processes.", "short",
              {"{{gen_ai_request_model}}": latest("tierline_breakers_open", "gen_ai_request_model", how="sum")}, 4),
        Panel("Attempts withheld", "Per hour, by what stood against them.", "short",
              {"{{tierline_withheld_by}}": hourly("tierline_attempts_withheld_total", "tierline_withheld_by")}, 4),
        Panel("Ledger away", "Processes that cannot ask the store of the balances.", "short",
              {"processes": f"sum(tierline_ledger_away{{{JOB}}})"}, 4),
    ],
}  # fmt: skip


def drawn(panel: Panel, number: int, x: int, y: int) -> dict[str, Any]:
    """A panel as Grafana reads it."""
    custom = {"fillOpacity": 30 if panel.stacked else 8, "stacking": {"mode": "normal" if panel.stacked else "none"}}
    calmly = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "none", "graphMode": "none"}
    shown = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}
    stat = panel.kind == "stat"
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": FLAT if stat else TALL},
        "fieldConfig": {
            "defaults": {"unit": panel.unit, **({} if stat else {"min": 0, "custom": custom})},
            "overrides": [],
        },
        "options": calmly if stat else shown,
        "targets": [
            {"refId": chr(65 + place), "datasource": SOURCE, "expr": expr, "legendFormat": legend, "instant": stat}
            for place, (legend, expr) in enumerate(panel.queries.items())
        ],
    }


def panels() -> list[dict[str, Any]]:
    """All panels, each row under its title."""
    found: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS.items():
        found.append({
            "id": len(found) + 1, "type": "row", "title": title, "collapsed": False, "panels": [],
            "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
        })  # fmt: skip
        x, y, height = 0, y + 1, 0
        for panel in row:
            if x + panel.width > COLUMNS:
                x, y = 0, y + height
            found.append(drawn(panel, len(found) + 1, x, y))
            x, height = x + panel.width, FLAT if panel.kind == "stat" else TALL
        y += height
    return found


def dashboard() -> dict[str, Any]:
    """The dashboard, to be imported or provisioned. It works with any Prometheus: which one is a variable."""
    jobs = "label_values(tierline_decisions_total, job)"
    variables = [
        {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
        {
            "name": "job", "label": "App", "type": "query", "datasource": SOURCE, "query": jobs, "definition": jobs,
            "includeAll": True, "allValue": ".*", "multi": True, "refresh": 2, "sort": 1,
            "current": {"text": "All", "value": "$__all"},
        },
    ]  # fmt: skip
    return {
        "uid": "tierline",
        "title": "Tierline",
        "description": "Where the money of Claude calls goes, and how they do.",
        "tags": ["tierline", "claude"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-24h", "to": "now"},
        "templating": {"list": variables},
        "panels": panels(),
    }


if __name__ == "__main__":
    OUT.write_text(json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(f"wrote {OUT.name}: {sum(len(row) for row in ROWS.values())} panels")

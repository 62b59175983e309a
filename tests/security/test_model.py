"""The catalogue of attacks, and the security model: every name in them is that of a test, or of a bound."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import tierline

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text("utf-8")
CASES = """
thundering_herd_last_dollar first_request_unknown_tenant multi_window_one_denies_none_held duplicate_reserve_id
duplicate_settle settle_after_expiry settle_exceeds_reserve negative_usage string_usage rounding_drift_1e6_calls
window_boundary_mid_stream reset_during_inflight limit_lowered_midflight clock_jump_1h dst_month_end_leap
hypothesis_stateful_vs_model missing_max_tokens huge_max_tokens_pins_budget conflicting_token_caps
cache_write_1h_pricing long_context_fast_geo_pricing server_tool_unbounded unknown_model_price kill9_before_dispatch
kill9_mid_stream kill9_between_bill_and_settle sigterm_drain sigterm_timeout_exceeded double_cancel
fork_after_client_use four_workers_memory_store_refused_or_warned event_loop_swap slow_stream_heartbeat_outlives_lease
disconnect_before_first_chunk disconnect_during_backpressure sync_generator_disconnect
generator_abandoned_gc_other_tenant spec24_send_oserror never_awaiting_generator exception_after_start
base_http_middleware_above_and_below scope_copying_middleware include_router_prefix_floor mount_host_root_path
404_405_redirect_head websocket_multi_call background_task_after_response raw_thread_call_metered
fanout_100_gather_one_request 429_retry_after_1 429_retry_after_3600 429_no_retry_after 400_spend_limit_not_retried
529_burst_breaker 25_consecutive_500s_open_breaker reset_pre_headers reset_mid_stream sse_error_after_200
clean_eof_no_stop truncated_json_200 html_200 missing_usage pings_forever_slowloris unknown_event
all_tiers_down_amplification half_open_single_probe no_retry_after_first_byte redis_absent_at_start redis_sigstop
slow_reply_duplicates redis_restart_empty crossslot_keys sqlite_locked_enospc_readonly injection_reply_opus_haiku
confounder_gadget_prefix spoofed_tenant_budget_floor_headers host_header_and_path_tricks cross_tenant_cache_and_timing
cache_flood_unique_prompts redos_rule_1mb json_depth_nan_bool_dupkeys lone_surrogate_bidi_zero_width body_bomb_chunked
canary_key_prompt_leak_crlf_log
"""


def written() -> set[str]:
    """The names of all test functions: of these tests, and of those that ship for ledgers of others."""
    files = [*(ROOT / "tests").rglob("test_*.py"), *(ROOT / "src" / "tierline" / "testing").rglob("*.py")]
    return {
        node.name
        for file in files
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_")
    }


def test_the_catalogue_is_whole() -> None:
    """Each of the 84 hostile cases is a test of its name."""
    cases = CASES.split()
    assert len(cases) == len(set(cases)) == 84
    assert {f"test_{case}" for case in cases} - written() == set()


def test_every_defence_has_its_test() -> None:
    """Each test that the security model names is there, and each row of it names one."""
    rows = [
        line for line in PAGE.partition("## What they could gain")[2].partition("##")[0].splitlines() if "|" in line
    ]
    named = re.findall(r"`(test_\w+)`", PAGE)
    assert len(rows) > 15
    assert all("`test_" in row for row in rows[2:])
    assert set(named) - written() == set()


def modules() -> dict[str, list[str]]:
    """Tierline's modules by the last part of their names."""
    found: dict[str, list[str]] = {}
    for each in pkgutil.walk_packages(tierline.__path__, "tierline."):
        found.setdefault(each.name.rpartition(".")[2], []).append(each.name)
    return found


def test_every_bound_is_there() -> None:
    """Each bound of the table is a number in the code, under the name that the table has for it."""
    table = PAGE.partition("## Bounds")[2].partition("\n##")[0]
    names = re.findall(r"`(\w+)\.(_?[A-Z][A-Z_]+)`", table)
    known = modules()
    assert len(names) > 40
    for module, name in names:
        values = [getattr(importlib.import_module(path), name, None) for path in known[module] if "testing" not in path]
        assert any(isinstance(value, int) and value > 0 for value in values), f"{module}.{name}"


@pytest.mark.parametrize("page", ["docs/security.md", "SECURITY.md"])
def test_the_pages_know_of_each_other(page: str) -> None:
    """Who reports and who reads on find the way."""
    other = {"docs/security.md": "SECURITY.md", "SECURITY.md": "docs/security.md"}[page]
    assert other in (ROOT / page).read_text("utf-8")

"""What is in the stores: the tables of a SQLite file, how an older one becomes a newer one, and who may use it.

A schema is a number, and it only grows. A step to the next one is additive or not. An additive one leaves all that is
there as it is, so that programs which do not know it go on beside those that do: tables, indexes, columns that may be
left out, keys and fields of a Redis that nobody has to know. After any other step, programs that do not know it are
refused, with an error that says so, and touch nothing. So two releases may share a store while one takes the place of
the other, unless a step between them says that they may not.
"""

from __future__ import annotations

from typing import Final

APPLICATION_ID: Final = 0x54494552
"""Which program a file belongs to: "TIER"."""

_LEDGER: Final = """
CREATE TABLE epoch (            -- of this file, and of those whose place it has taken
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE
);
CREATE TABLE time (             -- in seconds since the epoch, as the processes that share the file know it
    one INTEGER PRIMARY KEY CHECK (one = 1),
    read REAL NOT NULL,         -- what the clock said last
    now REAL NOT NULL,          -- the latest that it ever said: windows go by it
    behind REAL NOT NULL,       -- how far it went back in all: leases go by read + behind
    born REAL,                  -- holds of before were made in a file that was lost; NULL: that is to be noted now
    edition INTEGER NOT NULL    -- of the table `limits`: any other number says that it was changed
);
CREATE TABLE span (             -- what an account has used in one stretch of its window; money in nano-USD
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used again: a hold finds its span, or none
    budget TEXT NOT NULL,
    account TEXT NOT NULL,
    series TEXT NOT NULL,
    start REAL NOT NULL,
    until REAL NOT NULL,        -- counts before this moment
    spent INTEGER NOT NULL CHECK (typeof(spent) = 'integer'),
    held INTEGER NOT NULL CHECK (typeof(held) = 'integer'),
    estimated INTEGER NOT NULL CHECK (typeof(estimated) = 'integer'),
    told INTEGER NOT NULL,      -- bits: for which of `shares` there was an alert
    alarm INTEGER,              -- the least `spent` at which there may be another; NULL for never
    most INTEGER NOT NULL,      -- the limit that was last given
    hard INTEGER NOT NULL,
    shares TEXT NOT NULL,       -- JSON: those of the limit at which there is an alert
    UNIQUE (budget, account, series, start)
);
CREATE INDEX span_until ON span (until);
CREATE TABLE hold (
    id TEXT PRIMARY KEY,
    state INTEGER NOT NULL,     -- 0 live, 1 lapsed, 2 ended
    due REAL NOT NULL,          -- when it lapses, or is forgotten
    cost INTEGER,               -- the columns from here on are NULL for one that has ended
    asked INTEGER,              -- the offer's cost; NULL for one without a bound
    at REAL,                    -- NULL for a lapsed one, too, whose tenant was erased
    tier TEXT,
    model TEXT,
    skipped INTEGER,
    tight TEXT,
    tenant TEXT,
    route TEXT,
    own INTEGER,
    spans TEXT,                 -- ids of `span`, each once, with blanks between
    lines TEXT                  -- JSON: what the reservation is made of again for one who asks twice
) WITHOUT ROWID;
CREATE INDEX hold_due ON hold (state, due);
CREATE TABLE spend (            -- by hour; money in nano-USD
    hour INTEGER NOT NULL,
    tenant TEXT,
    route TEXT,
    tier TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    cost INTEGER NOT NULL,
    own INTEGER NOT NULL,
    estimated INTEGER NOT NULL
);
CREATE UNIQUE INDEX spend_key ON spend (hour, tier, ifnull(tenant, 0), ifnull(route, 0));
CREATE TABLE limits (           -- limits that operators have set, in nano-USD
    budget TEXT NOT NULL,
    account TEXT,               -- NULL: all that have none of their own
    most INTEGER NOT NULL
);
CREATE UNIQUE INDEX limits_key ON limits (budget, ifnull(account, 0));
"""

_LEARNING: Final = """
CREATE TABLE learning (         -- of what follows
    one INTEGER PRIMARY KEY CHECK (one = 1),
    edition TEXT NOT NULL,      -- another one: something was forgotten, read all again
    secret BLOB                 -- of keys and signatures; NULL: nobody has needed it yet
);
CREATE TABLE outcome (          -- how good answers were: features of requests, and no text
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    route TEXT NOT NULL,
    tier TEXT NOT NULL,
    good REAL NOT NULL,
    features BLOB NOT NULL,
    source TEXT NOT NULL,
    weight REAL NOT NULL,
    account TEXT NOT NULL,      -- a keyed digest; empty for the app itself
    at REAL NOT NULL
);
CREATE INDEX outcome_account ON outcome (account) WHERE account <> '';
CREATE TABLE graded (           -- ids that are taken
    id TEXT PRIMARY KEY,
    until REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX graded_until ON graded (until);
"""

_VERDICTS: Final = """
CREATE TABLE verdict (          -- what a classifier has said: keyed digests, and no text
    number INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    account TEXT NOT NULL,      -- a keyed digest
    value TEXT NOT NULL,        -- sealed
    until REAL NOT NULL,
    hits INTEGER NOT NULL
);
CREATE INDEX verdict_until ON verdict (until);
CREATE INDEX verdict_account ON verdict (account);
CREATE TABLE verdicts (         -- over all time; money in nano-USD
    one INTEGER PRIMARY KEY CHECK (one = 1),
    hits INTEGER NOT NULL,
    saved INTEGER NOT NULL
);
"""

_TRAFFIC: Final = """
CREATE TABLE traffic_name (     -- of routes, accounts and jobs
    id INTEGER PRIMARY KEY,     -- above 0
    kind INTEGER NOT NULL,      -- 0 tier, 1 route, 2 account, 3 job
    name TEXT NOT NULL,
    last INTEGER NOT NULL,      -- the latest hour in which it was there, or up to a day before that
    UNIQUE (kind, name)
);
CREATE TABLE traffic (          -- sums of a stretch of time; money in nano-USD
    kind INTEGER NOT NULL,
    level INTEGER NOT NULL,     -- how long it is, in seconds: see `LEVELS` of traffic/store.py
    start INTEGER NOT NULL,
    name INTEGER NOT NULL,      -- 0: the sum over all names
    calls INTEGER NOT NULL,
    cost INTEGER NOT NULL,
    own INTEGER NOT NULL,
    estimated INTEGER NOT NULL,
    top INTEGER NOT NULL,
    lookups INTEGER NOT NULL,
    hits INTEGER NOT NULL,
    downgrades INTEGER NOT NULL,
    escalations INTEGER NOT NULL,
    fallbacks INTEGER NOT NULL,
    refusals INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    batched INTEGER NOT NULL,
    PRIMARY KEY (kind, level, start, name)
) WITHOUT ROWID;
CREATE TABLE traffic_day (      -- how many names of a kind there are on a day
    kind INTEGER NOT NULL,
    start INTEGER NOT NULL,
    names INTEGER NOT NULL,
    PRIMARY KEY (kind, start)
) WITHOUT ROWID;
CREATE TABLE traffic_worker (
    id TEXT PRIMARY KEY,
    started REAL NOT NULL,
    seen REAL NOT NULL,
    last INTEGER NOT NULL,      -- the number of what it wrote last
    breakers TEXT NOT NULL      -- JSON: those that are not closed
) WITHOUT ROWID;
CREATE TABLE traffic_decision ( -- the latest
    id TEXT PRIMARY KEY,
    at REAL NOT NULL,
    account TEXT NOT NULL,
    record TEXT NOT NULL        -- JSON, without a text
);
CREATE INDEX traffic_decision_at ON traffic_decision (at);
CREATE TABLE traffic_ended (    -- sessions of the page: who has one needs a signature, too
    session TEXT PRIMARY KEY,
    until REAL NOT NULL         -- when it would have ended by itself
) WITHOUT ROWID;
"""

BATCHES: Final = """
CREATE TABLE batch_job (        -- what was submitted under one name
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    uid TEXT NOT NULL UNIQUE,   -- how custom ids begin that the API is given
    owner TEXT NOT NULL,        -- who submits, until a moment
    until REAL NOT NULL,
    settings TEXT NOT NULL,     -- JSON
    whole INTEGER NOT NULL,     -- submitted to its end
    canceled INTEGER NOT NULL,
    touched REAL NOT NULL,      -- when somebody last submitted to it, or a batch of it was done
    erased INTEGER NOT NULL     -- it is not there any more; what is left of it is dropped bit by bit
);
CREATE TABLE batch (
    id TEXT PRIMARY KEY,
    job TEXT NOT NULL,
    state TEXT NOT NULL,
    owner TEXT NOT NULL,        -- who works on it, until a moment
    until REAL NOT NULL,
    due REAL NOT NULL,          -- when it is to be looked at
    api TEXT NOT NULL,          -- the API's id of it
    count INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    sent REAL NOT NULL,
    fails INTEGER NOT NULL,
    note TEXT NOT NULL,
    trace TEXT NOT NULL,
    fetches INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX batch_due ON batch (due) WHERE state <> 'done';
CREATE INDEX batch_of ON batch (job, state);
CREATE INDEX batch_api ON batch (api) WHERE api <> '';
CREATE TABLE batch_item (       -- a request, and what became of it; money in nano-USD
    number INTEGER PRIMARY KEY,
    job TEXT NOT NULL,
    place INTEGER NOT NULL,
    name TEXT,                  -- the app's custom id
    batch TEXT NOT NULL,        -- empty for one that was never sent
    hold TEXT NOT NULL,
    state INTEGER NOT NULL,     -- 0 waits, 1 is in its batch, 2 has its result
    tries INTEGER NOT NULL,
    worst INTEGER NOT NULL,
    tier TEXT NOT NULL,
    model TEXT NOT NULL,
    outcome TEXT NOT NULL,
    payload TEXT,               -- a prompt: gone when there is a result
    result TEXT,
    cost INTEGER NOT NULL,
    estimated INTEGER NOT NULL,
    tenant TEXT NOT NULL,       -- who pays; empty for nobody
    said TEXT NOT NULL,         -- JSON for the decision log: gone with the payload; empty for none
    plain INTEGER NOT NULL,     -- what the same usage costs without a batch
    top INTEGER NOT NULL        -- and on the top tier
);
CREATE UNIQUE INDEX batch_item_place ON batch_item (job, place);
CREATE UNIQUE INDEX batch_item_name ON batch_item (job, name) WHERE name IS NOT NULL;
CREATE INDEX batch_item_batch ON batch_item (batch, place);
CREATE TABLE batch_hold (
    id TEXT PRIMARY KEY,
    batch TEXT NOT NULL,        -- empty for one that is about to be made
    owner TEXT NOT NULL,
    until REAL NOT NULL,
    entry TEXT NOT NULL         -- JSON: what settling it needs
) WITHOUT ROWID;
CREATE INDEX batch_hold_of ON batch_hold (batch);
CREATE TABLE batch_deferred (   -- a request that waits for a batch, and its answer; moments in seconds
    number INTEGER PRIMARY KEY,
    handle TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,         -- the app's custom id
    when_full TEXT NOT NULL,
    target TEXT NOT NULL,       -- whom the answer is delivered to
    created REAL NOT NULL,
    ready REAL NOT NULL,        -- may be batched from then on
    fill_by REAL NOT NULL,      -- and is by then
    act_by REAL NOT NULL,       -- is batched no more
    call_by REAL NOT NULL,      -- is called
    deadline REAL NOT NULL,
    request TEXT,               -- JSON with a prompt: gone when there is a result
    state TEXT NOT NULL,        -- waiting, gathered, calling, answered
    job TEXT NOT NULL,
    place INTEGER NOT NULL,
    result TEXT,
    answered REAL NOT NULL,
    delivery TEXT NOT NULL,
    due REAL NOT NULL,          -- when it is to be delivered
    tries INTEGER NOT NULL,
    owner TEXT NOT NULL DEFAULT '',
    until REAL NOT NULL DEFAULT 0
);
CREATE INDEX batch_deferred_ready ON batch_deferred (ready) WHERE state = 'waiting';
CREATE INDEX batch_deferred_fill ON batch_deferred (fill_by) WHERE state = 'waiting';
CREATE INDEX batch_deferred_act ON batch_deferred (act_by) WHERE state = 'waiting';
CREATE INDEX batch_deferred_late ON batch_deferred (call_by) WHERE state = 'gathered';
CREATE INDEX batch_deferred_call ON batch_deferred (until) WHERE state = 'calling';
CREATE INDEX batch_deferred_out ON batch_deferred (due) WHERE delivery = 'waiting';
CREATE INDEX batch_deferred_done ON batch_deferred (answered) WHERE state = 'answered';
CREATE INDEX batch_deferred_job ON batch_deferred (job, place) WHERE state = 'gathered';
CREATE INDEX batch_deferred_tenant ON batch_deferred (tenant);
CREATE TABLE batch_group (      -- deferred requests that were put into one job
    id TEXT PRIMARY KEY,
    when_full TEXT NOT NULL,
    number INTEGER NOT NULL,
    owner TEXT NOT NULL,        -- who works on it, until a moment
    until REAL NOT NULL,
    due REAL NOT NULL,          -- when it is to be looked at
    submitted REAL NOT NULL,    -- when its job had all of them
    seen INTEGER NOT NULL,      -- results of the job that were read
    canceled INTEGER NOT NULL
) WITHOUT ROWID;
"""

_SCHEMA: Final = """
CREATE TABLE schema (           -- of this file: how many steps were made. Without this table: as user_version says
    one INTEGER PRIMARY KEY CHECK (one = 1),
    steps INTEGER NOT NULL
);
"""

MIGRATIONS: Final[tuple[str, ...]] = (_LEDGER, _LEARNING, _VERDICTS, _TRAFFIC, BATCHES, _SCHEMA)
"""Scripts, each of which makes the schema before it the next one. None is ever edited: what changes is a new one."""
OLDEST: Final = 5
"""The number of the last step that is not additive: who knows fewer may not use a file. It is in `user_version`."""

REDIS_SCHEMA: Final = 1
"""The schema of what is in a Redis: what keys there are, and what is in them."""
REDIS_OLDEST: Final = 1
"""The last one that was not reached by an additive step: who knows less may not use these data."""

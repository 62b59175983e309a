"""What is in a SQLite file of Tierline: the tables of all parts, and how an older file becomes a newer one."""

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

MIGRATIONS: Final[tuple[str, ...]] = (_LEDGER, _LEARNING, _VERDICTS)
"""Scripts, each of which makes the version before it the next one; `user_version` says how many were run."""

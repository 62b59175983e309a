PRAGMA user_version = 5;
PRAGMA application_id = 1414088018;
BEGIN TRANSACTION;
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
INSERT INTO "batch" VALUES('b1','job','sealed','you',1795262430.0,0.0,'',3,24,0.0,0,'','',0);
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
INSERT INTO "batch_deferred" VALUES(1,'a','acme','r-a','refuse','',1795262400.0,1795262399.0,1795362400.0,1795462400.0,1795562400.0,1795662400.0,'{"q":"a"}','gathered','group',0,NULL,0.0,'',0.0,0,'',0.0);
INSERT INTO "batch_deferred" VALUES(2,'b','acme','r-b','refuse','',1795262400.0,1795262399.0,1795362400.0,1795462400.0,1795562400.0,1795662400.0,'{"q":"b"}','gathered','group',1,NULL,0.0,'',0.0,0,'',0.0);
INSERT INTO "batch_deferred" VALUES(3,'c','acme','r-c','refuse','',1795262400.0,1795262399.0,1795362400.0,1795462400.0,1795562400.0,1795662400.0,'{"q":"c"}','waiting','',0,NULL,0.0,'',0.0,0,'',0.0);
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
INSERT INTO "batch_group" VALUES('group','refuse',2,'',0.0,0.0,0.0,0,0);
CREATE TABLE batch_hold (
    id TEXT PRIMARY KEY,
    batch TEXT NOT NULL,        -- empty for one that is about to be made
    owner TEXT NOT NULL,
    until REAL NOT NULL,
    entry TEXT NOT NULL         -- JSON: what settling it needs
) WITHOUT ROWID;
INSERT INTO "batch_hold" VALUES('h1','b1','',0.0,'entry');
INSERT INTO "batch_hold" VALUES('h2','','me',1795262430.0,'');
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
INSERT INTO "batch_item" VALUES(1,'job',0,'r0','b1','h1',2,1,900000000000000001,'haiku','m','succeeded',NULL,'text',900000000000000001,1,'','',0,0);
INSERT INTO "batch_item" VALUES(2,'job',1,'r1','b1','h1',1,1,900000000000000001,'haiku','m','','{"n":1}',NULL,0,0,'','',0,0);
INSERT INTO "batch_item" VALUES(3,'job',2,'r2','b1','h1',1,1,900000000000000001,'haiku','m','','{"n":2}',NULL,0,0,'','',0,0);
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
INSERT INTO "batch_job" VALUES(1,'job','uid','me',1795262430.0,'{"when_full":"refuse"}',0,0,1795262400.0,0);
CREATE TABLE epoch (            -- of this file, and of those whose place it has taken
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE
);
INSERT INTO "epoch" VALUES(1,'770d9cc11315dbdd');
CREATE TABLE graded (           -- ids that are taken
    id TEXT PRIMARY KEY,
    until REAL NOT NULL
) WITHOUT ROWID;
INSERT INTO "graded" VALUES('o0',1.79602328362615060804e+09);
INSERT INTO "graded" VALUES('o1',1.79602328362615060804e+09);
INSERT INTO "graded" VALUES('o2',1.79602328362615060804e+09);
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
INSERT INTO "hold" VALUES('flying',0,1795262490.0,500,500,1795262460.0,'haiku','m',0,'','acme','/answer',0,'1 2 3','[[1,"total", "global", 1800000000000000002, "total", "UTC", 0, true, null, null, [0.8, 1.0],0, Infinity, Infinity,900000000000000221],[2,"daily", "acme", 1000, "day", "UTC", 0, true, 0.7, null, [],1795219200.0, 1795305600.0, 1795305600.0,220],[3,"rolling", "acme", 1000, "rolling", "UTC", 86400, true, null, null, [],1795262400, 1795263840, 1795350240,220]]');
INSERT INTO "hold" VALUES('guessed',2,1795266060.0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "hold" VALUES('lapsed',1,1795348860.0,70,70,1795262400.0,'haiku','m',0,'','acme','/answer',0,'1 2 3','[[1,"total", "global", 1800000000000000002, "total", "UTC", 0, true, null, null, [0.8, 1.0],0, Infinity, Infinity,900000000000000001],[2,"daily", "acme", 1000, "day", "UTC", 0, true, 0.7, null, [],1795219200.0, 1795305600.0, 1795305600.0,0],[3,"rolling", "acme", 1000, "rolling", "UTC", 86400, true, null, null, [],1795262400, 1795263840, 1795350240,0]]');
INSERT INTO "hold" VALUES('released',2,1795266060.0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "hold" VALUES('settled',2,1795266060.0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "hold" VALUES('whole',2,1795266000.0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE learning (         -- of what follows
    one INTEGER PRIMARY KEY CHECK (one = 1),
    edition TEXT NOT NULL,      -- another one: something was forgotten, read all again
    secret BLOB                 -- of keys and signatures; NULL: nobody has needed it yet
);
INSERT INTO "learning" VALUES(1,'96dcf8da8664e7ec',X'5EFF7DFD5160D42562B0BB9D3100B2D8984DDB5368572553FA8B6D47244D57D4');
CREATE TABLE limits (           -- limits that operators have set, in nano-USD
    budget TEXT NOT NULL,
    account TEXT,               -- NULL: all that have none of their own
    most INTEGER NOT NULL
);
INSERT INTO "limits" VALUES('daily','globex',900000000000000001);
INSERT INTO "limits" VALUES('daily',NULL,900);
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
INSERT INTO "outcome" VALUES(1,'o0','/answer','haiku',0.5,X'00FF31','app',1.0,'',1795262400.0);
INSERT INTO "outcome" VALUES(2,'o1','/answer','haiku',0.5,X'00FF31','app',1.0,'d',1795262400.0);
INSERT INTO "outcome" VALUES(3,'o2','/answer','haiku',0.5,X'00FF31','app',1.0,'',1795262400.0);
CREATE TABLE schema (           -- of this file: how many steps were made. Without this table: as user_version says
    one INTEGER PRIMARY KEY CHECK (one = 1),
    steps INTEGER NOT NULL
);
INSERT INTO "schema" VALUES(1,6);
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
INSERT INTO "span" VALUES(1,'total','global','total',0.0,9e999,900000000000000221,500,100,0,1440000000000000002,1800000000000000002,1,'[0.8, 1.0]');
INSERT INTO "span" VALUES(2,'daily','acme','day',1795219200.0,1795305600.0,220,500,100,0,NULL,1000,1,'[]');
INSERT INTO "span" VALUES(3,'rolling','acme','rolling 86400',1795262400.0,1795350240.0,220,500,100,0,NULL,1000,1,'[]');
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
INSERT INTO "spend" VALUES(1795262400,NULL,NULL,'opus',1,900000000000000001,0,0);
INSERT INTO "spend" VALUES(1795262400,'acme','/answer','haiku',3,220,0,100);
CREATE TABLE time (             -- in seconds since the epoch, as the processes that share the file know it
    one INTEGER PRIMARY KEY CHECK (one = 1),
    read REAL NOT NULL,         -- what the clock said last
    now REAL NOT NULL,          -- the latest that it ever said: windows go by it
    behind REAL NOT NULL,       -- how far it went back in all: leases go by read + behind
    born REAL,                  -- holds of before were made in a file that was lost; NULL: that is to be noted now
    edition INTEGER NOT NULL    -- of the table `limits`: any other number says that it was changed
);
INSERT INTO "time" VALUES(1,1795262460.0,1795262460.0,0.0,1795262400.0,-7792796631808841028);
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
INSERT INTO "traffic" VALUES(0,3600,1795258800,1,3,9007199254740993,0,0,0,0,0,0,0,0,0,0,0);
INSERT INTO "traffic" VALUES(2,3600,1795258800,0,3,9007199254740993,0,0,7,0,0,0,0,0,0,0,0);
INSERT INTO "traffic" VALUES(2,3600,1795258800,2,3,9007199254740993,0,0,7,0,0,0,0,0,0,0,0);
INSERT INTO "traffic" VALUES(2,21600,1795240800,0,3,9007199254740993,0,0,7,0,0,0,0,0,0,0,0);
INSERT INTO "traffic" VALUES(2,21600,1795240800,2,3,9007199254740993,0,0,7,0,0,0,0,0,0,0,0);
INSERT INTO "traffic" VALUES(2,86400,1795219200,0,3,9007199254740993,0,0,7,0,0,0,0,0,0,0,0);
INSERT INTO "traffic" VALUES(2,86400,1795219200,2,3,9007199254740993,0,0,7,0,0,0,0,0,0,0,0);
INSERT INTO "traffic" VALUES(2,604800,1795046400,0,3,9007199254740993,0,0,7,0,0,0,0,0,0,0,0);
INSERT INTO "traffic" VALUES(2,604800,1795046400,2,3,9007199254740993,0,0,7,0,0,0,0,0,0,0,0);
CREATE TABLE traffic_day (      -- how many names of a kind there are on a day
    kind INTEGER NOT NULL,
    start INTEGER NOT NULL,
    names INTEGER NOT NULL,
    PRIMARY KEY (kind, start)
) WITHOUT ROWID;
INSERT INTO "traffic_day" VALUES(2,1795219200,1);
CREATE TABLE traffic_decision ( -- the latest
    id TEXT PRIMARY KEY,
    at REAL NOT NULL,
    account TEXT NOT NULL,
    record TEXT NOT NULL        -- JSON, without a text
);
INSERT INTO "traffic_decision" VALUES('d1',1795262400.0,'acme','{"id":"d1"}');
CREATE TABLE traffic_ended (    -- sessions of the page: who has one needs a signature, too
    session TEXT PRIMARY KEY,
    until REAL NOT NULL         -- when it would have ended by itself
) WITHOUT ROWID;
INSERT INTO "traffic_ended" VALUES('session',1796262400.0);
CREATE TABLE traffic_name (     -- of routes, accounts and jobs
    id INTEGER PRIMARY KEY,     -- above 0
    kind INTEGER NOT NULL,      -- 0 tier, 1 route, 2 account, 3 job
    name TEXT NOT NULL,
    last INTEGER NOT NULL,      -- the latest hour in which it was there, or up to a day before that
    UNIQUE (kind, name)
);
INSERT INTO "traffic_name" VALUES(1,0,'haiku',1795258800);
INSERT INTO "traffic_name" VALUES(2,2,'acme',1795258800);
CREATE TABLE traffic_worker (
    id TEXT PRIMARY KEY,
    started REAL NOT NULL,
    seen REAL NOT NULL,
    last INTEGER NOT NULL,      -- the number of what it wrote last
    breakers TEXT NOT NULL      -- JSON: those that are not closed
) WITHOUT ROWID;
INSERT INTO "traffic_worker" VALUES('worker',1795262400.0,1795262400.0,1,'[]');
CREATE TABLE verdict (          -- what a classifier has said: keyed digests, and no text
    number INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    account TEXT NOT NULL,      -- a keyed digest
    value TEXT NOT NULL,        -- sealed
    until REAL NOT NULL,
    hits INTEGER NOT NULL
);
INSERT INTO "verdict" VALUES(1,'k1','a1','sealed one',2795262400.0,3);
INSERT INTO "verdict" VALUES(2,'k2','a2','sealed two',2795262400.0,0);
CREATE TABLE verdicts (         -- over all time; money in nano-USD
    one INTEGER PRIMARY KEY CHECK (one = 1),
    hits INTEGER NOT NULL,
    saved INTEGER NOT NULL
);
INSERT INTO "verdicts" VALUES(1,3,12345);
CREATE INDEX span_until ON span (until);
CREATE INDEX hold_due ON hold (state, due);
CREATE UNIQUE INDEX spend_key ON spend (hour, tier, ifnull(tenant, 0), ifnull(route, 0));
CREATE UNIQUE INDEX limits_key ON limits (budget, ifnull(account, 0));
CREATE INDEX outcome_account ON outcome (account) WHERE account <> '';
CREATE INDEX graded_until ON graded (until);
CREATE INDEX verdict_until ON verdict (until);
CREATE INDEX verdict_account ON verdict (account);
CREATE INDEX traffic_decision_at ON traffic_decision (at);
CREATE INDEX batch_due ON batch (due) WHERE state <> 'done';
CREATE INDEX batch_of ON batch (job, state);
CREATE INDEX batch_api ON batch (api) WHERE api <> '';
CREATE UNIQUE INDEX batch_item_place ON batch_item (job, place);
CREATE UNIQUE INDEX batch_item_name ON batch_item (job, name) WHERE name IS NOT NULL;
CREATE INDEX batch_item_batch ON batch_item (batch, place);
CREATE INDEX batch_hold_of ON batch_hold (batch);
CREATE INDEX batch_deferred_ready ON batch_deferred (ready) WHERE state = 'waiting';
CREATE INDEX batch_deferred_fill ON batch_deferred (fill_by) WHERE state = 'waiting';
CREATE INDEX batch_deferred_act ON batch_deferred (act_by) WHERE state = 'waiting';
CREATE INDEX batch_deferred_late ON batch_deferred (call_by) WHERE state = 'gathered';
CREATE INDEX batch_deferred_call ON batch_deferred (until) WHERE state = 'calling';
CREATE INDEX batch_deferred_out ON batch_deferred (due) WHERE delivery = 'waiting';
CREATE INDEX batch_deferred_done ON batch_deferred (answered) WHERE state = 'answered';
CREATE INDEX batch_deferred_job ON batch_deferred (job, place) WHERE state = 'gathered';
CREATE INDEX batch_deferred_tenant ON batch_deferred (tenant);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('span',3);
INSERT INTO "sqlite_sequence" VALUES('outcome',3);
COMMIT;

PRAGMA user_version = 1;
PRAGMA application_id = 1414088018;
BEGIN TRANSACTION;
CREATE TABLE epoch (            -- of this file, and of those whose place it has taken
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE
);
INSERT INTO "epoch" VALUES(1,'2c195c1f908c9ad9');
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
CREATE TABLE limits (           -- limits that operators have set, in nano-USD
    budget TEXT NOT NULL,
    account TEXT,               -- NULL: all that have none of their own
    most INTEGER NOT NULL
);
INSERT INTO "limits" VALUES('daily','globex',900000000000000001);
INSERT INTO "limits" VALUES('daily',NULL,900);
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
INSERT INTO "time" VALUES(1,1795262460.0,1795262460.0,0.0,1795262400.0,3250149655651845929);
CREATE INDEX span_until ON span (until);
CREATE INDEX hold_due ON hold (state, due);
CREATE UNIQUE INDEX spend_key ON spend (hour, tier, ifnull(tenant, 0), ifnull(route, 0));
CREATE UNIQUE INDEX limits_key ON limits (budget, ifnull(account, 0));
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('span',3);
COMMIT;

-- What queues allow, for all workers alike. `allowance` may begin at once, as of `refilled_at`.
CREATE TABLE queues (
    namespace           TEXT    NOT NULL,
    name                TEXT    NOT NULL,
    concurrency         INTEGER,
    concurrency_per_key INTEGER,
    per_second          REAL,
    allowance           REAL    NOT NULL DEFAULT 0,
    refilled_at         INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (namespace, name)
) WITHOUT ROWID;

-- One attempt of a step on a queue. An id is never used again: with it a worker proves what it claimed.
-- `turn` is given when a row comes in, so that keys take turns: claiming is reading an index from its beginning.
CREATE TABLE work (
    id                INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace         TEXT    NOT NULL,
    queue             TEXT    NOT NULL,
    instance          INTEGER NOT NULL,
    instance_id       TEXT    NOT NULL,
    operation         TEXT    NOT NULL,
    attempt           INTEGER NOT NULL,
    step              TEXT    NOT NULL,
    step_key          TEXT    NOT NULL,
    arguments         BLOB    NOT NULL,
    at                INTEGER NOT NULL,
    priority          INTEGER NOT NULL,
    key               TEXT    NOT NULL,
    turn              INTEGER NOT NULL,
    timeout           REAL,
    heartbeat_timeout REAL,
    most_claims       INTEGER NOT NULL,
    cancelled         INTEGER NOT NULL DEFAULT 0,
    state             TEXT    NOT NULL DEFAULT 'ready',
    claims            INTEGER NOT NULL DEFAULT 0,
    token             TEXT    NOT NULL DEFAULT '',
    worker            TEXT,
    began_at          INTEGER,
    lease_until       INTEGER,
    late_at           INTEGER,
    details           BLOB,
    ended             TEXT,
    outcome           BLOB
);
CREATE UNIQUE INDEX work_attempt ON work (instance, step_key, attempt);
CREATE INDEX work_ready ON work (namespace, queue, priority DESC, turn, id) WHERE state = 'ready';
CREATE INDEX work_key ON work (namespace, queue, key, priority DESC, turn, id);
CREATE INDEX work_claimed ON work (namespace, queue, key, lease_until) WHERE state = 'claimed';
CREATE INDEX work_done ON work (id) WHERE state = 'done';

-- The last claims of attempts whose outcome is journaled: a worker that didn't hear so may say it again.
CREATE TABLE ended_work (
    id    INTEGER PRIMARY KEY,
    token TEXT    NOT NULL,
    at    INTEGER NOT NULL
);

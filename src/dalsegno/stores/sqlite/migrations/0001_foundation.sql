-- Times are microseconds since the epoch.

CREATE TABLE nodes (
    epoch       INTEGER PRIMARY KEY AUTOINCREMENT,
    name        TEXT    NOT NULL,
    host        TEXT    NOT NULL,
    pid         INTEGER NOT NULL,
    doorbell    INTEGER NOT NULL,
    started_at  INTEGER NOT NULL,
    lease_until INTEGER NOT NULL,
    ended_at    INTEGER
);

CREATE TABLE instances (
    key              INTEGER PRIMARY KEY,
    namespace        TEXT    NOT NULL,
    id               TEXT    NOT NULL,
    process          TEXT    NOT NULL,
    version          INTEGER NOT NULL,
    status           TEXT    NOT NULL,
    run              INTEGER NOT NULL DEFAULT 1,
    base_seq         INTEGER NOT NULL DEFAULT 0,
    input_hash       INTEGER NOT NULL,
    begun            INTEGER NOT NULL DEFAULT 1,
    created_at       INTEGER NOT NULL,
    updated_at       INTEGER NOT NULL,
    ended_at         INTEGER,
    wake_at          INTEGER,
    waiting_for      TEXT,
    error            TEXT,
    annotations      TEXT,
    parent           TEXT,
    parent_operation TEXT,
    crashes          INTEGER NOT NULL DEFAULT 0,
    crashed_seq      INTEGER NOT NULL DEFAULT -1,
    on_trial         INTEGER NOT NULL DEFAULT 0,
    events_from      INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX instances_id ON instances (namespace, id);
CREATE INDEX instances_status ON instances (status, key);
CREATE INDEX instances_wake ON instances (wake_at, key) WHERE wake_at IS NOT NULL;
CREATE INDEX instances_parent ON instances (namespace, parent) WHERE parent IS NOT NULL;

-- position is the order of commits: whoever follows the journal reads it by position.
CREATE TABLE journal (
    position INTEGER PRIMARY KEY,
    instance INTEGER NOT NULL,
    seq      INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    kind     TEXT    NOT NULL,
    entry    BLOB    NOT NULL
);
CREATE UNIQUE INDEX journal_instance ON journal (instance, seq);

CREATE TABLE events (
    position   INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace  TEXT    NOT NULL,
    id         TEXT    NOT NULL,
    event_type TEXT    NOT NULL,
    topic      TEXT    NOT NULL,
    key        TEXT,
    recipient  TEXT,
    payload    BLOB    NOT NULL,
    at         INTEGER NOT NULL
);
CREATE UNIQUE INDEX events_id ON events (namespace, id);
CREATE INDEX events_key ON events (namespace, event_type, key, position);
CREATE INDEX events_at ON events (at);

CREATE TABLE waits (
    instance    INTEGER NOT NULL,
    operation   TEXT    NOT NULL,
    namespace   TEXT    NOT NULL,
    instance_id TEXT    NOT NULL,
    event_type  TEXT    NOT NULL,
    key         TEXT,
    match       BLOB    NOT NULL,
    matched     INTEGER,
    PRIMARY KEY (instance, operation)
) WITHOUT ROWID;
CREATE INDEX waits_key ON waits (namespace, event_type, key);
CREATE INDEX waits_matched ON waits (matched) WHERE matched IS NOT NULL;

CREATE TABLE messages (
    position  INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace TEXT    NOT NULL,
    instance  TEXT    NOT NULL,
    verb      TEXT    NOT NULL,
    body      BLOB    NOT NULL,
    by        TEXT,
    at        INTEGER NOT NULL,
    reply     BLOB,
    done_at   INTEGER
);
CREATE INDEX messages_open ON messages (position) WHERE done_at IS NULL;

CREATE TABLE tasks (
    namespace     TEXT    NOT NULL,
    id            TEXT    NOT NULL,
    instance      TEXT    NOT NULL,
    operation     TEXT    NOT NULL,
    role          TEXT    NOT NULL,
    title         TEXT,
    about         BLOB    NOT NULL,
    answer_schema BLOB    NOT NULL,
    state         TEXT    NOT NULL,
    at            INTEGER NOT NULL,
    due_at        INTEGER,
    answer        BLOB,
    answered_by   TEXT,
    answered_at   INTEGER,
    PRIMARY KEY (namespace, id)
) WITHOUT ROWID;
CREATE INDEX tasks_open ON tasks (namespace, state, role, at);

CREATE TABLE heartbeats (
    instance INTEGER NOT NULL,
    step     TEXT    NOT NULL,
    attempt  INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    details  BLOB    NOT NULL,
    PRIMARY KEY (instance, step)
) WITHOUT ROWID;

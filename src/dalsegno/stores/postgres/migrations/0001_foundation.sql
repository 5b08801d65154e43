-- Times are microseconds since the epoch, by this database's clock. `dalsegno` stands for the store's schema.

CREATE TABLE dalsegno.about (id uuid NOT NULL DEFAULT gen_random_uuid());
INSERT INTO dalsegno.about DEFAULT VALUES;

CREATE TABLE dalsegno.nodes (
    epoch       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text   NOT NULL,
    host        text   NOT NULL,
    pid         bigint NOT NULL,
    started_at  bigint NOT NULL,
    lease_until bigint NOT NULL,
    ended_at    bigint,
    processes   text   NOT NULL DEFAULT '[]',
    figures     text   NOT NULL DEFAULT '{}'
);

-- A node may write for as long as its row is here. Each commit of a node puts its number into it: whoever ends a node
-- waits for the commit that is under way, and a commit whose reply was lost is found by its number. Renewing a lease
-- is another table's matter, and waits for no commit.
CREATE TABLE dalsegno.fences (
    epoch bigint PRIMARY KEY,
    batch bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 10);

-- Each transaction of a session puts its number here: where the reply to COMMIT is lost, the row says what became of it.
-- (The server's own transaction numbers can't: one that a crash undid is given out again.)
CREATE TABLE dalsegno.attempts (
    session uuid        PRIMARY KEY,
    number  bigint      NOT NULL,
    at      timestamptz NOT NULL
) WITH (fillfactor = 10);

CREATE SEQUENCE dalsegno.instances_key;

CREATE TABLE dalsegno.instances (
    key              bigint   PRIMARY KEY DEFAULT nextval('dalsegno.instances_key'),
    owner            bigint   NOT NULL DEFAULT 0,
    input_hash       bigint   NOT NULL,
    created_at       bigint   NOT NULL,
    updated_at       bigint   NOT NULL,
    ended_at         bigint,
    wake_at          bigint,
    events_from      bigint   NOT NULL DEFAULT 0,
    version          integer  NOT NULL,
    run              integer  NOT NULL DEFAULT 1,
    base_seq         bigint   NOT NULL DEFAULT 0,
    crashes          integer  NOT NULL DEFAULT 0,
    on_trial         integer  NOT NULL DEFAULT 0,
    crashed_seq      bigint   NOT NULL DEFAULT -1,
    begun            boolean  NOT NULL DEFAULT true,
    namespace        text     NOT NULL,
    id               text     NOT NULL,
    process          text     NOT NULL,
    status           text     NOT NULL,
    waiting_for      text,
    error            text,
    annotations      text,
    parent           text,
    parent_operation text
);
ALTER SEQUENCE dalsegno.instances_key OWNED BY dalsegno.instances.key;
CREATE UNIQUE INDEX instances_id ON dalsegno.instances (namespace, id);
CREATE INDEX instances_status ON dalsegno.instances (status, key);
CREATE INDEX instances_owner ON dalsegno.instances (owner, status, key) WHERE ended_at IS NULL;
CREATE INDEX instances_wake ON dalsegno.instances (wake_at, key) WHERE wake_at IS NOT NULL;
CREATE INDEX instances_parent ON dalsegno.instances (namespace, parent) WHERE parent IS NOT NULL;

CREATE TABLE dalsegno.journal (
    instance bigint NOT NULL,
    seq      bigint NOT NULL,
    at       bigint NOT NULL,
    kind     text   NOT NULL,
    entry    bytea  NOT NULL,
    PRIMARY KEY (instance, seq)
);

-- Positions are in the order of commits within a namespace: who publishes there holds its lock.
CREATE TABLE dalsegno.events (
    position   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    namespace  text   NOT NULL,
    id         text   NOT NULL,
    event_type text   NOT NULL,
    topic      text   NOT NULL,
    key        text,
    recipient  text,
    payload    bytea  NOT NULL,
    at         bigint NOT NULL
);
CREATE UNIQUE INDEX events_id ON dalsegno.events (namespace, id);
CREATE INDEX events_position ON dalsegno.events (namespace, position);
CREATE INDEX events_key ON dalsegno.events (namespace, event_type, key, position);
CREATE INDEX events_type ON dalsegno.events (namespace, event_type, position);
CREATE INDEX events_at ON dalsegno.events (at);

CREATE TABLE dalsegno.waits (
    instance    bigint NOT NULL,
    operation   text   NOT NULL,
    namespace   text   NOT NULL,
    instance_id text   NOT NULL,
    event_type  text   NOT NULL,
    key         text,
    match       bytea  NOT NULL,
    matched     bigint,
    PRIMARY KEY (instance, operation)
);
CREATE INDEX waits_key ON dalsegno.waits (namespace, event_type, key) WHERE matched IS NULL;
CREATE INDEX waits_matched ON dalsegno.waits (matched) WHERE matched IS NOT NULL;

CREATE TABLE dalsegno.messages (
    position  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    namespace text   NOT NULL,
    instance  text   NOT NULL,
    verb      text   NOT NULL,
    body      bytea  NOT NULL,
    by        text,
    at        bigint NOT NULL,
    reply     bytea,
    done_at   bigint
);
CREATE INDEX messages_open ON dalsegno.messages (position) WHERE done_at IS NULL;

CREATE TABLE dalsegno.tasks (
    namespace     text   NOT NULL,
    id            text   NOT NULL,
    instance      text   NOT NULL,
    operation     text   NOT NULL,
    role          text   NOT NULL,
    title         text,
    about         bytea  NOT NULL,
    answer_schema bytea  NOT NULL,
    state         text   NOT NULL,
    at            bigint NOT NULL,
    due_at        bigint,
    answer        bytea,
    answered_by   text,
    answered_at   bigint,
    PRIMARY KEY (namespace, id)
);
CREATE INDEX tasks_open ON dalsegno.tasks (namespace, state, role, at);

CREATE TABLE dalsegno.heartbeats (
    instance bigint  NOT NULL,
    step     text    NOT NULL,
    attempt  integer NOT NULL,
    at       bigint  NOT NULL,
    details  bytea   NOT NULL,
    PRIMARY KEY (instance, step)
);

-- Owners of instances that don't run any more, and 0: what they own is nobody's. One look into the index an owner.
CREATE VIEW dalsegno.ended_owners AS
WITH RECURSIVE owners (owner) AS (
    (SELECT owner FROM dalsegno.instances WHERE ended_at IS NULL ORDER BY owner LIMIT 1)
    UNION ALL
    SELECT (SELECT i.owner FROM dalsegno.instances AS i
             WHERE i.ended_at IS NULL AND i.owner > owners.owner ORDER BY i.owner LIMIT 1)
      FROM owners WHERE owners.owner IS NOT NULL
)
SELECT owner FROM owners
 WHERE owner IS NOT NULL AND NOT EXISTS (SELECT 1 FROM dalsegno.fences WHERE epoch = owner);

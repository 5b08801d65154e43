-- What queues allow, for all workers alike. `allowance` may begin at once, as of `refilled_at`. Who claims from a queue
-- with limits holds its row: claims from it come one after the other.
CREATE TABLE dalsegno.queues (
    namespace           text             NOT NULL,
    name                text             NOT NULL,
    concurrency         integer,
    concurrency_per_key integer,
    per_second          double precision,
    allowance           double precision NOT NULL DEFAULT 0,
    refilled_at         bigint           NOT NULL DEFAULT 0,
    PRIMARY KEY (namespace, name)
) WITH (fillfactor = 10);

-- One attempt of a step on a queue. An id is never used again: with it a worker proves what it claimed.
-- `turn` is given when a row comes in, so that keys take turns: claiming is reading an index from its beginning.
CREATE TABLE dalsegno.work (
    id                bigint           GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    instance          bigint           NOT NULL,
    at                bigint           NOT NULL,
    turn              bigint           NOT NULL,
    began_at          bigint,
    lease_until       bigint,
    late_at           bigint,
    timeout           double precision,
    heartbeat_timeout double precision,
    attempt           integer          NOT NULL,
    priority          integer          NOT NULL,
    most_claims       integer          NOT NULL,
    claims            integer          NOT NULL DEFAULT 0,
    cancelled         boolean          NOT NULL DEFAULT false,
    state             text             NOT NULL DEFAULT 'ready',
    namespace         text             NOT NULL,
    queue             text             NOT NULL,
    instance_id       text             NOT NULL,
    operation         text             NOT NULL,
    step              text             NOT NULL,
    step_key          text             NOT NULL,
    key               text             NOT NULL,
    token             text             NOT NULL DEFAULT '',
    worker            text,
    ended             text,
    arguments         bytea            NOT NULL,
    details           bytea,
    outcome           bytea
);
CREATE UNIQUE INDEX work_attempt ON dalsegno.work (instance, step_key, attempt);
CREATE INDEX work_ready ON dalsegno.work (namespace, queue, priority DESC, turn, id) WHERE state = 'ready';
CREATE INDEX work_key ON dalsegno.work (namespace, queue, key, priority DESC, turn, id);
CREATE INDEX work_claimed ON dalsegno.work (namespace, queue, key, lease_until) WHERE state = 'claimed';
CREATE INDEX work_done ON dalsegno.work (id) WHERE state = 'done';

-- The last claims of attempts whose outcome is journaled: a worker that didn't hear so may say it again.
CREATE TABLE dalsegno.ended_work (
    id    bigint PRIMARY KEY,
    token text   NOT NULL,
    at    bigint NOT NULL
);
CREATE INDEX ended_work_at ON dalsegno.ended_work (at);

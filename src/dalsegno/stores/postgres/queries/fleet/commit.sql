WITH fence AS (
    UPDATE dalsegno.fences SET batch = $2 WHERE epoch = $1 AND batch = $2 - 1 RETURNING epoch
), new AS MATERIALIZED (
    SELECT nextval('dalsegno.instances_key') AS key, s.*
      FROM fence, ROWS FROM (unnest($3::text[]), unnest($4::text[]), unnest($5::text[]), unnest($6::integer[]),
                             unnest($7::bigint[]), unnest($8::bigint[]), unnest($9::text[]), unnest($10::text[]),
                             unnest($11::integer[]), unnest($12::integer[]), generate_subscripts($3::text[], 1))
           AS s (namespace, id, process, version, input_hash, at, parent, parent_operation, first, length, number)
), started AS (
    INSERT INTO dalsegno.instances (key, namespace, id, process, version, input_hash, created_at, updated_at, parent,
                                    parent_operation, owner, events_from, status)
    SELECT key, namespace, id, process, version, input_hash, at, at, parent, parent_operation, $1,
           coalesce((SELECT max(position) FROM dalsegno.events WHERE events.namespace = new.namespace), 0), 'running'
      FROM new
    ON CONFLICT (namespace, id) DO NOTHING
    RETURNING key
), changed AS (
    UPDATE dalsegno.instances
       SET status = c.status, updated_at = c.at, wake_at = c.wake_at, waiting_for = c.waiting_for, error = c.error,
           ended_at = c.ended_at, run = c.run, base_seq = c.base_seq, begun = true
      FROM fence, unnest($14::bigint[], $15::text[], $16::bigint[], $17::bigint[], $18::text[], $19::text[],
                         $20::bigint[], $21::integer[], $22::bigint[])
           AS c (key, status, at, wake_at, waiting_for, error, ended_at, run, base_seq)
     WHERE instances.key = c.key
), entered AS (
    INSERT INTO dalsegno.journal (instance, seq, at, kind, entry)
    SELECT r.instance, r.seq, r.at, r.kind, substring($29::bytea FROM r.first FOR r.length)
      FROM fence, unnest($23::bigint[], $24::bigint[], $25::bigint[], $26::text[], $27::integer[], $28::integer[])
           AS r (instance, seq, at, kind, first, length)
    UNION ALL
    SELECT new.key, 0, new.at, 'started', substring($13::bytea FROM new.first FOR new.length)
      FROM new JOIN started USING (key)
)
SELECT (SELECT count(*) FROM fence), (SELECT array_agg(started.key ORDER BY new.key) FROM new LEFT JOIN started USING (key))

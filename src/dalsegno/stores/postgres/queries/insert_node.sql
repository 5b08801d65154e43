WITH node AS (
    INSERT INTO dalsegno.nodes (name, host, pid, started_at, lease_until, processes)
    SELECT $1, $2, $3, moment, moment + $4, $5
      FROM (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS moment) AS clock
    RETURNING epoch
)
INSERT INTO dalsegno.fences (epoch) SELECT epoch FROM node RETURNING epoch

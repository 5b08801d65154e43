WITH over AS (
    SELECT fences.epoch FROM dalsegno.fences JOIN dalsegno.nodes USING (epoch)
     WHERE nodes.lease_until < (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AND fences.epoch <> $1
       FOR UPDATE OF fences, nodes SKIP LOCKED
), fence AS (
    DELETE FROM dalsegno.fences USING over WHERE fences.epoch = over.epoch RETURNING fences.epoch
)
UPDATE dalsegno.nodes SET ended_at = (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
  FROM fence WHERE nodes.epoch = fence.epoch RETURNING nodes.epoch

WITH fence AS (DELETE FROM dalsegno.fences WHERE epoch = $1 RETURNING epoch)
UPDATE dalsegno.nodes SET ended_at = (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
  FROM fence WHERE nodes.epoch = fence.epoch AND nodes.ended_at IS NULL

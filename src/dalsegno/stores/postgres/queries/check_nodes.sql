SELECT 'node ' || nodes.name || ' (epoch ' || nodes.epoch || ') '
       || CASE WHEN fences.epoch IS NULL THEN 'didn''t end and may write nothing' ELSE 'ended and may write' END
  FROM dalsegno.nodes LEFT JOIN dalsegno.fences ON fences.epoch = nodes.epoch
 WHERE (nodes.ended_at IS NULL) <> (fences.epoch IS NOT NULL)

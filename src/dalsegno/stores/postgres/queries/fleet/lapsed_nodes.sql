SELECT nodes.epoch FROM dalsegno.nodes JOIN dalsegno.fences USING (epoch)
 WHERE nodes.lease_until < (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AND nodes.epoch <> $1

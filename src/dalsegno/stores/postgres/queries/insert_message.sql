INSERT INTO dalsegno.messages (namespace, instance, verb, body, by, at)
SELECT m.* FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::text[], $6::bigint[]) AS m
RETURNING position

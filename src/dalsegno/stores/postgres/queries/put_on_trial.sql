UPDATE dalsegno.instances
   SET on_trial = CASE WHEN key = ANY($1::bigint[]) THEN cardinality($1::bigint[]) ELSE 0 END
 WHERE owner = $2 AND status = 'running' AND (on_trial <> 0 OR key = ANY($1::bigint[]))

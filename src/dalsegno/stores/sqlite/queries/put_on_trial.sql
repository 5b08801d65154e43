UPDATE instances
   SET on_trial = CASE WHEN key IN (SELECT value FROM json_each(?1)) THEN json_array_length(?1) ELSE 0 END
 WHERE status = 'running' AND (on_trial <> 0 OR key IN (SELECT value FROM json_each(?1)))

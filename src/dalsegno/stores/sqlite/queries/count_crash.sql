UPDATE instances
   SET crashes = CASE WHEN crashed_seq <> (SELECT max(seq) FROM journal WHERE instance = instances.key) THEN 1
                      WHEN crashes < ? OR on_trial > 0 THEN crashes + 1
                      ELSE crashes END,
       crashed_seq = (SELECT max(seq) FROM journal WHERE instance = instances.key),
       on_trial = CASE on_trial WHEN 1 THEN -1 ELSE 0 END
 WHERE status = 'running' AND begun = 1

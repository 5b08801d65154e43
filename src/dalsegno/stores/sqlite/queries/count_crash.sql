UPDATE instances
   SET crashes = CASE WHEN crashed_seq = (SELECT max(seq) FROM journal WHERE instance = instances.key)
                      THEN crashes + 1 ELSE 1 END,
       crashed_seq = (SELECT max(seq) FROM journal WHERE instance = instances.key)
 WHERE status = 'running' AND begun = 1

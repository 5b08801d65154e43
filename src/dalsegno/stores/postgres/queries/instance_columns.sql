SELECT key, namespace, id, process, version, status, run, base_seq, input_hash, begun, created_at, updated_at,
       ended_at, wake_at, waiting_for, error, annotations, parent, parent_operation, crashes, events_from, owner
  FROM dalsegno.instances

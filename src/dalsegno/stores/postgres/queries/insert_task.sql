INSERT INTO dalsegno.tasks (namespace, id, instance, operation, role, title, about, answer_schema, state, at, due_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'open', $9, $10)
ON CONFLICT (namespace, id) DO UPDATE
   SET operation = excluded.operation, role = excluded.role, title = excluded.title, about = excluded.about,
       answer_schema = excluded.answer_schema, state = 'open', at = excluded.at, due_at = excluded.due_at, answer = NULL,
       answered_by = NULL, answered_at = NULL
 WHERE tasks.state = 'withdrawn'

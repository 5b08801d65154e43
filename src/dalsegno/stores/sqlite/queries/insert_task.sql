INSERT INTO tasks (namespace, id, instance, operation, role, title, about, answer_schema, state, at, due_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'open', ?, ?)
ON CONFLICT (namespace, id) DO UPDATE SET state = 'open', at = excluded.at, due_at = excluded.due_at
    WHERE tasks.state = 'withdrawn'

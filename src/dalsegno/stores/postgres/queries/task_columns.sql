SELECT namespace, id, instance, operation, role, title, about, answer_schema, state, at, due_at, answer, answered_by,
       answered_at
  FROM dalsegno.tasks

UPDATE instances SET annotations = json_patch(coalesce(annotations, '{}'), ?) WHERE key = ?

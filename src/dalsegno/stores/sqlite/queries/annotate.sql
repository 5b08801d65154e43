UPDATE instances SET annotations = ? WHERE key = ?

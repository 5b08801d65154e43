"""One SQLite file: one writer thread, write-ahead log, group commit."""

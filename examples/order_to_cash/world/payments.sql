CREATE TABLE IF NOT EXISTS charges (
  id       INTEGER PRIMARY KEY,
  order_id TEXT NOT NULL,
  card     TEXT NOT NULL,
  amount   INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS charges_by_order ON charges (order_id);

CREATE TABLE IF NOT EXISTS refunds (
  id        INTEGER PRIMARY KEY,
  order_id  TEXT NOT NULL,
  reference TEXT NOT NULL,
  amount    INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS refunds_by_order ON refunds (order_id);

CREATE TABLE IF NOT EXISTS voided_orders (order_id TEXT PRIMARY KEY) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS declined_charges (order_id TEXT NOT NULL);

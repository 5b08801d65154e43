SELECT epoch, name, host, pid, doorbell, started_at, lease_until, ended_at
  FROM nodes WHERE ended_at IS NULL ORDER BY epoch DESC

-- The database's time; and from here to the end of the transaction rows are found by their keys. Where they come and go
-- as in a queue, the planner's figures are soon wrong, and a plan that was made for an empty table reads all of it.
SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, set_config('enable_seqscan', 'off', true),
       set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)

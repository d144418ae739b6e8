/*
level  = "error"
title  = "replication slot that lags"
why    = "the server keeps all WAL since then, until its disk is full"
remedy = "let its receiver catch up, or drop the slot; set max_slot_wal_keep_size"
manual = "Replication Slots (warm-standby)"
limit  = 1024
*/
SELECT 'slot ' || quote_ident(slot_name) AS object,
       format('%s behind, %s', pg_size_pretty(lag.bytes), CASE WHEN active THEN 'its receiver is connected' ELSE 'no receiver' END) AS detail,
       format('SELECT pg_drop_replication_slot(%L);', slot_name) AS remedy
FROM pg_replication_slots
CROSS JOIN LATERAL (
    SELECT pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, restart_lsn) AS bytes
) AS lag
WHERE lag.bytes > @limit@ * 1048576
UNION ALL
SELECT 'slot ' || quote_ident(slot_name), 'lost: its WAL is gone', format('SELECT pg_drop_replication_slot(%L);', slot_name)
FROM pg_replication_slots WHERE wal_status = 'lost'

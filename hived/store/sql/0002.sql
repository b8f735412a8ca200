-- touch: seconds, over all restarts, in which this node was connected to a member of the network.
-- A record's age is counted on that clock. A rekeyed network keeps its former key until old_until.
ALTER TABLE network ADD COLUMN touch REAL NOT NULL DEFAULT 0;
ALTER TABLE network ADD COLUMN sealed_old_key BLOB;
ALTER TABLE network ADD COLUMN old_until REAL;

ALTER TABLE record RENAME COLUMN received TO came;
UPDATE record SET came = 0;

-- Who was dropped after 30 days unseen: only a record with a higher sequence brings him back.
CREATE TABLE expired (
    network TEXT NOT NULL REFERENCES network (name) ON DELETE CASCADE,
    peer_id TEXT NOT NULL,
    seq     INTEGER NOT NULL,
    PRIMARY KEY (network, peer_id)
) STRICT, WITHOUT ROWID;

-- Members that have shown a rekeyed network's new key.
CREATE TABLE moved (
    network TEXT NOT NULL REFERENCES network (name) ON DELETE CASCADE,
    peer_id TEXT NOT NULL,
    PRIMARY KEY (network, peer_id)
) STRICT, WITHOUT ROWID;

-- Times are seconds since 1970 UTC. Columns named sealed_* are encrypted with the state key.

CREATE TABLE setting (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE identity (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    peer_id    TEXT NOT NULL,
    sealed_key BLOB NOT NULL
) STRICT;

CREATE TABLE network (
    name       TEXT PRIMARY KEY,
    sealed_key BLOB NOT NULL,
    created    REAL NOT NULL
) STRICT;

CREATE TABLE admin (
    user    TEXT PRIMARY KEY,
    hash    TEXT NOT NULL,
    created REAL NOT NULL
) STRICT;

CREATE TABLE session (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    token_hash BLOB NOT NULL UNIQUE,
    user       TEXT NOT NULL REFERENCES admin (user) ON DELETE CASCADE,
    bound_to   TEXT NOT NULL,
    created    REAL NOT NULL,
    expires    REAL NOT NULL
) STRICT;

CREATE TABLE peer (
    peer_id      TEXT PRIMARY KEY,
    alias        TEXT UNIQUE,
    blocked      INTEGER NOT NULL DEFAULT 0,
    last_contact REAL
) STRICT;

CREATE TABLE peer_address (
    peer_id TEXT NOT NULL,
    address TEXT NOT NULL,
    added   REAL NOT NULL,
    PRIMARY KEY (peer_id, address)
) STRICT, WITHOUT ROWID;

-- A name belongs to the peer that was first seen with it.
CREATE TABLE peer_name (
    name    TEXT PRIMARY KEY,
    peer_id TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The user's word that a peer is in a network; refused counts failed joins since then.
CREATE TABLE registration (
    peer_id TEXT NOT NULL,
    network TEXT NOT NULL REFERENCES network (name) ON DELETE CASCADE,
    refused INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (peer_id, network)
) STRICT, WITHOUT ROWID;

CREATE TABLE record (
    network  TEXT NOT NULL REFERENCES network (name) ON DELETE CASCADE,
    peer_id  TEXT NOT NULL,
    seq      INTEGER NOT NULL,
    envelope BLOB NOT NULL,
    received REAL NOT NULL,
    hidden   INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (network, peer_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE proxy (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    direction TEXT NOT NULL CHECK (direction IN ('egress', 'ingress')),
    kind      TEXT NOT NULL,
    network   TEXT NOT NULL REFERENCES network (name) ON DELETE CASCADE,
    peer_id   TEXT NOT NULL,
    port      INTEGER NOT NULL CHECK (port BETWEEN 1 AND 65535),
    peer_port INTEGER NOT NULL CHECK (peer_port BETWEEN 1 AND 65535),
    bind      TEXT,
    target    TEXT,
    enabled   INTEGER NOT NULL DEFAULT 1,
    created   REAL NOT NULL
) STRICT;

-- One target for what arrives from (network, peer, peer_port, port).
CREATE UNIQUE INDEX proxy_ingress ON proxy (network, peer_id, peer_port, port) WHERE direction = 'ingress';

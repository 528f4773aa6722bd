-- The control plane. Times are microseconds since 1970; bodies are JSON as the domain writes it; what is looked up,
-- ordered by or kept unique has a column of its own.

CREATE TABLE settings (
    name  TEXT PRIMARY KEY NOT NULL,
    value TEXT NOT NULL
);

-- Numbers that are never given twice.
CREATE TABLE counters (
    name  TEXT PRIMARY KEY NOT NULL,
    value BIGINT NOT NULL
);

CREATE TABLE tenants (
    id   BIGINT PRIMARY KEY NOT NULL,
    key  TEXT NOT NULL UNIQUE,
    body TEXT NOT NULL
);

CREATE TABLE api_keys (
    id               TEXT PRIMARY KEY NOT NULL,
    tenant           BIGINT NOT NULL REFERENCES tenants (id),
    name             TEXT NOT NULL,
    hash             TEXT NOT NULL,
    scopes           TEXT NOT NULL,
    created_us       BIGINT NOT NULL,
    expires_us       BIGINT,
    revoked_us       BIGINT,
    calls_per_second BIGINT
);

CREATE TABLE meters (
    tenant BIGINT NOT NULL REFERENCES tenants (id),
    key    TEXT NOT NULL,
    id     BIGINT NOT NULL UNIQUE,
    body   TEXT NOT NULL,
    PRIMARY KEY (tenant, key)
);

CREATE TABLE features (
    tenant BIGINT NOT NULL REFERENCES tenants (id),
    key    TEXT NOT NULL,
    body   TEXT NOT NULL,
    PRIMARY KEY (tenant, key)
);

CREATE TABLE plans (
    tenant  BIGINT NOT NULL REFERENCES tenants (id),
    key     TEXT NOT NULL,
    version BIGINT NOT NULL,
    body    TEXT NOT NULL,
    PRIMARY KEY (tenant, key, version)
);

CREATE TABLE add_ons (
    tenant  BIGINT NOT NULL REFERENCES tenants (id),
    key     TEXT NOT NULL,
    version BIGINT NOT NULL,
    body    TEXT NOT NULL,
    PRIMARY KEY (tenant, key, version)
);

-- Plans and add-ons that were taken away: kind is 'plan' or 'add_on'.
CREATE TABLE retired (
    tenant BIGINT NOT NULL REFERENCES tenants (id),
    kind   TEXT NOT NULL,
    key    TEXT NOT NULL,
    PRIMARY KEY (tenant, kind, key)
);

CREATE TABLE catalog_versions (
    tenant  BIGINT NOT NULL REFERENCES tenants (id),
    version BIGINT NOT NULL,
    at_us   BIGINT NOT NULL,
    actor   TEXT NOT NULL,
    PRIMARY KEY (tenant, version)
);

CREATE TABLE customers (
    tenant    BIGINT NOT NULL REFERENCES tenants (id),
    key       TEXT NOT NULL,
    erased_us BIGINT,
    body      TEXT NOT NULL,
    PRIMARY KEY (tenant, key)
);

CREATE TABLE subjects (
    tenant   BIGINT NOT NULL,
    subject  TEXT NOT NULL,
    customer TEXT NOT NULL,
    PRIMARY KEY (tenant, subject),
    FOREIGN KEY (tenant, customer) REFERENCES customers (tenant, key)
);
CREATE INDEX subjects_by_customer ON subjects (tenant, customer);

CREATE TABLE subscriptions (
    tenant   BIGINT NOT NULL,
    id       TEXT NOT NULL,
    customer TEXT NOT NULL,
    body     TEXT NOT NULL,
    PRIMARY KEY (tenant, id),
    FOREIGN KEY (tenant, customer) REFERENCES customers (tenant, key)
);
CREATE INDEX subscriptions_by_customer ON subscriptions (tenant, customer, id);

CREATE TABLE overrides (
    tenant   BIGINT NOT NULL,
    customer TEXT NOT NULL,
    feature  TEXT NOT NULL,
    body     TEXT NOT NULL,
    PRIMARY KEY (tenant, customer, feature),
    FOREIGN KEY (tenant, customer) REFERENCES customers (tenant, key)
);

CREATE TABLE grants (
    tenant   BIGINT NOT NULL,
    customer TEXT NOT NULL,
    id       TEXT NOT NULL,
    body     TEXT NOT NULL,
    PRIMARY KEY (tenant, customer, id),
    FOREIGN KEY (tenant, customer) REFERENCES customers (tenant, key)
);

CREATE TABLE audit (
    id         BIGINT PRIMARY KEY NOT NULL,
    tenant     BIGINT NOT NULL,
    at_us      BIGINT NOT NULL,
    actor      TEXT NOT NULL,
    request_id TEXT NOT NULL,
    action     TEXT NOT NULL,
    object     TEXT NOT NULL,
    detail     TEXT NOT NULL
);
CREATE INDEX audit_by_tenant ON audit (tenant, id);

-- What was answered to a call with an idempotency key. `object` tells whose data the answer shows.
CREATE TABLE idempotency (
    tenant       BIGINT NOT NULL,
    key          TEXT NOT NULL,
    request_hash TEXT NOT NULL,
    status       BIGINT NOT NULL,
    answer       TEXT NOT NULL,
    object       TEXT NOT NULL,
    at_us        BIGINT NOT NULL,
    PRIMARY KEY (tenant, key)
);
CREATE INDEX idempotency_by_object ON idempotency (tenant, object);

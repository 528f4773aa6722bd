-- Late usage that a run lists, as JSON, so that a check by the clock lists none of it again.
CREATE TABLE late_listed (
    tenant BIGINT NOT NULL REFERENCES tenants (id),
    late   TEXT NOT NULL,
    PRIMARY KEY (tenant, late)
);

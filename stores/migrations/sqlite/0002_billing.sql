-- Invoices and billing runs. Amounts are minor units; times are microseconds since 1970.

CREATE TABLE invoices (
    tenant          BIGINT NOT NULL REFERENCES tenants (id),
    id              TEXT NOT NULL,
    number          BIGINT,
    customer        TEXT NOT NULL,
    subscription    TEXT NOT NULL,
    status          TEXT NOT NULL,
    currency        TEXT NOT NULL,
    period_start_us BIGINT NOT NULL,
    -- The boundary that it falls due at: with subscription and round, an invoice is made once.
    period_end_us   BIGINT NOT NULL,
    round           BIGINT NOT NULL,
    subtotal        BIGINT NOT NULL,
    discount        BIGINT NOT NULL,
    credits         BIGINT NOT NULL,
    tax             BIGINT NOT NULL,
    total           BIGINT NOT NULL,
    watermark       TEXT,
    catalog_version BIGINT NOT NULL,
    previous_hash   TEXT NOT NULL,
    hash            TEXT NOT NULL,
    created_us      BIGINT NOT NULL,
    locks_us        BIGINT NOT NULL,
    finalized_us    BIGINT,
    PRIMARY KEY (tenant, id),
    UNIQUE (tenant, subscription, period_end_us, round),
    UNIQUE (tenant, number)
);
CREATE INDEX invoices_by_customer ON invoices (tenant, customer, id);
CREATE INDEX invoices_by_status ON invoices (tenant, status, id);

CREATE TABLE invoice_lines (
    tenant          BIGINT NOT NULL,
    invoice         TEXT NOT NULL,
    line            BIGINT NOT NULL,
    kind            TEXT NOT NULL,
    source          TEXT NOT NULL,
    price           TEXT NOT NULL,
    meter           TEXT,
    description     TEXT NOT NULL,
    quantity        TEXT NOT NULL,
    amount          BIGINT NOT NULL,
    period_start_us BIGINT NOT NULL,
    period_end_us   BIGINT NOT NULL,
    basis           TEXT NOT NULL,
    hash            TEXT NOT NULL,
    PRIMARY KEY (tenant, invoice, line),
    FOREIGN KEY (tenant, invoice) REFERENCES invoices (tenant, id)
);

-- What is final never changes (I6): only the status of an invoice moves on.
CREATE TRIGGER invoices_stay BEFORE UPDATE ON invoices
WHEN OLD.number IS NOT NULL AND (
    NEW.tenant <> OLD.tenant OR NEW.id <> OLD.id OR NEW.number IS NOT OLD.number OR NEW.customer <> OLD.customer
    OR NEW.subscription <> OLD.subscription OR NEW.currency <> OLD.currency
    OR NEW.period_start_us <> OLD.period_start_us OR NEW.period_end_us <> OLD.period_end_us OR NEW.round <> OLD.round
    OR NEW.subtotal <> OLD.subtotal OR NEW.discount <> OLD.discount OR NEW.credits <> OLD.credits
    OR NEW.tax <> OLD.tax OR NEW.total <> OLD.total OR NEW.watermark IS NOT OLD.watermark
    OR NEW.catalog_version <> OLD.catalog_version OR NEW.previous_hash <> OLD.previous_hash OR NEW.hash <> OLD.hash
    OR NEW.finalized_us IS NOT OLD.finalized_us OR NEW.status IN ('draft', 'finalizing'))
BEGIN SELECT RAISE(ABORT, 'a final invoice never changes'); END;

CREATE TRIGGER invoices_remain BEFORE DELETE ON invoices
WHEN OLD.status <> 'draft'
BEGIN SELECT RAISE(ABORT, 'a locked invoice is never deleted'); END;

CREATE TRIGGER invoice_lines_stay BEFORE UPDATE ON invoice_lines
WHEN (SELECT status FROM invoices WHERE tenant = OLD.tenant AND id = OLD.invoice) <> 'draft'
BEGIN SELECT RAISE(ABORT, 'the lines of a locked invoice never change'); END;

CREATE TRIGGER invoice_lines_remain BEFORE DELETE ON invoice_lines
WHEN (SELECT status FROM invoices WHERE tenant = OLD.tenant AND id = OLD.invoice) <> 'draft'
BEGIN SELECT RAISE(ABORT, 'the lines of a locked invoice are never deleted'); END;

CREATE TRIGGER invoice_lines_end BEFORE INSERT ON invoice_lines
WHEN (SELECT status FROM invoices WHERE tenant = NEW.tenant AND id = NEW.invoice) <> 'draft'
BEGIN SELECT RAISE(ABORT, 'a locked invoice gets no more lines'); END;

-- The last number of a tenant, and the hash of its invoice. Written in the transaction that gives the number, so that
-- numbers have no gaps.
CREATE TABLE invoice_numbers (
    tenant BIGINT PRIMARY KEY NOT NULL REFERENCES tenants (id),
    last   BIGINT NOT NULL,
    hash   TEXT NOT NULL
);

-- The periods that are billed, those without an invoice included.
CREATE TABLE closings (
    tenant          BIGINT NOT NULL REFERENCES tenants (id),
    subscription    TEXT NOT NULL,
    period_end_us   BIGINT NOT NULL,
    period_start_us BIGINT NOT NULL,
    invoice         TEXT,
    at_us           BIGINT NOT NULL,
    PRIMARY KEY (tenant, subscription, period_end_us)
);

CREATE TABLE billing_runs (
    tenant        BIGINT NOT NULL REFERENCES tenants (id),
    id            TEXT NOT NULL,
    status        TEXT NOT NULL,
    period_end_us BIGINT NOT NULL,
    body          TEXT NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX billing_runs_by_status ON billing_runs (tenant, status, id);

-- The statuses of each final invoice in their order, each sealed together with those before it. The invoice's own row says the
-- last of them, and one that says another was changed by somebody else.
CREATE TABLE invoice_history (
    tenant  BIGINT NOT NULL,
    invoice TEXT NOT NULL,
    step    BIGINT NOT NULL,
    status  TEXT NOT NULL,
    at_us   BIGINT NOT NULL,
    -- Empty on the first entry of an invoice that was final before histories were kept.
    hash    TEXT NOT NULL,
    PRIMARY KEY (tenant, invoice, step),
    FOREIGN KEY (tenant, invoice) REFERENCES invoices (tenant, id)
);

INSERT INTO invoice_history (tenant, invoice, step, status, at_us, hash)
SELECT tenant, id, 0, status, COALESCE(finalized_us, 0), '' FROM invoices WHERE number IS NOT NULL;

CREATE TRIGGER invoice_history_stays BEFORE UPDATE ON invoice_history
BEGIN SELECT RAISE(ABORT, 'the history of a final invoice never changes'); END;

CREATE TRIGGER invoice_history_remains BEFORE DELETE ON invoice_history
BEGIN SELECT RAISE(ABORT, 'the history of a final invoice is never deleted'); END;

CREATE TRIGGER invoices_follow_history BEFORE UPDATE OF status ON invoices
WHEN OLD.number IS NOT NULL AND NEW.status <> OLD.status AND NEW.status IS NOT (
    SELECT status FROM invoice_history WHERE tenant = OLD.tenant AND invoice = OLD.id ORDER BY step DESC LIMIT 1)
BEGIN SELECT RAISE(ABORT, 'the status of a final invoice is the last of its history'); END;

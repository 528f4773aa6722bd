-- The names that an invoice shows, as JSON: they stay when the customer or the tenant is renamed or erased.
ALTER TABLE invoices ADD COLUMN parties TEXT;

CREATE TRIGGER invoices_stay_named BEFORE UPDATE OF parties ON invoices
WHEN OLD.number IS NOT NULL AND NEW.parties IS NOT OLD.parties
BEGIN SELECT RAISE(ABORT, 'a final invoice never changes'); END;

-- When billing is to look at a subscription, and how often the subscription was changed, so that what billing noted before
-- a change is not taken for what is due after it.
ALTER TABLE subscriptions ADD COLUMN look_us BIGINT NOT NULL DEFAULT 0;
ALTER TABLE subscriptions ADD COLUMN changes BIGINT NOT NULL DEFAULT 0;
CREATE INDEX subscriptions_by_look ON subscriptions (tenant, look_us, id);

-- When an invoice was made and its grace time ended is part of its hash, and stays as the rest of it does.
CREATE TRIGGER invoices_stay_made BEFORE UPDATE OF created_us, locks_us ON invoices
WHEN OLD.number IS NOT NULL AND (NEW.created_us <> OLD.created_us OR NEW.locks_us <> OLD.locks_us)
BEGIN SELECT RAISE(ABORT, 'a final invoice never changes'); END;

-- What a billing run has done so far is counted in the transactions that do it.
ALTER TABLE billing_runs ADD COLUMN invoices BIGINT NOT NULL DEFAULT 0;
ALTER TABLE billing_runs ADD COLUMN empty_periods BIGINT NOT NULL DEFAULT 0;
UPDATE billing_runs SET invoices = json_extract(body, '$.invoices'), empty_periods = json_extract(body, '$.empty_periods');

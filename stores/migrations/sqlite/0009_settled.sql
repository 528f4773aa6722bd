-- Until when it is known what came late for a subscription that is over; none where it was not looked at since it was.
ALTER TABLE subscriptions ADD COLUMN settled_us BIGINT;

-- Earlier builds looked once a day and kept only when they were to look next.
UPDATE subscriptions SET settled_us = look_us - 86400000000
WHERE look_us - 86400000000 >= unixepoch(json_extract(body, '$.ends_at')) * 1000000;

-- Runs looked at every subscription, and kept nothing of it.
UPDATE subscriptions SET settled_us = (
    SELECT MAX(unixepoch(json_extract(run.body, '$.created'))) * 1000000 FROM billing_runs run
    WHERE run.tenant = subscriptions.tenant AND run.status IN ('done', 'failed')
        AND unixepoch(json_extract(run.body, '$.created')) >= unixepoch(json_extract(subscriptions.body, '$.ends_at')))
WHERE look_us = 0;

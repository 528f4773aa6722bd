-- The key that was made in a key's place when it was rotated. Keys rotated before this step have none.
ALTER TABLE api_keys ADD COLUMN replaced_by TEXT;

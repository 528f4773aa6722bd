//! API keys: `tp_<id>_<secret>`, of which only the hash is kept.

use std::collections::BTreeSet;

use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use turnpike_domain::catalog::ApiKey;
use turnpike_domain::identity::{Scope, TenantId};
use turnpike_domain::port::StoreError;
use turnpike_domain::time::{Randomness, Timestamp};

use super::connect::lost;
use super::directory::MemoryDirectory;
use super::{number, read_body, write_body};

/// A key that has just been made. The text is shown once and not kept.
#[derive(Clone, PartialEq, Eq)]
pub struct NewKey {
    /// The key's id, which is part of its text.
    pub id: String,
    /// The whole key.
    pub text: String,
    /// What is kept of it.
    pub hash: [u8; 32],
}

impl NewKey {
    /// Makes a key: an id of 60 random bits and a secret of 240.
    pub fn make(randomness: &dyn Randomness) -> Self {
        let id = random_text(randomness, 12);
        let secret = random_text(randomness, 48);
        let text = format!("tp_{id}_{secret}");
        Self {
            hash: hash_key(&text),
            id,
            text,
        }
    }
}

impl std::fmt::Debug for NewKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NewKey({}, ..)", self.id)
    }
}

/// Characters that nobody mistakes for another: 32 of them, 5 bits each.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

fn random_text(randomness: &dyn Randomness, chars: usize) -> String {
    let mut bytes = vec![0; chars];
    randomness.fill(&mut bytes);
    bytes
        .iter()
        .map(|byte| char::from(ALPHABET[usize::from(byte & 31)]))
        .collect()
}

/// What is kept of a key: a hash under a context of its own. A key has too much randomness to be guessed, so that a slow
/// hash would cost each call and protect nothing.
pub fn hash_key(text: &str) -> [u8; 32] {
    blake3::derive_key("turnpike 2026 api key", text.as_bytes())
}

/// The id in a key's text, where it has our form.
pub(super) fn id_of(text: &str) -> Option<&str> {
    text.strip_prefix("tp_")?.split_once('_').map(|(id, _)| id)
}

pub(super) async fn put(connection: &mut SqliteConnection, key: &ApiKey) -> Result<(), sqlx::Error> {
    let micros = |at: Option<Timestamp>| at.map(Timestamp::micros);
    sqlx::query(
        "INSERT INTO api_keys (id, tenant, name, hash, scopes, created_us, expires_us, revoked_us, calls_per_second, \
         replaced_by) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
         ON CONFLICT (id) DO UPDATE SET name = excluded.name, expires_us = excluded.expires_us, \
         revoked_us = excluded.revoked_us, calls_per_second = excluded.calls_per_second, \
         replaced_by = excluded.replaced_by",
    )
    .bind(&key.id)
    .bind(i64::from(key.tenant.0))
    .bind(&key.name)
    .bind(blake3::Hash::from_bytes(key.hash).to_hex().to_string())
    .bind(write_body(&key.scopes)?)
    .bind(key.created.micros())
    .bind(micros(key.expires))
    .bind(micros(key.revoked))
    .bind(key.calls_per_second.map(i64::from))
    .bind(&key.replaced_by)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn load(
    connection: &mut SqliteConnection,
    directory: &MemoryDirectory,
) -> Result<(), StoreError> {
    let rows = sqlx::query(
        "SELECT id, tenant, name, hash, scopes, created_us, expires_us, revoked_us, calls_per_second, replaced_by \
         FROM api_keys",
    )
    .fetch_all(connection)
    .await
    .map_err(lost)?;
    for row in rows {
        directory.put_key(read(&row)?);
    }
    Ok(())
}

fn read(row: &SqliteRow) -> Result<ApiKey, StoreError> {
    let id: String = row.try_get(0).map_err(lost)?;
    let hash: String = row.try_get(3).map_err(lost)?;
    let scopes: BTreeSet<Scope> = read_body("api_keys", &id, row.try_get(4).map_err(lost)?)?;
    let time = |column: usize| -> Result<Option<Timestamp>, StoreError> {
        let micros: Option<i64> = row.try_get(column).map_err(lost)?;
        Ok(micros.map(Timestamp::from_micros_clamped))
    };
    let calls: Option<i64> = row.try_get(8).map_err(lost)?;
    let damaged = |what: &str| StoreError::Damaged(format!("table api_keys, row {id}: {what}"));
    let hash = blake3::Hash::from_hex(&hash).map_err(|_| damaged("hash"))?;
    let tenant: i64 = row.try_get(1).map_err(lost)?;
    let created = time(5)?.ok_or_else(|| damaged("created"))?;
    Ok(ApiKey {
        tenant: TenantId(number("api_keys", &id, tenant)?),
        name: row.try_get(2).map_err(lost)?,
        hash: *hash.as_bytes(),
        scopes,
        created,
        expires: time(6)?,
        revoked: time(7)?,
        replaced_by: row.try_get(9).map_err(lost)?,
        calls_per_second: calls.map(|calls| number("api_keys", &id, calls)).transpose()?,
        id,
    })
}

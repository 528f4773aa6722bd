//! The first start of an installation: the tenant `default` and its admin key.

use turnpike_domain::catalog::{ApiKey, Tenant};
use turnpike_domain::identity::{Scope, TenantId};
use turnpike_domain::port::control::{AuditNote, Change, ControlStore as _, Decision, Effect};
use turnpike_domain::port::directory::Directory as _;
use turnpike_domain::problem::Problem;
use turnpike_domain::time::{Clock as _, Timestamp};

use super::SqlStore;
use super::key::{NewKey, hash_key};

/// The admin key of the first start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirstKey {
    /// It was made, and is shown this once.
    Made(NewKey),
    /// The operator chose it.
    Chosen,
    /// There was an installation already: nothing was made.
    Earlier,
}

impl SqlStore {
    /// Makes the tenant `default` and an admin key on an empty store, and nothing otherwise. `chosen` is what the
    /// operator set as `TURNPIKE_BOOTSTRAP_API_KEY`. A key that is made is shown by `show` before it is kept: were it kept
    /// first, a stop in between would leave a key that nobody knows.
    ///
    /// # Errors
    /// A chosen key that is not 16 to 128 printable characters; what `show` answers.
    pub async fn first_start(
        &self,
        chosen: Option<&str>,
        show: &(dyn Fn(&str) -> Result<(), Problem> + Send + Sync),
    ) -> Result<FirstKey, Problem> {
        if !self.tenants().is_empty() {
            return Ok(FirstKey::Earlier);
        }
        let at = self.inner.clocks.machine_now();
        let (key, first) = if let Some(text) = chosen {
            check_chosen(text)?;
            (
                admin_key("chosen-bootstrap", hash_key(text), at),
                FirstKey::Chosen,
            )
        } else {
            let made = NewKey::make(self.inner.randomness.as_ref());
            show(&made.text)?;
            (admin_key(&made.id, made.hash, at), FirstKey::Made(made))
        };
        let change = Change {
            tenant: TenantId::DEFAULT,
            actor: "turnpike".into(),
            request_id: "".into(),
            at,
            recorded_at: at,
            idempotency: None,
        };
        self.change(
            change,
            Box::new(move |state| {
                let id = state.next_tenant_id();
                let effects = vec![Effect::Tenant(default_tenant(id)), Effect::ApiKey(key)];
                let note = AuditNote::new("tenant.create", "tenant/default");
                Ok(Decision::changed(effects, note, 200, serde_json::Value::Null))
            }),
        )
        .await?;
        Ok(first)
    }
}

fn check_chosen(text: &str) -> Result<(), Problem> {
    // A header cannot carry blanks at an end.
    let printable = !text.chars().any(char::is_control) && text.trim() == text;
    if printable && (16..=128).contains(&text.chars().count()) {
        return Ok(());
    }
    Err(Problem::invalid(
        "TURNPIKE_BOOTSTRAP_API_KEY",
        "must be 16 to 128 printable characters, without blanks at its ends",
    ))
}

fn default_tenant(id: TenantId) -> Tenant {
    Tenant {
        id,
        key: "default".to_owned(),
        name: "Default".to_owned(),
        test: false,
        clock: None,
        suspended: false,
        timezone: "UTC".to_owned(),
        calls_per_second: None,
    }
}

fn admin_key(id: &str, hash: [u8; 32], at: Timestamp) -> ApiKey {
    ApiKey {
        id: id.to_owned(),
        tenant: TenantId::DEFAULT,
        name: "first admin key".to_owned(),
        hash,
        scopes: [Scope::Admin].into(),
        created: at,
        expires: None,
        revoked: None,
        replaced_by: None,
        calls_per_second: None,
    }
}

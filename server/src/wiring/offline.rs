use std::path::Path;
use std::sync::Arc;

use turnpike_aggregator::Aggregator;
use turnpike_aggregator::rebuild::{self, Difference};
use turnpike_billing_sync::{Verification, Verifier};
use turnpike_domain::identity::TenantId;
use turnpike_domain::limits::VERIFIED_LINES_MAX;
use turnpike_domain::port::billing::{BillingStore as _, InvoiceName, Kept};
use turnpike_domain::port::directory::Directory as _;
use turnpike_domain::port::usage::NoListener;
use turnpike_domain::port::views::Views;
use turnpike_stores::disk::RealDisk;
use turnpike_stores::embedded::log;
use turnpike_stores::fault::FailPoints;
use turnpike_stores::machine::{MachineClock, MachineRandomness, TenantClock};

use super::data_dir::DataDir;
use super::embedded::{EngineParts, StartError};
use super::services::start_aggregator;
use super::stores::Stores;
use crate::config::Config;

/// A data directory that no server has open, for the commands that look after it.
pub(crate) struct Offline {
    stores: Stores,
    aggregator: Arc<Aggregator>,
    data_dir: DataDir,
}

/// What a rebuild came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Rebuilt {
    /// Rows of the views as they were; none where they could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rows_before: Option<u64>,
    /// Rows of the views as they were derived anew.
    pub(crate) rows_after: u64,
    /// Ids of events in the views as they were; none where they could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ids_before: Option<u64>,
    /// Ids of events in the views as they were derived anew.
    pub(crate) ids_after: u64,
    /// Rows and ids that are not the same; none where they could not be compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) different: Option<u64>,
    /// The first of them, by name.
    pub(crate) named: Vec<String>,
    /// Why the views that were there could not be read, where that was so: then they were not compared, or not wholly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) damage: Option<String>,
}

impl Offline {
    /// Opens the stores and counts what the log holds behind the views.
    pub(crate) async fn open(config: &Config) -> Result<Self, StartError> {
        let data_dir = DataDir::open(&config.data_dir)?;
        Self::open_dir(config, data_dir).await
    }

    async fn open_dir(config: &Config, data_dir: DataDir) -> Result<Self, StartError> {
        let clock = Arc::new(TenantClock::new(Arc::new(MachineClock)));
        let parts = EngineParts {
            clock: Arc::new(MachineClock),
            randomness: Arc::new(MachineRandomness),
            fail_points: Arc::new(FailPoints::default()),
            bootstrap_key: None,
            show_key: Box::new(|_| Ok(())),
        };
        let stores = Stores::open(config, &data_dir, &clock, &parts).await?;
        let aggregator = start_aggregator(config, &stores, &clock, Arc::new(NoListener)).await?;
        Ok(Self {
            stores,
            aggregator,
            data_dir,
        })
    }

    /// Derives every final invoice of every tenant again from the raw log, and tells of each number that was given. The
    /// log is read once for as many as are kept in memory at a time.
    pub(crate) async fn verify_invoices(
        &self,
        mut tell: impl FnMut(String, String, &Verification),
    ) -> Result<(), StartError> {
        let store = Arc::new(self.stores.sql.clone());
        let verifier = Verifier {
            directory: store.clone(),
            store: store.clone(),
            usage: self.aggregator.clone(),
        };
        let (mut waiting, mut lines) = (Vec::new(), 0);
        for tenant in store.tenants() {
            for number in 1..=store.series(tenant.id).await?.end() {
                let kept = store.kept(tenant.id, InvoiceName::Number(number)).await?;
                if let Some(Kept::Whole(invoice)) = &kept {
                    lines += invoice.lines.len();
                }
                waiting.extend(kept.map(|kept| (tenant.id, kept)));
                if lines >= VERIFIED_LINES_MAX {
                    verify(&verifier, &std::mem::take(&mut waiting), &mut tell).await?;
                    lines = 0;
                }
            }
        }
        verify(&verifier, &waiting, &mut tell).await
    }

    /// Derives every view anew from the log, and compares them with those that were there. The new ones stay; the old
    /// ones are removed when they are the same, else kept beside as `views.old`.
    /// Views that cannot be read are set aside likewise, and what is wrong with them is told.
    pub(crate) async fn rebuild(config: &Config) -> Result<Rebuilt, StartError> {
        let (data_dir, mut damage) = Self::lock_stopped(config).await?;
        let (path, old) = (data_dir.views(), data_dir.path().join("views.old"));
        remove(&old)?;
        rename(&path, &old)?;
        let after = match Self::open_dir(config, data_dir).await {
            Ok(after) => after,
            Err(error) => {
                // The fault is not in the views, or the log alone cannot give them: all stays as it was.
                remove(&path)?;
                rename(&old, &path)?;
                return Err(error);
            }
        };
        after.aggregator.checkpoint().await?;
        let mut compared = None;
        if damage.is_none() {
            match after.compare_with(&old) {
                Ok(rebuilt) => compared = Some(rebuilt),
                Err(error) => damage = Some(error.to_string()),
            }
        }
        let rebuilt = match compared {
            Some(rebuilt) => rebuilt,
            None => after.without_old(damage)?,
        };
        after.close().await?;
        if rebuilt.different == Some(0) {
            remove(&old)?;
        }
        Ok(rebuilt)
    }

    /// Locks a data directory whose views contain the whole log, or says why they cannot be opened.
    async fn lock_stopped(config: &Config) -> Result<(DataDir, Option<String>), StartError> {
        let (data_dir, damage) = match Self::open(config).await {
            Ok(before) => (before.close().await?, None),
            // In the views, or in what is derived from the log: a fault of the log itself would show again.
            Err(error @ (StartError::UnreadableViews(_) | StartError::Service(_))) => {
                (DataDir::open(&config.data_dir)?, Some(error.to_string()))
            }
            Err(error) => return Err(error),
        };
        match log::horizon(&RealDisk, &data_dir.log())? {
            None => Ok((data_dir, damage)),
            Some(horizon) => Err(StartError::NotDerivable(horizon.before)),
        }
    }

    /// Compares the views in another directory with those of this one.
    fn compare_with(&self, old: &Path) -> Result<Rebuilt, StartError> {
        let was = Stores::views_in(old, self.data_dir.partitions())?;
        was.iter().try_for_each(|views| views.verify())?;
        let was: Vec<_> = was.into_iter().map(|views| views as Arc<dyn Views>).collect();
        let found = rebuild::compare(&was, &self.stores.views(), &self.stores.sql)?;
        Ok(Rebuilt {
            rows_before: Some(found.rows.0),
            rows_after: found.rows.1,
            ids_before: Some(found.ids.0),
            ids_after: found.ids.1,
            different: Some(found.different),
            named: found.named.iter().map(text).collect(),
            damage: None,
        })
    }

    /// What there is to say where the views that were there could not be read for `damage`.
    fn without_old(&self, damage: Option<String>) -> Result<Rebuilt, StartError> {
        let (rows_after, ids_after) = rebuild::count(&self.stores.views(), &self.stores.sql)?;
        Ok(Rebuilt {
            rows_after,
            ids_after,
            damage,
            ..Rebuilt::default()
        })
    }

    /// Ends all threads; the directory stays locked until what is returned is dropped.
    pub(crate) async fn close(self) -> Result<DataDir, StartError> {
        self.aggregator.shutdown().await?;
        self.stores.close().await?;
        Ok(self.data_dir)
    }
}

async fn verify(
    verifier: &Verifier,
    invoices: &[(TenantId, Kept)],
    tell: &mut impl FnMut(String, String, &Verification),
) -> Result<(), StartError> {
    let found = verifier.verify_all(invoices).await?;
    for ((tenant, kept), verification) in invoices.iter().zip(&found) {
        // By the key that people know; its number only for one that is no longer there.
        let known = verifier.directory.tenant(*tenant);
        let key = known.map_or_else(|| tenant.0.to_string(), |tenant| tenant.key.clone());
        tell(key, kept.name(), verification);
    }
    Ok(())
}

fn rename(from: &Path, to: &Path) -> Result<(), StartError> {
    std::fs::rename(from, to).map_err(|error| StartError::Views(to.display().to_string(), error.to_string()))
}

fn remove(directory: &Path) -> Result<(), StartError> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StartError::Views(
            directory.display().to_string(),
            error.to_string(),
        )),
        _ => Ok(()),
    }
}

/// A difference in words.
fn text(difference: &Difference) -> String {
    match (&difference.first, &difference.second) {
        (Some(was), Some(is)) => format!("{was} is {is} in the log"),
        (Some(was), None) => format!("{was} is not derived from the log"),
        (None, Some(is)) => format!("{is} was missing"),
        (None, None) => String::new(),
    }
}

use std::path::Path;
use std::sync::Arc;

use turnpike_aggregator::Aggregator;
use turnpike_billing_sync::{Verification, Verifier};
use turnpike_domain::identity::TenantId;
use turnpike_domain::invoice::Invoice;
use turnpike_domain::port::billing::{BillingStore as _, InvoiceFilter};
use turnpike_domain::port::directory::Directory as _;
use turnpike_domain::port::log::EventLog as _;
use turnpike_domain::port::usage::NoListener;
use turnpike_domain::port::views::{Row, Views as _};
use turnpike_stores::fault::FailPoints;
use turnpike_stores::machine::{MachineClock, MachineRandomness, TenantClock};

use super::data_dir::DataDir;
use super::embedded::{EngineParts, StartError};
use super::pages::Pages;
use super::services::start_aggregator;
use super::stores::Stores;
use crate::config::Config;

/// Differences that are named; further ones are counted.
const NAMED_MAX: usize = 20;

/// A data directory that no server has open, for the commands that look after it.
pub(crate) struct Offline {
    stores: Stores,
    aggregator: Arc<Aggregator>,
    data_dir: DataDir,
}

/// What a rebuild came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Rebuilt {
    /// Rows of the views as they were.
    pub(crate) rows_before: u64,
    /// Rows of the views as they were derived anew.
    pub(crate) rows_after: u64,
    /// Rows that are not the same.
    pub(crate) different: u64,
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
        };
        let stores = Stores::open(config, &data_dir, &clock, &parts).await?;
        let aggregator = start_aggregator(config, &stores, &clock, Arc::new(NoListener)).await?;
        Ok(Self {
            stores,
            aggregator,
            data_dir,
        })
    }

    /// Derives every final invoice of every tenant again from the raw log, and tells of each.
    pub(crate) async fn verify_invoices(
        &self,
        mut tell: impl FnMut(TenantId, &Invoice, &Verification),
    ) -> Result<(), StartError> {
        let store = Arc::new(self.stores.sql.clone());
        let verifier = Verifier {
            directory: store.clone(),
            store: store.clone(),
            usage: self.aggregator.clone(),
        };
        for tenant in store.tenants() {
            let mut pages = Pages::default();
            while let Some(page) = pages.next() {
                let invoices = store.invoices(tenant.id, InvoiceFilter::default(), page).await?;
                pages.turn(invoices.len(), invoices.last().map(|invoice| invoice.id.clone()));
                for invoice in invoices.iter().filter(|invoice| invoice.number.is_some()) {
                    let verification = verifier.verify(tenant.id, invoice).await?;
                    tell(tenant.id, invoice, &verification);
                }
            }
        }
        Ok(())
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
        let mut rebuilt = Rebuilt::default();
        if damage.is_none() {
            damage = after
                .compare_with(&old, &mut rebuilt)
                .err()
                .map(|error| error.to_string());
        }
        after.close().await?;
        rebuilt.damage = damage;
        if rebuilt.different == 0 && rebuilt.damage.is_none() {
            remove(&old)?;
        }
        Ok(rebuilt)
    }

    /// Locks a data directory whose views contain the whole log, or says why they cannot be opened.
    async fn lock_stopped(config: &Config) -> Result<(DataDir, Option<String>), StartError> {
        match Self::open(config).await {
            Ok(before) => {
                let horizon = before.stores.log.horizon();
                let data_dir = before.close().await?;
                horizon.map_or(Ok((data_dir, None)), |horizon| {
                    Err(StartError::NotDerivable(horizon))
                })
            }
            Err(error @ StartError::DataDir(_)) => Err(error),
            Err(error) => Ok((DataDir::open(&config.data_dir)?, Some(error.to_string()))),
        }
    }

    /// Compares the rows of the views in another directory with those of this one.
    fn compare_with(&self, old: &Path, rebuilt: &mut Rebuilt) -> Result<(), StartError> {
        let was = Stores::views_in(old, self.data_dir.partitions())?;
        // The ids too, which have no rows to compare.
        was.iter().try_for_each(|views| views.verify())?;
        for (partition, (was, is)) in was.iter().zip(&self.stores.views).enumerate() {
            let (was, is) = (was.rows().scan(everything()), is.rows().scan(everything()));
            compare(partition, was, is, rebuilt)?;
        }
        Ok(())
    }

    /// Ends all threads; the directory stays locked until what is returned is dropped.
    pub(crate) async fn close(self) -> Result<DataDir, StartError> {
        self.aggregator.shutdown().await?;
        self.stores.log.close()?;
        self.stores.sql.close().await?;
        Ok(self.data_dir)
    }
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

/// Every key: the end is longer than any that is used.
fn everything() -> std::ops::Range<Vec<u8>> {
    Vec::new()..vec![0xFF; 4_096]
}

type Scan = turnpike_domain::port::views::RowIter;

/// Compares two lists of rows, both in the order of their keys.
fn compare(partition: usize, was: Scan, is: Scan, sum: &mut Rebuilt) -> Result<(), StartError> {
    let (mut was, mut is) = (was.peekable(), is.peekable());
    loop {
        let next = |rows: &mut std::iter::Peekable<Scan>| -> Result<Option<Row>, StartError> {
            match rows.peek() {
                None => Ok(None),
                Some(Ok(row)) => Ok(Some(row.clone())),
                Some(Err(error)) => Err(error.clone().into()),
            }
        };
        let (old, new) = (next(&mut was)?, next(&mut is)?);
        let (take_old, take_new, what) = match (&old, &new) {
            (None, None) => return Ok(()),
            (Some(old), Some(new)) if old.key == new.key => (
                true,
                true,
                (old.value != new.value).then_some("has another value"),
            ),
            (Some(old), Some(new)) if old.key < new.key => (true, false, Some("is not derived from the log")),
            (Some(_), None) => (true, false, Some("is not derived from the log")),
            _ => (false, true, Some("was missing")),
        };
        if take_old {
            was.next();
            sum.rows_before += 1;
        }
        if take_new {
            is.next();
            sum.rows_after += 1;
        }
        if let Some(what) = what {
            sum.different += 1;
            if sum.named.len() < NAMED_MAX {
                let key = if take_old { old } else { new }
                    .map(|row| row.key.escape_ascii().to_string())
                    .unwrap_or_default();
                sum.named
                    .push(format!("partition {partition}, row {key}: {what}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(pairs: &[(&str, &str)]) -> Scan {
        let rows: Vec<_> = pairs
            .iter()
            .map(|(key, value)| {
                Ok(Row {
                    key: key.as_bytes().to_vec(),
                    value: value.as_bytes().to_vec(),
                })
            })
            .collect();
        Box::new(rows.into_iter())
    }

    #[test]
    fn differences_have_names() {
        let mut sum = Rebuilt::default();
        compare(
            0,
            rows(&[("a", "1"), ("b", "2"), ("d", "4")]),
            rows(&[("a", "1"), ("b", "3"), ("c", "3")]),
            &mut sum,
        )
        .unwrap();
        assert_eq!((sum.rows_before, sum.rows_after, sum.different), (3, 3, 3));
        assert_eq!(
            sum.named,
            [
                "partition 0, row b: has another value",
                "partition 0, row c: was missing",
                "partition 0, row d: is not derived from the log"
            ]
        );
        let mut none = Rebuilt::default();
        compare(1, rows(&[("a", "1")]), rows(&[("a", "1")]), &mut none).unwrap();
        assert_eq!((none.different, none.rows_before), (0, 1));
    }

    #[test]
    fn damage_is_not_taken_for_an_end() {
        let broken: Scan = Box::new(std::iter::once(Err(turnpike_domain::port::StoreError::Damaged(
            "f".to_owned(),
        ))));
        assert!(compare(0, broken, rows(&[]), &mut Rebuilt::default()).is_err());
    }
}

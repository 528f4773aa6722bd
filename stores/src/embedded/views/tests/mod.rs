//! Tests of the views as a whole.

use super::*;
use crate::contract::views::{AddValues, CHECKPOINT_IDS, Opener, contract};
use crate::disk::RealDisk;

fn options(directory: &Path) -> ViewsOptions {
    ViewsOptions {
        table_ids: CHECKPOINT_IDS,
        background: false,
        ..ViewsOptions::new(directory, 3)
    }
}

fn open(options: &ViewsOptions) -> Result<Arc<EmbeddedViews>, StoreError> {
    EmbeddedViews::open(
        options.clone(),
        Arc::new(AddValues),
        Arc::new(RealDisk),
        Arc::new(FailPoints::default()),
    )
}

#[test]
fn keeps_the_contract() {
    for background in [false, true] {
        let mut directories = Vec::new();
        contract(&mut || {
            let directory = tempfile::tempdir().unwrap();
            let options = ViewsOptions {
                background,
                ..options(directory.path())
            };
            directories.push(directory);
            Box::new(move || Ok(open(&options)? as Arc<dyn Views>)) as Opener
        })
        .unwrap();
    }
}

//! What can be made to fail, and how often something did.

/// What the disk is asked to do; each can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Reading a file.
    Read,
    /// Writing a file. When it fails, a part may have been written.
    Write,
    /// Making a file's data durable. When it fails, any sectors may have become durable, and no later sync will make
    /// the others so, as on Linux.
    Sync,
    /// Reserving space.
    Allocate,
    /// Cutting or extending a file.
    SetLen,
    /// Making a file.
    Create,
    /// Renaming a file.
    Rename,
    /// Removing a file.
    Remove,
    /// Making names durable.
    SyncDirectory,
}

/// How often the disk did harm: a test that injected nothing has shown nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Operations that were told to fail.
    pub errors: u64,
    /// Operations refused because the disk was full.
    pub full: u64,
    /// Losses of power.
    pub crashes: u64,
    /// Sectors that lost what had been written but not synced.
    pub lost_sectors: u64,
    /// Changes of names that were lost.
    pub lost_names: u64,
    /// Bits turned over.
    pub flips: u64,
}

impl FaultCounts {
    /// All faults together.
    pub fn total(&self) -> u64 {
        self.errors + self.full + self.lost_sectors + self.lost_names + self.flips
    }
}

impl std::ops::AddAssign for FaultCounts {
    fn add_assign(&mut self, other: Self) {
        self.errors += other.errors;
        self.full += other.full;
        self.crashes += other.crashes;
        self.lost_sectors += other.lost_sectors;
        self.lost_names += other.lost_names;
        self.flips += other.flips;
    }
}

impl std::fmt::Display for FaultCounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} crashes, {} sectors and {} names lost, {} errors, {} times full, {} bits turned",
            self.crashes, self.lost_sectors, self.lost_names, self.errors, self.full, self.flips
        )
    }
}

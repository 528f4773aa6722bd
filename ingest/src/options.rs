use turnpike_domain::limits;

/// What an operator may set of the gateway. The defaults suit a machine with 4 GiB of memory.
#[derive(Debug, Clone)]
pub struct IngestOptions {
    /// Bytes of bodies and of events made from them that may be in memory at once, over all tenants.
    pub in_flight_bytes_max: usize,
    /// Bytes of a body that is not NDJSON, after decompression.
    pub body_bytes_max: usize,
    /// Seconds without a byte of a body after which its request ends.
    pub body_idle_s_max: u64,
    /// Seconds within which a body that is not a stream of lines must have arrived.
    pub body_total_s_max: u64,
    /// Refused events that are kept as dead letters per second and tenant; those above are only counted in a metric.
    pub dead_letters_per_s: u32,
    /// Refused events of a tenant that may be kept at once after a quiet time; of one body at most
    /// [`limits::EVENT_ERRORS_LISTED_MAX`] are.
    pub dead_letters_burst: u32,
    /// Days that raw events are kept: those that count for an earlier time are refused. 0: for ever.
    pub retention_days: u32,
}

impl Default for IngestOptions {
    fn default() -> Self {
        Self {
            in_flight_bytes_max: 512 * 1024 * 1024,
            body_bytes_max: limits::BODY_BYTES_MAX,
            body_idle_s_max: 30,
            body_total_s_max: 300,
            dead_letters_per_s: 100,
            dead_letters_burst: 1_000,
            retention_days: 0,
        }
    }
}

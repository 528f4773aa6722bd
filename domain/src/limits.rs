//! Every limit of the engine, in one place. Units are in the names.

/// Bytes of an `id`, `source`, `type` or `subject`, at least 1.
pub const NAME_BYTES_MAX: usize = 512;
/// Bytes of one event as it was sent.
pub const EVENT_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a body that is not NDJSON, after decompression.
pub const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes that a compressed stream of lines may have after decompression, however few it had before.
pub const DECOMPRESSED_BYTES_FREE: u64 = BODY_BYTES_MAX as u64;
/// How many times as large as it was sent a compressed stream may be beyond [`DECOMPRESSED_BYTES_FREE`]. Events compress 10
/// to 50 times, made-up ones that differ in their ids alone some hundred times; blank lines 30,000 times.
pub const DECOMPRESSION_RATIO_MAX: u64 = 1_000;
/// Bytes of the body of a control request.
pub const CONTROL_BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Characters of an `Idempotency-Key`.
pub const IDEMPOTENCY_KEY_CHARS_MAX: usize = 255;
/// Days for which the answer to a call on events or quotas with an `Idempotency-Key` is kept for repeats. Their own ids
/// tell repeats for ever.
pub const IDEMPOTENT_ANSWER_DAYS: i64 = 7;
/// Nesting of JSON that is still read.
pub const JSON_DEPTH_MAX: usize = 64;
/// How far ahead of the clock an event's time may lie, in microseconds (5 minutes).
pub const EVENT_FUTURE_US_MAX: i64 = 5 * 60 * 1_000_000;
/// Attributes of one event beyond those that the engine reads.
pub const EVENT_EXTENSIONS_MAX: usize = 64;
/// Refused and conflicting events that an answer lists one by one; all are counted. Of one body no more refused events can
/// become dead letters.
pub const EVENT_ERRORS_LISTED_MAX: usize = 1_000;
/// Events, refused ones too, after which a piece of a stream is handed on.
pub const STREAM_PIECE_EVENTS: usize = 1_000;
/// Bytes of events after which a piece of a stream is handed on.
pub const STREAM_PIECE_BYTES: usize = 1024 * 1024;
/// Pieces of one stream that may be on their way at once.
pub const STREAM_PIECES_MAX: usize = 4;
/// Power of two of the largest window of a zstd body: 8 MiB, which is what RFC 9659 has every receiver support.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// Bytes kept of a refused event in its dead letter.
pub const DEAD_LETTER_BYTES_MAX: usize = 4 * 1024;
/// Dead letters that one replay of all looks at.
pub const DEAD_LETTERS_REPLAYED_MAX: usize = 10_000;
/// Rows in a page of a list when the caller names none.
pub const PAGE_ROWS_DEFAULT: usize = 100;
/// Rows in a page of a list at the most.
pub const PAGE_ROWS_MAX: usize = 1_000;
/// Characters of a key of a meter, feature, plan, add-on or customer.
pub const KEY_CHARS_MAX: usize = 128;
/// Records in one block of the log (the index in a block is 16 bits of a position).
pub const BLOCK_RECORDS_MAX: usize = 65_535;
/// Bytes of records, before compression, after which a block is closed.
pub const BLOCK_BYTES_TARGET: usize = 256 * 1024;
/// Group-by dimensions of a meter.
pub const METER_DIMENSIONS_MAX: usize = 16;
/// Values of one path of a meter's filter.
pub const METER_FILTER_VALUES_MAX: usize = 1_000;
/// Bytes of a value of a dimension, filter or distinct count; an event with a longer one is a dead letter of that meter.
pub const METER_TEXT_BYTES_MAX: usize = 2_048;
/// Share of the data directory's file system, in per cent, at which intake stops.
pub const DISK_USED_PERCENT_MAX: u64 = 95;
/// Tiers of a price.
pub const PRICE_TIERS_MAX: usize = 100;
/// Rates of a matrix price.
pub const PRICE_RATES_MAX: usize = 1_000;
/// Events of a percentage price in one preview.
pub const PREVIEW_EVENTS_MAX: usize = 10_000;
/// Characters of a name for people, an e-mail address, or a value of a static feature.
pub const TEXT_CHARS_MAX: usize = 512;
/// Prices of a plan or add-on in one currency.
pub const PLAN_PRICES_MAX: usize = 200;
/// Entitlements of a plan or add-on.
pub const PLAN_ENTITLEMENTS_MAX: usize = 500;
/// Limits of one entitlement.
pub const ENTITLEMENT_LIMITS_MAX: usize = 16;
/// Units of an interval in one billing period, and days of a trial.
pub const PLAN_SPAN_MAX: u32 = 3_650;
/// Meters, features, plans or add-ons of a tenant, of each kind.
pub const CATALOG_ITEMS_MAX: usize = 10_000;
/// Subjects of a customer.
pub const CUSTOMER_SUBJECTS_MAX: usize = 1_000;
/// Customers one above the other.
pub const CUSTOMER_LEVELS_MAX: usize = 8;
/// Parents that a customer had before the one that it has.
pub const CUSTOMER_MOVES_MAX: usize = 1_000;
/// Overrides that a customer had before those that it has, of all features: the newest are kept.
pub const CUSTOMER_FORMER_OVERRIDES_MAX: usize = 1_000;
/// The same of one feature, so that no feature's changes drop what is known of another's.
pub const FEATURE_FORMER_OVERRIDES_MAX: usize = 100;
/// Entries of a customer's metadata.
pub const METADATA_ENTRIES_MAX: usize = 50;
/// Characters of a key of metadata.
pub const METADATA_KEY_CHARS_MAX: usize = 64;
/// Characters of a value of metadata.
pub const METADATA_VALUE_CHARS_MAX: usize = 1_000;
/// Grants that were taken back from a customer: the newest are kept.
pub const CUSTOMER_FORMER_GRANTS_MAX: usize = 1_000;
/// Grants of a customer that have not ended.
pub const CUSTOMER_GRANTS_MAX: usize = 1_000;
/// Add-ons of a subscription.
pub const SUBSCRIPTION_ADD_ONS_MAX: usize = 50;
/// Days for which a rotated key can go on beside its successor.
pub const KEY_GRACE_DAYS_MAX: u32 = 30;
/// Days by which one call can move the clock of a test tenant.
pub const TEST_CLOCK_ADVANCE_DAYS_MAX: i64 = 3_660;
/// Calls per second that a key or tenant can be limited to.
pub const CALLS_PER_SECOND_MAX: u32 = 1_000_000;
/// Billing runs of a tenant that may wait.
pub const BILLING_RUNS_QUEUED_MAX: i64 = 100;
/// Invoices that one call verifies.
pub const INVOICES_VERIFIED_MAX: usize = 1_000;
/// Lines of invoices that are derived with one pass over the log.
pub const VERIFIED_LINES_MAX: usize = 20_000;
/// Failures and late differences that a billing run names; it counts all.
pub const BILLING_RUN_NOTES_MAX: usize = 100;
/// Before which no grant begins (2000-01-01T00:00:00Z), in microseconds since 1970.
pub const GRANT_EFFECTIVE_MIN_US: i64 = 946_684_800_000_000;
/// Days that a grant lasts which recurs each hour.
pub const HOURLY_GRANT_DAYS_MAX: i64 = 366;
/// Partitions of a data directory.
pub const PARTITIONS_MAX: u32 = 256;
/// Bytes of data after which a page of events ends, however many events it has.
pub const EVENTS_PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Seconds that a reservation holds unless said.
pub const RESERVATION_TTL_S_DEFAULT: u32 = 60;
/// Seconds that a reservation holds at the most (1 day).
pub const RESERVATION_TTL_S_MAX: u32 = 86_400;
/// Open reservations of all tenants; beyond it a reservation is answered 503.
pub const RESERVATIONS_OPEN_MAX: usize = 1_000_000;
/// Checks in one batch.
pub const QUOTA_BATCH_MAX: usize = 1_000;
/// Bytes of the `properties` of a consume or reservation.
pub const PROPERTIES_BYTES_MAX: usize = 64 * 1024;
/// Windows of one usage query (more than a year of minutes).
pub const USAGE_WINDOWS_MAX: usize = 600_000;

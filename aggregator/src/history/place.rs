use turnpike_domain::identity::{NameKey, TenantId};
use turnpike_domain::problem::Problem;

use crate::rows::key::{hex, unhex};

/// What is said of a cursor that is none.
pub(super) const NO_CURSOR: &str = "is not a next_cursor of this list";

/// Bytes of the check before a sealed place.
const CHECK_BYTES: usize = 8;

/// Seals places of the log that a tenant is given to come back with. Positions grow with the events of all tenants, so that
/// the distance of two would tell what others do.
///
/// The check is a keyed hash of the place, and the place is hidden behind a keyed stream that begins with the check: the
/// construction of a synthetic initialisation vector. Source: RFC 5297, section 2.6.
pub(super) struct Seal {
    pub(super) key: NameKey,
    pub(super) tenant: TenantId,
}

impl Seal {
    /// `place` of `list` as the tenant may see it.
    pub(super) fn close(&self, list: &str, place: &[u8]) -> String {
        let check = self.check(list, place);
        let mut sealed = check.to_vec();
        sealed.extend(self.hidden(check, place));
        hex(&sealed)
    }

    /// The place in `list` that [`Seal::close`] sealed for this tenant.
    pub(super) fn open(&self, list: &str, text: &str) -> Result<Vec<u8>, Problem> {
        let place = unhex(text).and_then(|sealed| {
            let (check, hidden) = sealed.split_first_chunk::<CHECK_BYTES>()?;
            let place = self.hidden(*check, hidden);
            (self.check(list, &place) == *check).then_some(place)
        });
        place.ok_or_else(|| Problem::invalid("/cursor", NO_CURSOR))
    }

    fn check(&self, list: &str, place: &[u8]) -> [u8; CHECK_BYTES] {
        let tenant = self.tenant.0.to_be_bytes();
        let parts = [&b"place"[..], &tenant, list.as_bytes(), place];
        self.key.digest(&parts).to_be_bytes()
    }

    /// The bytes under the stream that belongs to `check`; done twice, they are as before.
    fn hidden(&self, check: [u8; CHECK_BYTES], bytes: &[u8]) -> Vec<u8> {
        let tenant = self.tenant.0.to_be_bytes();
        let chunks = bytes.chunks(8).zip(0_u64..);
        let hidden = chunks.flat_map(|(chunk, number)| {
            let parts = [&b"place stream"[..], &tenant, &check, &number.to_be_bytes()];
            let stream = self.key.digest(&parts).to_be_bytes();
            let both: Vec<u8> = chunk.iter().zip(stream).map(|(byte, by)| byte ^ by).collect();
            both
        });
        hidden.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_tenant_and_list_open_it_and_it_tells_nothing() {
        let seal = |tenant, key| Seal {
            key: NameKey([key; 16]),
            tenant: TenantId(tenant),
        };
        for place in [
            &b""[..],
            b"x",
            b"12345678",
            &1_234_567_u64.to_be_bytes(),
            &[0; 13],
        ] {
            let sealed = seal(1, 7).close("events", place);
            assert_eq!(seal(1, 7).open("events", &sealed), Ok(place.to_vec()));
            assert!(seal(2, 7).open("events", &sealed).is_err(), "another tenant");
            assert!(seal(1, 8).open("events", &sealed).is_err(), "another key");
            assert!(seal(1, 7).open("letters", &sealed).is_err(), "another list");
            assert!(place.is_empty() || !sealed.contains(&hex(place)));
            for at in 0..sealed.len() {
                let mut changed: Vec<u8> = sealed.clone().into_bytes();
                changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
                let changed = String::from_utf8(changed).unwrap();
                assert!(seal(1, 7).open("events", &changed).is_err(), "{changed}");
            }
        }
        for wrong in ["", "x", "00", "zz00000000000000", "000000000000000"] {
            assert!(seal(1, 7).open("events", wrong).is_err(), "{wrong}");
        }
        let (one, next) = (
            seal(1, 7).close("events", &[0, 0, 0, 1]),
            seal(1, 7).close("events", &[0, 0, 0, 2]),
        );
        assert_ne!(
            one[16..20],
            next[16..20],
            "neighbours look nothing like each other"
        );
    }
}

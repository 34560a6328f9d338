//! How the authority issues certificates.

use std::path::Path;

use bus_proto::Principal;
use rcgen::{CertificateParams, IsCa, KeyUsagePurpose, SanType, SerialNumber};
use rustls::pki_types::UnixTime;
use zeroize::Zeroizing;

use super::authority::{common_name, date_time, random_serial};
use super::issued::Place;
use super::record::Entry;
use super::{Authority, Issued, IssuedFiles, PkiError, Profile};
use crate::x509;

impl Authority {
    /// Issues a certificate with a new key, and records it.
    ///
    /// # Errors
    ///
    /// [`PkiError::BadValidity`] or [`PkiError::OutlivesAuthority`] for a lifetime that cannot be;
    /// [`PkiError::RevokedName`] for a component with a revoked certificate that has not expired, unless the profile is
    /// [`despite_revocation`](Profile::despite_revocation); [`PkiError::Io`] when the record cannot be written.
    pub fn issue(&self, profile: &Profile) -> Result<Issued, PkiError> {
        let issued = self.sign(profile)?;
        self.enter(profile, &issued)?;
        Ok(issued)
    }

    /// Issues a certificate with a new key, records it, and writes both into a directory as [`Issued::write`] does.
    ///
    /// It is recorded once its files may be placed there and their content is on the disk: a refusal leaves no trace in
    /// the record.
    ///
    /// # Errors
    ///
    /// As [`Authority::issue`] and [`Issued::write`].
    pub fn issue_to(
        &self,
        dir: impl AsRef<Path>,
        profile: &Profile,
        overwrite: bool,
    ) -> Result<(Issued, IssuedFiles), PkiError> {
        let place = Place::claim(dir.as_ref(), &self.principal(profile), overwrite)?;
        let issued = self.sign(profile)?;
        let pending = place.prepare(&issued)?;
        self.enter(profile, &issued)?;
        Ok((issued, pending.finish()?))
    }

    fn principal(&self, profile: &Profile) -> Principal {
        Principal { trust_domain: self.trust_domain.clone(), endpoint: profile.endpoint.clone() }
    }

    fn sign(&self, profile: &Profile) -> Result<Issued, PkiError> {
        let (not_before, not_after) = profile.validity(UnixTime::now())?;
        if not_after > self.not_after {
            let (asked, ends) = (x509::date(not_after), x509::date(self.not_after));
            return Err(PkiError::OutlivesAuthority { asked, ends });
        }
        let principal = self.principal(profile);
        let serial = random_serial()?;
        let mut params = CertificateParams::default();
        params.not_before = date_time(not_before)?;
        params.not_after = date_time(not_after)?;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.distinguished_name = common_name(&principal.endpoint.to_string());
        params.subject_alt_names = vec![SanType::URI(principal.spiffe_id().try_into()?)];
        params.subject_alt_names.extend(profile.server_names.iter().cloned());
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages.clone_from(&profile.usages);
        params.use_authority_key_identifier_extension = true;
        let key = Zeroizing::new(profile.key_algorithm.generate()?);
        let certificate = params.signed_by(&*key, &self.issuer()?)?;
        let entry = Entry { serial: x509::hex(&serial), principal, not_before, not_after, revoked_at: None };
        Ok(Issued { entry, certificate_pem: certificate.pem(), key_pem: Zeroizing::new(key.serialize_pem()) })
    }

    /// Records what was signed, if its name may be used.
    fn enter(&self, profile: &Profile, issued: &Issued) -> Result<(), PkiError> {
        let mut record = self.record()?;
        let principal = issued.principal();
        match record.revoked_until(principal, x509::seconds(UnixTime::now())) {
            Some(until) if !profile.despite_revocation => {
                Err(PkiError::RevokedName { principal: principal.clone(), until: x509::date(until) })
            }
            _ => record.issued(&issued.entry),
        }
    }
}

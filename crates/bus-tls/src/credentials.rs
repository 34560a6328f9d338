//! The checked content of the files: our own certificate and key, the trust roots, and the revocation lists.

use std::sync::Arc;

use bus_proto::TrustDomain;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::CertifiedKey;
use webpki::ExpirationPolicy;
use zeroize::Zeroizing;

use crate::crl::RevocationLists;
use crate::error::TlsError;
use crate::files::Snapshot;
use crate::leaf::{Judge, Usage, VerifiedLeaf};
use crate::options::{KeyPermissions, TlsOptions};
use crate::place::{FileKind, Origin};
use crate::roots::Roots;
use crate::{client, files, leaf, pem};

/// Where credentials come from, and what for.
pub(crate) struct Setup {
    pub(crate) options: TlsOptions,
    pub(crate) usage: Usage,
    pub(crate) provider: Arc<CryptoProvider>,
}

/// The states of the files of each part.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    own: Snapshot,
    roots: Snapshot,
    crls: Snapshot,
}

impl Seen {
    pub(crate) fn of(options: &TlsOptions) -> Self {
        Self {
            own: Snapshot::of([options.certificate.as_path(), options.key.as_path()]),
            roots: Snapshot::of([options.trust_root.as_path()]),
            crls: Snapshot::of(options.crl.as_deref()),
        }
    }

    /// Whether nothing tells the two states apart.
    pub(crate) fn equals(&self, other: &Self) -> bool {
        self.own.equals(&other.own) && self.roots.equals(&other.roots) && self.crls.equals(&other.crls)
    }
}

/// Our certificate and key, which belong together.
pub(crate) struct Own {
    pub(crate) certified_key: Arc<CertifiedKey>,
    pub(crate) leaf: VerifiedLeaf,
}

/// One checked state of the files.
///
/// Its three parts are renewed each on its own: a fault of one must not keep a revocation in another from working.
#[derive(Clone)]
pub(crate) struct Credentials {
    pub(crate) own: Arc<Own>,
    roots: Arc<Roots>,
    crls: Option<Arc<RevocationLists>>,
    pub(crate) server_verifier: Arc<WebPkiServerVerifier>,
    trust_domain: TrustDomain,
    pub(crate) generation: u64,
    /// The last moment at which no revocation list is out of date, in Unix milliseconds.
    pub(crate) good_until_unix_ms: i64,
    seen: Seen,
}

/// What came of reading the files that had changed.
pub(crate) struct Renewal {
    /// What is to be used from now on.
    pub(crate) credentials: Credentials,
    /// Why files were refused.
    pub(crate) refused: Vec<TlsError>,
    /// Why our own certificate, which has not changed, is not good under new trust roots or revocation lists.
    pub(crate) condemned: Option<TlsError>,
}

impl Credentials {
    /// Reads all files.
    pub(crate) fn load(setup: &Setup, now: UnixTime) -> Result<Self, TlsError> {
        let Setup { options, provider, .. } = setup;
        let seen = Seen::of(options);
        let chain = read_chain(options)?;
        let key = read_key(options)?;
        let roots = Roots::load(&options.trust_root, options.trust_domain.as_ref(), now)?;
        let crls = options.crl.as_deref().map(RevocationLists::load).transpose()?;
        let judge = Judge {
            algorithms: provider.signature_verification_algorithms.all,
            roots: &roots,
            crls: crls.as_ref(),
            trust_domain: roots.trust_domain(),
            now,
            expiration: ExpirationPolicy::Enforce,
        };
        let own = Own::check(setup, &judge, chain, &key)?;
        Ok(Self {
            trust_domain: own.leaf.principal().trust_domain.clone(),
            server_verifier: client::verifier(&roots, crls.as_ref(), provider)?,
            own: Arc::new(own),
            roots: Arc::new(roots),
            good_until_unix_ms: good_until_unix_ms(crls.as_ref()),
            crls: crls.map(Arc::new),
            generation: 1,
            seen,
        })
    }

    /// Whether there may be something to renew, when `seen` are the files now.
    pub(crate) fn are_outdated_by(&self, seen: &Seen, now: UnixTime) -> bool {
        self.seen.own.is_outdated_by(&seen.own)
            || self.roots_are_outdated_by(seen, now)
            || self.seen.crls.is_outdated_by(&seen.crls)
    }

    fn roots_are_outdated_by(&self, seen: &Seen, now: UnixTime) -> bool {
        self.seen.roots.is_outdated_by(&seen.roots) || self.roots.have_grown(now)
    }

    /// Reads the files that have changed, and takes the good ones.
    ///
    /// The trust roots and revocation lists come first: our own new files are judged by them.
    pub(crate) fn renewed(&self, setup: &Setup, seen: Seen, now: UnixTime) -> Result<Renewal, TlsError> {
        let (mut next, mut refused) = (self.clone(), Vec::new());
        if self.roots_are_outdated_by(&seen, now) {
            match Roots::load(&setup.options.trust_root, Some(&self.trust_domain), now) {
                Ok(roots) => {
                    next.roots = or_same(&self.roots, roots);
                    next.seen.roots = seen.roots;
                }
                Err(error) => refused.push(error),
            }
        }
        if let (Some(path), Some(current)) = (&setup.options.crl, &self.crls)
            && self.seen.crls.is_outdated_by(&seen.crls)
        {
            match RevocationLists::load(path).map(|read| current.succeeded_by(read)) {
                Ok((lists, fault)) => {
                    next.crls = Some(or_same(current, lists));
                    // Files with a fault are looked at again, as those that were refused as a whole.
                    match fault {
                        None => next.seen.crls = seen.crls,
                        Some(error) => refused.push(error),
                    }
                }
                Err(error) => refused.push(error),
            }
        }
        let mut condemned = None;
        let trust_changed = !next.trusts_as(self);
        if trust_changed {
            next.server_verifier = client::verifier(&next.roots, next.crls.as_deref(), &setup.provider)?;
            next.good_until_unix_ms = good_until_unix_ms(next.crls.as_deref());
        }
        if self.seen.own.is_outdated_by(&seen.own) {
            match next.read_own(setup, now) {
                Ok(own) => {
                    next.own = or_same(&self.own, own);
                    next.seen.own = seen.own;
                }
                Err(error) => refused.push(error),
            }
        } else if trust_changed {
            let origin = Origin::File(setup.options.certificate.clone());
            let judge = next.judge(&setup.provider, now);
            condemned = judge.verify(&origin, &self.own.certified_key.cert, setup.usage).err();
        }
        if trust_changed || !Arc::ptr_eq(&next.own, &self.own) {
            next.generation += 1;
        }
        Ok(Renewal { credentials: next, refused, condemned })
    }

    fn read_own(&self, setup: &Setup, now: UnixTime) -> Result<Own, TlsError> {
        let (chain, key) = (read_chain(&setup.options)?, read_key(&setup.options)?);
        let own = Own::check(setup, &self.judge(&setup.provider, now), chain, &key)?;
        let (found, running) = (own.leaf.principal(), self.own.leaf.principal());
        if found == running {
            return Ok(own);
        }
        Err(TlsError::PrincipalChanged {
            path: setup.options.certificate.clone(),
            found: found.clone(),
            running: running.clone(),
        })
    }

    /// Whether both judge others by the same trust roots and revocation lists.
    fn trusts_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.roots, &other.roots)
            && self.crls.as_ref().map(Arc::as_ptr) == other.crls.as_ref().map(Arc::as_ptr)
    }

    /// Checks a client that connects to us.
    pub(crate) fn verify_client(
        &self,
        provider: &CryptoProvider,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<VerifiedLeaf, TlsError> {
        self.judge(provider, now).verify(&Origin::Peer, chain, Usage::Client)
    }

    /// Checks a server that we connect to, beyond what [`WebPkiServerVerifier`] has checked.
    pub(crate) fn check_server(&self, end_entity: &CertificateDer<'_>) -> Result<(), TlsError> {
        leaf::check_server(end_entity, &self.trust_domain)
    }

    fn judge<'a>(&'a self, provider: &'a CryptoProvider, now: UnixTime) -> Judge<'a> {
        Judge {
            algorithms: provider.signature_verification_algorithms.all,
            roots: &self.roots,
            crls: self.crls.as_deref(),
            trust_domain: Some(&self.trust_domain),
            now,
            expiration: ExpirationPolicy::Enforce,
        }
    }
}

impl Own {
    fn check(
        setup: &Setup,
        judge: &Judge<'_>,
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'_>,
    ) -> Result<Self, TlsError> {
        let options = &setup.options;
        let leaf = judge.verify(&Origin::File(options.certificate.clone()), &chain, setup.usage)?;
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(key)
            .map_err(|_| TlsError::UnusableKey { path: options.key.clone() })?;
        let certified_key = CertifiedKey::new(chain, key);
        certified_key.keys_match().map_err(|_| TlsError::KeyMismatch {
            key: options.key.clone(),
            certificate: options.certificate.clone(),
        })?;
        Ok(Self { certified_key: Arc::new(certified_key), leaf })
    }
}

impl PartialEq for Own {
    /// Whether the certificates are the same, and so is the key, which belongs to the first of them.
    fn eq(&self, other: &Self) -> bool {
        self.certified_key.cert == other.certified_key.cert
    }
}

fn good_until_unix_ms(crls: Option<&RevocationLists>) -> i64 {
    crls.map_or(i64::MAX, RevocationLists::good_until_unix_ms)
}

/// The value in use if the new one is the same, so that it can be told by its address that nothing has changed.
fn or_same<T: PartialEq>(current: &Arc<T>, new: T) -> Arc<T> {
    if **current == new { Arc::clone(current) } else { Arc::new(new) }
}

fn read_chain(options: &TlsOptions) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let (path, kind) = (&options.certificate, FileKind::Certificate);
    let contents = files::read(path, kind)?;
    if let (KeyPermissions::OwnerOnly, Some(mode)) = (options.key_permissions, contents.exposed())
        && pem::holds_private_key(&contents.bytes)
    {
        return Err(TlsError::KeyAmongCertificates { path: path.clone(), kind, mode });
    }
    pem::certificates(path, kind, &contents.bytes)
}

fn read_key(options: &TlsOptions) -> Result<Zeroizing<PrivateKeyDer<'static>>, TlsError> {
    let contents = files::read(&options.key, FileKind::PrivateKey)?;
    if let (KeyPermissions::OwnerOnly, Some(mode)) = (options.key_permissions, contents.exposed()) {
        return Err(TlsError::ExposedKey { path: options.key.clone(), mode });
    }
    pem::private_key(&options.key, &contents.bytes)
}

//! The mesh's root of trust: signs istiod's serving certificate, workloads' CSRs, and certificates for the pod.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use anyhow::Result;
use kit::pki::{Ca, of_names, of_workload, parse_request};
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyUsagePurpose, SanType};

pub use kit::pki::Credentials;

use crate::clock::Clock;

/// Clocks of VMs are never quite right; istiod backdates too.
const BACKDATED: Duration = Duration::from_secs(120);
const DAY: Duration = Duration::from_secs(86_400);

type Root = Arc<Ca>;

/// Self-signed roots: one, or during a rotation two. They are as old as those of a mesh in production.
#[derive(Debug)]
pub struct Pki {
    roots: RwLock<Roots>,
    clock: Arc<Clock>,
}

#[derive(Debug)]
struct Roots {
    trusted: Vec<Root>,
    signing: Root,
}

impl Default for Pki {
    fn default() -> Self {
        let signing = new_root();
        Self {
            roots: RwLock::new(Roots {
                trusted: vec![Arc::clone(&signing)],
                signing,
            }),
            clock: Arc::default(),
        }
    }
}

impl Pki {
    /// By which it dates what it signs from now on.
    pub fn clock(&self) -> &Arc<Clock> {
        &self.clock
    }

    /// The root certificates that are trusted.
    pub fn root_pem(&self) -> String {
        let roots = self.roots.read().unwrap_or_else(PoisonError::into_inner);
        roots.trusted.iter().map(|root| root.root_pem()).collect()
    }

    /// The root certificate that signs.
    pub fn signing_root_pem(&self) -> String {
        self.signing().root_pem()
    }

    /// First step of a rotation: another root is trusted beside the one that signs.
    pub fn add_root(&self) {
        self.change().trusted.push(new_root());
    }

    /// Second step: the newest root signs.
    pub fn use_newest_root(&self) {
        let mut roots = self.change();
        roots.signing = roots
            .trusted
            .last()
            .map_or_else(|| Arc::clone(&roots.signing), Arc::clone);
    }

    /// Last step: only the root that signs is trusted.
    pub fn drop_old_roots(&self) {
        let mut roots = self.change();
        roots.trusted = vec![Arc::clone(&roots.signing)];
    }

    fn change(&self) -> std::sync::RwLockWriteGuard<'_, Roots> {
        self.roots.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn signing(&self) -> Root {
        let roots = self.roots.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&roots.signing)
    }

    /// A serving certificate.
    pub fn issue_for_names(&self, names: &[&str]) -> Credentials {
        self.issue(of_names(names), BACKDATED, DAY)
    }

    /// A serving certificate of a server that has been up for a year.
    pub fn issue_for_names_long_ago(&self, names: &[&str]) -> Credentials {
        self.issue(of_names(names), 365 * DAY, 365 * DAY)
    }

    /// A workload certificate and its key.
    pub fn issue_for_workload(&self, spiffe_id: &str) -> Credentials {
        self.issue(of_workload(spiffe_id), BACKDATED, DAY)
    }

    /// A client's certificate as Kubernetes reads it: the user is the common name, each group an organisation.
    pub fn issue_for_user(&self, user: &str, groups: &[&str]) -> Credentials {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, user);
        for group in groups {
            params.distinguished_name.push(DnType::OrganizationName, *group);
        }
        self.issue(params, BACKDATED, DAY)
    }

    /// Signs a CSR for `spiffe_id`, whatever name it asks for, as istiod does; the leaf's PEM.
    pub fn sign(&self, csr_pem: &str, spiffe_id: &str, lifetime: Duration) -> Result<String> {
        let mut csr = parse_request(csr_pem)?;
        csr.params.subject_alt_names = vec![SanType::URI(spiffe_id.try_into()?)];
        // Envoy stays at the real time, whatever the clock of istiod and of the agent.
        let ahead = self.clock.now().duration_since(SystemTime::now()).unwrap_or_default();
        self.finish(&mut csr.params, BACKDATED + ahead, lifetime);
        Ok(self.signing().sign(&csr.params, &csr.public_key))
    }

    fn issue(&self, mut params: CertificateParams, before: Duration, after: Duration) -> Credentials {
        self.finish(&mut params, before, after);
        self.signing().issue(&params)
    }

    fn finish(&self, params: &mut CertificateParams, before: Duration, after: Duration) {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        // By which roots of one name are told apart.
        params.use_authority_key_identifier_extension = true;
        let now = self.clock.now();
        params.not_before = (now - before).into();
        params.not_after = (now + after).into();
    }
}

fn new_root() -> Root {
    Arc::new(Ca::new("cluster.local"))
}

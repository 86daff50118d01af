//! State of the stand-in: what it knows, records and is told to do. Shared by its services and the case.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use istio_api::ads::DEBUG;
use istio_api::nds::NAME_TABLE;
use istio_api::rpc::Any;
use tokio::sync::watch;

use super::caller::Caller;
use super::config::{Config, PeerAuthentication};
use super::endpoints::Endpoints;
use super::misconfiguration::Misconfiguration;
use super::token::{TokenClaims, TokenIssuer};
use crate::pki::Pki;

/// PILOT_WORKLOAD_ENTRY_GRACE_PERIOD.
const GRACE: Duration = Duration::from_secs(10);

/// A service of istiod.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Service {
    /// Aggregated discovery.
    Ads,
    /// Certificates.
    Ca,
}

/// Fault that the stand-in has from now on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// Each call ends with UNAVAILABLE.
    Refuse,
    /// No call ends.
    Hang,
    /// Answers are not what they claim to be.
    Garbage,
}

/// Means by which a caller proved who it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Authenticated {
    /// By the bootstrap token.
    Token,
    /// By its certificate.
    Certificate,
}

/// One CreateCertificate that was answered.
#[derive(Clone, Debug)]
pub struct CertificateCall {
    /// For whom.
    pub caller: Caller,
    /// Means by which the caller proved that.
    pub by: Authenticated,
    /// The `clusterid` header.
    pub cluster_id: Option<String>,
    /// Seconds it asked for.
    pub validity: i64,
}

/// A NACK.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Of this type.
    pub type_url: String,
    /// In Envoy's words.
    pub message: String,
}

/// An auto-registered VM.
#[derive(Clone, Debug)]
pub struct WorkloadEntry {
    /// First of INSTANCE_IPS.
    pub address: String,
    /// Account of the VM.
    pub caller: Caller,
    /// Streams that are open now.
    pub streams: usize,
    /// Every HealthInformation, `None` for healthy, else the reason.
    pub health: Vec<Option<String>>,
    /// True when it is to say that it is healthy before it is called.
    pub health_checked: bool,
    disconnected: Option<Instant>,
}

impl WorkloadEntry {
    /// The Healthy condition.
    pub fn healthy(&self) -> Option<bool> {
        self.health.last().map(Option::is_none)
    }
}

/// See the module.
#[derive(Debug)]
pub struct State {
    pub(crate) pki: Pki,
    pub(crate) tokens: TokenIssuer,
    inner: Mutex<Inner>,
    /// The configuration as it is served now.
    pub(super) config: watch::Sender<Config>,
    /// Counts the commands to drop all streams.
    pub(super) dropped: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    faults: BTreeMap<&'static str, Fault>,
    lifetime: Option<Duration>,
    certificates: Vec<CertificateCall>,
    streams_opened: usize,
    accepted: BTreeMap<String, usize>,
    refused: Vec<Refusal>,
    entries: BTreeMap<String, WorkloadEntry>,
    others: Endpoints,
    ignores_health: bool,
    withholds_names: bool,
    version: Option<String>,
    /// By the proxy's id, what `config_dump` tells of it.
    dumps: BTreeMap<String, String>,
}

/// The Istio that it is unless it is told: the one whose Envoy the tests have.
const VERSION: &str = "1.32.0";

/// Methods for cases.
impl State {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            pki: Pki::default(),
            tokens: TokenIssuer::new()?,
            inner: Mutex::default(),
            config: watch::Sender::new(Config::recorded()?),
            dropped: watch::Sender::new(0),
        })
    }

    /// The root certificate, PEM.
    pub fn root_pem(&self) -> String {
        self.pki.root_pem()
    }

    /// The mesh's roots, for a rotation; istiod takes them up when it is started again.
    pub fn pki(&self) -> &Pki {
        &self.pki
    }

    /// A token as its cluster's API server makes them.
    pub fn token(&self, claims: &TokenClaims) -> Result<String> {
        self.tokens.issue(claims)
    }

    /// Sets its clock to so many days from now; its serving certificate follows when istiod is started again.
    pub fn set_clock(&self, days_ahead: i64) {
        self.pki.clock().set(days_ahead);
    }

    /// Life of the certificates to be issued; a day by default.
    pub fn set_certificate_lifetime(&self, lifetime: Duration) {
        self.inner().lifetime = Some(lifetime);
    }

    /// Breaks a service, or mends it.
    pub fn set_fault(&self, service: Service, fault: Option<Fault>) {
        let mut inner = self.inner();
        match fault {
            Some(fault) => inner.faults.insert(key(service), fault),
            None => inner.faults.remove(key(service)),
        };
    }

    /// Answers no question for the name table, or does again.
    pub fn withhold_names(&self, withholds: bool) {
        self.inner().withholds_names = withholds;
    }

    /// Pushes the inbound configuration of this PeerAuthentication.
    pub fn set_peer_authentication(&self, mode: PeerAuthentication) {
        self.config.send_modify(|config| config.set_peer_authentication(mode));
    }

    /// Pushes the configuration with a fault in it, or without one.
    pub fn set_misconfiguration(&self, misconfiguration: Option<Misconfiguration>) {
        self.config
            .send_modify(|config| config.set_misconfiguration(misconfiguration));
    }

    /// Pushes these resources of a type, by name, beside the recorded ones and instead of those of the same name.
    pub fn add_resources(&self, type_url: &str, resources: BTreeMap<String, Bytes>) {
        self.config.send_modify(|config| config.set_added(type_url, resources));
    }

    /// Resources of a type that are served now, by name.
    pub fn resources(&self, type_url: &str) -> BTreeMap<String, Any> {
        self.config.borrow().resources(type_url)
    }

    /// Sets the version of Istio that it says it is.
    pub fn set_version(&self, version: &str) {
        self.inner().version = Some(version.to_owned());
    }

    /// Sets the answer of the debug interface's `config_dump` for a proxy (`POD.NAMESPACE`) from now on.
    pub fn set_dump(&self, proxy: &str, dump: &str) {
        self.inner().dumps.insert(proxy.to_owned(), dump.to_owned());
    }

    /// As istiod identifies itself.
    pub(super) fn identifier(&self) -> String {
        let version = self.inner().version.clone();
        let info = serde_json::json!({ "version": version.as_deref().unwrap_or(VERSION), "status": "Clean" });
        serde_json::json!({ "Component": "istiod", "ID": "e2e", "Info": info }).to_string()
    }

    /// Pushes a listener with a filter that only Istio's own Envoy knows, or takes it back.
    pub fn set_istio_filters(&self, on: bool) {
        self.config.send_modify(|config| config.set_istio_filters(on));
    }

    /// Adds an endpoint of productcatalogservice that is no VM of ours, and has no Envoy.
    pub fn add_endpoint(&self, address: &str) {
        self.inner().others.insert(address.to_owned(), false);
    }

    /// Calls VMs whatever they say of their health, as with PILOT_ENABLE_WORKLOAD_ENTRY_HEALTHCHECKS=false.
    pub fn ignore_health(&self) {
        self.inner().ignores_health = true;
    }

    /// Ends every open stream.
    pub fn drop_streams(&self) {
        self.dropped.send_modify(|count| *count += 1);
    }

    /// Certificates issued so far.
    pub fn certificates(&self) -> Vec<CertificateCall> {
        self.inner().certificates.clone()
    }

    /// ADS streams opened so far.
    pub fn streams_opened(&self) -> usize {
        self.inner().streams_opened
    }

    /// Registered VMs that have a stream now.
    pub fn connected(&self) -> usize {
        self.inner().entries.values().filter(|entry| entry.streams > 0).count()
    }

    /// ACKs so far for a type, by the last part of its name: `Listener`.
    pub fn accepted(&self, kind: &str) -> usize {
        let inner = self.inner();
        let of_kind = inner
            .accepted
            .iter()
            .filter(|(url, _)| url.ends_with(&format!(".{kind}")));
        of_kind.map(|(_, count)| count).sum()
    }

    /// NACKs so far.
    pub fn refused(&self) -> Vec<Refusal> {
        self.inner().refused.clone()
    }

    /// The registered VMs by name.
    pub fn entries(&self) -> BTreeMap<String, WorkloadEntry> {
        let mut inner = self.inner();
        inner
            .entries
            .retain(|_, entry| entry.disconnected.is_none_or(|at| at.elapsed() < GRACE));
        inner.entries.clone()
    }
}

/// Methods for its services.
impl State {
    /// The answers of the debug interface; of a proxy that it doesn't have, istiod's words.
    pub(super) fn debugged(&self, questions: &BTreeSet<String>) -> BTreeMap<String, Any> {
        let inner = self.inner();
        let answer = |question: &String| {
            let proxy = question.split(['=', '&']).nth(1).unwrap_or_default();
            let missing = || "Proxy not connected to this Pilot instance.".to_owned();
            let text = inner.dumps.get(proxy).cloned().unwrap_or_else(missing);
            let any = Any {
                type_url: DEBUG.to_owned(),
                value: text.into_bytes().into(),
            };
            (question.clone(), any)
        };
        questions.iter().map(answer).collect()
    }

    pub(super) fn fault(&self, service: Service) -> Option<Fault> {
        self.inner().faults.get(key(service)).copied()
    }

    /// True where a client gets no answer about a type.
    pub(super) fn withholds(&self, type_url: &str) -> bool {
        let is_nameless = self.inner().withholds_names && type_url == NAME_TABLE;
        is_nameless || self.fault(Service::Ads) == Some(Fault::Hang)
    }

    pub(super) fn certificate_lifetime(&self) -> Duration {
        self.inner().lifetime.unwrap_or(Duration::from_secs(86_400))
    }

    pub(super) fn record_certificate(&self, call: CertificateCall) {
        self.inner().certificates.push(call);
    }

    pub(super) fn record_answer(&self, type_url: &str, refusal: Option<String>) {
        let mut inner = self.inner();
        match refusal {
            None => *inner.accepted.entry(type_url.to_owned()).or_default() += 1,
            Some(message) => inner.refused.push(Refusal {
                type_url: type_url.to_owned(),
                message,
            }),
        }
    }

    pub(super) fn record_stream(&self) {
        self.inner().streams_opened += 1;
    }

    /// The endpoints of productcatalogservice.
    pub(super) fn endpoints(&self) -> Endpoints {
        let entries = self.entries().into_values();
        let inner = self.inner();
        let called = entries
            .filter(|entry| !entry.health_checked || inner.ignores_health || entry.healthy() == Some(true))
            .map(|entry| (entry.address, true));
        called.chain(inner.others.clone()).collect()
    }

    pub(super) fn push_endpoints(&self, endpoints: &Endpoints) {
        self.config
            .send_modify(|config| config.set_endpoints(endpoints.clone()));
    }

    pub(super) fn connect(&self, name: &str, address: &str, caller: &Caller, health_checked: bool) {
        let _ = self.entries();
        let mut inner = self.inner();
        let entry = inner.entries.entry(name.to_owned()).or_insert_with(|| WorkloadEntry {
            address: address.to_owned(),
            caller: caller.clone(),
            streams: 0,
            health: Vec::new(),
            health_checked,
            disconnected: None,
        });
        entry.streams += 1;
        entry.disconnected = None;
    }

    /// `noticed`: by an istiod that lives; a killed one's entries stay as they are until the VM is back.
    pub(super) fn disconnect(&self, name: &str, noticed: bool) {
        if let Some(entry) = self.inner().entries.get_mut(name) {
            entry.streams -= 1;
            if entry.streams == 0 && noticed {
                entry.disconnected = Some(Instant::now());
            }
        }
    }

    pub(super) fn record_health(&self, name: &str, problem: Option<String>) {
        if let Some(entry) = self.inner().entries.get_mut(name) {
            entry.health.push(problem);
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(service: Service) -> &'static str {
    match service {
        Service::Ads => "ads",
        Service::Ca => "ca",
    }
}

//! Faults, each put into the state of a VM that is well, as recorded in a mesh of a real istiod: the cause that is named
//! is the one that was put in.

mod inbound;
mod upstream;

use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use super::cause::Cause;
use super::connection::Connection;
use super::fixtures::well;
use super::*;
use crate::envoy::view::Dump;
use crate::facts::{ByWorkload, ContainerState, EnvoyState, InterceptState, Nack, ProbeState};
use crate::intercept::{Exception, Trace};
use inbound::INBOUND;
use upstream::swallowed;

const DUMP: &str = include_str!("../../../tests/golden/proxy/config_dump.json");
const CLUSTERS: &str = include_str!("../../../tests/golden/proxy/clusters.json");
const CART: &str = "outbound|7070||cartservice.onlineboutique.svc.cluster.local";
const MANAGER: &str = "envoy.filters.network.http_connection_manager";

/// The documents of Envoy and all else, before they are read.
struct World {
    dump: Value,
    clusters: Value,
    state: State,
}

impl World {
    fn asked(target: &str) -> Self {
        Self {
            dump: serde_json::from_str(DUMP).unwrap(),
            clusters: serde_json::from_str(CLUSTERS).unwrap(),
            state: well(target),
        }
    }

    /// The items of a kind of a dump.
    fn items(&mut self, kind: &str) -> &mut Vec<Value> {
        let sections = self.dump["configs"].as_array_mut().unwrap();
        let section = sections.iter_mut().find(|section| section.get(kind).is_some()).unwrap();
        section[kind].as_array_mut().unwrap()
    }

    fn listener(&mut self, name: &str) -> &mut Value {
        let mut all = self.items("dynamic_listeners").iter_mut();
        let item = all.find(|item| item["name"] == name).unwrap();
        &mut item["active_state"]["listener"]
    }

    fn cluster(&mut self) -> &mut Value {
        let mut all = self.items("dynamic_active_clusters").iter_mut();
        &mut all.find(|item| item["cluster"]["name"] == CART).unwrap()["cluster"]
    }

    fn host(&mut self) -> &mut Value {
        let all = self.clusters["cluster_statuses"].as_array_mut().unwrap();
        let cart = all.iter_mut().find(|it| it["name"] == CART).unwrap();
        &mut cart["host_statuses"][0]
    }

    fn stat(&mut self, name: &str, value: &str) {
        let stats = self.host()["stats"].as_array_mut().unwrap();
        stats.iter_mut().find(|stat| stat["name"] == name).unwrap()["value"] = value.into();
    }

    fn route(&mut self) -> &mut Value {
        let mut all = self.items("dynamic_route_configs").iter_mut();
        let routes = all.find(|it| it["route_config"]["name"] == "7070").unwrap();
        &mut routes["route_config"]["virtual_hosts"][0]["routes"][0]
    }

    /// The chains of 15006 for 3550.
    fn inbound_chains(&mut self) -> Vec<&mut Value> {
        let chains = self.listener("virtualInbound")["filter_chains"].as_array_mut().unwrap();
        let of_port = |it: &&mut Value| it["filter_chain_match"]["destination_port"] == 3550;
        chains.iter_mut().filter(of_port).collect()
    }

    fn add_rbac(&mut self, rules: &Value) {
        for chain in self.inbound_chains() {
            let manager = &mut chain["filters"][0];
            assert_eq!(manager["name"], MANAGER);
            let filters = manager["typed_config"]["http_filters"].as_array_mut().unwrap();
            filters.insert(
                0,
                json!({"name": "envoy.filters.http.rbac", "typed_config": {"rules": rules}}),
            );
        }
    }

    fn remove(&mut self, kind: &str, name: &str) {
        let key = |item: &Value| {
            let places = ["/name", "/cluster/name", "/route_config/name"];
            places.iter().any(|at| item.pointer(at).is_some_and(|it| it == name))
        };
        self.items(kind).retain(|item| !key(item));
    }

    /// The kernel has none of the rules that are wanted.
    fn without_rules(&mut self) {
        let rules = self.state.rules.as_mut().unwrap();
        (rules.any_in, rules.difference) = (false, vec!["+table inet".to_owned()]);
    }

    fn trace(&mut self) -> &mut Trace {
        self.state.rules.as_mut().unwrap().traces.last_mut().unwrap()
    }

    fn explained(mut self) -> Chain {
        let dump = Dump::parse(&self.dump.to_string()).unwrap();
        let statuses = serde_json::from_value(self.clusters).unwrap();
        if self.state.envoy.is_ok() {
            self.state.envoy = Ok(collect::envoy(&dump, statuses));
        }
        // What is collected can be kept, and says the same again.
        let kept = serde_json::to_string(&self.state).unwrap();
        explain(&serde_json::from_str(&kept).unwrap())
    }
}

type Spoil = fn(&mut World);

/// Faults of calls from the VM to cartservice, port 7070.
const OUTBOUND: &[(Cause, &str, Spoil)] = &[
    (Cause::UnknownName, "a name with a slip in it", |it| {
        it.state.question.target = "cartsevice:7070".parse().unwrap();
    }),
    (Cause::UnknownName, "a name that the mesh has not", |it| {
        it.state.question.target = "example.org:443".parse().unwrap();
    }),
    (Cause::UnknownName, "no names yet", |it| it.state.resolver.table = None),
    (Cause::HostsFile, "a line of /etc/hosts", |it| {
        it.state.resolver.hosts = vec!["10.1.1.1".parse().unwrap()];
    }),
    (Cause::DnsNotCaptured, "DNS is not captured", |it| {
        it.state.resolver.captured = false;
    }),
    (Cause::ForeignResolver, "nss-resolve", |it| {
        it.state.resolver.past_dns = true;
    }),
    (Cause::ForeignResolver, "another name server", |it| {
        it.state.rules.as_mut().unwrap().traces[0].redirected = None;
    }),
    (Cause::ForeignResolver, "no name server", |it| {
        it.state.resolver.servers.clear();
        it.state.rules.as_mut().unwrap().traces.remove(0);
    }),
    (Cause::DnsDown, "nobody on 15053", |it| it.state.resolver.served = false),
    (Cause::RulesMissing, "all rules gone", |it| {
        it.without_rules();
    }),
    (Cause::RulesDiffer, "one rule gone", |it| {
        let lines = ["-comment \"a\"", "+comment \"b\"", "+tcp dport 3550"];
        it.state.rules.as_mut().unwrap().difference = lines.map(str::to_owned).to_vec();
    }),
    (Cause::RulesDiffer, "a whole table gone, and another one in", |it| {
        it.state.rules.as_mut().unwrap().difference = vec!["+table bridge".to_owned()];
    }),
    (Cause::RulesFailed, "rules that the kernel refuses", |it| {
        it.without_rules();
        let error = "no nft".to_owned();
        it.state.agent.interception = InterceptState::Failed { error };
    }),
    (Cause::AgentDown, "no agent, and no rules", |it| {
        it.without_rules();
        it.state.agent.silent = Some("not running".to_owned());
        it.state.envoy = Err("no socket".to_owned());
    }),
    (Cause::AgentDown, "a VM that has joined no mesh", |it| {
        it.state.resolver.table = None;
        it.state.rules = Err("there is no bundle".to_owned());
        it.state.agent.silent = Some("not running".to_owned());
        it.state.envoy = Err("no socket".to_owned());
    }),
    (Cause::ExcludedAddress, "an excluded network", |it| {
        except(it, Exception::Address);
    }),
    (Cause::ExcludedPort, "an excluded port", |it| {
        except(it, Exception::Port);
    }),
    (Cause::OwnAddress, "an address that is this VM's", |it| {
        except(it, Exception::Own);
    }),
    (Cause::ExcludedOwner, "an excluded group", |it| {
        except(it, Exception::Owner);
    }),
    (Cause::ExcludedInterface, "an excluded interface", |it| {
        except(it, Exception::Interface);
    }),
    (Cause::NotIncluded, "a network that is not captured", |it| {
        it.trace().redirected = None;
    }),
    (Cause::Firewall, "a firewall behind programs", |it| {
        it.state.closed = Ok((vec![15001], vec!["ufw allow out to 127.0.0.0/8".to_owned()]));
    }),
    (Cause::EnvoyDown, "Envoy dead", |it| {
        it.state.envoy = Err("no socket".to_owned());
        let reason = "signal: 9 (SIGKILL)".to_owned();
        it.state.agent.envoy = EnvoyState::Down { reason };
    }),
    (Cause::EnvoyDown, "Envoy dead, and the rules out for it", |it| {
        it.state.envoy = Err("no socket".to_owned());
        let reason = "Envoy is down".to_owned();
        it.state.agent.interception = InterceptState::Open { reason };
        it.without_rules();
    }),
    (Cause::EnvoyUnconfigured, "Envoy without a configuration", |it| {
        for kind in ["dynamic_listeners", "dynamic_active_clusters", "dynamic_route_configs"] {
            it.items(kind).clear();
        }
    }),
    (Cause::EnvoyDraining, "Envoy that is drained", |it| {
        it.state.agent.envoy = EnvoyState::Draining { pid: 7 }
    }),
    (Cause::Nack, "a listener that Envoy refused", |it| {
        it.remove("dynamic_listeners", "0.0.0.0_7070");
        nack(
            it,
            "Listener",
            "Error adding/updating listener(s) 0.0.0.0_7070: unknown filter",
        );
    }),
    (Cause::Nack, "an update that Envoy refused", |it| {
        nack(it, "Cluster", "bad cluster");
    }),
    (Cause::Nack, "routes that Envoy refused", |it| {
        it.remove("dynamic_route_configs", "7070");
        nack(it, "RouteConfiguration", "7070: bad regex");
    }),
    (Cause::Nack, "a cluster that Envoy refused, by its own word", |it| {
        it.remove("dynamic_active_clusters", CART);
        let refused = json!({"error_state": {"details": "bad TLS", "failed_configuration": {"name": CART}}});
        it.items("dynamic_active_clusters").push(refused);
    }),
    (Cause::WrongPort, "a port that no Service has", |it| {
        it.state.question.target = "cartservice:7071".parse().unwrap();
    }),
    (Cause::WrongPort, "a port that another Service has", |it| {
        it.state.question.target = "cartservice:3550".parse().unwrap();
    }),
    (Cause::RegistryOnly, "an address outside, and REGISTRY_ONLY", |it| {
        it.state.question.target = "192.0.2.7:443".parse().unwrap();
        for chain in it.listener("virtualOutbound")["filter_chains"].as_array_mut().unwrap() {
            chain["filters"][0]["typed_config"]["cluster"] = "BlackHoleCluster".into();
        }
    }),
    (Cause::RouteMissing, "no routes", |it| {
        it.remove("dynamic_route_configs", "7070");
    }),
    (Cause::NoVirtualHost, "a virtual host of another name", |it| {
        let mut all = it.items("dynamic_route_configs").iter_mut();
        let routes = all.find(|it| it["route_config"]["name"] == "7070").unwrap();
        routes["route_config"]["virtual_hosts"][0]["domains"] = json!(["other"]);
    }),
    (Cause::NoRoute, "a route for another path", |it| {
        it.state.question.target = "cartservice:7070/basket".parse().unwrap();
        it.route()["match"] = json!({"prefix": "/shop"});
    }),
    (Cause::DirectResponse, "an answer in place of a call", |it| {
        let route = it.route();
        route.as_object_mut().unwrap().remove("route");
        route["direct_response"] = json!({"status": 503});
    }),
    (Cause::Redirect, "a redirect", |it| {
        let route = it.route();
        route.as_object_mut().unwrap().remove("route");
        route["redirect"] = json!({"host_redirect": "elsewhere"});
    }),
    (Cause::FaultAbort, "an injected abort of half of the calls", |it| {
        let abort = json!({"http_status": 555, "percentage": {"numerator": 50}});
        it.route()["typed_per_filter_config"] = json!({"envoy.filters.http.fault": {"abort": abort}});
    }),
    (Cause::FaultDelay, "an injected delay", |it| {
        let delay = json!({"fixed_delay": "7s", "percentage": {"numerator": 1_000_000, "denominator": "MILLION"}});
        it.route()["typed_per_filter_config"] = json!({"envoy.filters.http.fault": {"delay": delay}});
    }),
    (Cause::NoCluster, "a subset that does not exist", |it| {
        it.route()["route"]["cluster"] = "outbound|7070|v2|cartservice.onlineboutique.svc.cluster.local".into();
    }),
    (Cause::PlaintextToMtls, "TLS turned off", |it| {
        it.cluster().as_object_mut().unwrap().remove("transport_socket_matches");
    }),
    (Cause::MtlsToPlaintext, "mTLS to an endpoint without a proxy", |it| {
        let socket = it.cluster()["transport_socket_matches"][0]["transport_socket"].clone();
        let cluster = it.cluster();
        cluster.as_object_mut().unwrap().remove("transport_socket_matches");
        cluster["transport_socket"] = socket;
        for item in it.items("dynamic_endpoint_configs") {
            if let Some(endpoint) = item.pointer_mut("/endpoint_config/endpoints/0/lb_endpoints/0") {
                endpoint["metadata"] = json!({});
            }
        }
        it.stat("cx_connect_fail", "3");
    }),
    (Cause::CertificateMissing, "no certificate", |it| {
        it.remove("dynamic_active_secrets", "default");
    }),
    (Cause::CertificateExpired, "a certificate that is over", |it| {
        it.state.now += Duration::from_secs(9 * 86_400);
    }),
    (Cause::Clock, "a clock that is late", |it| {
        it.state.now -= Duration::from_secs(9 * 86_400);
    }),
    (Cause::CircuitOpen, "a circuit breaker of one request", |it| {
        it.cluster()["circuit_breakers"]["thresholds"][0]["max_requests"] = 2.into();
        it.stat("rq_active", "2");
    }),
    (Cause::NoEndpoint, "no endpoint", |it| {
        let all = it.clusters["cluster_statuses"].as_array_mut().unwrap();
        let cart = all.iter_mut().find(|it| it["name"] == CART).unwrap();
        cart.as_object_mut().unwrap().remove("host_statuses");
    }),
    (Cause::EndpointsUnhealthy, "endpoints that are not ready", |it| {
        it.host()["health_status"]["eds_health_status"] = "UNHEALTHY".into();
    }),
    (Cause::Ejected, "an ejected host", |it| {
        it.host()["health_status"]["failed_outlier_check"] = true.into();
    }),
    (Cause::Unreachable, "an endpoint that nobody gets to", |it| {
        it.stat("cx_connect_fail", "4");
        it.stat("cx_total", "4");
        it.stat("cx_active", "0");
    }),
    (Cause::Unreachable, "a way that swallows packets", swallowed),
    (Cause::Unreachable, "a bridge that has the endpoints' network", |it| {
        swallowed(it);
        it.stat("cx_connect_fail", "0");
        let cart = "10.200.0.4".parse().unwrap();
        it.state.bridged.insert(cart, "docker0".to_owned());
    }),
];

/// A mesh may have Envoy listen elsewhere (`proxyInboundListenPort`).
#[test]
fn listener_for_calls_in_is_the_one_that_the_mesh_has() {
    let moved = |known: Option<u16>| {
        let mut world = World::asked("10.200.0.4:40000->:3550");
        world.listener("virtualInbound")["address"]["socket_address"]["port_value"] = 16006.into();
        world.state.vm.inbound_listener = known;
        connected(&mut world, 16006);
        world
    };
    let chain = moved(Some(16006)).explained();
    assert!(chain.decision().is_none(), "{}", shown(":3550", &chain));
    assert!(shown(":3550", &chain).contains("ESTABLISHED, with Envoy's port 16006"));
    assert!(moved(None).explained().decision().is_some());
}

fn connected(world: &mut World, answering: u16) {
    world.state.connection = Some(Ok(Some(Connection {
        tcp: "ESTABLISHED".to_owned(),
        unreplied: false,
        answered_by: ([10, 200, 0, 3], answering).into(),
    })));
}

#[test]
fn connection_that_is_asked_about_is_told_as_conntrack_has_it() {
    let mut world = World::asked("10.200.0.4:40000->:3550");
    connected(&mut world, 15006);
    let chain = world.explained();
    assert!(chain.decision().is_none());
    assert!(shown(":3550", &chain).contains("10.200.0.4:40000 is ESTABLISHED, with Envoy's port 15006"));
    let mut world = World::asked("10.200.0.4:40000->:3550");
    world.state.connection = Some(Ok(None));
    assert!(shown(":3550", &world.explained()).contains("no connection of 10.200.0.4:40000"));
}

#[test]
fn port_that_nobody_in_the_mesh_calls_is_told_to_be_past_envoy_and_is_no_fault() {
    let mut world = World::asked(":22");
    world.trace().redirected = None;
    let chain = world.explained();
    let step = chain.decision().unwrap();
    assert_eq!((step.level, step.cause), (Level::Suspect, Some(Cause::PortNotCaptured)));
    assert!(step.evidence.contains("captured are 3550"), "{}", step.evidence);
}

fn except(world: &mut World, exception: Exception) {
    let trace = world.trace();
    (trace.redirected, trace.exception) = (None, Some(exception));
}

fn nack(world: &mut World, kind: &str, message: &str) {
    world.state.agent.xds.nacks.push(Nack {
        kind: kind.to_owned(),
        message: message.to_owned(),
        at: UNIX_EPOCH,
    });
}

/// Makes mTLS STRICT as istiod does: the chains without TLS are gone.
fn strict(world: &mut World) {
    let chains = world.listener("virtualInbound")["filter_chains"]
        .as_array_mut()
        .unwrap();
    chains.retain(|chain| chain.get("transport_socket").is_some() || chain["name"] == "virtualInbound-blackhole");
}

fn allow_frontend() -> Value {
    let id =
        json!({"authenticated": {"principal_name": {"exact": "spiffe://cluster.local/ns/onlineboutique/sa/frontend"}}});
    let principals = json!([{"and_ids": {"ids": [{"or_ids": {"ids": [id]}}]}}]);
    let permissions = json!([{"and_rules": {"rules": [{"any": true}]}}]);
    let policy = json!({"permissions": permissions, "principals": principals});
    json!({"policies": {"ns[onlineboutique]-policy[frontend]-rule[0]": policy}})
}

#[test]
fn vm_that_is_well_has_no_fault_either_way() {
    for target in [
        "cartservice:7070",
        "cartservice:7070/shop.Cart/Get",
        "->:3550",
        "10.200.0.4->:3550",
        "192.0.2.7:443",
    ] {
        let chain = World::asked(target).explained();
        assert!(chain.decision().is_none(), "{target}: {}", shown(target, &chain));
    }
}

#[test]
fn fault_is_named_first() {
    let outbound = OUTBOUND.iter().map(|fault| ("cartservice:7070", fault));
    let inbound = INBOUND.iter().map(|fault| ("->:3550", fault));
    let mut wrong = Vec::new();
    for (target, (cause, what, spoil)) in outbound.chain(inbound) {
        let mut world = World::asked(target);
        spoil(&mut world);
        let chain = world.explained();
        if chain.decision().and_then(|step| step.cause) != Some(*cause) {
            wrong.push(format!("{what}, {}: {}", cause.name(), shown(target, &chain)));
        }
    }
    assert!(OUTBOUND.len() + INBOUND.len() >= 40);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn shown(target: &str, chain: &Chain) -> String {
    text::render(&target.parse().unwrap(), chain, Paint::PLAIN)
}

#[test]
fn failure_in_the_access_log_counts_where_this_vm_says_no_more() {
    let line = r#"[2026-11-26T18:00:00.1Z] "POST /a HTTP/2" 504 UT response_timeout - "-" 0 0 12 - "-" "x" "id" "cartservice:7070" "10.200.0.4:7070" outbound|7070||cartservice.onlineboutique.svc.cluster.local - 10.96.186.61:7070 10.200.0.3:40000 - default"#;
    let mut world = World::asked("cartservice:7070");
    world.state.question.error = access_log::last_error(line);
    let chain = world.explained();
    assert_eq!(chain.decision().unwrap().cause, Some(Cause::Timeout));
}

#[test]
fn policies_are_named_where_the_caller_is_not_known() {
    let mut world = World::asked("->:3550");
    world.add_rbac(&allow_frontend());
    let text = shown("->:3550", &world.explained());
    for words in [
        "AuthorizationPolicy onlineboutique/frontend (rule 0)",
        "sa/frontend",
        "--principal",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a document of the repository")]
fn document_has_a_row_for_each_cause() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/explain.md");
    let text = std::fs::read_to_string(path).unwrap();
    let rows = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let rows: Vec<&str> = rows.map(|(name, _)| name).collect();
    let causes: Vec<&str> = Cause::ALL.iter().map(|cause| cause.name()).collect();
    assert_eq!(rows, causes);
}

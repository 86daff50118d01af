//! What a configuration may not say, and what stands beside it.

use super::*;

const CONTAINER: &str = "[workload.container]\nname = \"web\"\nimage = \"web:1\"\n";

/// What is added to config.toml after its two lines, and what the error must begin with and hold.
const KEYS: &[(&str, &str, &str)] = &[
    (
        "[log]\nlevel = 'warning'",
        "c.toml:4:1: log.level = ",
        "did you mean \"warn\"",
    ),
    (
        "[log]\nlevel = 'verbose'",
        "c.toml:4:1: log.level = ",
        "error, warn, info, debug, trace",
    ),
    (
        "[log]\nlevel = 'info,=,,x=='",
        "c.toml:4:1: log.level = ",
        "\"=\" is no level",
    ),
    ("[log]\nlevel = ''", "c.toml:4:1: log.level = ", "is no level"),
    (
        "[log]\nlevel = 'hyper'",
        "c.toml:4:1: log.level = ",
        "\"hyper\" is no level",
    ),
    (
        "[log]\nlevel = 'info,hyper=loud'",
        "c.toml:4:1: log.level = ",
        "\"hyper=loud\"",
    ),
    (
        "[log]\nlevel = 'info, hyper=warn'",
        "c.toml:4:1: log.level = ",
        "\" hyper=warn\"",
    ),
    (
        "[network]\naddress = '127.0.0.1'",
        "c.toml:4:1: network.address = ",
        "loopback",
    ),
    (
        "[network]\naddress = '0.0.0.0'",
        "c.toml:4:1: network.address = ",
        "no address",
    ),
    (
        "[network]\naddress = '0.1.2.3'",
        "c.toml:4:1: network.address = ",
        "such as \"10.200.0.3\"",
    ),
    (
        "[network]\naddress = '::'",
        "c.toml:4:1: network.address = ",
        "no address",
    ),
    (
        "[network]\naddress = '::1'",
        "c.toml:4:1: network.address = ",
        "loopback",
    ),
    (
        "[network]\naddress = '::ffff:127.0.0.1'",
        "c.toml:4:1: network.address = ",
        "loopback",
    ),
    (
        "[network]\naddress = '224.0.0.1'",
        "c.toml:4:1: network.address = ",
        "multicast",
    ),
    (
        "[network]\naddress = 'ff02::1'",
        "c.toml:4:1: network.address = ",
        "multicast",
    ),
    (
        "[network]\naddress = '255.255.255.255'",
        "c.toml:4:1: network.address = ",
        "broadcast",
    ),
    (
        "[network]\naddress = '169.254.1.1'",
        "c.toml:4:1: network.address = ",
        "link-local",
    ),
    (
        "[network]\naddress = 'fe80::1'",
        "c.toml:4:1: network.address = ",
        "link-local",
    ),
    (
        "[network]\nname = 'my vm'",
        "c.toml:4:1: network.name = ",
        "letters, digits",
    ),
    ("[network]\nname = ''", "c.toml:4:1: network.name = ", "1 to 253"),
    (
        "[identity]\nttl = '1s'",
        "c.toml:4:1: identity.ttl = ",
        "\"10m\" or longer",
    ),
    (
        "[identity]\nttl = '0s'",
        "c.toml:4:1: identity.ttl = ",
        "\"10m\" or longer",
    ),
    (
        "[envoy]\nadmin_port = 0",
        "c.toml:4:1: envoy.admin_port = 0",
        "such as 15000",
    ),
    (
        "[envoy]\nadmin_port = 15001",
        "c.toml:4:1: envoy.admin_port = 15001",
        "the mesh's own",
    ),
    (
        "[envoy]\nadmin_port = 15020",
        "c.toml:4:1: envoy.admin_port = 15020",
        "the mesh's own",
    ),
    (
        "[envoy]\nadmin_port = 15053",
        "c.toml:4:1: envoy.admin_port = 15053",
        "the mesh's own",
    ),
    (
        "[envoy]\nlog_level = 'loud'",
        "c.toml:4:1: envoy.log_level = ",
        "warning",
    ),
    (
        "[envoy]\nconcurrency = 0",
        "c.toml:4:1: envoy.concurrency = 0",
        "absent",
    ),
    ("[envoy]\nconcurrency = 100000", "c.toml:4:1: envoy.concurrency", "1024"),
    (
        "[envoy]\nrestart_budget = 0",
        "c.toml:4:1: envoy.restart_budget",
        "at least 1",
    ),
    (
        "[envoy]\ndocker_socket = 'docker.sock'",
        "c.toml:4:1: envoy.docker_socket",
        "absolute",
    ),
    (
        "[control_plane]\naddresses = ['https://a:15012']",
        "c.toml:4:1: control_plane.addresses",
        "host:port",
    ),
    (
        "[control_plane]\naddresses = ['istiod a:15012']",
        "c.toml:4:1: control_plane.addresses",
        "host:port",
    ),
    (
        "[control_plane]\naddresses = ['fd00::2:15012']",
        "c.toml:4:1: control_plane.addresses",
        "[fd00::2]:15012",
    ),
    (
        "[control_plane]\naddresses = ['a']",
        "c.toml:4:1: control_plane.addresses",
        "host:port",
    ),
    (
        "[control_plane]\naddresses = ['a:15010']",
        "c.toml:4:1: control_plane.addresses",
        "use 15012",
    ),
    (
        "[control_plane]\nreturn_after = '0s'",
        "c.toml:4:1: control_plane.return_after",
        "\"1m\"",
    ),
    ("[paths]\nstate = 'state'", "c.toml:4:1: paths.state", "absolute"),
    ("[paths]\nstate = '/'", "c.toml:4:1: paths.state", "such as"),
    ("[paths]\nrun = '/run'", "c.toml:4:1: paths.run", "/run/istio-vm-agent"),
    (
        "[paths]\nstate = '/etc/'",
        "c.toml:4:1: paths.state",
        "/var/lib/istio-vm-agent",
    ),
    ("[paths]\nrun = '/run/a/../b'", "c.toml:4:1: paths.run", "such as"),
    (
        "[paths]\nstate = '/s/a'\nrun = '/s/a/'",
        "c.toml:5:1: paths.run",
        "neither may be in the other",
    ),
    (
        "[paths]\nstate = '/s/a'\nrun = '/s/a/run'",
        "c.toml:5:1: paths.run",
        "neither may be in the other",
    ),
    (
        "[paths]\nrun = '/run/0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567'",
        "c.toml:4:1: paths.run",
        "at most 107",
    ),
    (
        "[envoy]\nadmin_port = 70000",
        "c.toml:4:14: envoy.admin_port: ",
        "0 to 65535",
    ),
    (
        "[envoy]\nadmin_port = '15000'",
        "c.toml:4:14: envoy.admin_port: ",
        "0 to 65535",
    ),
    (
        "[intercept]\non_envoy_down = 'closed'",
        "c.toml:4:17: intercept.on_envoy_down: ",
        "a table of keys",
    ),
    ("[identity]\nttl = 24", "c.toml:4:7: identity.ttl: ", "duration"),
    (
        "[network]\nadress = '10.0.0.1'",
        "c.toml:4:1: network.adress: ",
        "`address`",
    ),
    ("[envoy\n", "c.toml:3:", ""),
    (
        "kubernetes = { namespace = 'a' }",
        "c.toml:",
        "join: names more than one source",
    ),
    ("[health.probe]\ntcp = { port = 0 }", "c.toml", "port 0"),
    ("[health.probe]\ntcp = { port = 15006 }", "c.toml", "port 15006"),
    (
        "[health.probe]\nhttp = { port = 80, path = 'healthz' }",
        "c.toml",
        "\"/healthz\"",
    ),
    (
        "[health.probe]\nhttp = { port = 80, headers = { 'a b' = '1' } }",
        "c.toml",
        "\"a b\"",
    ),
];

/// What is added to the container's table, which begins in line 3.
const CONTAINER_KEYS: &[(&str, &str, &str)] = &[
    ("ports = ['0:80']", "c.toml", "0:80"),
    ("ports = ['15001:80']", "c.toml:6:1: workload.container.ports", "15001"),
    ("ports = ['15006:80']", "c.toml:6:1: workload.container.ports", "15006"),
    ("ports = ['15007:80']", "c.toml:6:1: workload.container.ports", "15007"),
    ("ports = ['15020:80']", "c.toml:6:1: workload.container.ports", "15020"),
    ("ports = ['15021:80']", "c.toml:6:1: workload.container.ports", "15021"),
    ("ports = ['15053:80']", "c.toml:6:1: workload.container.ports", "15053"),
    ("ports = ['15090:80']", "c.toml:6:1: workload.container.ports", "15090"),
    (
        "ports = ['80:80', '80:81']",
        "c.toml:6:1: workload.container.ports",
        "there twice",
    ),
    ("env = { 'A=B' = '1' }", "c.toml:6:1: workload.container.env", "A=B"),
    ("env = { '' = '1' }", "c.toml:6:1: workload.container.env", "not empty"),
    (
        "docker_socket = 'unix.sock'",
        "c.toml:6:1: workload.container.docker_socket",
        "absolute",
    ),
];

#[test]
fn what_a_configuration_may_not_say_is_refused_with_its_place() {
    let rows = KEYS.iter().map(|row| (MINIMAL.to_owned(), row));
    let rows = rows.chain(CONTAINER_KEYS.iter().map(|row| (format!("{MINIMAL}{CONTAINER}"), row)));
    for (before, (text, begins, holds)) in rows {
        let said = Config::parse(Path::new("c.toml"), &format!("{before}{text}\n"));
        let error = said.expect_err(text).to_string();
        assert!(error.starts_with(begins) && error.contains(holds), "{text}: {error}");
    }
}

#[test]
fn what_stands_beside_what_is_refused_is_taken() {
    for text in [
        "[log]\nlevel = 'warn'",
        "[log]\nlevel = 'INFO,istio_vm_agent::xds=debug,h2=off'",
        "[network]\naddress = '10.200.0.3'\nname = 'vm-1.example'",
        "[network]\naddress = '34.1.2.3'",
        "[network]\naddress = 'fd00:200::3'",
        "[identity]\nttl = '10m'",
        "[identity]\nttl = '2160h'",
        "[envoy]\nadmin_port = 15000\nconcurrency = 1\nrestart_budget = 1",
        "[control_plane]\naddresses = ['istiod.istio-system.svc:15012', '10.0.0.1:443', '[fd00::2]:15012']",
        "[paths]\nstate = '/s/a'\nrun = '/s/ab'",
        "[paths]\nrun = '/run/istio-vm-agent/'",
        "[health.probe]\nhttp = { port = 8080, path = '/healthz?a=b', headers = { X-Probe = 'a b' } }",
    ] {
        Config::parse(Path::new("c.toml"), &format!("{MINIMAL}{text}\n")).expect(text);
    }
}

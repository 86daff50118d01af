use super::*;

/// One edit each: file, what is replaced, by what, what the error must say.
const BROKEN: [(&str, &str, &str, &[&str]); 28] = [
    (
        "cluster.env",
        "'3550'\n",
        "'3550\n",
        &["/b/cluster.env:3:1: ISTIO_INBOUND_PORTS: unterminated '"],
    ),
    (
        "cluster.env",
        "='cluster.local'",
        "='cluster",
        &["/b/cluster.env:18:1: TRUST_DOMAIN: unterminated '"],
    ),
    (
        "cluster.env",
        "TRUST_DOMAIN='cluster.local'\n",
        "",
        &["/b/cluster.env: TRUST_DOMAIN: is missing", "truncated"],
    ),
    (
        "cluster.env",
        "SERVICE_ACCOUNT='productcatalog'\n",
        "",
        &["/b/cluster.env: SERVICE_ACCOUNT: is missing"],
    ),
    (
        "cluster.env",
        "POD_NAMESPACE='onlineboutique'\n",
        "",
        &["/b/cluster.env: POD_NAMESPACE: is missing"],
    ),
    (
        "cluster.env",
        "ISTIO_INBOUND_PORTS='3550'\n",
        "",
        &["/b/cluster.env: ISTIO_INBOUND_PORTS: is missing", "'*'"],
    ),
    (
        "cluster.env",
        "'3550'",
        "'3550,http'",
        &["/b/cluster.env:3:1: ISTIO_INBOUND_PORTS: \"http\" is not a port"],
    ),
    (
        "cluster.env",
        "'22,",
        "'22;",
        &["/b/cluster.env:4:1: ISTIO_LOCAL_EXCLUDE_PORTS: \"22;15090\""],
    ),
    (
        "cluster.env",
        "DNS_CAPTURE='true'",
        "DNS_CAPTURE='yes'",
        &["/b/cluster.env:8:1: ISTIO_META_DNS_CAPTURE: \"yes\""],
    ),
    (
        "cluster.env",
        "ACCOUNT='productcatalog'",
        "ACCOUNT='other'",
        &[
            "/b/cluster.env:17:1: SERVICE_ACCOUNT",
            "\"other\" here",
            "\"productcatalog\" in /b/mesh.yaml:15",
        ],
    ),
    (
        "cluster.env",
        "DOMAIN='cluster.local'",
        "DOMAIN='a.b'",
        &["/b/cluster.env:18:1: TRUST_DOMAIN", "/b/mesh.yaml:16"],
    ),
    (
        "cluster.env",
        "ISTIO_NAMESPACE='onlineboutique'",
        "ISTIO_NAMESPACE='a'",
        &["/b/cluster.env:16:1: POD_NAMESPACE", "ISTIO_NAMESPACE is \"a\""],
    ),
    (
        "cluster.env",
        "ACCOUNT='productcatalog'",
        "ACCOUNT='a/b'",
        &["/b/cluster.env:17:1: SERVICE_ACCOUNT: \"a/b\" is not a name"],
    ),
    (
        "cluster.env",
        "MESH_ID=''",
        "MESH_ID=$(id)",
        &["/b/cluster.env:9:20: ISTIO_META_MESH_ID: a shell would act on this $"],
    ),
    (
        "cluster.env",
        "MESH_ID=''",
        "MESH_ID=''\nCA_ADDR=istiod:15010",
        &["/b/cluster.env:10:1: CA_ADDR", "15010", "plain text"],
    ),
    (
        "cluster.env",
        "MESH_ID=''",
        "MESH_ID=''\nISTIO_SVC_IP=vm",
        &["/b/cluster.env:10:1: ISTIO_SVC_IP: \"vm\" is not an IP address"],
    ),
    (
        "mesh.yaml",
        "svc:15012",
        "svc:15010",
        &[
            "/b/mesh.yaml:2:21: defaultConfig.discoveryAddress",
            "15010",
            "plain text",
        ],
    ),
    (
        "mesh.yaml",
        "svc:15012",
        "svc",
        &["/b/mesh.yaml:2:21: defaultConfig.discoveryAddress", "is not host:port"],
    ),
    (
        "mesh.yaml",
        "  proxyMetadata:",
        "  controlPlaneAuthPolicy: NONE\n  proxyMetadata:",
        &["/b/mesh.yaml:3:27: ", "\"NONE\" is refused"],
    ),
    (
        "mesh.yaml",
        "  proxyMetadata:",
        "  drainDuration: 1d\n  proxyMetadata:",
        &["/b/mesh.yaml:3:18: defaultConfig.drainDuration"],
    ),
    (
        "mesh.yaml",
        "  proxyMetadata:",
        "  readinessProbe: {grpc: {port: 0}}\n  proxyMetadata:",
        &["/b/mesh.yaml:3:19: defaultConfig.readinessProbe: port 0"],
    ),
    (
        "mesh.yaml",
        "DNS_CAPTURE: \"true\"",
        "DNS_CAPTURE: true",
        &["/b/mesh.yaml:", "ISTIO_META_DNS_CAPTURE: must be a string"],
    ),
    (
        "mesh.yaml",
        "defaultConfig:",
        "defaultConfig: [",
        &["/b/mesh.yaml:", "is not valid YAML"],
    ),
    (
        "root-cert.pem",
        "-----END CERTIFICATE-----\n",
        "",
        &["/b/root-cert.pem:1:1: block 1: is not whole PEM"],
    ),
    (
        "hosts",
        "10.200.0.2",
        "lb.example",
        &["/b/hosts:1:1: does not begin with an IP address"],
    ),
    (
        "hosts",
        " istiod.istio-system.svc",
        "",
        &["/b/hosts:1:1: has no name after the address"],
    ),
    (
        "hosts",
        "istiod.istio-system.svc",
        "istiod.istio-system.svc metadata.google.internal",
        &[
            "/b/hosts:1:1: the second name of the line is none that the join needs",
            "network.hosts_allow",
        ],
    ),
    ("istio-token", ".c2ln", "", &["/b/istio-token:1:1: is not a JWT"]),
];

#[test]
fn bundles_that_are_broken_are_refused_with_file_line_and_key() {
    for (name, from, to, wanted) in BROKEN {
        let case = Case::new();
        case.edit(name, from, to);
        let error = case.load().expect_err(wanted[0]);
        for piece in wanted {
            assert!(error.contains(piece), "{piece:?} is missing in {error:?}");
        }
        assert!(!error.contains("eyJ"), "a token is shown: {error:?}");
    }
}

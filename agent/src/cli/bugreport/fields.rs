//! The messages and fields of Envoy's API that a report has, by their names in JSON. What is in none of these tables is
//! not in the report: matchers of strings, headers that are added, bodies, rewrites, metadata, Lua, Wasm, tracing, access
//! logs and authorizers are anybody's, and may be secrets.

use Field::{Any, Each, Members, Message, Path, Text};

/// A field that is taken. Numbers and truths of a message that is known are taken all.
#[derive(Clone, Copy, Debug)]
pub(super) enum Field {
    /// A string, or several: a name, an address, a version, a time, a word of Envoy's.
    Text,
    /// A path, up to its query.
    Path,
    /// A message, or several.
    Message(Fields),
    /// A map whose keys are names.
    Each(&'static Self),
    /// A message whose type is in `TYPES`.
    Any,
    /// A document of anybody's, of which these members are taken where they are strings.
    Members(&'static [&'static str]),
}

/// A message, as the fields of it that are taken.
pub(super) type Fields = &'static [(&'static str, Field)];

/// The types of Envoy's that are known, without `type.googleapis.com/`.
pub(super) const TYPES: &[(&str, Fields)] = &[
    ("envoy.admin.v3.BootstrapConfigDump", DUMP),
    ("envoy.admin.v3.ClustersConfigDump", DUMP),
    ("envoy.admin.v3.EndpointsConfigDump", DUMP),
    ("envoy.admin.v3.ListenersConfigDump", DUMP),
    ("envoy.admin.v3.RoutesConfigDump", DUMP),
    ("envoy.admin.v3.SecretsConfigDump", DUMP),
    ("envoy.config.cluster.v3.Cluster", CLUSTER),
    ("envoy.config.endpoint.v3.ClusterLoadAssignment", ASSIGNMENT),
    ("envoy.config.listener.v3.Listener", LISTENER),
    ("envoy.config.route.v3.RouteConfiguration", ROUTES),
    ("envoy.extensions.filters.http.rbac.v3.RBAC", RBAC),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        HTTP,
    ),
    ("envoy.extensions.filters.network.rbac.v3.RBAC", RBAC),
    ("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", TCP),
    ("envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext", TLS),
    ("envoy.extensions.transport_sockets.tls.v3.Secret", SECRET),
    ("envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", TLS),
    ("envoy.extensions.upstreams.http.v3.HttpProtocolOptions", PROTOCOLS),
];

/// `/config_dump`.
pub(super) const CONFIG_DUMP: Fields = &[("configs", Any)];

/// `/server_info`.
pub(super) const SERVER_INFO: Fields = &[
    ("version", Text),
    ("state", Text),
    ("hot_restart_version", Text),
    ("uptime_current_epoch", Text),
    ("uptime_all_epochs", Text),
    ("node", Message(NODE)),
    (
        "command_line_options",
        Message(&[("log_level", Text), ("mode", Text), ("drain_strategy", Text)]),
    ),
];

/// `/certs`.
pub(super) const CERTS: Fields = &[(
    "certificates",
    Message(&[("ca_cert", Message(CERTIFICATE)), ("cert_chain", Message(CERTIFICATE))]),
)];

const CERTIFICATE: Fields = &[
    ("serial_number", Text),
    ("subject_alt_names", Message(&[("uri", Path), ("dns", Text)])),
    ("days_until_expiration", Text),
    ("valid_from", Text),
    ("expiration_time", Text),
];

/// The sections of a dump, each of which has some of these.
const DUMP: Fields = &[
    ("version_info", Text),
    ("last_updated", Text),
    ("bootstrap", Message(&[("node", Message(NODE))])),
    ("static_clusters", Message(RESOURCE)),
    ("dynamic_active_clusters", Message(RESOURCE)),
    ("dynamic_warming_clusters", Message(RESOURCE)),
    ("static_endpoint_configs", Message(RESOURCE)),
    ("dynamic_endpoint_configs", Message(RESOURCE)),
    ("static_listeners", Message(RESOURCE)),
    ("dynamic_listeners", Message(RESOURCE)),
    ("static_route_configs", Message(RESOURCE)),
    ("dynamic_route_configs", Message(RESOURCE)),
    ("static_secrets", Message(RESOURCE)),
    ("dynamic_active_secrets", Message(RESOURCE)),
    ("dynamic_warming_secrets", Message(RESOURCE)),
];

const RESOURCE: Fields = &[
    ("name", Text),
    ("version_info", Text),
    ("last_updated", Text),
    ("client_status", Text),
    ("cluster", Any),
    ("endpoint_config", Any),
    ("listener", Any),
    ("route_config", Any),
    ("secret", Any),
    ("active_state", Message(STATE)),
    ("warming_state", Message(STATE)),
    ("draining_state", Message(STATE)),
    (
        "error_state",
        Message(&[
            ("failed_configuration", Any),
            ("last_update_attempt", Text),
            ("version_info", Text),
        ]),
    ),
];

const STATE: Fields = &[("version_info", Text), ("listener", Any), ("last_updated", Text)];

const NODE: Fields = &[
    ("id", Text),
    ("cluster", Text),
    ("locality", Message(LOCALITY)),
    ("user_agent_name", Text),
    (
        "metadata",
        Members(&[
            "CLUSTER_ID",
            "INSTANCE_IPS",
            "ISTIO_VERSION",
            "MESH_ID",
            "NAME",
            "NAMESPACE",
            "NETWORK",
            "SERVICE_ACCOUNT",
            "WORKLOAD_NAME",
        ]),
    ),
];

const LOCALITY: Fields = &[("region", Text), ("zone", Text), ("sub_zone", Text)];

/// istiod's note of what a resource was made from, and nothing else of what is in metadata.
const METADATA: Fields = &[(
    "filter_metadata",
    Message(&[(
        "istio",
        Message(&[
            ("config", Text),
            ("subset", Text),
            (
                "services",
                Message(&[("host", Text), ("name", Text), ("namespace", Text)]),
            ),
        ]),
    )]),
)];

const CLUSTER: Fields = &[
    ("name", Text),
    ("alt_stat_name", Text),
    ("type", Text),
    ("connect_timeout", Text),
    ("lb_policy", Text),
    ("dns_lookup_family", Text),
    ("dns_refresh_rate", Text),
    (
        "eds_cluster_config",
        Message(&[("service_name", Text), ("eds_config", Message(SOURCE))]),
    ),
    ("load_assignment", Message(ASSIGNMENT)),
    (
        "circuit_breakers",
        Message(&[("thresholds", Message(&[("priority", Text)]))]),
    ),
    (
        "outlier_detection",
        Message(&[
            ("interval", Text),
            ("base_ejection_time", Text),
            ("max_ejection_time", Text),
        ]),
    ),
    (
        "upstream_connection_options",
        Message(&[("tcp_keepalive", Message(&[]))]),
    ),
    ("filters", Message(EXTENSION)),
    ("transport_socket", Message(EXTENSION)),
    (
        "transport_socket_matches",
        Message(&[
            ("name", Text),
            ("match", Members(&["tlsMode"])),
            ("transport_socket", Message(EXTENSION)),
        ]),
    ),
    ("typed_extension_protocol_options", Each(&Any)),
    ("metadata", Message(METADATA)),
];

/// An extension: it has a name and is configured by a message of its own.
const EXTENSION: Fields = &[("name", Text), ("typed_config", Any)];

const ASSIGNMENT: Fields = &[
    ("cluster_name", Text),
    (
        "endpoints",
        Message(&[("locality", Message(LOCALITY)), ("lb_endpoints", Message(ENDPOINT))]),
    ),
];

const ENDPOINT: Fields = &[
    ("health_status", Text),
    (
        "endpoint",
        Message(&[
            ("hostname", Text),
            ("address", Message(ADDRESS)),
            ("additional_addresses", Message(&[("address", Message(ADDRESS))])),
        ]),
    ),
];

const ADDRESS: Fields = &[
    ("socket_address", Message(&[("address", Text), ("protocol", Text)])),
    ("pipe", Message(&[("path", Path)])),
    ("envoy_internal_address", Message(&[("server_listener_name", Text)])),
];

const LISTENER: Fields = &[
    ("name", Text),
    ("stat_prefix", Text),
    ("traffic_direction", Text),
    ("address", Message(ADDRESS)),
    ("additional_addresses", Message(&[("address", Message(ADDRESS))])),
    ("filter_chains", Message(CHAIN)),
    ("default_filter_chain", Message(CHAIN)),
    ("listener_filters", Message(EXTENSION)),
    ("listener_filters_timeout", Text),
    ("metadata", Message(METADATA)),
];

const CHAIN: Fields = &[
    ("name", Text),
    ("filter_chain_match", Message(CHAIN_MATCH)),
    ("filters", Message(EXTENSION)),
    ("transport_socket", Message(EXTENSION)),
    ("transport_socket_connect_timeout", Text),
    ("metadata", Message(METADATA)),
];

const CHAIN_MATCH: Fields = &[
    ("transport_protocol", Text),
    ("application_protocols", Text),
    ("server_names", Text),
    ("source_type", Text),
    ("destination_port_range", Message(&[])),
    ("prefix_ranges", Message(RANGE)),
    ("source_prefix_ranges", Message(RANGE)),
    ("direct_source_prefix_ranges", Message(RANGE)),
];

const RANGE: Fields = &[("address_prefix", Text)];

const HTTP: Fields = &[
    ("stat_prefix", Text),
    ("codec_type", Text),
    (
        "rds",
        Message(&[("route_config_name", Text), ("config_source", Message(SOURCE))]),
    ),
    ("route_config", Message(ROUTES)),
    ("http_filters", Message(EXTENSION)),
    ("forward_client_cert_details", Text),
    ("stream_idle_timeout", Text),
    ("request_timeout", Text),
    ("drain_timeout", Text),
    ("upgrade_configs", Message(&[("upgrade_type", Text)])),
    ("common_http_protocol_options", Message(LIMITS)),
    ("path_with_escaped_slashes_action", Text),
];

const LIMITS: Fields = &[("idle_timeout", Text), ("max_connection_duration", Text)];

const TCP: Fields = &[
    ("stat_prefix", Text),
    ("cluster", Text),
    ("weighted_clusters", Message(WEIGHTED)),
    ("idle_timeout", Text),
];

const WEIGHTED: Fields = &[("clusters", Message(&[("name", Text)]))];

/// The names of policies. Who is meant by them is in the cluster's AuthorizationPolicies.
const RBAC: Fields = &[
    ("rules", Message(&[("action", Text), ("policies", Each(&Message(&[])))])),
    ("shadow_rules_stat_prefix", Text),
];

const TLS: Fields = &[("sni", Text), ("common_tls_context", Message(TLS_CONTEXT))];

const TLS_CONTEXT: Fields = &[
    ("alpn_protocols", Text),
    (
        "tls_params",
        Message(&[
            ("tls_minimum_protocol_version", Text),
            ("tls_maximum_protocol_version", Text),
            ("cipher_suites", Text),
        ]),
    ),
    ("tls_certificate_sds_secret_configs", Message(SDS)),
    ("validation_context_sds_secret_config", Message(SDS)),
    (
        "combined_validation_context",
        Message(&[("validation_context_sds_secret_config", Message(SDS))]),
    ),
];

const SDS: Fields = &[("name", Text), ("sds_config", Message(SOURCE))];

const SOURCE: Fields = &[
    ("ads", Message(&[])),
    ("resource_api_version", Text),
    ("initial_fetch_timeout", Text),
];

/// Certificates, which each handshake shows anyway. No key.
const SECRET: Fields = &[
    ("name", Text),
    (
        "tls_certificate",
        Message(&[("certificate_chain", Message(CHAIN_BYTES))]),
    ),
    ("validation_context", Message(&[("trusted_ca", Message(CHAIN_BYTES))])),
];

const CHAIN_BYTES: Fields = &[("inline_bytes", Text)];

const PROTOCOLS: Fields = &[
    ("common_http_protocol_options", Message(LIMITS)),
    ("explicit_http_config", Message(VERSIONS)),
    ("use_downstream_protocol_config", Message(VERSIONS)),
    ("auto_config", Message(VERSIONS)),
];

const VERSIONS: Fields = &[
    ("http_protocol_options", Message(&[])),
    ("http2_protocol_options", Message(&[])),
];

const ROUTES: Fields = &[
    ("name", Text),
    (
        "virtual_hosts",
        Message(&[
            ("name", Text),
            ("domains", Text),
            ("routes", Message(ROUTE)),
            ("retry_policy", Message(RETRIES)),
            ("require_tls", Text),
        ]),
    ),
];

const ROUTE: Fields = &[
    ("name", Text),
    ("match", Message(ROUTE_MATCH)),
    ("route", Message(ACTION)),
    ("redirect", Message(&[("response_code", Text)])),
    ("direct_response", Message(&[])),
    ("metadata", Message(METADATA)),
];

/// The conditions of a route; of headers and query parameters the names.
const ROUTE_MATCH: Fields = &[
    ("prefix", Path),
    ("path", Path),
    ("path_separated_prefix", Path),
    ("headers", Message(&[("name", Text)])),
    ("query_parameters", Message(&[("name", Text)])),
];

const ACTION: Fields = &[
    ("cluster", Text),
    ("weighted_clusters", Message(WEIGHTED)),
    ("timeout", Text),
    ("idle_timeout", Text),
    ("priority", Text),
    ("cluster_not_found_response_code", Text),
    ("retry_policy", Message(RETRIES)),
    ("request_mirror_policies", Message(&[("cluster", Text)])),
];

const RETRIES: Fields = &[
    ("retry_on", Text),
    ("per_try_timeout", Text),
    ("retry_host_predicate", Message(EXTENSION)),
    ("retry_priority", Message(EXTENSION)),
];

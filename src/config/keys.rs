//! Every key of the file, in tables: the one place that says which there are.
//!
//! The checker, the resolver's defaults, the JSON Schema and its tests all read these rows. To add a key,
//! add a row and read it in the resolver. A row without a default is either required or simply absent.

use std::time::Duration;

use super::{
    scalar::Scalar,
    shape::{Key, List, Map, Shape},
    units::LONGEST,
};

const OFF: Scalar = Scalar::Word(&["off"]);
const SWITCH: Scalar = Scalar::Word(&["on", "off"]);
const MILLI: Duration = Duration::from_millis(1);
const TIME: Scalar = Scalar::Duration(MILLI, LONGEST);
const TIME_OR_ZERO: Scalar = Scalar::Duration(Duration::ZERO, LONGEST);

const LIMIT: Shape = Shape::one(&[OFF, TIME]);
const PAUSE: Shape = Shape::one(&[TIME]);
const PATH: Shape = Shape::one(&[Scalar::Path]);
const PATH_OR_OFF: Shape = Shape::one(&[OFF, Scalar::Path]);
const TLS_VERSION: Shape = Shape::one(&[Scalar::Word(&["1.2", "1.3"])]);
const LISTEN_AT: Shape = Shape::one(&[Scalar::Listen]);
const SOME_CALLS: Scalar = Scalar::Count(1, 1_000_000);
const PORT: Shape = Shape::one(&[Scalar::Count(1, 65535)]);
const CALLS: Shape = Shape::one(&[SOME_CALLS]);
const SOME_SHARE: Scalar = Scalar::Share(0.1);
const SHARE: Shape = Shape::one(&[SOME_SHARE]);

/// The file itself.
#[rustfmt::skip]
pub(super) const FILE: &[Key] = &[
    Key::new("listen", Shape::map(&[LISTEN]), "", "Where the sidecar listens."),
    Key::new("vip", Shape::map(&[VIP]), "", "Virtual IPs: an address of its own for each service."),
    Key::new("dns", Shape::map(&[DNS]), "", "What the DNS responder (`listen.dns`) says to whom."),
    Key::new("resolver", Shape::map(&[RESOLVER]), "", "How names are looked up."),
    Key::new("intercept", Shape::one(&[OFF]).or_map(&[INTERCEPT]), "off", "Taking in connections that were meant for others, by a redirect rule."),
    Key::new("workers", Shape::one(&[Scalar::Word(&["auto"]), Scalar::Count(1, 1024)]), "auto", "Threads that carry traffic; `auto` is one a core. A change needs a restart."),
    Key::new("limits", Shape::map(&[LIMITS]), "", "What one app may ask of the sidecar at most."),
    Key::new("log", Shape::map(&[LOG]), "", "What is logged, and where to."),
    Key::new("ready", Shape::one(&[OFF, TIME_OR_ZERO]).or_map(&[READY]), "", "When the sidecar says that it is ready; a time alone is `limit`."),
    Key::new("drain", Shape::one(&[TIME_OR_ZERO]).or_map(&[DRAIN]), "", "How a stop proceeds; a time alone is `for`."),
    Key::new("defaults", Shape::map(&[POLICIES]), "", "Policy keys for every service; a service's own keys win, key by key."),
    Key::new("services", Shape { scalars: &[], list: None, map: Map::Names(&[ENTRY, SOURCES, POLICIES]) }, "", "The services, by the name that apps call; `*` makes one of each other name that resolves."),
    Key::new("inbound", Shape::one(&[OFF]).or_map(&[INBOUND]), "", "The receiving side: what stands before our own app. `defaults` do not reach it."),
];

#[rustfmt::skip]
const LISTEN: &[Key] = &[
    Key::new("listen.http", LISTEN_AT, "127.0.0.1:8470", "The shared port: any service, by Host, :authority or absolute URI. A port alone is one of 127.0.0.1."),
    Key::new("listen.observe", LISTEN_AT, "127.0.0.1:8471", "Read-only: metrics, health, JSON views. A change needs a restart."),
    Key::new("listen.dns", Shape::one(&[OFF, Scalar::Listen]), "off", "The DNS responder: answers service names with VIPs. A change needs a restart."),
    Key::new("listen.override", Shape::one(&[SWITCH]), "off", "Whether a request may name its service by the header `x-outrigger-service`, for tests."),
    Key::new("listen.admin", Shape::one(&[Scalar::Socket]), "", "The Unix socket for changes. Default /run/outrigger/admin.sock for root, else $XDG_RUNTIME_DIR/outrigger.sock. A change needs a restart."),
];

#[rustfmt::skip]
const VIP: &[Key] = &[
    Key::new("vip.range", Shape::one(&[Scalar::Range]), "127.84.0.0/16", "The addresses that VIPs are taken from."),
    Key::new("vip.ports", Shape::some(&PORT), "80", "What each VIP listens on, beside its service's own ports."),
    Key::new("vip.domain", Shape::one(&[Scalar::DnsName]), "vip.internal", "Suffix of the names under which services have VIPs: orders.vip.internal."),
    Key::new("vip.state", PATH_OR_OFF, "", "The file that remembers which name has which address. Default /var/lib/outrigger/vips.json for root, else $XDG_STATE_HOME/outrigger/vips.json."),
    Key::new("vip.hosts", PATH_OR_OFF, "off", "A hosts file in which the sidecar keeps the names of its services, bare ones too: /etc/hosts where an app shares it."),
];

#[rustfmt::skip]
const DNS: &[Key] = &[
    Key::new("dns.bare", Shape::one(&[SWITCH]), "off", "Whether a service is also found by its name alone, without `vip.domain`."),
    Key::new("dns.forward", Shape::some(&Shape::one(FORWARDERS)), "system", "Whom other names are asked of, in order: `system` (resolv.conf), or IP:PORT; `off` refuses them."),
    Key::new("dns.ttl", PAUSE, "5s", "How long an answer about a service may be kept."),
    Key::new("dns.recursion", Shape { scalars: &[Scalar::Cidr], list: Some(List { item: &Shape::one(&[Scalar::Cidr]), empty: true }), map: Map::None }, "", "Clients of other hosts that may ask for other names, as IP/BITS. This host's own always may."),
    Key::new("dns.rate", CALLS, "100", "Answers a second to one network of clients of other hosts (/24, or /56 of IPv6)."),
];
const FORWARDERS: &[Scalar] = &[Scalar::Word(&["system", "off"]), Scalar::Nameserver];

#[rustfmt::skip]
const INTERCEPT: &[Key] = &[
    Key::new("intercept.listen", LISTEN_AT, "127.0.0.1:8472", "Where redirected connections arrive. A port alone is one of 127.0.0.1."),
    Key::new("intercept.ports", Shape::some(&PORT), "80", "The ports whose connections are redirected."),
    Key::new("intercept.user", Shape::one(&[Scalar::Text]), "", "The sidecar's own user, a name or a number, whose connections are left alone. Without it, whoever applies the rules, unless that is root."),
    Key::new("intercept.mark", Shape::one(&[Scalar::Count(1, u32::MAX as u64)]), "", "A mark that the sidecar sets on its own connections, to leave them alone by; it needs CAP_NET_ADMIN then."),
];

#[rustfmt::skip]
const READY: &[Key] = &[
    Key::new("ready.limit", Shape::one(&[OFF, TIME_OR_ZERO]), "30s", "After this time it is ready although services have no endpoints yet; `off` waits for all."),
];

#[rustfmt::skip]
const RESOLVER: &[Key] = &[
    Key::new("resolver.servers", Shape::some(&Shape::one(NAMESERVERS)), "system", "Whom to ask, in order: `system` (resolv.conf), or IP:PORT; port 53 unless given."),
    Key::new("resolver.ttl", Shape::map(&[TTL]), "", "The range that the TTLs of answers are clamped to."),
    Key::new("resolver.hold", Shape::one(&[TIME_OR_ZERO]), "30s", "How long the last good set of endpoints is kept when the name is gone."),
    Key::new("resolver.timeout", PAUSE, "2s", "How long one lookup may take in all."),
];
const NAMESERVERS: &[Scalar] = &[Scalar::Word(&["system"]), Scalar::Nameserver];

#[rustfmt::skip]
const TTL: &[Key] = &[
    Key::new("resolver.ttl.min", Shape::one(&[Scalar::Duration(Duration::from_millis(10), LONGEST)]), "1s", "Answers are trusted for no less than this, whatever their TTL."),
    Key::new("resolver.ttl.max", Shape::one(&[Scalar::Duration(Duration::from_millis(10), LONGEST)]), "5s", "Answers are trusted for no longer than this, whatever their TTL."),
];

#[rustfmt::skip]
const LIMITS: &[Key] = &[
    Key::new("limits.connections", CALLS, "10000", "Open connections from apps, over all listeners."),
    Key::new("limits.header_bytes", Shape::one(&[Scalar::Size(8 << 10, 1 << 20)]), "64KiB", "Bytes of a request's head."),
    Key::new("limits.headers", Shape::one(&[Scalar::Count(1, 1000)]), "100", "Header lines of a request."),
    Key::new("limits.header_timeout", PAUSE, "10s", "From the first byte of a request's head to its last."),
    Key::new("limits.wildcard", Shape::map(&[WILDCARD]), "", "What the service `*` may grow to."),
    Key::new("limits.last_good", Shape::one(&[Scalar::Size(0, 16 << 30)]), "64MiB", "Bytes of good answers that are kept for `fallback: last_good`, over all services."),
];

#[rustfmt::skip]
const WILDCARD: &[Key] = &[
    Key::new("limits.wildcard.services", CALLS, "1000", "Services made of `*` at once."),
    Key::new("limits.wildcard.idle", PAUSE, "10m", "How long one is kept without a call."),
    Key::new("limits.wildcard.series", Shape::one(&[Scalar::Count(0, 1_000_000)]), "100", "Services made of `*` that have metrics of their own; the others share those of `*`."),
];

#[rustfmt::skip]
const LOG: &[Key] = &[
    Key::new("log.access", Shape::one(&[Scalar::AccessLog]), "off", "Where a JSON line for each call goes: `stdout`, or a path."),
    Key::new("log.level", Shape::one(&[Scalar::Word(&["error", "warn", "info", "debug", "trace"])]), "info", "How much the process log says."),
];

#[rustfmt::skip]
const DRAIN: &[Key] = &[
    Key::new("drain.for", Shape::one(&[TIME_OR_ZERO]), "30s", "How long a stop lasts at most."),
    Key::new("drain.until", Shape::one(&[Scalar::Word(&["calls", "time", "app"])]), "calls", "What ends it earlier: no call in flight any more (`calls`), nothing (`time`), or the app's exit (`app`). New calls are taken until then."),
];

/// How apps reach a service.
#[rustfmt::skip]
const ENTRY: &[Key] = &[
    Key::new("listen", LISTEN_AT, "", "A port of its own. A port alone is one of 127.0.0.1."),
    Key::new("aliases", Shape { scalars: &[Scalar::Service], list: Some(List { item: &Shape::one(&[Scalar::Service]), empty: true }), map: Map::None }, "", "Other names that it answers to."),
    Key::new("vip", Shape::one(VIP_ADDRESS).or_map(&[SERVICE_VIP]), "", "Its virtual IP: `auto`, `off` or an address."),
];
const VIP_ADDRESS: &[Scalar] = &[Scalar::Word(&["auto", "off"]), Scalar::Ipv4];

#[rustfmt::skip]
const SERVICE_VIP: &[Key] = &[
    Key::new("vip.address", Shape::one(VIP_ADDRESS), "auto", "`auto`, `off` or an address."),
    Key::new("vip.ports", Shape::some(&PORT), "", "What it listens on beside the ports of all VIPs."),
];

/// Where a service's endpoints come from: exactly one of these.
#[rustfmt::skip]
pub(super) const SOURCES: &[Key] = &[
    Key::new("dns", Shape::one(&[Scalar::HostPort]), "", "The A and AAAA records of HOST, all at PORT: `orders:8080`."),
    Key::new("srv", Shape::one(&[Scalar::LookedUp]), "", "The SRV records of a name, with their priorities and weights."),
    Key::new("static", Shape::some(&Shape::one(&[Scalar::Address])), "", "These addresses, IP:PORT each."),
    Key::new("file", PATH, "", "A YAML or JSON file of endpoints, watched. A relative path is taken from the working directory."),
];

/// The rules that a service's calls obey; also the keys of `defaults`.
#[rustfmt::skip]
pub(super) const POLICIES: &[Key] = &[
    Key::new("timeout", Shape::one(&[OFF, TIME]).or_map(&[TIMEOUT]), "", "Limits on time; a time alone is `request`, `off` is no limit at all."),
    Key::new("bulkhead", Shape::one(&[SWITCH, SOME_CALLS]).or_map(&[BULKHEAD]), "on", "The limit on outstanding calls; a number alone is `max`."),
    Key::new("breaker", Shape::one(&[MODE, SOME_SHARE]).or_map(&[BREAKER]), "", "The circuit breaker; a share alone is `error_rate`, a word alone is `mode`."),
    Key::new("balance", Shape::one(&[Scalar::Word(&["p2c", "round_robin", "random", "least_request"])]).or_map(&[BALANCE]), "p2c", "How an endpoint is chosen: the better of two random ones by load and latency, each in turn, any, or the least loaded."),
    Key::new("retry", Shape::one(&[SWITCH, ATTEMPTS]).or_map(&[RETRY]), "on", "Further attempts; a number alone is `attempts`."),
    Key::new("ejection", Shape::one(&[SWITCH, SOME_CALLS]).or_map(&[EJECTION]), "on", "Taking a failing endpoint out of rotation for a while; a number alone is `consecutive`."),
    Key::new("fallback", Shape { scalars: &[OFF], list: Some(List { item: &Shape::map(&[FALLBACK]), empty: true }), map: Map::None }, "off", "What to answer instead of a failure: the first that can."),
    Key::new("tls", Shape::one(&[SWITCH]).or_map(&[TLS]), "off", "TLS to the endpoints; `on` verifies them with the system's roots."),
    Key::new("cors", Shape::one(&[OFF]).or_map(&[CORS]), "off", "Which web pages may call."),
    Key::new("protocol", Shape::one(&[Scalar::Word(&["auto", "http1", "http2", "tcp"])]), "auto", "What is spoken to the endpoints: as the app speaks (`auto`), HTTP/1.1, HTTP/2 (by prior knowledge, or under TLS), or bytes as they come."),
    Key::new("hedge", Shape::one(&[OFF, Scalar::Percentile, TIME]), "off", "A second attempt when the first takes longer than this: a time, or a percentile of the service's answers."),
    Key::new("coalesce", Shape::one(&[SWITCH]), "off", "One call for identical GETs at the same moment."),
    Key::new("health_check", Shape::one(&[Scalar::Word(&["tcp", "off"])]).or_map(&[HEALTH_CHECK]), "off", "Active checks of the endpoints; `tcp` alone is a connection every 2 s."),
    Key::new("failure_if", Shape::one(&[OFF]).or_map(&[FAILURE_IF]), "off", "What of an answer makes it a failure, beside its status."),
];

#[rustfmt::skip]
const TIMEOUT: &[Key] = &[
    Key::new("timeout.request", LIMIT, "10s", "From the call's start to the head of its answer, waiting and all attempts included."),
    Key::new("timeout.connect", LIMIT, "1s", "To open one connection."),
    Key::new("timeout.attempt", LIMIT, "off", "From an attempt's start to the head of its answer."),
    Key::new("timeout.idle", LIMIT, "60s", "Each pause of a body, in either direction; of a tcp service, silence in both (1h by default)."),
    Key::new("timeout.total", LIMIT, "off", "From the call's start to the last byte of its answer."),
    Key::new("timeout.tunnel", LIMIT, "1h", "Silence in both directions of an upgraded connection (WebSocket)."),
];

#[rustfmt::skip]
const BULKHEAD: &[Key] = &[
    Key::new("bulkhead.max", CALLS, "100", "Calls outstanding at once, over all workers."),
    Key::new("bulkhead.queue", Shape::one(&[Scalar::Count(0, 1_000_000)]), "0", "Calls that may wait for a place; with 0 a full bulkhead refuses at once."),
    Key::new("bulkhead.wait", PAUSE, "50ms", "How long a call may wait for a place; counts against its deadline."),
    Key::new("bulkhead.per_endpoint", Shape::one(&[OFF, SOME_CALLS]), "off", "Attempts outstanding at once at one endpoint."),
    Key::new("bulkhead.adaptive", Shape::one(&[SWITCH]).or_map(&[ADAPTIVE]), "off", "Whether the limit follows the service's latency; `max` is its ceiling."),
    Key::new("bulkhead.priorities", Shape { scalars: &[], list: Some(List { item: &Shape::map(&[PRIORITY]), empty: true }), map: Map::None }, "", "Which calls matter more than others, by path; the first rule that fits holds."),
];

#[rustfmt::skip]
const ADAPTIVE: &[Key] = &[
    Key::new("bulkhead.adaptive.floor", CALLS, "5", "What the limit never falls below."),
];

#[rustfmt::skip]
const PRIORITY: &[Key] = &[
    Key::new("bulkhead.priorities.path", Shape::one(&[Scalar::SlashPath]), "", "How the path begins."),
    Key::new("bulkhead.priorities.priority", Shape::one(&[Scalar::Word(&["critical", "high", "normal", "low"])]), "", "How much such calls matter."),
];

const MODE: Scalar = Scalar::Word(&["on", "observe", "off"]);

#[rustfmt::skip]
const BREAKER: &[Key] = &[
    Key::new("breaker.mode", Shape::one(&[MODE]), "on", "Whether it acts; `observe` reports what it would do and refuses nothing."),
    Key::new("breaker.error_rate", SHARE, "50%", "Opens when failures reach this share of the window's calls."),
    Key::new("breaker.min_calls", CALLS, "20", "Judges nothing before this many calls are in the window."),
    Key::new("breaker.window", Shape::one(&[Scalar::Duration(Duration::from_millis(10), LONGEST)]), "10s", "The time that it looks back."),
    Key::new("breaker.open_for", PAUSE, "5s", "How long it refuses before it probes."),
    Key::new("breaker.probes", CALLS, "1", "Calls that probe a half-open breaker."),
    Key::new("breaker.slow_call", LIMIT, "off", "A call that takes longer is slow."),
    Key::new("breaker.slow_rate", SHARE, "100%", "Opens when slow calls reach this share; counts only with `slow_call`."),
];

#[rustfmt::skip]
const BALANCE: &[Key] = &[
    Key::new("balance.hash", Shape::one(&[Scalar::HashKey]), "", "The same endpoint for the same key, as long as it exists: `header NAME`, `cookie NAME` or `path`."),
];

const ATTEMPTS: Scalar = Scalar::Count(1, 100);

#[rustfmt::skip]
const RETRY: &[Key] = &[
    Key::new("retry.attempts", Shape::one(&[ATTEMPTS]), "3", "Attempts in all, the first included."),
    Key::new("retry.on", Shape::some(&Shape::one(&[Scalar::RetryOn])), "", "What is tried again: `connect`, `reset`, `timeout`, `5xx` (all of these unless set), statuses, gRPC codes."),
    Key::new("retry.budget", Shape::one(&[Scalar::Share(0.0)]), "20%", "Retries as a share of calls."),
    Key::new("retry.min_per_second", Shape::one(&[Scalar::Count(0, 1_000_000)]), "3", "Retries a second beside that."),
    Key::new("retry.backoff", Shape::one(&[TIME_OR_ZERO]), "25ms", "The longest pause before the first retry; it doubles with each, and is drawn from nothing to that."),
    Key::new("retry.max_backoff", Shape::one(&[TIME_OR_ZERO]), "250ms", "The longest pause there is."),
    Key::new("retry.body", Shape::one(&[Scalar::Size(0, 16 << 20)]), "64KiB", "How much of a request's body is kept to be sent again; a longer one is sent once."),
];

/// What is tried again where the file does not say.
pub(super) const RETRY_ON: [&str; 4] = ["connect", "reset", "timeout", "5xx"];

#[rustfmt::skip]
const EJECTION: &[Key] = &[
    Key::new("ejection.consecutive", Shape::one(&[OFF, SOME_CALLS]), "5", "Failures in a row that eject an endpoint."),
    Key::new("ejection.error_rate", Shape::one(&[OFF, SOME_SHARE]), "25%", "The share of failures that ejects an endpoint, where the others fail clearly less."),
    Key::new("ejection.min_calls", CALLS, "20", "Judges no share before this many attempts are in the window."),
    Key::new("ejection.window", Shape::one(&[Scalar::Duration(Duration::from_millis(10), LONGEST)]), "10s", "The time that the share looks back."),
    Key::new("ejection.for", PAUSE, "5s", "How long the first ejection lasts; each further one in a row lasts twice as long."),
    Key::new("ejection.max_for", PAUSE, "60s", "How long an ejection lasts at most."),
    Key::new("ejection.max_ejected", SHARE, "50%", "The share of endpoints that may be out at once; the last one never is."),
    Key::new("ejection.slow_start", LIMIT, "10s", "How long an endpoint that comes back takes to get its full share of calls."),
];

/// One step of a fallback: one of the first three, and what holds for it.
#[rustfmt::skip]
const FALLBACK: &[Key] = &[
    Key::new("fallback.last_good", Shape::one(&[Scalar::Word(&["on"])]).or_map(&[LAST_GOOD]), "", "The last good answer to the same request."),
    Key::new("fallback.service", Shape::one(&[Scalar::Service]), "", "Another service's answer."),
    Key::new("fallback.respond", Shape::map(&[RESPOND]), "", "A fixed answer."),
    Key::new("fallback.on", Shape::some(&Shape::one(&[Scalar::Cause])), "", "The failures that it is for: words of the table of reasons, or `upstream_error`. Without it, every reason that is not the caller's fault."),
    Key::new("fallback.max", CALLS, "100", "Calls that it may be answering at once."),
];

#[rustfmt::skip]
const LAST_GOOD: &[Key] = &[
    Key::new("fallback.last_good.for", PAUSE, "10m", "How old the answer may be."),
    Key::new("fallback.last_good.max_body", Shape::one(&[Scalar::Size(1, 1 << 30)]), "1MiB", "The longest answer that is kept."),
    Key::new("fallback.last_good.force", Shape::one(&[SWITCH]), "off", "Also for methods that are not safe, and answers that say `no-store`."),
];

#[rustfmt::skip]
const RESPOND: &[Key] = &[
    Key::new("fallback.respond.status", Shape::one(&[Scalar::Status]), "200", "Its status."),
    Key::new("fallback.respond.headers", Shape { scalars: &[], list: None, map: Map::Json }, "", "Its headers, NAME: VALUE each."),
    Key::new("fallback.respond.json", Shape { scalars: &[], list: None, map: Map::Json }, "", "Its body, as JSON."),
    Key::new("fallback.respond.body", Shape::one(&[Scalar::Text]), "", "Its body, as text."),
    Key::new("fallback.respond.file", PATH, "", "The file that holds its body."),
    Key::new("fallback.respond.grpc_message", Shape::one(&[Scalar::Base64]), "", "What a gRPC call gets: one message, as protobuf in base64."),
    Key::new("fallback.respond.grpc_status", Shape::one(&[Scalar::GrpcCode]), "", "What a gRPC call gets: a status, by name or number."),
    Key::new("fallback.respond.grpc_detail", Shape::one(&[Scalar::Text]), "", "The text beside `grpc_status`."),
];

#[rustfmt::skip]
const TLS: &[Key] = &[
    Key::new("tls.ca", Shape::one(&[Scalar::Word(&["system"]), Scalar::Path]), "system", "Whom to trust: a file of PEM certificates, or `system`."),
    Key::new("tls.cert", PATH_OR_OFF, "off", "Our own certificate and its chain, PEM, for endpoints that ask for one; with `key`."),
    Key::new("tls.key", PATH_OR_OFF, "off", "The key of `cert`, PEM."),
    Key::new("tls.name", Shape::one(&[Scalar::Word(&["auto"]), Scalar::PeerName]), "auto", "Whom the endpoint's certificate must be for: a DNS name, an IP address or a URI; `auto` is the host that the source names."),
    Key::new("tls.min_version", TLS_VERSION, "1.2", "The oldest version of TLS that is spoken."),
    Key::new("tls.dangerously_accept_any_certificate", Shape::one(&[SWITCH]), "off", "Verifies nothing: whoever is on the way can read and change the calls."),
];

#[rustfmt::skip]
const CORS: &[Key] = &[
    Key::new("cors.origins", Shape::some(&Shape::one(&[Scalar::Origin])), "", "The origins of these pages: `https://shop.example`; `*` is any."),
    Key::new("cors.credentials", Shape::one(&[SWITCH]), "off", "Whether a page may send the user's cookies; not together with `*`."),
    Key::new("cors.max_age", Shape::one(&[TIME_OR_ZERO]), "1h", "How long a browser may remember what it was told."),
];

#[rustfmt::skip]
const HEALTH_CHECK: &[Key] = &[
    Key::new("health_check.tcp", Shape::one(&[Scalar::Word(&["on"])]), "", "The endpoint must accept a connection."),
    Key::new("health_check.http", Shape::one(&[Scalar::SlashPath]), "", "A path that must answer 2xx."),
    Key::new("health_check.grpc", Shape::one(&[Scalar::Text]), "", "The service that grpc.health.v1 is asked for; empty for the server."),
    Key::new("health_check.every", PAUSE, "2s", "The pause between two checks."),
    Key::new("health_check.timeout", PAUSE, "1s", "How long one check may take."),
    Key::new("health_check.healthy", CALLS, "2", "Good checks in a row that bring an endpoint back."),
    Key::new("health_check.unhealthy", CALLS, "3", "Failed checks in a row that take it out."),
];

#[rustfmt::skip]
const FAILURE_IF: &[Key] = &[
    Key::new("failure_if.graphql_errors", Shape::one(&[SWITCH]), "off", "A GraphQL answer with errors and no data."),
    Key::new("failure_if.json", Shape::one(&[Scalar::SlashPath]), "", "A place in a JSON answer (RFC 6901)."),
    Key::new("failure_if.equals", Shape::one(&[Scalar::Text]), "", "What stands at `json` in a failure; without it, anything but null and false."),
    Key::new("failure_if.header", Shape::one(&[Scalar::Header]), "", "A header that failures have."),
    Key::new("failure_if.value", Shape::one(&[Scalar::Text]), "", "What `header` says in a failure; without it, anything."),
];

#[rustfmt::skip]
const INBOUND: &[Key] = &[
    Key::new("inbound.listen", LISTEN_AT, "", "Where callers come in. A port alone is one of 127.0.0.1."),
    Key::new("inbound.app", Shape::one(&[Scalar::App]), "", "Our own app. A port alone is one of 127.0.0.1."),
    Key::new("inbound.tls", Shape::one(&[OFF]).or_map(&[INBOUND_TLS]), "off", "TLS with the callers."),
    Key::new("inbound.allow", Shape::some(&Shape::one(&[Scalar::Identity])), "", "Who may call: URIs or DNS names of callers' certificates. Without it, whoever has a good certificate."),
    Key::new("inbound.bulkhead", Shape::one(&[SWITCH, SOME_CALLS]).or_map(&[BULKHEAD]), "on", "The limit on outstanding calls to our app; a number alone is `max`."),
    Key::new("inbound.timeout", Shape::one(&[OFF, TIME]).or_map(&[TIMEOUT]), "", "Limits on time; a time alone is `request`, `off` is no limit at all."),
    Key::new("inbound.protocol", Shape::one(&[Scalar::Word(&["auto", "http1", "http2"])]), "auto", "What is spoken to our app: as the caller speaks (`auto`), HTTP/1.1, or HTTP/2 by prior knowledge."),
];

#[rustfmt::skip]
const INBOUND_TLS: &[Key] = &[
    Key::new("inbound.tls.cert", PATH, "", "Our certificate and its chain, PEM."),
    Key::new("inbound.tls.key", PATH, "", "Its key, PEM."),
    Key::new("inbound.tls.ca", PATH, "", "Whom callers must have a certificate of, PEM. Without it none is asked for."),
    Key::new("inbound.tls.min_version", TLS_VERSION, "1.2", "The oldest version of TLS that is spoken."),
];

/// What of a service's policies holds for the receiving side.
pub(super) const INBOUND_POLICIES: [&str; 3] = ["timeout", "bulkhead", "protocol"];

/// The silence that a tcp service's connections may keep where the file does not say: databases and brokers
/// have pools of connections that wait for work.
pub(super) const TCP_IDLE: &str = "1h";

/// The whole file as a shape.
pub(super) const ROOT: Shape = Shape::map(&[FILE]);

/// What holds for the key at this path when nobody writes it: config text.
pub(super) fn default(path: &str) -> &'static str {
    let sections = [
        LISTEN,
        VIP,
        DNS,
        INTERCEPT,
        READY,
        RESOLVER,
        TTL,
        LIMITS,
        WILDCARD,
        LOG,
        DRAIN,
        INBOUND_TLS,
        FILE,
        FALLBACK,
        LAST_GOOD,
        RESPOND,
    ];
    let rows = sections.into_iter().flatten().chain(leaves());
    rows.into_iter().find(|key| key.path == path).map_or("", |key| key.default)
}

/// The policy keys that hold one value each, in the order in which `explain` shows them.
pub(super) fn leaves() -> impl Iterator<Item = &'static Key> {
    let whole = |path| POLICIES.iter().filter(move |key| key.path == path);
    let alive = |table: &'static [Key]| table.iter();
    let limits = alive(TIMEOUT).chain(whole("bulkhead")).chain(alive(BULKHEAD));
    let choices = alive(BREAKER).chain(whole("balance")).chain(whole("protocol"));
    let pages = whole("tls").chain(alive(TLS)).chain(whole("cors")).chain(alive(CORS));
    let again = whole("retry").chain(alive(RETRY)).chain(whole("hedge"));
    let endpoints = whole("ejection").chain(alive(EJECTION)).chain(whole("health_check")).chain(alive(HEALTH_CHECK));
    let answers = whole("fallback").chain(whole("coalesce")).chain(whole("failure_if")).chain(alive(FAILURE_IF));
    limits.chain(alive(ADAPTIVE)).chain(choices).chain(pages).chain(again).chain(endpoints).chain(answers)
}

/// Where a key of this name may stand, to complete "it belongs ..."; `None` when nowhere.
pub(super) fn homes(name: &str) -> Option<&'static str> {
    let among = |table: &[Key]| table.iter().any(|key| key.name() == name);
    if among(POLICIES) {
        Some("in a service, or in `defaults`")
    } else if among(SOURCES) || among(ENTRY) {
        Some("in a service")
    } else if among(FILE) {
        Some("at the top of the file")
    } else {
        let sections = [
            (TIMEOUT, "in `timeout`"),
            (BULKHEAD, "in `bulkhead`"),
            (BREAKER, "in `breaker`"),
            (LIMITS, "in `limits`"),
            (RESOLVER, "in `resolver`"),
            (LISTEN, "in `listen`"),
            (LOG, "in `log`"),
            (VIP, "in `vip`"),
            (DNS, "in `dns`"),
            (INTERCEPT, "in `intercept`"),
            (WILDCARD, "in `limits.wildcard`"),
            (RETRY, "in `retry`"),
            (TLS, "in `tls`"),
            (CORS, "in `cors`"),
            (INBOUND, "in `inbound`"),
        ];
        sections.into_iter().find(|(table, _)| among(table)).map(|(_, home)| home)
    }
}

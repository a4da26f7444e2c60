//! What one peer may take of the controller, so that none keeps the others waiting.
//!
//! - Connections are counted by address before a handshake is paid for; what is too much is closed, since nobody can be told.
//! - Requests are counted by address, and by the host or the person that asks: they are answered 429, with the time to wait.
//! - Tokens that let nobody in are counted by address. When an address has shown too many, none of it is looked at for a
//!   while: guessing has the pace of this bucket, however many connections guess.
//!
//! Of IPv6 a network of 64 bits is one address: whoever has one of it has all. Nothing here is kept over a restart, and
//! nothing decides anything: a host that is turned away has lost time and nothing else.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use fleet::protocol::paths;
use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use manifests::{HostId, KeyName};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use super::answer::{Refusal, WrongToken};
use super::page::{Failed, SIGN_IN, is_page};
use super::tls::Peer;

/// Connections of one address come at most so many times as often as requests: most have one request each.
const CONNECTIONS_A_REQUEST: u32 = 2;

/// Requests a second from one address, if nothing else is said: 24,000 hosts behind one gateway that ask each minute.
pub const ADDRESS_RATE: NonZeroU32 = count(400);

/// So much at once, and then one more after each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many at once.
    pub burst: NonZeroU32,
    /// After how long there is room for one more.
    pub every: Duration,
}

impl Rate {
    /// So many a second, and at once what comes in `seconds`.
    pub const fn per_second(rate: NonZeroU32, seconds: NonZeroU32) -> Self {
        let every = Duration::from_nanos(1_000_000_000 / rate.get() as u64);
        Self { burst: rate.saturating_mul(seconds), every }
    }

    /// The rate of an address: so many a second, and ten seconds' worth at once.
    pub const fn of_addresses(a_second: NonZeroU32) -> Self {
        Self::per_second(a_second, count(10))
    }

    fn quota(self) -> Quota {
        // A quota without time between has no meaning.
        let every = self.every.max(Duration::from_nanos(1));
        Quota::with_period(every).map_or(Quota::per_second(self.burst), |quota| quota.allow_burst(self.burst))
    }
}

const fn count(number: u32) -> NonZeroU32 {
    match NonZeroU32::new(number) {
        Some(number) => number,
        None => NonZeroU32::MIN,
    }
}

/// What one peer may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once. Each costs some 16 kB; whoever comes later waits.
    pub connections: usize,
    /// How many of them one address has.
    pub connections_per_address: usize,
    /// Requests from one address. Hosts behind one gateway share it.
    pub address: Rate,
    /// Requests of one host. In a transaction it asks every 5 s; a manifest with many payloads is fetched at once.
    pub host: Rate,
    /// Requests of one person.
    pub person: Rate,
    /// Tokens from one address that let nobody in.
    pub wrong_tokens: Rate,
    /// How long a handshake may take.
    pub handshake: Duration,
    /// How long the head of a request may take, the time before its first byte included: an idle connection lives so long.
    pub head: Duration,
    /// How long the body of a small request may take.
    pub body: Duration,
    /// How long a payload may stop coming, and how long an answer may wait for being taken.
    pub silence: Duration,
    /// How long those that are under way when the controller ends may go on.
    pub farewell: Duration,
    /// How many bytes a second a payload has to have at least, after `silence`.
    pub pace: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            connections_per_address: 512,
            address: Rate::of_addresses(ADDRESS_RATE),
            host: Rate::per_second(count(2), count(60)),
            person: Rate::per_second(count(20), count(10)),
            wrong_tokens: Rate { burst: count(10), every: Duration::from_secs(10) },
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(10),
            body: Duration::from_secs(15),
            silence: Duration::from_secs(30),
            farewell: Duration::from_secs(10),
            pace: 16 << 10,
        }
    }
}

/// By what somebody was turned away; a label of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// Too many connections of one address at once, or too fast.
    Connections,
    /// A handshake that did not end.
    Handshake,
    /// The head of a request that did not end, or did not begin.
    Head,
    /// A body that did not end.
    Body,
    /// Requests of an address.
    Address,
    /// Requests of a host.
    Host,
    /// Requests of a person.
    Person,
    /// An address that showed wrong tokens.
    WrongTokens,
}

impl By {
    const ALL: [Self; 8] = [
        Self::Connections,
        Self::Handshake,
        Self::Head,
        Self::Body,
        Self::Address,
        Self::Host,
        Self::Person,
        Self::WrongTokens,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Handshake => "handshake",
            Self::Head => "head",
            Self::Body => "body",
            Self::Address => "address",
            Self::Host => "host",
            Self::Person => "person",
            Self::WrongTokens => "wrong-tokens",
        }
    }
}

/// How often somebody was turned away, by what.
pub(super) type TurnedAway = Family<[(&'static str, &'static str); 1], Counter>;

/// The clock of the buckets: the one that does not jump.
#[derive(Clone)]
struct Elapsed(Arc<dyn system::clock::Clock + Send + Sync>);

impl Clock for Elapsed {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

type Buckets<K> = RateLimiter<K, HashMapStateStore<K>, Elapsed, NoOpMiddleware<Duration>>;

/// Buckets of whoever asks.
struct Bucket<K: Clone + Hash + Eq> {
    buckets: Buckets<K>,
    clock: Elapsed,
}

impl<K: Clone + Hash + Eq> Bucket<K> {
    fn new(rate: Rate, clock: &Elapsed) -> Self {
        Self { buckets: RateLimiter::hashmap_with_clock(rate.quota(), clock.clone()), clock: clock.clone() }
    }

    /// Takes one; or how long until there is one.
    fn take(&self, key: &K) -> Result<(), Duration> {
        self.buckets.check_key(key).map_err(|until| until.wait_time_from(self.clock.now()))
    }
}

/// What is known of those who ask. One for each controller.
pub(super) struct Gate {
    pub(super) limits: Limits,
    pub(super) turned_away: TurnedAway,
    clock: Elapsed,
    arrivals: Bucket<IpAddr>,
    addresses: Bucket<IpAddr>,
    hosts: Bucket<HostId>,
    people: Bucket<KeyName>,
    wrong_tokens: Bucket<IpAddr>,
    /// Until when an address may show no token.
    barred: Mutex<HashMap<IpAddr, Duration>>,
    /// How many connections an address has.
    open: Mutex<HashMap<IpAddr, usize>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who is counted as one.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => IpAddr::V6(Ipv6Addr::from_bits(six.to_bits() & !u128::from(u64::MAX))),
        four => four,
    }
}

impl Gate {
    pub(super) fn new(limits: Limits, clock: Arc<dyn system::clock::Clock + Send + Sync>) -> Self {
        let clock = Elapsed(clock);
        let Rate { burst, every } = limits.address;
        let arrivals = Rate {
            burst: burst.saturating_mul(count(CONNECTIONS_A_REQUEST)),
            every: every / CONNECTIONS_A_REQUEST,
        };
        Self {
            limits,
            turned_away: TurnedAway::default(),
            arrivals: Bucket::new(arrivals, &clock),
            addresses: Bucket::new(limits.address, &clock),
            hosts: Bucket::new(limits.host, &clock),
            people: Bucket::new(limits.person, &clock),
            wrong_tokens: Bucket::new(limits.wrong_tokens, &clock),
            barred: Mutex::default(),
            open: Mutex::default(),
            clock,
        }
    }

    /// Somebody was turned away.
    pub(super) fn count(&self, by: By) {
        self.turned_away.get_or_create(&[("by", by.label())]).inc();
    }

    /// How often somebody was turned away, by what.
    pub(super) fn turned_away(&self) -> Vec<(&'static str, u64)> {
        let of = |by: By| (by.label(), self.turned_away.get_or_create(&[("by", by.label())]).get());
        By::ALL.map(of).to_vec()
    }

    /// A connection of this address, for as long as what is given is kept; nothing if it has too many.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Entered> {
        let address = network(address);
        let mut open = locked(&self.open);
        let number = open.get(&address).copied().unwrap_or(0);
        if number >= self.limits.connections_per_address || self.arrivals.take(&address).is_err() {
            self.count(By::Connections);
            return None;
        }
        open.insert(address, number + 1);
        Some(Entered { gate: self.clone(), address })
    }

    fn refuse(&self, by: By, wait: Duration) -> Refusal {
        self.count(by);
        Refusal::too_many(wait)
    }

    /// A request of whoever is at the other end of a connection.
    fn request(&self, peer: &Peer) -> Result<(), Refusal> {
        let address = network(peer.address.ip());
        self.addresses.take(&address).map_err(|wait| self.refuse(By::Address, wait))?;
        match &peer.host {
            Some(host) => self.hosts.take(host).map_err(|wait| self.refuse(By::Host, wait)),
            None => Ok(()),
        }
    }

    /// A request of a person.
    pub(super) fn person(&self, name: &KeyName) -> Result<(), Refusal> {
        self.people.take(name).map_err(|wait| self.refuse(By::Person, wait))
    }

    /// Whether an address may show a token.
    fn may_show_a_token(&self, peer: &Peer) -> Result<(), Refusal> {
        let until = locked(&self.barred).get(&network(peer.address.ip())).copied().unwrap_or_default();
        match until.checked_sub(self.clock.now()) {
            Some(wait) if !wait.is_zero() => Err(self.refuse(By::WrongTokens, wait)),
            _ => Ok(()),
        }
    }

    /// A token let nobody in.
    fn was_wrong(&self, peer: &Peer) {
        let address = network(peer.address.ip());
        if let Err(wait) = self.wrong_tokens.take(&address) {
            locked(&self.barred).insert(address, self.clock.now() + wait);
        }
    }

    /// Forgets whoever has asked for nothing lately. To be called now and then.
    pub(super) fn forget(&self) {
        self.arrivals.buckets.retain_recent();
        self.addresses.buckets.retain_recent();
        self.hosts.buckets.retain_recent();
        self.people.buckets.retain_recent();
        self.wrong_tokens.buckets.retain_recent();
        let now = self.clock.now();
        locked(&self.barred).retain(|_, until| *until > now);
    }
}

/// A connection that is counted.
pub(super) struct Entered {
    gate: Arc<Gate>,
    address: IpAddr,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut open = locked(&self.gate.open);
        match open.get_mut(&self.address) {
            Some(number) if *number > 1 => *number -= 1,
            _ => drop(open.remove(&self.address)),
        }
    }
}

/// Around every request: whether it is looked at, and what its answer says of who asked.
pub(super) async fn around(
    State(gate): State<Arc<Gate>>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    let shows_a_token = path == paths::ENROL
        || request.headers().contains_key(header::AUTHORIZATION)
        || (path == SIGN_IN && request.method() == Method::POST);
    let may = gate.request(&peer).and_then(|()| match shows_a_token {
        true => gate.may_show_a_token(&peer),
        false => Ok(()),
    });
    if let Err(refusal) = may {
        return match is_page(path) {
            true => Failed::from(refusal).into_response(),
            false => refusal.into_response(),
        };
    }
    let response = next.run(request).await;
    if response.extensions().get::<WrongToken>().is_some() {
        gate.was_wrong(&peer);
    }
    if response.status() == StatusCode::REQUEST_TIMEOUT {
        gate.count(By::Body);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Hand(Mutex<Duration>);

    impl system::clock::Clock for Hand {
        fn elapsed(&self) -> Duration {
            *locked(&self.0)
        }

        fn now(&self) -> jiff::Timestamp {
            jiff::Timestamp::UNIX_EPOCH
        }

        fn sleep(&self, duration: Duration) {
            *locked(&self.0) += duration;
        }
    }

    fn peer(address: &str) -> Peer {
        Peer { host: None, address: (address.parse::<IpAddr>().unwrap(), 1).into() }
    }

    fn gate() -> (Arc<Hand>, Arc<Gate>) {
        let clock = Arc::new(Hand::default());
        let limits = Limits {
            connections_per_address: 2,
            address: Rate { burst: count(3), every: Duration::from_secs(1) },
            wrong_tokens: Rate { burst: count(2), every: Duration::from_secs(10) },
            ..Limits::default()
        };
        (clock.clone(), Arc::new(Gate::new(limits, clock)))
    }

    fn turned_away(gate: &Gate, by: By) -> u64 {
        gate.turned_away.get_or_create(&[("by", by.label())]).get()
    }

    #[test]
    fn an_address_gets_its_burst_then_its_rate_and_costs_no_other_anything() {
        use system::clock::Clock as _;
        let (clock, gate) = gate();
        let (one, other) = (peer("192.0.2.1"), peer("192.0.2.2"));
        let asked = (0..5).filter(|_| gate.request(&one).is_ok()).count();
        assert_eq!((asked, turned_away(&gate, By::Address)), (3, 2));
        assert!(gate.request(&other).is_ok());
        clock.sleep(Duration::from_secs(2));
        let asked = (0..5).filter(|_| gate.request(&one).is_ok()).count();
        assert_eq!(asked, 2);
        clock.sleep(Duration::from_secs(60));
        gate.forget();
        assert!(gate.addresses.buckets.is_empty(), "nothing is kept of who is gone");
    }

    #[test]
    fn whoever_has_an_address_of_a_network_has_all_of_it() {
        let address = |text: &str| network(text.parse().unwrap());
        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff:1"));
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        assert_eq!(address("::ffff:192.0.2.1"), address("192.0.2.1"));
        assert_ne!(address("192.0.2.1"), address("192.0.2.2"));
    }

    #[test]
    fn connections_are_counted_until_they_are_dropped() {
        let (_, gate) = gate();
        let address = "192.0.2.1".parse().unwrap();
        let (first, second) = (gate.enter(address), gate.enter(address));
        assert!(first.is_some() && second.is_some() && gate.enter(address).is_none());
        drop(first);
        assert!(gate.enter(address).is_some());
        drop(second);
        assert!(locked(&gate.open).is_empty());
    }

    #[test]
    fn after_wrong_tokens_none_is_looked_at_for_a_while() {
        use system::clock::Clock as _;
        let (clock, gate) = gate();
        let peer = peer("192.0.2.1");
        for _ in 0..3 {
            assert!(gate.may_show_a_token(&peer).is_ok());
            gate.was_wrong(&peer);
        }
        assert!(gate.may_show_a_token(&peer).is_err());
        clock.sleep(Duration::from_secs(10));
        assert!(gate.may_show_a_token(&peer).is_ok());
        gate.was_wrong(&peer);
        gate.was_wrong(&peer);
        assert!(gate.may_show_a_token(&peer).is_err(), "the pace stays");
        clock.sleep(Duration::from_secs(60));
        gate.forget();
        assert!(locked(&gate.barred).is_empty());
    }
}

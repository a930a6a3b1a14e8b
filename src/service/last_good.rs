//! The last good answers, kept for bad times: one store over all services and workers.
//!
//! It is no cache: nothing in it is ever given to an app while its service works, so what it holds need not be
//! cacheable. What it must be is the app's own: the key covers whatever could make the answer another one, the
//! caller's credentials first of all, by a hash whose seed nobody outside of this process knows.
//!
//! A request's headers matter to its answer where the answer says so (`Vary`, RFC 9110 §12.5.5), which is known only
//! afterwards: so the look-up has two steps, first what was asked for, then the headers that its answers vary by.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher, Hasher, RandomState},
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};
use prometheus::IntGauge;

use super::lock;

/// How many answers to one request may be kept that differ in what they vary by.
const VARIANTS: usize = 16;

/// What an entry costs beside what it holds, in bytes: rounded up, so that many small ones stay within the limit.
const OVERHEAD: usize = 512;

/// What was asked for, with everything in it that is the caller's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(u128);

/// Gathers what makes a request the same as another.
#[derive(Debug)]
pub struct KeyBuilder([std::hash::DefaultHasher; 2]);

/// A good answer.
#[derive(Debug)]
pub struct Kept {
    /// Its status.
    pub status: StatusCode,
    /// Its end-to-end headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// What followed its body.
    pub trailers: Option<HeaderMap>,
    /// When it was given.
    pub at: Instant,
}

/// The store.
#[derive(Debug, Default)]
pub struct LastGood {
    store: Mutex<Store>,
    held: Option<IntGauge>,
}

#[derive(Debug, Default)]
struct Store {
    limit: usize,
    bytes: usize,
    asked: HashMap<Key, Asked>,
    /// Which entry was written when; the first is the one that goes first.
    order: BTreeMap<u64, (Key, Key)>,
    written: u64,
}

/// What answers there have been to one thing that was asked for.
#[derive(Debug)]
struct Asked {
    /// The request's headers that the last answer varies by.
    vary: Vec<HeaderName>,
    variants: HashMap<Key, Variant>,
}

#[derive(Debug)]
struct Variant {
    kept: Arc<Kept>,
    written: u64,
}

impl KeyBuilder {
    /// Nothing yet. The seeds are this process's own: whoever does not know them can make no two keys meet.
    pub fn new() -> Self {
        static SEEDS: OnceLock<[RandomState; 2]> = OnceLock::new();
        let seeds = SEEDS.get_or_init(|| [RandomState::new(), RandomState::new()]);
        Self([seeds[0].build_hasher(), seeds[1].build_hasher()])
    }

    /// A part, told apart from its neighbours.
    #[must_use]
    pub fn with(mut self, part: &[u8]) -> Self {
        for hasher in &mut self.0 {
            hasher.write_usize(part.len());
            hasher.write(part);
        }
        self
    }

    /// More of the part that has no end yet.
    #[must_use]
    pub fn with_more(mut self, piece: &[u8]) -> Self {
        self.0.iter_mut().for_each(|hasher| hasher.write(piece));
        self
    }

    /// Every line of a header, and how many there are.
    #[must_use]
    pub fn with_header(self, headers: &HeaderMap, name: &HeaderName) -> Self {
        let lines = headers.get_all(name);
        let key = self.with(&lines.iter().count().to_le_bytes());
        lines.iter().fold(key, |key, line| key.with(line.as_bytes()))
    }

    /// The key.
    pub fn build(self) -> Key {
        let [high, low] = self.0.map(|hasher| hasher.finish());
        Key((u128::from(high) << 64) | u128::from(low))
    }
}

impl Default for KeyBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl Kept {
    fn size(&self) -> usize {
        let of = |headers: &HeaderMap| {
            headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 64).sum::<usize>()
        };
        OVERHEAD + self.body.len() + of(&self.headers) + self.trailers.as_ref().map_or(0, of)
    }
}

impl LastGood {
    /// An empty store, which tells this gauge how much it holds.
    pub(super) fn counted(held: IntGauge) -> Self {
        Self { store: Mutex::default(), held: Some(held) }
    }

    /// Holds so many bytes from now on.
    pub(super) fn limit(&self, bytes: usize) {
        let mut store = lock(&self.store);
        store.limit = bytes;
        store.make_room();
        self.count(&store);
    }

    fn count(&self, store: &Store) {
        if let Some(held) = &self.held {
            held.set(store.bytes as i64);
        }
    }

    /// Keeps an answer to a request with these headers, in place of the one before.
    pub fn keep(&self, key: Key, asked: &HeaderMap, vary: Vec<HeaderName>, kept: Kept) {
        let mut store = lock(&self.store);
        if kept.size() > store.limit {
            return;
        }
        let variant = variant(&vary, asked);
        let before = store.asked.get(&key);
        if before.is_some_and(|before| before.vary != vary || before.variants.len() >= VARIANTS) {
            store.forget(key);
        } else if let Some(old) = before.and_then(|before| before.variants.get(&variant)).map(|old| old.written) {
            store.drop_written(old);
        }
        store.written += 1;
        let written = store.written;
        store.bytes += kept.size();
        store.order.insert(written, (key, variant));
        let asked = store.asked.entry(key).or_insert_with(|| Asked { vary, variants: HashMap::new() });
        asked.variants.insert(variant, Variant { kept: Arc::new(kept), written });
        store.make_room();
        self.count(&store);
    }

    /// The last good answer to such a request, if it is no older than `age`.
    pub fn find(&self, key: Key, asked: &HeaderMap, age: Duration, now: Instant) -> Option<Arc<Kept>> {
        let store = lock(&self.store);
        let known = store.asked.get(&key)?;
        let kept = &known.variants.get(&variant(&known.vary, asked))?.kept;
        (now.saturating_duration_since(kept.at) <= age).then(|| kept.clone())
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        lock(&self.store).bytes
    }
}

impl Store {
    fn make_room(&mut self) {
        while self.bytes > self.limit {
            let Some((&oldest, _)) = self.order.first_key_value() else { return };
            self.drop_written(oldest);
        }
    }

    fn forget(&mut self, key: Key) {
        let written: Vec<_> =
            self.asked.get(&key).into_iter().flat_map(|asked| asked.variants.values().map(|v| v.written)).collect();
        written.into_iter().for_each(|written| self.drop_written(written));
    }

    fn drop_written(&mut self, written: u64) {
        let Some((key, variant)) = self.order.remove(&written) else { return };
        let Some(asked) = self.asked.get_mut(&key) else { return };
        if let Some(dropped) = asked.variants.remove(&variant) {
            self.bytes -= dropped.kept.size();
        }
        if asked.variants.is_empty() {
            self.asked.remove(&key);
        }
    }
}

/// The values of the headers that an answer varies by.
fn variant(vary: &[HeaderName], asked: &HeaderMap) -> Key {
    vary.iter().fold(KeyBuilder::new(), |key, name| key.with_header(asked, name)).build()
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::model::Random;

    fn key(text: &str) -> Key {
        KeyBuilder::new().with(text.as_bytes()).build()
    }

    fn kept(body: &str, at: Instant) -> Kept {
        let body = Bytes::copy_from_slice(body.as_bytes());
        Kept { status: StatusCode::OK, headers: HeaderMap::new(), body, trailers: None, at }
    }

    fn store(limit: usize) -> LastGood {
        let store = LastGood::default();
        store.limit(limit);
        store
    }

    fn language(text: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(http::header::ACCEPT_LANGUAGE, HeaderValue::from_static(text))])
    }

    #[test]
    fn the_last_one_is_found_until_it_is_too_old() {
        let (store, now, none) = (store(1 << 20), Instant::now(), HeaderMap::new());
        store.keep(key("a"), &none, vec![], kept("one", now));
        store.keep(key("a"), &none, vec![], kept("two", now));
        let age = Duration::from_secs(60);
        let body = |key, at| store.find(key, &none, age, at).map(|kept| kept.body.clone());
        assert_eq!(body(key("a"), now + age), Some("two".into()));
        assert_eq!(body(key("a"), now + age + Duration::from_millis(1)), None);
        assert_eq!(body(key("b"), now), None);
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let two = KeyBuilder::new().with(b"ab").with(b"c").build();
        assert_ne!(two, KeyBuilder::new().with(b"a").with(b"bc").build());
        assert_ne!(two, KeyBuilder::new().with(b"abc").build());
    }

    #[test]
    fn answers_that_vary_are_told_apart() {
        let (store, now) = (store(1 << 20), Instant::now());
        let vary = || vec![http::header::ACCEPT_LANGUAGE];
        store.keep(key("a"), &language("de"), vary(), kept("gut", now));
        store.keep(key("a"), &language("en"), vary(), kept("good", now));
        let find =
            |headers: &HeaderMap| store.find(key("a"), headers, Duration::ZERO, now).map(|kept| kept.body.clone());
        assert_eq!((find(&language("de")), find(&language("en"))), (Some("gut".into()), Some("good".into())));
        assert_eq!((find(&language("fr")), find(&HeaderMap::new())), (None, None));
        // What it varies by has changed: what was known is worth nothing.
        store.keep(key("a"), &language("de"), vec![], kept("plain", now));
        assert_eq!(find(&language("fr")), Some("plain".into()));
    }

    #[test]
    fn it_stays_within_its_limit_and_forgets_the_oldest_first() {
        let now = Instant::now();
        for seed in 0..50 {
            let mut random = Random::seeded(seed);
            let limit = 20_000 + random.below(100_000) as usize;
            let store = store(limit);
            for n in 0..500 {
                let body = "x".repeat(random.below(5_000) as usize);
                let name = random.below(60).to_string();
                store.keep(key(&name), &HeaderMap::new(), vec![], kept(&body, now));
                assert!(store.bytes() <= limit, "seed {seed}, step {n}");
                let found = store.find(key(&name), &HeaderMap::new(), Duration::ZERO, now);
                assert_eq!(found.map(|kept| kept.body.len()), Some(body.len()), "seed {seed}: the newest is there");
                let inner = lock(&store.store);
                let held: usize = inner.asked.values().flat_map(|a| a.variants.values()).map(|v| v.kept.size()).sum();
                assert_eq!((held, inner.order.len()), (inner.bytes, inner.asked.len()), "seed {seed}");
            }
            store.limit(0);
            assert_eq!(store.bytes(), 0);
        }
    }

    #[test]
    fn one_request_s_variants_are_limited() {
        let (store, now) = (store(1 << 20), Instant::now());
        for n in 0..100 {
            let mut asked = HeaderMap::new();
            asked.insert(http::header::ACCEPT_LANGUAGE, HeaderValue::from(n));
            store.keep(key("a"), &asked, vec![http::header::ACCEPT_LANGUAGE], kept("x", now));
        }
        assert!(lock(&store.store).order.len() <= VARIANTS);
    }
}

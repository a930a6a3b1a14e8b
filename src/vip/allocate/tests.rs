use super::*;
use crate::model::Random;

const DAY: u64 = 24 * 3600;

fn name(text: &str) -> ServiceName {
    ServiceName::parse(text).unwrap()
}

fn range(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

fn wishes(names: &[&str]) -> Vec<Wish> {
    names.iter().map(|text| Wish { name: name(text), given: None }).collect()
}

fn given(text: &str, address: &str) -> Wish {
    Wish { name: name(text), given: Some(address.parse().unwrap()) }
}

fn book() -> Book {
    Book::new(range("127.84.0.0/16"), [])
}

/// Two names whose first choice in this range is the same, the first by alphabet first, and a third that is alone.
fn collision(range: Ipv4Net) -> [String; 2] {
    let mut seen: HashMap<Ipv4Addr, String> = HashMap::new();
    for n in 0..100_000 {
        let text = format!("s{n:05}");
        if let Some(other) = seen.insert(choice(range, &name(&text), 0), text.clone()) {
            return [other, text];
        }
    }
    panic!("no two names collide")
}

#[test]
fn an_address_is_a_names_for_good() {
    // Whatever changes these moves every address of every user.
    let mut book = book();
    book.assign(wishes(&["orders", "payments", "users"]), 0).unwrap();
    let of = |text: &str| book.current()[&name(text)].to_string();
    assert_eq!([of("orders"), of("payments"), of("users")], ["127.84.101.24", "127.84.106.216", "127.84.252.24"]);
}

#[test]
fn it_does_not_depend_on_who_else_is_there() {
    let mut alone = book();
    alone.assign(wishes(&["orders"]), 0).unwrap();
    let many: Vec<String> = (0..50).map(|n| format!("other{n}")).chain(["orders".into()]).collect();
    let mut among = book();
    among.assign(wishes(&many.iter().map(String::as_str).collect::<Vec<_>>()), 0).unwrap();
    assert_eq!(alone.current()[&name("orders")], among.current()[&name("orders")]);
}

#[test]
fn of_two_that_collide_the_first_by_alphabet_has_its_choice_and_no_third_moves() {
    let net = range("127.84.0.0/16");
    let [a, b] = collision(net);
    // A third name whose first choice is where the loser goes.
    let second = choice(net, &name(&b), 1);
    let third = (0..).map(|n| format!("t{n}")).find(|text| choice(net, &name(text), 0) == second).unwrap();
    let mut book = book();
    book.assign(wishes(&[&b, &third, &a]), 0).unwrap();
    assert_eq!(book.current()[&name(&a)], choice(net, &name(&a), 0));
    assert_eq!(book.current()[&name(&third)], second, "it collides with nobody");
    let loser = book.current()[&name(&b)];
    assert!(loser != second && loser != choice(net, &name(&a), 0));
}

#[test]
fn who_has_an_address_keeps_it_when_the_first_by_alphabet_comes_later() {
    let net = range("127.84.0.0/16");
    let [a, b] = collision(net);
    let mut first = book();
    first.assign(wishes(&[&b]), 0).unwrap();
    let had = first.current()[&name(&b)];
    first.assign(wishes(&[&a, &b]), 10).unwrap();
    assert_eq!(first.current()[&name(&b)], had);
    // And after a restart, as the book remembers it.
    let mut again = Book::new(net, first.entries().clone());
    again.assign(wishes(&[&a, &b]), 20).unwrap();
    assert_eq!(again.current(), first.current());
}

#[test]
fn an_address_is_nobody_elses_for_a_day() {
    let net = range("127.84.0.0/16");
    let [a, b] = collision(net);
    let mut book = book();
    book.assign(wishes(&[&a]), 0).unwrap();
    let had = book.current()[&name(&a)];
    // In use until day 3, although the book was written at 0.
    book.assign(wishes(&[&b]), 3 * DAY).unwrap();
    assert_ne!(book.current()[&name(&b)], had);
    let mut back = book.clone();
    back.assign(wishes(&[&a, &b]), 4 * DAY - 1).unwrap();
    assert_eq!(back.current()[&name(&a)], had, "its own it may have back");
    // Another one that wants it later than that gets it.
    let mut later = book.clone();
    later.assign([], 3 * DAY).unwrap();
    later.assign(wishes(&[&b]), 9 * DAY).unwrap();
    assert_eq!(later.current()[&name(&b)], had);
}

#[test]
fn what_the_operator_gives_wins() {
    let mut book = book();
    book.assign(wishes(&["orders", "users"]), 0).unwrap();
    let orders = book.current()[&name("orders")];
    book.assign([given("users", &orders.to_string()), wishes(&["orders"]).remove(0)], 1).unwrap();
    assert_eq!(book.current()[&name("users")], orders);
    assert_ne!(book.current()[&name("orders")], orders);
    // Outside of the range, too.
    book.assign([given("users", "127.9.9.9")], 2).unwrap();
    assert_eq!(book.current()[&name("users")].to_string(), "127.9.9.9");
}

#[test]
fn a_range_that_is_full_is_an_error_that_changes_nothing() {
    let mut book = Book::new(range("127.84.0.0/29"), []);
    book.assign(wishes(&["a", "b", "c", "d", "e", "f"]), 0).unwrap();
    let before = book.clone();
    let error = book.assign(wishes(&["a", "b", "c", "d", "e", "f", "g"]), 0).unwrap_err();
    assert!(error.to_string().contains("127.84.0.0/29") && error.to_string().contains("\"g\""), "{error}");
    assert_eq!(book, before);
    assert!(book.add(&name("g"), 0).is_err());
    // Whoever was there within a day counts, too.
    assert!(book.assign(wishes(&["a", "g"]), 5).is_err());
    assert!(book.assign(wishes(&["a", "g"]), 5 + 2 * DAY).is_err(), "until now they had them");
    book.assign(wishes(&["a"]), 6).unwrap();
    book.assign(wishes(&["a", "g"]), 6 + 2 * DAY).unwrap();
}

#[test]
fn a_clock_that_goes_back_frees_nothing() {
    let mut book = book();
    let [a, b] = collision(range("127.84.0.0/16"));
    book.assign(wishes(&[&a]), 100 * DAY).unwrap();
    let had = book.current()[&name(&a)];
    book.assign([], 100 * DAY).unwrap();
    book.assign(wishes(&[&b]), 50).unwrap();
    assert_ne!(book.current()[&name(&b)], had);
}

#[test]
fn names_come_and_go_one_by_one() {
    let mut book = book();
    let first = book.add(&name("orders"), 0).unwrap();
    assert_eq!(book.add(&name("orders"), 1).unwrap(), first);
    book.release(&name("orders"), 5);
    assert!(book.current().is_empty());
    assert_eq!(book.add(&name("orders"), 6).unwrap(), first);
}

/// A seeded life of a small range: nobody shares an address, nobody moves while he stays, nobody gets what was another's
/// within a day.
#[test]
fn invariants_hold_over_a_long_life() {
    let mut random = Random::seeded(11);
    let net = range("127.84.0.0/26");
    let mut book = Book::new(net, []);
    let mut used: HashMap<Ipv4Addr, (ServiceName, u64)> = HashMap::new();
    let mut now = 0;
    for step in 0..3000 {
        now += 1 + (random.share() * 20_000.0) as u64;
        let present: Vec<String> = (0..90).filter(|_| random.share() < 0.2).map(|n| format!("n{n}")).collect();
        let before = book.current().clone();
        // Until now it was in use.
        for (who, address) in &before {
            used.insert(*address, (who.clone(), now));
        }
        if book.assign(wishes(&present.iter().map(String::as_str).collect::<Vec<_>>()), now).is_err() {
            assert_eq!(*book.current(), before);
            continue;
        }
        let mut seen = BTreeSet::new();
        assert_eq!(book.current().len(), present.len());
        for (who, address) in book.current() {
            assert!(seen.insert(*address), "step {step}: {address} is two names'");
            assert!(net.contains(address) && *address != net.network() && *address != net.broadcast());
            assert!(before.get(who).is_none_or(|had| had == address), "step {step}: {who} moved");
            if let Some((other, last)) = used.get(address) {
                assert!(other == who || now - last >= DAY, "step {step}: {address} was {other}'s");
            }
        }
        if random.share() < 0.2 {
            // A restart: all that is known is what the book remembers.
            for (who, address) in book.current() {
                used.insert(*address, (who.clone(), now));
            }
            book = Book::new(net, book.entries().clone());
        }
    }
}

#[test]
fn who_comes_back_alone_gets_what_it_would_get_among_all() {
    let range = "127.84.0.0/16".parse().unwrap();
    let name = ServiceName::parse("orders").unwrap();
    let had = |address: [u8; 4], seen| (Ipv4Addr::from(address), Entry { name: name.clone(), seen });
    let first = [127, 84, 0, 9];
    // Twice the same second, once earlier, and once outside the range.
    let remembered = [had([127, 84, 0, 5], 70), had(first, 77), had([127, 84, 0, 11], 77), had([127, 85, 0, 1], 78)];
    let mut alone = Book::new(range, remembered.clone());
    let mut among = Book::new(range, remembered);
    among.assign([Wish { name: name.clone(), given: None }], 80).unwrap();
    assert_eq!(alone.add(&name, 80).unwrap(), Ipv4Addr::from(first));
    assert_eq!(among.current()[&name], Ipv4Addr::from(first));
}

#[test]
fn names_that_are_made_up_leave_half_of_the_range() {
    let mut book = Book::new(range("127.84.0.0/28"), []);
    let one = |n: u32| name(&format!("n{n}"));
    for n in 0..7 {
        book.add(&one(n), 10).unwrap();
        book.release(&one(n), 10);
    }
    assert!(book.add(&one(7), 10).is_err());
    assert!(book.add(&one(3), 10).is_ok(), "who had one has it");
    book.assign(wishes(&["a", "b", "c", "d", "e", "f", "g"]), 10).unwrap();
    assert!(book.add(&one(7), 10 + 2 * DAY).is_err(), "seven are in use");
    book.assign(wishes(&["a"]), 10 + 2 * DAY).unwrap();
    assert!(book.add(&one(7), 10 + 4 * DAY).is_ok(), "they are not kept for ever");
}

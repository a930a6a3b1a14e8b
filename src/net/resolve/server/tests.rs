//! Whom to ask next, as servers fall silent or ask back.

use super::*;

#[tokio::test]
async fn a_silent_server_is_asked_last_until_one_lookup_has_tried_it_again() {
    let at = |text: &str| Nameserver::At(text.parse().unwrap());
    let servers = [at("192.0.2.1:53"), at("192.0.2.2:53")];
    let roster = Roster::assemble(&servers, &System::default(), Duration::from_secs(2)).unwrap();
    let first = |now| roster.order(now)[0].addr.ip().to_string();
    let start = Instant::now();
    assert_eq!(first(start), "192.0.2.1");
    roster.servers[0].suspect(start);
    assert_eq!(first(start), "192.0.2.2");
    let later = start + SUSPECT_FOR;
    assert_eq!(first(later), "192.0.2.1", "one lookup tries it");
    assert_eq!(first(later), "192.0.2.2", "the next one does not wait for that");
    roster.servers[0].trust(later);
    assert_eq!(first(later), "192.0.2.1");
}

#[tokio::test]
async fn a_server_that_asks_us_in_turn_is_left_out_unless_it_has_answers_of_its_own() {
    let at = |text: &str| Nameserver::At(text.parse().unwrap());
    let servers = [at("192.0.2.1:53"), at("192.0.2.2:53")];
    let roster = Roster::assemble(&servers, &System::default(), Duration::from_secs(2)).unwrap();
    let asked = |now| roster.order(now).iter().map(|server| server.addr.ip().to_string()).collect::<Vec<_>>();
    let sent = |i: usize| Sent::to(roster.servers[i].addr, true);
    let start = Instant::now();
    roster.looped(sent(0), start);
    assert_eq!(asked(start), ["192.0.2.2"]);
    assert_eq!(asked(start + LOOP_FOR), ["192.0.2.1", "192.0.2.2"]);
    roster.looped(sent(0), start + LOOP_FOR);
    roster.servers[0].trust(start + LOOP_FOR);
    assert_eq!(asked(start + LOOP_FOR), ["192.0.2.1", "192.0.2.2"], "it does know something");
    roster.looped(sent(0), start + LOOP_FOR + LOOP_FOR / 2);
    assert_eq!(asked(start + LOOP_FOR + LOOP_FOR / 2), ["192.0.2.1", "192.0.2.2"]);
    roster.looped(sent(0), start + 2 * LOOP_FOR);
    roster.looped(sent(1), start + 2 * LOOP_FOR);
    assert_eq!(asked(start + 2 * LOOP_FOR), [] as [&str; 0]);
    roster.looped(Sent::to(([192, 0, 2, 7], 53).into(), true), start);
}

#[tokio::test]
async fn a_roster_of_ourselves_alone_is_empty_and_says_what_to_do() {
    let ours: SocketAddr = "127.0.0.1:53".parse().unwrap();
    let system = System::with(Ourselves::new(ours));
    let roster = Roster::assemble(&[Nameserver::At(ours)], &system, Duration::from_secs(2)).unwrap();
    assert!(roster.is_empty() && roster.is_guess());
    let asked = Asked::lookup(&Name::root(), RecordType::NS);
    let failure = roster.ask(&asked, Instant::now()).await.err().unwrap();
    assert!(failure.why.contains("forward: [IP]") && !failure.silence, "{}", failure.why);
}

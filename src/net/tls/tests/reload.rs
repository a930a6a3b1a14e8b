//! Files that change.

use std::{fs, os::unix::fs::symlink};

use super::super::{
    Client, Offer, Server,
    testing::{Authority, DAY, Folder, byte, inbound, shake, tls, valid},
};
use crate::config::{KeyPair, Tls};

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_callers_and_old_connections_stay() {
    let (folder, us, them) = (Folder::new(), Authority::new("us"), Authority::new("them"));
    let ca = folder.write("ca.pem", us.pem());
    let settings = inbound(folder.pair("me", &us.issue(&["me"])), None);
    let (server, client) = (Server::new(&settings).unwrap(), Client::new(&tls(&ca)).unwrap());
    assert!(server.refresh().is_none() && client.refresh().is_none(), "nothing has changed");
    let (connected, accepted) = shake(&client, "me", Offer::Http1, &server).await;
    let (mut near, mut far) = (connected.unwrap().0, accepted.unwrap().stream);

    folder.pair("me", &them.issue(&["me"]));
    assert!(server.refresh().unwrap().is_ok());
    assert!(server.refresh().is_none());
    let (connected, _) = shake(&client, "me", Offer::Http1, &server).await;
    assert!(connected.unwrap_err().0.contains("not signed by anyone in"));

    folder.write("ca.pem", them.pem());
    assert!(client.refresh().unwrap().is_ok());
    shake(&client, "me", Offer::Http1, &server).await.0.unwrap();
    byte(&mut near, &mut far).await;
}

#[tokio::test]
async fn a_certificate_and_its_key_may_come_one_after_the_other() {
    let (folder, us) = (Folder::new(), Authority::new("us"));
    let (old, new) = (us.issue(&["old"]), us.issue(&["new"]));
    let ca = folder.write("ca.pem", us.pem());
    let server = Server::new(&inbound(folder.pair("me", &old), None)).unwrap();
    let client = Client::new(&tls(&ca)).unwrap();

    folder.write("me.pem", &new.cert);
    let error = server.refresh().unwrap().unwrap_err();
    assert!(error.0.contains("me.pem") && error.0.contains("me.key"), "{error}");
    assert!(error.0.contains("do not belong together"), "{error}");
    assert!(server.refresh().is_none(), "it has been said");
    assert!(server.refresh().is_none());
    shake(&client, "old", Offer::Http1, &server).await.0.unwrap();

    folder.write("me.key", &new.key);
    assert!(server.refresh().unwrap().is_ok());
    assert!(server.refresh().is_none());
    shake(&client, "new", Offer::Http1, &server).await.0.unwrap();
}

#[tokio::test]
async fn files_that_are_bad_change_nothing_and_each_fault_is_said_once() {
    let (folder, us) = (Folder::new(), Authority::new("us"));
    let me = us.issue(&["me"]);
    let ca = folder.write("ca.pem", us.pem());
    let pair = folder.pair("me", &me);
    let server = Server::new(&inbound(pair.clone(), Some(&ca))).unwrap();
    let client = Client::new(&Tls { identity: Some(pair), ..tls(&ca) }).unwrap();
    let half = &me.cert[..me.cert.len() / 2];
    for (bad, word) in [(half, "cut short"), ("", "is empty"), ("# soon\n", "not PEM")] {
        folder.write("me.pem", bad);
        for refresh in [server.refresh(), client.refresh()] {
            let error = refresh.unwrap().unwrap_err();
            assert!(error.0.contains(word) && error.0.contains("me.pem"), "{error}");
        }
        assert!(server.refresh().is_none() && client.refresh().is_none(), "{word}");
        let (connected, accepted) = shake(&client, "me", Offer::Http1, &server).await;
        connected.unwrap();
        accepted.unwrap();
    }
    fs::remove_file(folder.path("me.pem")).unwrap();
    let error = server.refresh().unwrap().unwrap_err();
    assert!(error.0.contains("me.pem cannot be read: No such file"), "{error}");
    assert!(server.refresh().is_none());
    // Right again, and the same as ever: this too is said once.
    folder.write("me.pem", &me.cert);
    assert!(server.refresh().unwrap().is_ok());
    assert!(server.refresh().is_none());
}

#[test]
fn a_touch_is_not_a_change() {
    let (folder, us) = (Folder::new(), Authority::new("us"));
    let pair = us.issue(&["me"]);
    let server = Server::new(&inbound(folder.pair("me", &pair), None)).unwrap();
    for _ in 0..3 {
        folder.pair("me", &pair);
        assert!(server.refresh().is_none());
    }
}

#[tokio::test]
async fn kubernetes_swaps_a_link_to_the_folder() {
    let (folder, us) = (Folder::new(), Authority::new("us"));
    for version in ["1", "2"] {
        fs::create_dir(folder.path(version)).unwrap();
        let pair = us.issue(&[&format!("v{version}")]);
        folder.write(&format!("{version}/tls.crt"), &pair.cert);
        folder.write(&format!("{version}/tls.key"), &pair.key);
    }
    let point_at = |version: &str| {
        symlink(version, folder.path("..tmp")).unwrap();
        fs::rename(folder.path("..tmp"), folder.path("..data")).unwrap();
    };
    point_at("1");
    for file in ["tls.crt", "tls.key"] {
        symlink(format!("..data/{file}"), folder.path(file)).unwrap();
    }
    let identity = KeyPair { cert: folder.path("tls.crt"), key: folder.path("tls.key") };
    let server = Server::new(&inbound(identity, None)).unwrap();
    let client = Client::new(&tls(&folder.write("ca.pem", us.pem()))).unwrap();
    shake(&client, "v1", Offer::Http1, &server).await.0.unwrap();
    point_at("2");
    assert!(server.refresh().unwrap().is_ok());
    shake(&client, "v2", Offer::Http1, &server).await.0.unwrap();
    point_at("1");
    assert!(server.refresh().unwrap().is_ok());
    shake(&client, "v1", Offer::Http1, &server).await.0.unwrap();
}

#[test]
fn the_end_of_our_own_certificate_is_known_and_follows_a_reload() {
    let (folder, us) = (Folder::new(), Authority::new("us"));
    let ca = folder.write("ca.pem", us.pem());
    assert_eq!(Client::new(&tls(&ca)).unwrap().not_after(), None);
    let pair = folder.pair("me", &us.issue_as(&["me"], valid(-DAY, 3 * DAY)));
    let server = Server::new(&inbound(pair.clone(), None)).unwrap();
    let client = Client::new(&Tls { identity: Some(pair), ..tls(&ca) }).unwrap();
    let left = |not_after: Option<std::time::SystemTime>| {
        not_after.unwrap().duration_since(std::time::SystemTime::now()).unwrap().as_secs() / 3600
    };
    assert_eq!((left(server.not_after()), left(client.not_after())), (71, 71));
    folder.pair("me", &us.issue_as(&["me"], valid(-DAY, 9 * DAY)));
    server.refresh().unwrap().unwrap();
    client.refresh().unwrap().unwrap();
    assert_eq!((left(server.not_after()), left(client.not_after())), (215, 215));
}

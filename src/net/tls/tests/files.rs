//! Files that are not what they should be.

use super::super::{
    Client, Server,
    testing::{Authority, Folder, inbound, key_of, tls},
};
use crate::config::{KeyPair, Tls};

fn error_of(identity: KeyPair) -> String {
    Server::new(&inbound(identity, None)).unwrap_err().0
}

#[test]
fn each_way_to_be_wrong_has_its_words() {
    let (folder, us) = (Folder::new(), Authority::new("us"));
    let me = us.issue(&["me"]);
    let (cert, key) = (folder.write("me.pem", &me.cert), folder.write("me.key", &me.key));
    let pair = |cert: &std::path::Path, key: &std::path::Path| KeyPair { cert: cert.into(), key: key.into() };

    let absent = folder.path("absent.pem");
    assert!(
        error_of(pair(&absent, &key)).ends_with("absent.pem cannot be read: No such file or directory (os error 2)")
    );
    assert!(error_of(pair(&folder.path("."), &key)).contains("this is not a file"));
    assert!(error_of(pair(&key, &key)).ends_with("me.key holds no certificate: it holds a private key"));
    assert!(error_of(pair(&cert, &cert)).ends_with("me.pem holds no private key: it holds a certificate"));
    let der = folder.write("me.der", [0x30, 0x82, 1, 1]);
    assert!(error_of(pair(&der, &key)).contains("looks like DER"));
    assert!(error_of(pair(&cert, &der)).contains("looks like DER"));
    let locked = folder.write("locked.key", me.key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"));
    assert!(error_of(pair(&cert, &locked)).contains("locked with a passphrase"));
    let older = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    let locked = folder.write("older.key", older);
    assert!(error_of(pair(&cert, &locked)).contains("locked with a passphrase"));
    let cut = folder.write("cut.key", &me.key[..100]);
    assert!(error_of(pair(&cert, &cut)).ends_with("cut.key is cut short: a block has no END line"));
    let noise = folder.write(
        "noise.pem",
        me.cert.replace(
            "
M", "
?",
        ),
    );
    assert!(error_of(pair(&noise, &key)).contains("noise.pem is damaged"));
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let garbage = folder.write("garbage.pem", garbage);
    assert!(error_of(pair(&garbage, &key)).contains("certificate 1 of"));
    let hollow = folder.write("hollow.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    assert!(error_of(pair(&cert, &hollow)).contains("hollow.key is damaged or of no use"));
    let large = folder.write("large.pem", vec![b'\n'; 5 << 20]);
    assert!(error_of(pair(&large, &key)).ends_with("large.pem is larger than 4 MiB"));
    let other = folder.write("other.key", us.issue(&["me"]).key);
    let why = error_of(pair(&cert, &other));
    assert_eq!(
        why,
        format!("the certificate in {} and the key in {} do not belong together", cert.display(), other.display())
    );
    let upside_down = folder.write("upside_down.pem", us.pem() + &me.cert);
    assert!(error_of(pair(&upside_down, &key)).contains("belongs to certificate 2 of"));
}

#[test]
fn a_bundle_is_wrong_by_its_number() {
    let (folder, us) = (Folder::new(), Authority::new("us"));
    let bad = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let ca = folder.write("ca.pem", us.pem() + bad);
    let error = Client::new(&tls(&ca)).unwrap_err();
    assert!(error.0.starts_with(&format!("certificate 2 of {} cannot be read", ca.display())), "{error}");
    let none = folder.write("none.pem", "");
    let error = Client::new(&tls(&none)).unwrap_err();
    assert!(error.0.ends_with("none.pem holds no certificate: it is empty"), "{error}");
}

#[test]
fn one_file_may_hold_both() {
    let (folder, us) = (Folder::new(), Authority::new("us"));
    let me = us.issue(&["me"]);
    let both = folder.write("both.pem", format!("# note\n{}{}{}", me.key, me.cert, us.pem()));
    Server::new(&inbound(KeyPair { cert: both.clone(), key: both.clone() }, Some(&both))).unwrap();
    let identity = Some(KeyPair { cert: both.clone(), key: both.clone() });
    Client::new(&Tls { identity, ..tls(&both) }).unwrap();
}

#[test]
fn a_key_may_be_in_the_older_form_of_elliptic_curves() {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let (folder, us) = (Folder::new(), Authority::new("us"));
    let me = us.issue(&["me"]);
    // PKCS#8 is a SEQUENCE of a version, an algorithm, and an OCTET STRING with the key as SEC1 writes it.
    let pkcs8 = key_of(&me.key).secret_der().to_vec();
    let at = pkcs8.windows(5).position(|bytes| matches!(bytes, [0x04, _, 0x30, _, 0x02])).unwrap();
    let sec1 = STANDARD.encode(&pkcs8[at + 2..at + 2 + usize::from(pkcs8[at + 1])]);
    let key = folder.write("me.key", format!("-----BEGIN EC PRIVATE KEY-----\n{sec1}\n-----END EC PRIVATE KEY-----\n"));
    Server::new(&inbound(KeyPair { cert: folder.write("me.pem", &me.cert), key }, None)).unwrap();
}

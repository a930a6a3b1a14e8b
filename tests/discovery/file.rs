//! The `file` and `static` sources. The clock is paused: it stands still while a file is being read.

use std::{
    fs,
    path::{Path, PathBuf},
};

use outrigger::{config::Source, discovery::Subscription};

use super::{addrs, problem, settings, until, watch};

struct Listed {
    dir: tempfile::TempDir,
    path: PathBuf,
    orders: Subscription,
}

impl Listed {
    fn watch(text: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("orders.yaml");
        if let Some(text) = text {
            fs::write(&path, text).unwrap();
        }
        let orders = watch(&settings(&["127.0.0.1:53".parse().unwrap()]), &Source::File(path.clone()));
        Self { dir, path, orders }
    }

    /// As careful writers do it.
    fn replace(&self, text: &str) {
        let fresh = self.dir.path().join("fresh");
        fs::write(&fresh, text).unwrap();
        fs::rename(&fresh, &self.path).unwrap();
    }

    async fn shows(&mut self, expected: &[&str]) {
        until(&mut self.orders, |s| addrs(s) == expected).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_is_followed_however_it_is_written() {
    let mut listed = Listed::watch(Some("- 10.0.0.1:80\n- {address: '10.0.0.2:80', weight: 3}\n"));
    listed.shows(&["10.0.0.1:80", "10.0.0.2:80"]).await;
    assert_eq!(listed.orders.snapshots.borrow().set.endpoints()[1].weight, 3);
    listed.replace(r#"{"endpoints": ["10.0.0.3:80"]}"#);
    listed.shows(&["10.0.0.3:80"]).await;
    fs::write(&listed.path, "- 10.0.0.4:80\n").unwrap();
    listed.shows(&["10.0.0.4:80"]).await;
    assert_eq!(listed.orders.snapshots.borrow().set.revision(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_swapped_symlink_is_seen() {
    let mut listed = Listed::watch(None);
    let dir = listed.dir.path().to_owned();
    let publish = |version: &str, text: &str| {
        let data = dir.join(version);
        fs::create_dir(&data).unwrap();
        fs::write(data.join("orders.yaml"), text).unwrap();
        let link = dir.join("link");
        std::os::unix::fs::symlink(&data, &link).unwrap();
        fs::rename(&link, dir.join("..data")).unwrap();
    };
    publish("v1", "- 10.0.0.1:80\n");
    std::os::unix::fs::symlink(Path::new("..data/orders.yaml"), &listed.path).unwrap();
    listed.shows(&["10.0.0.1:80"]).await;
    publish("v2", "- 10.0.0.2:80\n");
    listed.shows(&["10.0.0.2:80"]).await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_keeps_the_last_good_set() {
    let mut listed = Listed::watch(Some("- 10.0.0.1:80\n"));
    listed.shows(&["10.0.0.1:80"]).await;
    for (bad, expected) in
        [("- 10.0.0.1:80\n- 10.0.", "IP:PORT"), ("", "it is empty"), ("- {addres: '10.0.0.1:80'}", "addres")]
    {
        listed.replace(bad);
        let troubled = until(&mut listed.orders, |s| problem(s).contains(expected)).await;
        assert_eq!(addrs(&troubled), ["10.0.0.1:80"], "{bad}");
    }
    fs::write(&listed.path, [0xff, 0xfe, 0x00]).unwrap();
    until(&mut listed.orders, |s| problem(s).contains("utf-8")).await;
    fs::remove_file(&listed.path).unwrap();
    until(&mut listed.orders, |s| problem(s).contains("No such file")).await;
    fs::create_dir(&listed.path).unwrap();
    until(&mut listed.orders, |s| problem(s).contains("not a file")).await;
    fs::remove_dir(&listed.path).unwrap();
    fs::write(&listed.path, "# long\n".repeat(2_000_000)).unwrap();
    until(&mut listed.orders, |s| problem(s).contains("8 MiB")).await;
    listed.shows(&["10.0.0.1:80"]).await;
    listed.replace("- 10.0.0.1:80\n");
    let well = until(&mut listed.orders, |s| s.status.problem.is_none()).await;
    assert_eq!(well.set.revision(), 1, "it was the same set all the time");
}

#[tokio::test(start_paused = true)]
async fn an_empty_list_is_held_and_then_dropped() {
    let mut listed = Listed::watch(Some("- 10.0.0.1:80\n"));
    listed.shows(&["10.0.0.1:80"]).await;
    listed.replace("[]");
    let held = until(&mut listed.orders, |s| s.status.drop_at.is_some()).await;
    assert_eq!((addrs(&held), problem(&held)), (vec!["10.0.0.1:80".to_owned()], "the list is empty"));
    listed.shows(&[]).await;
    listed.replace("- 10.0.0.1:80\n");
    listed.shows(&["10.0.0.1:80"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_file_may_come_later() {
    let mut listed = Listed::watch(None);
    until(&mut listed.orders, |s| problem(s).contains("No such file")).await;
    listed.replace("- 10.0.0.1:80\n");
    listed.shows(&["10.0.0.1:80"]).await;
}

#[tokio::test(start_paused = true)]
async fn static_addresses_are_there_at_once_and_for_good() {
    let source = Source::Static(vec!["10.0.0.2:80".parse().unwrap(), "10.0.0.1:80".parse().unwrap()]);
    let mut orders = watch(&settings(&["127.0.0.1:53".parse().unwrap()]), &source);
    let found = until(&mut orders, |s| s.set.revision() == 1).await;
    assert_eq!(addrs(&found), ["10.0.0.1:80", "10.0.0.2:80"]);
    assert_eq!(&*found.set.endpoints()[0].authority, "10.0.0.1:80");
    assert_eq!(found.status.next_look, None);
    orders.nudge.now();
    assert_eq!(orders.snapshots.borrow().set.revision(), 1);
}

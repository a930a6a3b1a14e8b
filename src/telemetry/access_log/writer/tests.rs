use std::{
    io::{BufRead, BufReader, Read},
    os::fd::AsRawFd,
};

use super::*;

fn counter() -> IntCounter {
    IntCounter::new("lost", "Lost.").unwrap()
}

fn line(text: &str) -> Vec<u8> {
    format!("{text}\n").into_bytes()
}

#[test]
fn the_last_handle_waits_until_everything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let lost = counter();
    let first = Handle::start(Destination::open(path.clone()).unwrap(), lost.clone()).unwrap();
    let second = first.clone();
    for n in 0..1000 {
        if n % 2 == 0 { &first } else { &second }.offer(line(&n.to_string()));
    }
    drop(first);
    drop(second);
    let text = std::fs::read_to_string(&path).unwrap();
    let expected: String = (0..1000).map(|n| format!("{n}\n")).collect();
    assert_eq!(text, expected);
    assert_eq!(lost.get(), 0);
}

#[test]
fn after_a_rotation_lines_go_to_the_new_file() {
    let folder = tempfile::tempdir().unwrap();
    let (path, rotated) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
    let handle = Handle::start(Destination::open(path.clone()).unwrap(), counter()).unwrap();
    std::fs::rename(&path, &rotated).unwrap();
    handle.reopen();
    handle.offer(line("after"));
    drop(handle);
    assert_eq!(std::fs::read_to_string(&rotated).unwrap(), "");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "after\n");
}

#[test]
fn a_file_that_cannot_be_reopened_stays_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let (path, rotated) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
    let handle = Handle::start(Destination::open(path.clone()).unwrap(), counter()).unwrap();
    std::fs::rename(&path, &rotated).unwrap();
    std::fs::create_dir(&path).unwrap();
    handle.reopen();
    handle.offer(line("still here"));
    drop(handle);
    assert_eq!(std::fs::read_to_string(&rotated).unwrap(), "still here\n");
}

/// A pipe that nobody reads stops the writer; whoever logs goes on, and each line is either written in the
/// end or counted as lost.
#[test]
fn a_reader_that_stands_still_costs_lines_and_nothing_else() {
    let (mut reader, writer) = io::pipe().unwrap();
    let path = PathBuf::from(format!("/proc/self/fd/{}", writer.as_raw_fd()));
    let lost = counter();
    let handle = Handle::start(Destination::open(path).unwrap(), lost.clone()).unwrap();
    drop(writer);
    const OFFERED: u64 = 100_000;
    for n in 0..OFFERED {
        handle.offer(line(&format!("{n:99}")));
        assert!(handle.0.gauge.waiting.load(Ordering::Relaxed) <= QUEUE_BYTES);
    }
    assert!(lost.get() > 0);

    let counted = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).map(|_| text.lines().count() as u64)
    });
    drop(handle);
    let written = counted.join().unwrap().unwrap();
    assert_eq!(written + lost.get(), OFFERED);
}

#[test]
fn long_lines_are_limited_by_their_bytes() {
    let (reader, writer) = io::pipe().unwrap();
    let path = PathBuf::from(format!("/proc/self/fd/{}", writer.as_raw_fd()));
    let lost = counter();
    let handle = Handle::start(Destination::open(path).unwrap(), lost.clone()).unwrap();
    drop(writer);
    let megabyte = "x".repeat(1024 * 1024);
    for _ in 0..100 {
        handle.offer(line(&megabyte));
    }
    assert!(lost.get() >= 96, "{}", lost.get());
    let counted = std::thread::spawn(move || BufReader::new(reader).lines().count() as u64);
    drop(handle);
    assert_eq!(counted.join().unwrap() + lost.get(), 100);
}

#[test]
fn lines_that_a_full_disk_refuses_are_lost() {
    let lost = counter();
    let full = Destination::open(PathBuf::from("/dev/full")).unwrap();
    let handle = Handle::start(full, lost.clone()).unwrap();
    for n in 0..50 {
        handle.offer(line(&n.to_string()));
    }
    drop(handle);
    assert_eq!(lost.get(), 50);
}

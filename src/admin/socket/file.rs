//! The socket's life as a file: made private, never stolen from a live process, removed at the end.

use std::{
    fs::{self, DirBuilder, Metadata, Permissions},
    io,
    os::unix::{
        fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

use socket2::{Domain, SockAddr, Socket, Type};

/// Why an admin socket cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody answers there.
    #[error("another outrigger is running: {} is answered", .0.display())]
    Running(PathBuf),
    /// What is there is not ours to replace.
    #[error("{} is there and not a socket; remove it, or set listen.admin to another path", .0.display())]
    NotASocket(PathBuf),
    /// The system refuses.
    #[error("cannot {doing} {}: {source}", path.display())]
    System {
        /// What was tried.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A socket that listens; dropping it removes its file.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
    identity: (u64, u64),
}

/// Makes the socket, mode 0600, and its folder, mode 0755, where that is missing. A socket that nobody answers is
/// what a crash left behind, and is replaced.
///
/// Two processes that start in the same instant can both find a stale socket; the loser's file is gone
/// then. Bind the traffic ports first: only one of the two gets past those.
///
/// # Errors
/// Somebody answers at the path, something else than a socket is there, or the system refuses.
pub fn bind(path: &Path) -> Result<AdminSocket, BindError> {
    let failed = |doing| move |source| BindError::System { doing, path: path.to_owned(), source };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o755).create(folder).map_err(failed("make the folder of"))?;
    }
    // sun_path holds 107 bytes and a NUL; socket2 says so as an error.
    let address = SockAddr::unix(path).map_err(failed("make a socket at (107 bytes at most)"))?;
    make_way(path, &address)?;

    // Private before it listens: until then whoever opens it is refused.
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed("make"))?;
    socket.bind(&address).map_err(failed("bind"))?;
    let identity = fs::set_permissions(path, Permissions::from_mode(0o600))
        .and_then(|()| fs::symlink_metadata(path))
        .map(|found| identity(&found))
        .map_err(failed("make private"))?;
    socket.set_nonblocking(true).and_then(|()| socket.listen(64)).map_err(failed("listen on"))?;
    Ok(AdminSocket { listener: socket.into(), path: path.to_owned(), identity })
}

/// Removes a stale socket.
fn make_way(path: &Path, address: &SockAddr) -> Result<(), BindError> {
    let failed = |doing| move |source| BindError::System { doing, path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at")(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(BindError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    // Not blocking: a live process with a full backlog would hold us for as long as it likes.
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed("make a probe for"))?;
    probe.set_nonblocking(true).map_err(failed("make a probe for"))?;
    match probe.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed("remove the stale socket"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(()) => Err(BindError::Running(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(BindError::Running(path.to_owned())),
        Err(error) => Err(failed("tell whether somebody answers")(error)),
    }
}

impl AdminSocket {
    /// The listener, not blocking, for a runtime.
    pub(super) fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) == self.identity);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "cannot remove the admin socket");
        }
    }
}

/// Which file this is, whatever its name.
fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_socket_is_private_and_its_folder_is_made() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("run/outrigger/admin.sock");
        let socket = bind(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        UnixStream::connect(&path).unwrap();
        drop(socket);
        assert!(!path.exists());
        assert!(path.parent().unwrap().exists());
    }

    #[test]
    fn a_stale_socket_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("admin.sock");
        drop(UnixListener::bind(&path).unwrap()); // std leaves the file, as a crash does
        assert!(path.exists());
        let _socket = bind(&path).unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_live_socket_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("admin.sock");
        let first = bind(&path).unwrap();
        assert!(matches!(bind(&path), Err(BindError::Running(_))));
        UnixStream::connect(&path).unwrap();
        drop(first);
        bind(&path).unwrap();
    }

    /// A process that is too busy to accept is alive too, and asking it does not hang.
    #[test]
    fn a_live_socket_with_a_full_backlog_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("admin.sock");
        let busy = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        busy.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        busy.listen(0).unwrap();
        let _waiting = UnixStream::connect(&path).unwrap();
        assert!(matches!(bind(&path), Err(BindError::Running(_))));
    }

    #[test]
    fn what_is_not_a_socket_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("admin.sock");
        fs::write(&path, "precious").unwrap();
        let message = bind(&path).unwrap_err().to_string();
        assert!(message.contains("not a socket"), "{message}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");

        // Nor is a link followed to what it points at.
        let link = root.path().join("link.sock");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(bind(&link), Err(BindError::NotASocket(_))));
    }

    #[test]
    fn a_file_that_took_our_place_is_not_removed() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("admin.sock");
        let socket = bind(&path).unwrap();
        fs::rename(&path, root.path().join("aside")).unwrap();
        fs::write(&path, "theirs").unwrap();
        drop(socket);
        assert_eq!(fs::read_to_string(&path).unwrap(), "theirs");
    }

    #[test]
    fn a_path_that_no_socket_can_have_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let message = bind(&root.path().join("x".repeat(150))).unwrap_err().to_string();
        assert!(message.contains("107 bytes"), "{message}");
        assert!(bind(Path::new("/proc/no/such/admin.sock")).is_err());
    }
}

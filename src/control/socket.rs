//! The socket's place in the file system: taken from the dead, left to the living, given back at the end.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Why the socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Somebody answers on that path.
    #[error("another engine answers on {0:?}, stop it or choose another --runtime-dir")]
    Live(PathBuf),
    /// Something that is not a socket stands there.
    #[error("{0:?} exists and is not a socket, move it away or choose another --runtime-dir")]
    NotASocket(PathBuf),
    /// The system said no.
    #[error("cannot {action} {path:?}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl ServerError {
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> ServerError {
        ServerError::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

/// A listening socket and its file.
#[derive(Debug)]
pub(super) struct Socket {
    path: PathBuf,
    /// Device and inode, so that we remove our own socket and never our successor's.
    identity: Option<(u64, u64)>,
    listener: UnixListener,
}

impl Socket {
    /// Listens on `path`: 0660, in a folder made 0750 if there is none.
    pub(super) fn bind(path: &Path) -> Result<Socket, ServerError> {
        let listener = listen(path)?;
        Ok(Socket {
            path: path.to_owned(),
            identity: identity(path),
            listener,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn listener(&self) -> &UnixListener {
        &self.listener
    }

    /// Removes the file, if it is still ours.
    pub(super) fn remove(&self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.remove();
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path)
        .ok()
        .map(|meta| (meta.dev(), meta.ino()))
}

fn listen(path: &Path) -> Result<UnixListener, ServerError> {
    make_folder(path)?;
    make_room(path)?;
    let listener = bind_with_mode(path).map_err(|error| ServerError::io("listen on", path, error.into()))?;
    Ok(UnixListener::from(listener))
}

fn make_folder(path: &Path) -> Result<(), ServerError> {
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else {
        return Ok(());
    };
    if folder.is_dir() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(folder)
        .map_err(|error| ServerError::io("create the folder", folder, error))
}

fn make_room(path: &Path) -> Result<(), ServerError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(ServerError::io("look at", path, error)),
        Ok(meta) if !meta.file_type().is_socket() => return Err(ServerError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    match probe(path).err().map(|error| io::Error::from(error).kind()) {
        Some(ErrorKind::ConnectionRefused) => {
            fs::remove_file(path).map_err(|error| ServerError::io("remove the stale socket", path, error))
        }
        Some(ErrorKind::NotFound) => Ok(()),
        Some(ErrorKind::PermissionDenied) => Err(ServerError::io(
            "connect to",
            path,
            ErrorKind::PermissionDenied.into(),
        )),
        // Answered, or too busy to (its backlog is full): somebody lives there.
        _ => Err(ServerError::Live(path.to_owned())),
    }
}

/// Connects without waiting: a hung engine with a full backlog must not hang its successor.
fn probe(path: &Path) -> rustix::io::Result<()> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)
}

/// The mode is set between bind and listen: until then every connect is refused, so it is never too open.
fn bind_with_mode(path: &Path) -> rustix::io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path)?;
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::bind(&socket, &address)?;
    let ready = fs::set_permissions(path, Permissions::from_mode(0o660))
        .map_err(|error| rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO))
        .and_then(|()| rustix::net::listen(&socket, BACKLOG));
    if ready.is_err() {
        let _ = fs::remove_file(path);
    }
    ready.map(|()| socket)
}

/// Clients that may wait for a place.
const BACKLOG: i32 = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn mode_of(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn socket_and_folder_are_closed_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let socket = Socket::bind(&folder.path().join("run/control.sock")).unwrap();
        assert_eq!(mode_of(socket.path()), 0o660);
        assert_eq!(mode_of(&folder.path().join("run")), 0o750);
    }

    #[test]
    fn a_stale_socket_is_replaced_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "std leaves the file, as a killed engine does");
        let socket = Socket::bind(&path).unwrap();
        let refused = Socket::bind(&path).unwrap_err();
        assert!(matches!(refused, ServerError::Live(_)), "{refused}");
        assert!(path.exists());
        socket.remove();
        assert!(!path.exists());
    }

    #[test]
    fn a_live_engine_with_a_full_backlog_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let hung = bind_with_mode(&path).unwrap();
        rustix::net::listen(&hung, 0).unwrap();
        while probe(&path).is_ok() {}
        assert!(matches!(Socket::bind(&path), Err(ServerError::Live(_))));
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        fs::write(&path, "precious").unwrap();
        let refused = Socket::bind(&path).unwrap_err();
        assert!(matches!(refused, ServerError::NotASocket(_)), "{refused}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_path_that_is_too_long_for_a_socket_is_an_error_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let refused = Socket::bind(&folder.path().join("x".repeat(120))).unwrap_err();
        assert!(refused.to_string().starts_with("cannot listen on"), "{refused}");
    }

    #[test]
    fn a_successor_s_socket_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let socket = Socket::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let _successor = UnixListener::bind(&path).unwrap();
        socket.remove();
        assert!(path.exists());
    }
}

//! From a path or a text to a [`Config`].

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::{
    Config,
    problem::{Problem, Problems, Report, Severity},
    raw,
    resolve::{self, Surroundings},
    shape,
};

/// A configuration that can be used, and what is odd about it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Warnings only, in the order of the file.
    pub warnings: Vec<Problem>,
}

/// A file larger than this is no configuration; ten thousand services take 1 MiB.
const LARGEST: u64 = 16 << 20;

impl Config {
    /// Reads a text. `file` is only what problems call it; `env` is what `${NAME}` finds.
    ///
    /// # Errors
    /// Every problem of the text at once, at least one of them an error.
    pub fn parse(file: &str, text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Problems> {
        let mut report = Report::new(file, text);
        let config = raw::parse(text, env, &mut report).map(|root| {
            shape::check(&root, &super::keys::ROOT, "", &mut report);
            resolve::config(&root, Surroundings { admin: default_admin(env), vips: default_vips(env) }, &mut report)
        });
        let warnings = report.finish()?;
        let config = config.expect("a text that cannot be read has reported an error");
        Ok(Loaded { config, warnings })
    }

    /// Reads a file, with the environment of the process.
    ///
    /// # Errors
    /// As [`Config::parse`]; a file that cannot be read is a problem without a place.
    pub fn load(path: &Path) -> Result<Loaded, Problems> {
        let file = path.display().to_string();
        let text = read(path).map_err(|error| Problem {
            severity: Severity::Error,
            file: file.as_str().into(),
            line: 0,
            column: 0,
            path: String::new(),
            message: format!("the file cannot be read: {error}"),
            hint: (error.kind() == io::ErrorKind::NotFound).then(|| "name another one with `-c FILE`".to_owned()),
            snippet: None,
        })?;
        Self::parse(&file, &text, &|name| std::env::var(name).ok())
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    // One byte more than allowed tells a file that fits from one that does not, pipes included.
    File::open(path)?.take(LARGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 16 MiB"));
    }
    Ok(text)
}

/// The configuration file: the one that is asked for, else `outrigger.yaml` here, else the one in /etc.
pub fn find(explicit: Option<&Path>) -> PathBuf {
    let here = Path::new("outrigger.yaml");
    match explicit {
        Some(path) => path.to_owned(),
        None if here.exists() => here.to_owned(),
        None => PathBuf::from("/etc/outrigger/outrigger.yaml"),
    }
}

/// Where it is remembered who has which VIP when the file does not say: a place that outlives the process.
fn default_vips(env: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    let set = |name| env(name).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let home = || set("HOME").map(|home| home.join(".local/state"));
    match user() {
        Some(0) => PathBuf::from("/var/lib/outrigger/vips.json"),
        _ => match set("XDG_STATE_HOME").or_else(home) {
            Some(dir) => dir.join("outrigger/vips.json"),
            None => PathBuf::from("/var/lib/outrigger/vips.json"),
        },
    }
}

/// Whose process this is: the owner of its entry in /proc, where there is one.
pub fn user() -> Option<u32> {
    std::fs::metadata("/proc/self").map(|data| std::os::unix::fs::MetadataExt::uid(&data)).ok()
}

/// Where the admin socket is when the file does not say: a place that this user can write to.
fn default_admin(env: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    match (user(), env("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty())) {
        (Some(0), _) => PathBuf::from("/run/outrigger/admin.sock"),
        (_, Some(dir)) => Path::new(&dir).join("outrigger.sock"),
        (Some(user), None) => PathBuf::from(format!("/tmp/outrigger-{user}.sock")),
        (None, None) => PathBuf::from("/tmp/outrigger.sock"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_read_is_a_problem_without_a_place() {
        let dir = tempfile::tempdir().unwrap();
        let latin = dir.path().join("latin.yaml");
        std::fs::write(&latin, b"services: { caf\xe9: {} }").unwrap();
        let huge = dir.path().join("huge.yaml");
        File::create(&huge).unwrap().set_len(LARGEST + 1).unwrap();
        for path in [dir.path().join("none.yaml"), dir.path().to_owned(), latin, huge] {
            let problems = Config::load(&path).unwrap_err();
            let [problem] = problems.as_slice() else { panic!("{problems}") };
            assert_eq!((problem.severity, problem.line, &problem.snippet), (Severity::Error, 0, &None));
            let said = problem.to_string();
            assert!(said.contains("cannot be read") && said.contains(&*path.to_string_lossy()), "{said}");
        }
    }

    #[test]
    fn a_file_is_loaded_with_its_warnings() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("outrigger.yaml");
        std::fs::write(&path, "services: { a: { static: [10.0.0.1:80, 10.0.0.1:80] } }").unwrap();
        let loaded = Config::load(&path).unwrap();
        assert_eq!(loaded.config.services.len(), 1);
        assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
        assert_eq!(find(Some(&path)), path);
    }

    #[test]
    fn the_admin_socket_is_where_this_user_can_write() {
        let run = |name: &str| (name == "XDG_RUNTIME_DIR").then(|| "/run/user/7".to_owned());
        let (with, without) = (default_admin(&run), default_admin(&|_| None));
        if with == Path::new("/run/outrigger/admin.sock") {
            assert_eq!(with, without, "root's place does not depend on the environment");
        } else {
            assert_eq!(with, Path::new("/run/user/7/outrigger.sock"));
            assert!(without.starts_with("/tmp") && without != with);
        }
        let named = Config::parse("t.yaml", "listen: { admin: here.sock }", &run).unwrap().config;
        assert_eq!(named.listen.admin, Path::new("here.sock"));
    }
}

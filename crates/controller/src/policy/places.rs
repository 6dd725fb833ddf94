//! Whether a path is where it seems to be: a link may lead out of what is allowed.
//!
//! What is checked here may change before it is used. Dotenv files are opened by their real path, see [`crate::inputs`]; what an
//! engine mounts it looks up again by itself, so that a directory in which others can make links is no good prefix of a rule.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use oncelet_api::{VolumeKind, VolumeMount};
use oncelet_core::Reason;
use oncelet_core::policy::Policy;

use super::Refused;

/// Whether the dotenv files `files` are below the directories from which they may be read.
pub(super) async fn env_files(policy: &Policy, namespace: &str, engine: &str, files: &[String]) -> Result<(), Refused> {
    let Some(dirs) = policy.env_file_dirs(namespace, engine) else { return Ok(()) };
    for file in files {
        check("env file", namespace, file, &dirs).await?;
    }
    Ok(())
}

/// Whether the bind mounts of `mounts` are below what may be mounted.
pub(super) async fn mounts(
    policy: &Policy,
    namespace: &str,
    engine: &str,
    mounts: &[VolumeMount],
) -> Result<(), Refused> {
    for mount in mounts.iter().filter(|mount| mount.kind == VolumeKind::Bind) {
        let read_only = mount.read_only.unwrap_or_default();
        let Some(prefixes) = policy.bind_prefixes(namespace, engine, read_only) else { return Ok(()) };
        check("bind mount", namespace, mount.source.as_deref().unwrap_or_default(), &prefixes).await?;
    }
    Ok(())
}

async fn check(what: &str, namespace: &str, path: &str, dirs: &[&str]) -> Result<(), Refused> {
    let (asked, allowed) = (path.to_owned(), dirs.iter().map(ToString::to_string).collect::<Vec<_>>());
    let found = tokio::task::spawn_blocking(move || real_path(&asked, &allowed)).await;
    let why = match found {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(why)) => why,
        Err(error) => error.to_string(),
    };
    Err(Refused {
        reason: Reason::NotAllowed,
        message: format!("the policy does not let namespace {namespace} use the {what} {path:?}: {why}"),
    })
}

/// The real path of `path`, where that is below one of `dirs`; `None` where there is nothing.
pub(crate) fn real_path(path: &str, dirs: &[String]) -> Result<Option<PathBuf>, String> {
    let real = match Path::new(path).canonicalize() {
        Ok(real) => real,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(error) => return Err(format!("oncelet cannot see where it leads ({error})")),
    };
    let is_below = |dir: &String| Path::new(dir).canonicalize().is_ok_and(|dir| real.starts_with(dir));
    if dirs.iter().any(is_below) {
        return Ok(Some(real));
    }
    Err("a link leads out of the directories that are allowed".to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_does_not_lead_out_of_what_is_allowed() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        for name in ["allowed/sub", "other"] {
            std::fs::create_dir_all(path(name)).unwrap();
        }
        symlink(path("other"), path("allowed/out")).unwrap();
        symlink("sub", path("allowed/in")).unwrap();
        symlink("/", path("allowed/root")).unwrap();
        symlink("round", path("allowed/round")).unwrap();
        // A rule may name a link itself.
        symlink(path("allowed"), path("alias")).unwrap();
        for dirs in [vec![path("allowed")], vec![path("alias")]] {
            assert_eq!(real_path(&path("allowed/in"), &dirs), Ok(Some(path("allowed/sub").into())));
            assert_eq!(real_path(&path("alias/sub"), &dirs), Ok(Some(path("allowed/sub").into())));
            for outside in ["allowed/out", "allowed/root", "allowed/root/etc", "allowed/round", "other"] {
                assert!(real_path(&path(outside), &dirs).is_err(), "{outside}");
            }
            assert_eq!(real_path(&path("allowed/none"), &dirs), Ok(None));
        }
        assert!(real_path(&path("other"), &[path("none")]).is_err());
    }
}

//! The way to the page: a file with its address and its token, which only its owner can read and which ends with the daemon.
//!
//! A daemon that is killed leaves the file behind, and anybody may listen at its port then. So whoever reads the file asks for
//! a proof first: the daemon shows by a keyed hash that it has the token, and nobody is sent it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use oncelet_apiserver::{Token, write_private};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

use super::{Refusal, Shared, browser};
use crate::args;
use crate::paths::Paths;

/// How long the daemon has to prove itself.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a proof takes at most, headers and all.
const ANSWER: u64 = 16 * 1024;
/// The longest challenge that is answered.
const CHALLENGE: usize = 128;

/// Where a daemon serves the page, and what opens it.
#[derive(Serialize, Deserialize, PartialEq, Eq)]
struct Address {
    url: String,
    token: String,
}

/// The published way to a page that is served. It is closed when this is dropped.
pub(crate) struct Door {
    /// Where the page is, without the token.
    pub(crate) url: String,
    file: PathBuf,
    redirect: PathBuf,
    address: Address,
}

impl Door {
    /// Publishes the way to the page at `url`.
    pub(super) fn open(paths: &Paths, url: &str, token: &Token) -> Result<Self> {
        let address = Address { url: url.to_owned(), token: token.expose().to_owned() };
        let (file, redirect) = (paths.page(), paths.page_redirect());
        write_private(&file, &serde_json::to_vec(&address)?)
            .with_context(|| format!("{} cannot be written", file.display()))?;
        // Both were for a page of an earlier daemon.
        let _ = std::fs::remove_file(&redirect);
        let _ = std::fs::remove_file(paths.old_page_token());
        Ok(Self { url: url.to_owned(), file, redirect, address })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // Another daemon with the same data directory may have published its own.
        let found = std::fs::read(&self.file).ok().and_then(|text| serde_json::from_slice::<Address>(&text).ok());
        if found.as_ref() == Some(&self.address) {
            let _ = std::fs::remove_file(&self.file);
            let _ = std::fs::remove_file(&self.redirect);
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Asked {
    of: String,
}

/// Answers a challenge of somebody who has the token.
pub(super) async fn prove(State(page): Shared, Query(Asked { of }): Query<Asked>) -> Response {
    if of.len() > CHALLENGE {
        return Refusal::new(StatusCode::BAD_REQUEST, "the challenge is too long").into_response();
    }
    page.token.proof(&of).into_response()
}

/// Prints the address with which a browser is let in, or opens it there.
pub(crate) async fn print_address(args: args::Page) -> Result<()> {
    let paths = Paths::new(args.data)?;
    let address = read(&paths)?;
    verify(&address).await?;
    let Address { url, token } = address;
    let whole = format!("{url}#token={token}");
    if !args.open {
        println!("{whole}");
        return Ok(());
    }
    // Every user of the machine can read the arguments of a program: the browser is given a file.
    let redirect = paths.page_redirect();
    write_private(&redirect, redirect_to(&whole).as_bytes())
        .with_context(|| format!("{} cannot be written", redirect.display()))?;
    browser::open(&redirect).await.with_context(|| format!("no browser was opened; open this in one: {whole}"))
}

fn read(paths: &Paths) -> Result<Address> {
    let file = paths.page();
    let text = match std::fs::read(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("no oncelet serves a page from {}; start oncelet up", paths.data_dir.display())
        }
        Err(error) => return Err(error).with_context(|| format!("{} cannot be read", file.display())),
    };
    let address: Address =
        serde_json::from_slice(&text).with_context(|| format!("{} is not what oncelet wrote", file.display()))?;
    Ok(address)
}

/// Finds out whether the daemon that published `address` still listens there.
async fn verify(address: &Address) -> Result<()> {
    let Address { url, token } = address;
    let socket: SocketAddr = url
        .strip_prefix("http://")
        .and_then(|rest| rest.strip_suffix('/'))
        .and_then(|at| at.parse().ok())
        .with_context(|| format!("{url} is not an address of a page"))?;
    let challenge = Uuid::new_v4().simple().to_string();
    let proof = Token::new(token.clone()).proof(&challenge);
    let asking = async {
        let mut stream = TcpStream::connect(socket).await?;
        let request = format!("GET /proof?of={challenge} HTTP/1.1\r\nHost: {socket}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER).read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = match tokio::time::timeout(PATIENCE, asking).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            bail!("nothing listens at {url}: the oncelet that served its page there has ended; start oncelet up")
        }
        Ok(Err(error)) => return Err(error).with_context(|| format!("the page at {url} does not answer")),
        Err(_) => bail!("the page at {url} does not answer within {} seconds", PATIENCE.as_secs()),
    };
    // Nobody else can make these bytes, wherever they are in the answer.
    let is_there = answer.windows(proof.len()).any(|bytes| bytes == proof.as_bytes());
    if !is_there {
        bail!(
            "another program listens at {url} and cannot prove that it is oncelet: the oncelet that served its page there was \
             killed. Nothing was sent to that program. Start oncelet up again, with --page if the port stays taken"
        );
    }
    Ok(())
}

/// A document that leads to `address`.
fn redirect_to(address: &str) -> String {
    format!(
        "<!doctype html>\n<meta charset=\"utf-8\">\n<meta name=\"referrer\" content=\"no-referrer\">\n<title>oncelet</title>\n\
         <meta http-equiv=\"refresh\" content=\"0; url={address}\">\n<a href=\"{address}\">The page of oncelet</a>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::DataDir;

    fn paths(dir: &tempfile::TempDir) -> Paths {
        Paths::new(DataDir { data_dir: Some(dir.path().to_owned()) }).unwrap()
    }

    #[test]
    fn what_leads_to_a_page_ends_with_it_and_another_daemons_stays() {
        let dir = tempfile::tempdir().unwrap();
        let paths = paths(&dir);
        let (one, two) = (Token::fresh().unwrap(), Token::fresh().unwrap());
        let first = Door::open(&paths, "http://127.0.0.1:1/", &one).unwrap();
        let second = Door::open(&paths, "http://127.0.0.1:2/", &two).unwrap();
        drop(first);
        assert_eq!(read(&paths).unwrap().url, "http://127.0.0.1:2/");
        drop(second);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

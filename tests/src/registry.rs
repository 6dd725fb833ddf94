//! A registry of one image, for those who have the password, whose last layer comes half-way and then waits: enough for an engine to pull from.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use serde_json::{Value, json};

/// What a client has to say, as `Basic` authentication does: `user:secret`.
pub const CREDENTIALS: &str = "dXNlcjpzZWNyZXQ=";

/// Serves until the process ends.
pub struct Registry {
    address: SocketAddr,
    gate: Arc<Gate>,
}

/// Open or not.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
}

/// The image: its manifest, and its blobs by digest.
struct Image {
    manifest: String,
    blobs: Vec<(String, PathBuf)>,
    last_layer: String,
}

impl Registry {
    /// Serves the image that `docker save` wrote and `tar` unpacked into `dir`, under every name whose last part is not
    /// `nothing`. Its last layer stops half-way until [`go_on`](Self::go_on).
    pub fn serve(dir: &Path) -> Self {
        let image = Arc::new(Image::read(dir));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, gate) = (listener.local_addr().unwrap(), Arc::new(Gate::default()));
        let for_requests = Arc::clone(&gate);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (image, gate) = (Arc::clone(&image), Arc::clone(&for_requests));
                // An engine that goes away in the middle is not this server's trouble.
                thread::spawn(move || answer(stream, &image, &gate).unwrap_or_default());
            }
        });
        Self { address, gate }
    }

    /// `127.0.0.1:PORT`, which engines talk to without TLS.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets the rest of the layer through, now and later.
    pub fn go_on(&self) {
        *self.gate.open.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.gate.opened.notify_all();
    }
}

impl Image {
    fn read(dir: &Path) -> Self {
        let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
        let saved: Value = serde_json::from_str(&read("manifest.json")).unwrap();
        let config = saved[0]["Config"].as_str().unwrap();
        let config_text = read(config);
        let digests: Value = serde_json::from_str(&config_text).unwrap();
        let digests = digests["rootfs"]["diff_ids"].as_array().unwrap().iter().map(|digest| digest.as_str().unwrap());
        let files = saved[0]["Layers"].as_array().unwrap().iter().map(|file| file.as_str().unwrap());
        let layers: Vec<_> = digests.zip(files).collect();
        // Either layout of the archive has the digest as the file's name.
        let name = config.rsplit('/').next().unwrap().trim_end_matches(".json");
        let config_digest = format!("sha256:{name}");
        let size = |name: &str| std::fs::metadata(dir.join(name)).unwrap().len();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "size": size(config),
                "digest": config_digest,
            },
            "layers": layers.iter().map(|(digest, file)| json!({
                "mediaType": "application/vnd.docker.image.rootfs.diff.tar",
                "size": size(file),
                "digest": digest,
            })).collect::<Vec<_>>(),
        });
        let mut blobs: Vec<_> = layers.iter().map(|(digest, file)| ((*digest).to_owned(), dir.join(file))).collect();
        let last_layer = blobs.last().unwrap().0.clone();
        blobs.push((config_digest, dir.join(config)));
        Self { manifest: manifest.to_string(), blobs, last_layer }
    }
}

fn answer(mut stream: TcpStream, image: &Image, gate: &Gate) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    let mut is_known = false;
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        is_known |= line.to_lowercase().starts_with("authorization: ") && line.ends_with(CREDENTIALS);
    }
    let mut words = request.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if !is_known {
        let challenge = "WWW-Authenticate: Basic realm=\"test\"";
        write!(stream, "HTTP/1.1 401 Unauthorized\r\n{challenge}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
        return stream.shutdown(Shutdown::Both);
    }
    let (kind, body) = if path.contains("/nothing/") {
        ("", None)
    } else if path == "/v2/" {
        ("application/json", Some(b"{}".to_vec()))
    } else if path.contains("/manifests/") {
        ("application/vnd.docker.distribution.manifest.v2+json", Some(image.manifest.clone().into_bytes()))
    } else {
        let blob = image.blobs.iter().find(|(digest, _)| path.ends_with(digest.as_str()));
        ("application/octet-stream", blob.map(|(_, file)| std::fs::read(file)).transpose()?)
    };
    let Some(body) = body else {
        stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
        return stream.shutdown(Shutdown::Both);
    };
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )?;
    if method != "HEAD" {
        let (first, rest) = body.split_at(body.len() / 2);
        stream.write_all(first)?;
        if path.ends_with(&image.last_layer) {
            let open = gate.open.lock().unwrap_or_else(PoisonError::into_inner);
            drop(gate.opened.wait_while(open, |open| !*open).unwrap_or_else(PoisonError::into_inner));
        }
        stream.write_all(rest)?;
    }
    stream.shutdown(Shutdown::Both)
}

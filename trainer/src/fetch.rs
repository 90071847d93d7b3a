//! Pictures from web addresses, by the system's `curl`: it knows the machine's proxies and certificates, and no code that
//! speaks TLS is built into the trainer.

use anyhow::{Context, Result, bail, ensure};
use std::io::Read;
use std::process::{Command, Stdio};

/// Longest answer that is taken: 64 MiB.
const LONGEST: u64 = 64 << 20;

/// Whether it is a web address and not a path.
pub fn is_address(text: &str) -> bool {
    text.contains("://")
}

/// What lies at an address of `http` or `https`.
///
/// # Errors
/// When it is another address, there is no `curl`, or the server does not give a file of at most 64 MiB within a minute.
pub fn fetch(address: &str) -> Result<Vec<u8>> {
    ensure!(
        address.starts_with("http://") || address.starts_with("https://"),
        "{address}: only http:// and https:// are fetched; download it and give its path"
    );
    let limit = LONGEST.to_string();
    let mut curl = Command::new("curl")
        .args(["--fail", "--silent", "--show-error", "--location", "--max-redirs", "5", "--max-time", "60"])
        .args(["--proto", "=http,https", "--max-filesize", &limit, "--url", address])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("curl cannot be started; install it, or download the picture and give its path")?;
    let mut bytes = Vec::new();
    if let Some(out) = curl.stdout.take() {
        // A server need not say how long its answer is.
        out.take(LONGEST + 1).read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 > LONGEST {
        // It may have ended by itself.
        let _ = curl.kill();
        curl.wait()?;
        bail!("{address}: longer than 64 MiB, so no B-scan");
    }
    let said = curl.wait_with_output()?;
    ensure!(said.status.success(), "{address}: {}", String::from_utf8_lossy(&said.stderr).trim());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::TcpListener;

    /// Answers one request with `answer` and gives its address.
    fn serve(answer: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/scan.png", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let length = stream.read(&mut request).unwrap();
            assert!(request[..length].starts_with(b"GET /scan.png HTTP/1.1\r\n"));
            stream.write_all(answer).unwrap();
        });
        address
    }

    #[test]
    fn pictures_are_fetched_and_refusals_told() {
        if Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_err() {
            return eprintln!("skipped: no curl");
        }
        let given = fetch(&serve(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nbytes"));
        assert_eq!(given.unwrap(), b"bytes");
        let address = serve(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let said = fetch(&address).unwrap_err().to_string();
        assert!(said.contains("404") && said.contains(&address), "{said}");
        // A server cannot send us to a file of this machine.
        let address =
            serve(b"HTTP/1.1 302 Found\r\nLocation: file:///etc/hostname\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        assert!(fetch(&address).is_err());
        assert!(fetch("file:///etc/hostname").unwrap_err().to_string().contains("only http"));
        assert!(is_address("https://example.org/a.png") && !is_address("a.png"));
    }
}

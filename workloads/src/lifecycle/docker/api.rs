//! dockerd's interface (Docker Engine API), for the one thing that its command line cannot say: a container with just this
//! configuration.
//!
//! One request a connection, in HTTP/1.0: then the answer is neither chunked nor kept open, and ends with the connection. It comes
//! from the host's own daemon at its socket.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

/// More than any answer here has.
const LONGEST: u64 = 4 << 20;

/// Why a request did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The socket cannot be used.
    #[error("could not speak with dockerd at {socket}")]
    Io {
        /// Where it listens.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It said no.
    #[error("dockerd refused it (status {status}): {message}")]
    Refused {
        /// HTTP's number.
        status: u16,
        /// Its words.
        message: String,
    },
    /// It said something that is no answer.
    #[error("dockerd's answer is not as expected: {found:?}")]
    Answer {
        /// The beginning of it.
        found: String,
    },
}

/// Asks for something to be made, and returns what dockerd says of it.
pub(super) fn post(socket: &Path, path: &str, body: &Value, limit: Duration) -> Result<Value, ApiError> {
    let answer = exchange(socket, path, body, limit)
        .map_err(|source| ApiError::Io { socket: socket.to_owned(), source })?;
    read(&answer)
}

fn exchange(socket: &Path, path: &str, body: &Value, limit: Duration) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    let body = body.to_string();
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.0\r\nHost: docker\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer)?;
    Ok(answer)
}

/// The answer's body, or the daemon's reason.
fn read(answer: &[u8]) -> Result<Value, ApiError> {
    let strange = || ApiError::Answer { found: String::from_utf8_lossy(answer).chars().take(200).collect() };
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(strange)?;
    let head = std::str::from_utf8(&answer[..end]).map_err(|_| strange())?;
    let mut words = head.lines().next().unwrap_or_default().split(' ');
    let version = words.next().is_some_and(|word| word.starts_with("HTTP/1."));
    let status = words.next().and_then(|word| word.parse::<u16>().ok()).filter(|_| version);
    let status = status.ok_or_else(strange)?;
    let body = answer[end + 4..].trim_ascii();
    let value = match body {
        b"" => Value::Null,
        body => serde_json::from_slice(body).map_err(|_| strange())?,
    };
    match status {
        200..=299 => Ok(value),
        _ => {
            let message = value["message"].as_str().map_or_else(|| value.to_string(), str::to_owned);
            Err(ApiError::Refused { status, message })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_its_body_or_dockers_reason() {
        let made = b"HTTP/1.0 201 Created\r\nApi-Version: 1.45\r\n\r\n{\"Id\":\"0123\",\"Warnings\":[]}\n";
        assert_eq!(read(made).unwrap()["Id"], "0123");
        assert_eq!(read(b"HTTP/1.0 200 OK\r\n\r\n").unwrap(), Value::Null);
        let refused = read(b"HTTP/1.0 409 Conflict\r\n\r\n{\"message\":\"the name is in use\"}").unwrap_err();
        assert_eq!(refused.to_string(), "dockerd refused it (status 409): the name is in use");
        for strange in [
            &b""[..],
            b"HTTP/1.0 201 Created\r\n",
            b"SSH-2.0\r\n\r\n",
            b"HTTP/1.0 x\r\n\r\n",
            b"HTTP/1.0 200 OK\r\n\r\n<p>",
        ] {
            assert!(matches!(read(strange), Err(ApiError::Answer { .. })), "{strange:?}");
        }
    }
}

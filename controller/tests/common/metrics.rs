//! A server of metrics that a test tells what to answer.

#![allow(dead_code, reason = "each test program takes what it needs")]
#![expect(clippy::disallowed_methods, reason = "real servers are waited for in real time")]

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What it answers.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// A vector with these numbers, by the label `instance`.
    Numbers(Vec<(String, String)>),
    /// This, with status 200.
    Text(String),
    /// A status, with some words, and a place elsewhere.
    Status(u16),
    /// So many bytes, and more.
    Huge(usize),
    /// Nothing.
    Silence,
}

impl Answer {
    pub(crate) fn numbers(numbers: &[(&str, &str)]) -> Self {
        Self::Numbers(
            numbers.iter().map(|(name, number)| ((*name).to_owned(), (*number).to_owned())).collect(),
        )
    }
}

/// A request: its head, line by line, and its body.
pub(crate) type Asked = (Vec<String>, String);

/// The server. It answers until the test is over.
pub(crate) struct Metrics {
    pub(crate) address: SocketAddr,
    answer: Arc<Mutex<Answer>>,
    /// All requests so far.
    pub(crate) asked: Arc<Mutex<Vec<Asked>>>,
}

impl Metrics {
    pub(crate) fn start(answer: Answer) -> Self {
        Self::over(answer, None)
    }

    /// With TLS.
    pub(crate) fn over(answer: Answer, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let this = Self {
            address: listener.local_addr().unwrap(),
            answer: Arc::new(Mutex::new(answer)),
            asked: Arc::default(),
        };
        let (answer, asked) = (this.answer.clone(), this.asked.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, asked, tls) = (answer.clone(), asked.clone(), tls.clone());
                // Whoever asks may hang up at any moment.
                std::thread::spawn(move || match tls {
                    None => serve(stream, &answer, &asked),
                    Some(tls) => {
                        let connection = ServerConnection::new(tls).map_err(std::io::Error::other)?;
                        serve(StreamOwned::new(connection, stream), &answer, &asked)
                    }
                });
            }
        });
        this
    }

    pub(crate) fn says(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }
}

fn serve(
    mut stream: impl Read + Write,
    answer: &Mutex<Answer>,
    asked: &Mutex<Vec<Asked>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(&mut stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end() {
            "" => break,
            line => head.push(line.to_owned()),
        }
    }
    let length =
        head.iter().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    drop(reader);
    asked.lock().unwrap().push((head, String::from_utf8_lossy(&body).into_owned()));
    let answer = answer.lock().unwrap().clone();
    let (status, body) = match answer {
        Answer::Numbers(numbers) => {
            let series = |(name, number): &(String, String)| serde_json::json!({"metric": {"instance": name, "job": "node"}, "value": [1764400000.5, number]});
            let result: Vec<_> = numbers.iter().map(series).collect();
            let answer =
                serde_json::json!({"status": "success", "data": {"resultType": "vector", "result": result}});
            (200, answer.to_string())
        }
        Answer::Text(text) => (200, text),
        Answer::Status(status) => (status, "words".to_owned()),
        Answer::Huge(bytes) => {
            write!(stream, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
            for _ in 0..=bytes / (1 << 16) {
                write!(stream, "10000\r\n{}\r\n", " ".repeat(1 << 16))?;
            }
            return stream.flush();
        }
        Answer::Silence => {
            std::thread::sleep(Duration::from_secs(60));
            return Ok(());
        }
    };
    write!(
        stream,
        "HTTP/1.1 {status} Some\r\nlocation: http://127.0.0.1:1/\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    stream.flush()
}

/// Something of TCP that is closed at the end, after what was sent.
pub(crate) fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let refused = TcpStream::connect(address);
    assert!(refused.is_err());
    address
}

//! `update-transport`: HTTP for a program that must not parse what servers say.
//!
//! Reads one request from standard input, answers in frames on standard output (`repository::transport::wire`), and
//! ends. It needs no rights: the one who starts it takes them away, and it gives up the way to get new ones.

use std::io::{self, Read as _, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use repository::transport::wire::{self, Frame};
use repository::transport::{Body, FetchError, Transport as _};
use update_transport::{Http, Options};

fn main() -> ExitCode {
    // Older kernels than we support do not have it; nothing is lost there.
    let _ = nix::sys::prctl::set_no_new_privs();
    let mut out = io::stdout().lock();
    match answer(&mut out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Whoever asked may be gone.
            let _ = wire::write(&mut out, Frame::Failed, words(&error).as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn words(error: &anyhow::Error) -> String {
    format!("{error:#}")
}

fn answer(out: &mut dyn Write) -> anyhow::Result<()> {
    let http = Http::new(&options()?)?;
    let mut line = String::new();
    io::stdin().lock().take(wire::REQUEST as u64).read_to_string(&mut line)?;
    let (from, url) =
        line.trim_end().split_once(' ').ok_or_else(|| anyhow::anyhow!("expected POSITION ADDRESS"))?;
    let mut body = match http.open(&url.parse()?, from.parse()?) {
        Ok(None) => return Ok(wire::write(out, Frame::Absent, b"")?),
        Ok(Some(Body { from, bytes })) => {
            wire::write(out, Frame::Begins, &from.to_le_bytes())?;
            bytes
        }
        Err(FetchError::Elsewhere { to, .. }) => {
            return Ok(wire::write(out, Frame::Elsewhere, to.as_bytes())?);
        }
        Err(error) => return Err(error.into()),
    };
    let mut chunk = vec![0; wire::FRAME];
    loop {
        match body.read(&mut chunk)? {
            0 => break,
            read => {
                wire::write(out, Frame::Data, &chunk[..read])?;
                out.flush()?;
            }
        }
    }
    wire::write(out, Frame::Ends, b"")?;
    Ok(out.flush()?)
}

fn options() -> anyhow::Result<Options> {
    let mut options = Options { silence: Duration::from_secs(20), proxy: None, authorities: None };
    let mut arguments = std::env::args_os().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| anyhow::anyhow!("{} wants a value", name.display()))?;
        let text = || value.to_str().ok_or_else(|| anyhow::anyhow!("{} is not text", value.display()));
        match name.to_str() {
            Some("--silence") => options.silence = Duration::from_secs(text()?.parse()?),
            Some("--proxy") => options.proxy = Some(text()?.parse()?),
            Some("--authorities") => options.authorities = Some(PathBuf::from(&value)),
            _ => anyhow::bail!("expected --silence SECONDS, --proxy URL or --authorities FILE"),
        }
    }
    Ok(options)
}

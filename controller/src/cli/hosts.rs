//! `update-controller token`, `person` and `hosts`: who is in the fleet, and who may ask.

use std::path::PathBuf;

use manifests::{DomainName, GroupName, HostId, KeyName, LabelValue, UtcTime};
use serde_json::Value;
use system::clock::{Clock as _, SystemClock};
use system::exit::{Exit, Failure};
use system::output::{line, object};

use super::{Global, asked};
use crate::access::{Person, Role};
use crate::authority::Move;
use crate::authority::facts::Departure;
use crate::client::Account;
use crate::enrolment::Terms;
use crate::server::people::HostChange;

/// Make a token by which hosts come in
///
/// Groups, failure domain and role are the token's: no host chooses its own. It is shown once.
#[derive(Debug, clap::Args)]
pub(super) struct TokenArgs {
    /// A group that it puts hosts into (may be repeated)
    #[arg(long = "group", value_name = "GROUP", required = true)]
    groups: Vec<GroupName>,
    /// What the hosts fail together with: a rack, a zone
    #[arg(long, value_name = "DOMAIN", default_value = "default")]
    domain: DomainName,
    /// What the hosts are there for
    #[arg(long, value_name = "ROLE", default_value = "host")]
    role: LabelValue,
    /// How many hosts it lets in
    #[arg(long, value_name = "N", default_value_t = 1)]
    hosts: u32,
    /// For how long
    #[arg(long = "for", value_name = "TIME", default_value = "24h", value_parser = humantime::parse_duration)]
    time: std::time::Duration,
}

/// From now, after so much time.
pub(super) fn after(time: std::time::Duration) -> Result<UtcTime, Failure> {
    let time = jiff::SignedDuration::try_from(time).map_err(|error| Failure::new(Exit::Usage, error))?;
    let then = SystemClock.now().checked_add(time).map_err(|error| Failure::new(Exit::Usage, error))?;
    Ok(UtcTime::floor(then))
}

pub(super) fn token(args: &TokenArgs, global: &Global) -> Result<(), Failure> {
    let client = global.client()?;
    let terms = Terms {
        groups: args.groups.clone(),
        domain: args.domain.clone(),
        role: args.role.clone(),
        hosts: args.hosts,
        expires: after(args.time)?,
    };
    let made: Value = client.post("/v1/tokens", &terms).map_err(asked)?;
    if global.json {
        object(&made);
        return Ok(());
    }
    let text = |key: &str| made[key].as_str().unwrap_or_default().to_owned();
    line(&format!("until {} for {} host(s), on each as root:", text("expires"), args.hosts));
    let address = client.address().as_str().trim_end_matches('/');
    line(&format!(
        "  update enrol {address} --token {} --ca-fingerprint {}",
        text("token"),
        text("ca_fingerprint")
    ));
    Ok(())
}

/// Let somebody ask this controller
///
/// Writes their account into a file. A token only looks and slows down; what makes hosts begin is signed.
#[derive(Debug, clap::Args)]
pub(super) struct PersonArgs {
    /// What they are called
    name: KeyName,
    /// viewer looks; operator also pauses, aborts, rolls back and hands in what others signed; admin also changes who is in the fleet
    #[arg(long, value_name = "ROLE", default_value = "viewer")]
    role: Role,
    /// Where to write their account
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(super) fn person(args: &PersonArgs, global: &Global) -> Result<(), Failure> {
    let own = global.account.clone().map(|path| Account::read(&path)).transpose().map_err(asked)?;
    let client = global.client()?;
    let person = Person { name: args.name.clone(), role: args.role };
    let made: Value = client.post("/v1/people", &person).map_err(asked)?;
    let Some(own) = own else { return Ok(()) };
    let account = Account { token: made["token"].as_str().unwrap_or_default().to_owned(), ..own };
    let text = serde_yaml::to_string(&account).map_err(|error| Failure::new(Exit::Bug, error))?;
    system::durable::replace(&args.out, text.as_bytes())
        .map_err(|error| Failure::new(Exit::Refused, error))?;
    if global.json {
        object(&serde_json::json!({ "name": args.name, "role": args.role, "account": args.out }));
    } else {
        line(&format!("{} may ask as {}: {}", args.name, args.role, args.out.display()));
    }
    Ok(())
}

/// Who is in the fleet
#[derive(Debug, clap::Subcommand)]
pub(super) enum Hosts {
    /// Show the hosts
    List,
    /// Move a host to other groups, another domain or another role
    Move {
        /// The host's id, or how it begins
        host: String,
        /// A group that it is in from now on (may be repeated)
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<GroupName>,
        /// What it fails together with
        #[arg(long)]
        domain: Option<DomainName>,
        /// What it is there for
        #[arg(long)]
        role: Option<LabelValue>,
    },
    /// Take a host out that is not there any more
    Retire {
        /// The host's id, or how it begins
        host: String,
    },
    /// Take a host out whose key somebody else may have
    Revoke {
        /// The host's id, or how it begins
        host: String,
    },
}

/// The host whose id begins like this, or that is called this.
pub(super) fn find(client: &crate::client::Client, wanted: &str) -> Result<HostId, Failure> {
    if let Ok(id) = wanted.parse() {
        return Ok(id);
    }
    let hosts: Vec<Value> = client.get("/v1/hosts").map_err(asked)?;
    let is_it = |host: &&Value| {
        host["name"] == *wanted
            || (wanted.len() >= 4 && host["id"].as_str().is_some_and(|id| id.starts_with(wanted)))
    };
    let found: Vec<HostId> =
        hosts.iter().filter(is_it).filter_map(|host| host["id"].as_str()?.parse().ok()).collect();
    match found[..] {
        [one] => Ok(one),
        _ => Err(Failure::new(Exit::Refused, format!("{wanted} is not one host"))
            .because(
                "an id, its first characters or a name that one host has",
                format!("{} hosts", found.len()),
            )
            .next("update-controller hosts list")),
    }
}

pub(super) fn run(command: &Hosts, global: &Global) -> Result<(), Failure> {
    let client = global.client()?;
    let (host, change) = match command {
        Hosts::List => return list(&client, global),
        Hosts::Move { host, groups, domain, role } => {
            let groups = (!groups.is_empty()).then(|| groups.clone());
            (host, HostChange::Move(Move { groups, domain: domain.clone(), role: role.clone() }))
        }
        Hosts::Retire { host } => (host, HostChange::Leave(Departure::Retired)),
        Hosts::Revoke { host } => (host, HostChange::Leave(Departure::Revoked)),
    };
    let host = find(&client, host)?;
    let done: Value = client.post(&format!("/v1/hosts/{host}"), &change).map_err(asked)?;
    if global.json {
        object(&done);
    } else {
        line(&format!("done: host {host}"));
    }
    Ok(())
}

fn list(client: &crate::client::Client, global: &Global) -> Result<(), Failure> {
    let hosts: Vec<Value> = client.get("/v1/hosts").map_err(asked)?;
    if global.json {
        hosts.iter().for_each(object);
        return Ok(());
    }
    for host in &hosts {
        let text = |key: &str| host[key].as_str().unwrap_or("-").to_owned();
        let groups: Vec<&str> =
            host["groups"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let cloned = if host["cloned"] == true { "; two machines have its key" } else { "" };
        line(&format!(
            "{}  {}  {}  {} in {}  heard of {}{cloned}",
            text("id").get(..12).unwrap_or_default(),
            text("name"),
            text("kernel"),
            groups.join(","),
            text("domain"),
            text("last_seen"),
        ));
    }
    line(&format!("{} hosts", hosts.len()));
    Ok(())
}

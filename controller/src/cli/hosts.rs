//! `update-controller token`, `person` and `hosts`: who is in the fleet, and who may ask.

use std::path::PathBuf;

use manifests::{CveId, DomainName, GroupName, HostId, KeyName, LabelValue, UtcTime};
use serde_json::Value;
use system::clock::{Clock as _, SystemClock};
use system::exit::{Exit, Failure};
use system::output::{line, object};

use super::{Global, asked};
use crate::access::{Person, Role};
use crate::authority::Move;
use crate::authority::facts::Departure;
use crate::client::{Account, Client};
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
    /// Print the command for hosts alone, for `ssh` and the like
    #[arg(long)]
    line: bool,
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
    let address = client.address().as_str().trim_end_matches('/');
    let command = format!(
        "update enrol {address} --token {} --ca-fingerprint {}",
        text("token"),
        text("ca_fingerprint")
    );
    if args.line {
        line(&command);
        return Ok(());
    }
    line(&format!("until {} for {} host(s), on each as root:", text("expires"), args.hosts));
    line(&format!("  {command}"));
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
    /// Show one host: what it is, what runs on it, what it is exposed to, how it has been since it was changed
    Show {
        /// The host's id, how it begins, or its name
        host: String,
    },
    /// Show which hosts are exposed to what, and for how long they were, by their own words
    Exposure {
        /// The vulnerability; all that hosts have named without
        cve: Option<CveId>,
    },
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
pub(super) fn find(client: &Client, wanted: &str) -> Result<HostId, Failure> {
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
        Hosts::Show { host } => return show(&client, host, global),
        Hosts::Exposure { cve } => return exposure(&client, cve.as_ref(), global),
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

fn list(client: &Client, global: &Global) -> Result<(), Failure> {
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

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A line for a list, unless it is empty.
fn listed(what: &str, words: &[String]) -> Option<String> {
    (!words.is_empty()).then(|| format!("{what}: {}", words.join(", ")))
}

fn show(client: &Client, wanted: &str, global: &Global) -> Result<(), Failure> {
    let host = find(client, wanted)?;
    let told: Value = client.get(&format!("/v1/hosts/{host}")).map_err(asked)?;
    if global.json {
        object(&told);
    } else {
        portrait(&told).iter().for_each(|one| line(one));
    }
    Ok(())
}

/// A host in words.
fn portrait(told: &Value) -> Vec<String> {
    let (host, facts) = (&told["host"], &told["facts"]);
    let words = |value: &Value| items(value).map(|one| text(one).to_owned()).collect::<Vec<_>>();
    let mut lines = vec![
        format!("{}  {}", text(&host["id"]), text(&facts["name"])),
        format!(
            "groups {}; domain {}; role {}",
            words(&host["groups"]).join(","),
            text(&host["domain"]),
            text(&host["role"])
        ),
        format!(
            "kernel {} (build {}) on {}",
            text(&host["kernel"]),
            text(&host["kernel_build_id"]),
            text(&host["cpu"])
        ),
        format!("heard of {}", text(&told["last_seen"])),
    ];
    let service = |label: &Value| format!("{}={}", text(&label["name"]), text(&label["value"]));
    let patch = |patch: &Value| format!("{} ({})", text(&patch["module"]), text(&patch["state"]));
    lines.extend(listed("services", &items(&facts["services"]).map(service).collect::<Vec<_>>()));
    lines.extend(listed("livepatches", &items(&facts["livepatches"]).map(patch).collect::<Vec<_>>()));
    lines.extend(listed("containers", &words(&facts["workloads"])));
    for exposure in items(&facts["exposures"]) {
        let hours = told["exposed_hours"][text(&exposure["cve"])].as_u64().unwrap_or(0);
        lines.push(format!(
            "{}: {} (by {} version {}); exposed for {hours} h",
            text(&exposure["cve"]),
            text(&exposure["standing"]),
            text(&exposure["manifest"]),
            exposure["version"]
        ));
    }
    lines.extend(items(&facts["changes"]).map(change));
    for (rollout, state) in told["rollouts"].as_object().into_iter().flatten() {
        lines.push(format!("rollout {}: {}", rollout.get(..12).unwrap_or(rollout), text(state)));
    }
    lines
}

/// What the fleet changed on a host, in words.
fn change(change: &Value) -> String {
    let number = |key: &str| change[key].as_u64().unwrap_or(0);
    let mut words = format!(
        "{} of rollout {} until {}: {}",
        text(&change["action"]),
        text(&change["rollout"]).get(..12).unwrap_or_default(),
        text(&change["until"]),
        text(&change["outcome"])
    );
    if let Some(took) = change["transition_ms"].as_u64() {
        words += &format!("; transition {took} ms");
    }
    let probes = &change["probes"];
    words += &format!("; probes {} held, {} failed", probes["held"], probes["failed"]);
    let restarted = items(&change["restarted"]).count();
    for (found, what) in [
        (number("taints"), format!("kernel taint flags {:#x} are new", number("taints"))),
        (number("splats"), format!("{} complaints in the kernel's log", number("splats"))),
        (restarted as u64, format!("{restarted} containers were started again")),
        (number("unreachable_min"), format!("no controller for {} min", number("unreachable_min"))),
    ] {
        if found > 0 {
            words += &format!("; {what}");
        }
    }
    words
}

fn exposure(client: &Client, cve: Option<&CveId>, global: &Global) -> Result<(), Failure> {
    let all: Vec<Value> = match cve {
        Some(cve) => vec![client.get(&format!("/v1/exposures/{cve}")).map_err(asked)?],
        None => client.get("/v1/exposures").map_err(asked)?,
    };
    if global.json {
        all.iter().for_each(object);
        return Ok(());
    }
    for found in &all {
        line(&format!(
            "{}: {} exposed, {} cannot tell, {} fixed, {} without it; {} host-hours exposed",
            text(&found["cve"]),
            items(&found["exposed"]).count(),
            found["unknown"],
            found["fixed"],
            found["clear"],
            found["host_hours"]
        ));
        if cve.is_some() {
            items(&found["exposed"]).for_each(|host| line(&format!("  {}", text(host))));
        }
    }
    if all.is_empty() {
        line("no host has named a vulnerability: manifests of rollouts name those that they fix");
    }
    Ok(())
}

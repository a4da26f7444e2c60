//! systemd through `systemctl`, which speaks to it over its own socket when the message bus is down.

use std::time::Duration;

use manifests::ServiceName;
use system::command::{CommandError, Invocation, WhenLate};

use crate::services::{Service, ServiceError, Services};

/// A service has 90 s to start and 90 s to end by default, and its unit may give it more. Past this the wait is over;
/// systemd goes on.
const PATIENCE: Duration = Duration::from_secs(600);

/// What is asked of a unit (org.freedesktop.systemd1(5)).
const PROPERTIES: &str = "--property=Id,ActiveState,Type,InvocationID,NRestarts,Result,RefuseManualStart,RefuseManualStop,TriggeredBy,NFileDescriptorStore,NeedDaemonReload";

/// The service manager `systemd`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Systemd;

impl Services for Systemd {
    fn look(&self, names: &[ServiceName]) -> Result<Vec<Service>, ServiceError> {
        Ok(self.shown(names)?.into_iter().map(|(service, _)| service).collect())
    }

    fn restart(&self, names: &[ServiceName]) -> Result<(), ServiceError> {
        if names.is_empty() {
            return Ok(());
        }
        let shown = self.shown(names)?;
        if shown.iter().any(|(_, units)| *units == UnitsOnDisk::Changed) {
            systemctl::<&str>("have systemd read its units again", &["daemon-reload"], &[])?;
        }
        let units = || names.iter().map(ServiceName::as_str).collect::<Vec<_>>();
        // What failed on other files has used up its attempts, and its count of them is not this start's.
        let _ = systemctl("have systemd forget failures", &["reset-failed"], &units());
        for (service, _) in &shown {
            revive_sockets(service)?;
        }
        systemctl("restart services", &["restart"], &units()).map(drop)
    }
}

/// systemd gives up a socket whose service does not start, and takes it up again only while the service does not run.
fn revive_sockets(service: &Service) -> Result<(), ServiceError> {
    for socket in &service.sockets {
        if systemctl("ask systemd about sockets", &["show", "--property=ActiveState", "--value"], &[socket])?
            .trim()
            == "failed"
        {
            systemctl("stop a service without its socket", &["stop"], &[&service.name])?;
            systemctl("open a socket again", &["start"], &[socket])?;
        }
    }
    Ok(())
}

/// Whether systemd has read a unit as it is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UnitsOnDisk {
    Read,
    Changed,
}

impl Systemd {
    fn shown(&self, names: &[ServiceName]) -> Result<Vec<(Service, UnitsOnDisk)>, ServiceError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let units: Vec<&str> = names.iter().map(ServiceName::as_str).collect();
        let answer = systemctl("ask systemd about services", &["show", PROPERTIES], &units)?;
        parse(names, &answer)
    }
}

fn systemctl<U: AsRef<str>>(
    doing: &'static str,
    words: &[&str],
    units: &[U],
) -> Result<String, ServiceError> {
    let failed = |source: CommandError| ServiceError::Command { doing, source };
    let run = Invocation::new("systemctl")
        .args(["--no-pager", "--no-ask-password"])
        .args(words)
        .arg("--")
        .args(units.iter().map(AsRef::as_ref))
        .limit(PATIENCE, WhenLate::Kill);
    Ok(String::from_utf8_lossy(&run.output().map_err(failed)?).into_owned())
}

/// One block of `NAME=VALUE` lines for each unit, in the order of the question.
fn parse(names: &[ServiceName], answer: &str) -> Result<Vec<(Service, UnitsOnDisk)>, ServiceError> {
    let mut blocks = answer.trim().split("\n\n");
    names.iter().map(|name| one(name, blocks.next().unwrap_or_default())).collect()
}

fn one(name: &ServiceName, block: &str) -> Result<(Service, UnitsOnDisk), ServiceError> {
    let value = |wanted: &str| {
        block.lines().find_map(|line| line.strip_prefix(wanted)?.strip_prefix('=')).unwrap_or_default()
    };
    let word = |wanted: &str| value(wanted).to_owned();
    let number = |wanted: &str| value(wanted).parse().unwrap_or(0);
    // An alias answers by the name of the unit itself.
    if value("ActiveState").is_empty() || value("Id").is_empty() {
        let found = block.chars().take(200).collect();
        return Err(ServiceError::Answer { name: name.clone(), found });
    }
    let refusing = ["RefuseManualStop", "RefuseManualStart"].into_iter().find(|way| value(way) == "yes");
    let sockets = value("TriggeredBy").split_whitespace().filter(|unit| unit.ends_with(".socket"));
    let units = if value("NeedDaemonReload") == "yes" { UnitsOnDisk::Changed } else { UnitsOnDisk::Read };
    let service = Service {
        name: name.clone(),
        active: word("ActiveState"),
        kind: word("Type"),
        invocation: Some(word("InvocationID")).filter(|id| !id.is_empty()),
        restarts: number("NRestarts"),
        result: word("Result"),
        refuses: refusing.map(str::to_owned),
        sockets: sockets.map(str::to_owned).collect(),
        kept_descriptors: number("NFileDescriptorStore"),
    };
    Ok((service, units))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "Id=greet.service\nActiveState=active\nType=notify\nInvocationID=00112233445566778899aabbccddeeff\n\
        NRestarts=2\nResult=success\nRefuseManualStart=no\nRefuseManualStop=no\nTriggeredBy=greet.socket greet.timer\n\
        NFileDescriptorStore=3\nNeedDaemonReload=yes\n\nId=auditd.service\nActiveState=failed\nType=forking\nInvocationID=\n\
        NRestarts=0\nResult=exit-code\nRefuseManualStart=no\nRefuseManualStop=yes\nTriggeredBy=\nNFileDescriptorStore=0\n\
        NeedDaemonReload=no\n";

    fn names(names: &[&str]) -> Vec<ServiceName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn what_systemd_shows_of_units_is_read() {
        let read = parse(&names(&["greet.service", "auditd.service"]), ANSWER).unwrap();
        let [(greet, changed), (auditd, unchanged)] = &read[..] else { panic!("{read:?}") };
        assert!(greet.is_active() && greet.restarts == 2 && greet.kept_descriptors == 3);
        assert_eq!((&greet.sockets[..], greet.refuses.as_deref()), (&["greet.socket".to_owned()][..], None));
        assert_eq!((*changed, *unchanged), (UnitsOnDisk::Changed, UnitsOnDisk::Read));
        assert_eq!(auditd.standing(), "failed (exit-code)");
        assert_eq!(auditd.refuses.as_deref(), Some("RefuseManualStop"));
        assert!(auditd.invocation.is_none() && !auditd.is_the_same_run_as(auditd));
    }

    #[test]
    fn an_answer_of_fewer_units_than_asked_for_is_none() {
        let error = parse(&names(&["greet.service", "auditd.service", "more.service"]), ANSWER).unwrap_err();
        assert!(error.to_string().contains("more.service"), "{error}");
    }
}

//! What makes a container like one that is there: docker's account of it, without what its image says. Pure.
//!
//! docker puts what an image says and what the operator says together when it makes a container, and keeps no account of which
//! was which. So whatever a container has from the image that it was made from, is left for the new image to say; the rest is the
//! operator's.

use serde_json::{Map, Value, json};

/// What is the image's to say, if the container says the same.
const OF_THE_IMAGE: [&str; 7] =
    ["User", "WorkingDir", "StopSignal", "Healthcheck", "Shell", "OnBuild", "ArgsEscaped"];
/// The same, entry by entry.
const ENTRIES_OF_THE_IMAGE: [&str; 3] = ["Labels", "ExposedPorts", "Volumes"];

/// What of a network the operator can have said.
const OF_AN_ENDPOINT: [&str; 4] = ["IPAMConfig", "Links", "DriverOpts", "GwPriority"];

/// Requests that make a container.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Recipe {
    /// The body of `POST /containers/create`.
    pub(super) create: Value,
    /// The networks that it joins afterwards, with the endpoint's configuration.
    pub(super) joins: Vec<(String, Value)>,
    /// Volumes without a name, which it is given by name.
    pub(super) nameless: Vec<String>,
}

/// A container as `of`, which was made from an image with the configuration `own`, made from another.
pub(super) fn recipe(of: &Value, own: &Value, image: &str) -> Recipe {
    let id = of["Id"].as_str().unwrap_or_default();
    let short = id.get(..12).unwrap_or(id);
    let mut config = object(&of["Config"]);
    config.insert("Image".to_owned(), image.into());
    // The name that a container without one has is its own.
    config.retain(|name, value| name != "Hostname" || value.as_str() != Some(short));
    for name in OF_THE_IMAGE {
        config.retain(|own_name, value| own_name != name || !same(value, &own[name]));
    }
    for name in ENTRIES_OF_THE_IMAGE {
        if let Some(entries) = config.get_mut(name).and_then(Value::as_object_mut) {
            entries.retain(|entry, value| own[name].get(entry) != Some(&*value));
        }
    }
    if let Some(variables) = config.get_mut("Env").and_then(Value::as_array_mut) {
        let inherited = own["Env"].as_array();
        variables.retain(|variable| !inherited.is_some_and(|all| all.contains(variable)));
    }
    // A container with an entry point of its own has no command of the image's.
    if same(&of["Config"]["Entrypoint"], &own["Entrypoint"]) {
        config.remove("Entrypoint");
        if same(&of["Config"]["Cmd"], &own["Cmd"]) {
            config.remove("Cmd");
        }
    }

    let mut host = object(&of["HostConfig"]);
    host.insert("RestartPolicy".to_owned(), json!({ "Name": "no", "MaximumRetryCount": 0 }));
    let nameless = nameless_volumes(of);
    if !nameless.is_empty() {
        let mut binds = host.get("Binds").and_then(Value::as_array).cloned().unwrap_or_default();
        binds.extend(nameless.iter().map(|volume| Value::from(volume.as_str())));
        host.insert("Binds".to_owned(), binds.into());
    }

    let mode = of["HostConfig"]["NetworkMode"].as_str().unwrap_or_default();
    let networks = object(&of["NetworkSettings"]["Networks"]);
    let (first, more): (Vec<_>, Vec<_>) =
        networks.iter().filter(|_| !shares(mode)).partition(|(name, _)| is_mode(mode, name));
    let endpoints: Map<String, Value> =
        first.into_iter().map(|(name, joined)| (name.clone(), endpoint(joined, short))).collect();
    let joins = more.into_iter().map(|(name, joined)| (name.clone(), endpoint(joined, short))).collect();
    let mut create = config;
    create.insert("HostConfig".to_owned(), host.into());
    create.insert("NetworkingConfig".to_owned(), json!({ "EndpointsConfig": endpoints }));
    Recipe { create: create.into(), joins, nameless }
}

/// Whether it has no network of its own.
fn shares(mode: &str) -> bool {
    matches!(mode, "host" | "none") || mode.starts_with("container:")
}

/// Whether a network is the one that a container is made in.
fn is_mode(mode: &str, network: &str) -> bool {
    mode == network || mode == "default" && network == "bridge"
}

/// What the operator has said of a network.
fn endpoint(joined: &Value, short: &str) -> Value {
    let mut said = object(joined);
    said.retain(|name, value| OF_AN_ENDPOINT.contains(&name.as_str()) && !is_nothing(value));
    let aliases = joined["Aliases"].as_array().into_iter().flatten();
    let aliases: Vec<Value> = aliases.filter(|alias| alias.as_str() != Some(short)).cloned().collect();
    if !aliases.is_empty() {
        said.insert("Aliases".to_owned(), aliases.into());
    }
    said.into()
}

/// Volumes without a name of their own, as for `Binds`: docker calls them by digests.
fn nameless_volumes(of: &Value) -> Vec<String> {
    let is_nameless = |name: &str| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let said = of["HostConfig"]["Binds"].as_array();
    let is_said = |name: &str| {
        said.into_iter().flatten().filter_map(Value::as_str).any(|bind| bind.split(':').next() == Some(name))
    };
    let mounts = of["Mounts"].as_array().into_iter().flatten().filter(|mount| mount["Type"] == "volume");
    let named = mounts.filter_map(|mount| Some((mount["Name"].as_str()?, mount["Destination"].as_str()?)));
    named
        .filter(|(name, _)| is_nameless(name) && !is_said(name))
        .map(|(name, place)| format!("{name}:{place}"))
        .collect()
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

/// Whether two say the same, where nothing can be said in several ways.
fn same(one: &Value, two: &Value) -> bool {
    one == two || is_nothing(one) && is_nothing(two)
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(entries) => entries.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMELESS: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    fn container() -> Value {
        json!({
            "Id": "0123456789abcdef0123",
            "Config": {
                "Hostname": "0123456789ab", "User": "", "Env": ["A=own", "PATH=/bin"], "Cmd": ["greetd"],
                "Entrypoint": null, "WorkingDir": "/srv", "Image": "greet:1",
                "Labels": {"tier": "web", "org.opencontainers.image.version": "1"},
                "Volumes": {"/data": {}}, "ExposedPorts": {"80/tcp": {}, "81/tcp": {}},
            },
            "HostConfig": {
                "Binds": ["config:/etc/greet"], "NetworkMode": "shop", "Memory": 5,
                "RestartPolicy": {"Name": "always", "MaximumRetryCount": 0},
            },
            "Mounts": [
                {"Type": "volume", "Name": "config", "Destination": "/etc/greet"},
                {"Type": "volume", "Name": NAMELESS, "Destination": "/data"},
                {"Type": "bind", "Source": "/srv", "Destination": "/srv"},
            ],
            "NetworkSettings": {"Networks": {
                "shop": {
                    "IPAMConfig": {"IPv4Address": "10.1.0.5"}, "Links": null, "Aliases": ["0123456789ab", "greeter"],
                    "MacAddress": "02:42:ac:12:00:02", "IPAddress": "10.1.0.5", "NetworkID": "aa",
                },
                "back": {"IPAMConfig": null, "Aliases": null, "IPAddress": "10.2.0.5"},
            }},
        })
    }

    fn own_image() -> Value {
        json!({
            "Env": ["PATH=/bin"], "Cmd": ["greetd"], "WorkingDir": "/srv", "Volumes": {"/data": {}},
            "Labels": {"org.opencontainers.image.version": "1"}, "ExposedPorts": {"80/tcp": {}},
        })
    }

    #[test]
    fn what_the_operator_has_said_is_said_again_and_the_rest_is_the_new_images() {
        let Recipe { create, joins, nameless } = recipe(&container(), &own_image(), "sha256:new");
        assert_eq!(
            create,
            json!({
                "Env": ["A=own"], "Image": "sha256:new", "Labels": {"tier": "web"}, "Volumes": {},
                "ExposedPorts": {"81/tcp": {}},
                "HostConfig": {
                    "Binds": ["config:/etc/greet", format!("{NAMELESS}:/data")], "NetworkMode": "shop", "Memory": 5,
                    "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
                },
                "NetworkingConfig": {"EndpointsConfig": {
                    "shop": {"IPAMConfig": {"IPv4Address": "10.1.0.5"}, "Aliases": ["greeter"]},
                }},
            })
        );
        assert_eq!(joins, [("back".to_owned(), json!({}))]);
        assert_eq!(nameless, [format!("{NAMELESS}:/data")]);
    }

    #[test]
    fn a_command_of_the_operators_and_a_name_of_its_own_stay() {
        let mut of = container();
        of["Config"]["Cmd"] = json!(["greetd", "--loud"]);
        of["Config"]["Hostname"] = json!("greeter");
        of["Config"]["WorkingDir"] = json!("/tmp");
        let made = recipe(&of, &own_image(), "x").create;
        assert_eq!((&made["Cmd"], &made["Hostname"]), (&json!(["greetd", "--loud"]), &json!("greeter")));
        assert_eq!(made["WorkingDir"], "/tmp");
        // An entry point of the operator's goes with whatever command there is.
        of["Config"]["Entrypoint"] = json!(["sh"]);
        of["Config"]["Cmd"] = json!(["greetd"]);
        let made = recipe(&of, &own_image(), "x").create;
        assert_eq!((&made["Entrypoint"], &made["Cmd"]), (&json!(["sh"]), &json!(["greetd"])));
    }

    #[test]
    fn one_without_a_network_of_its_own_joins_none() {
        for mode in ["host", "none", "container:0123"] {
            let mut of = container();
            of["HostConfig"]["NetworkMode"] = json!(mode);
            let Recipe { create, joins, .. } = recipe(&of, &own_image(), "x");
            assert_eq!(create["NetworkingConfig"], json!({"EndpointsConfig": {}}), "{mode}");
            assert!(joins.is_empty(), "{mode}");
        }
    }
}

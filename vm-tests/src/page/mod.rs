//! The controller's page in a real browser, against a real controller, with hosts that speak its protocol.
//!
//! With `UPDATE_PICTURES=DIRECTORY` what is seen is kept there: the pictures of `docs/page.md` are made so.

mod browser;
mod fleet;

use anyhow::{Result, ensure};

use self::browser::Browser;
use self::fleet::{Fleet, offered, pictures};
use crate::lab::cache::Cache;
use crate::lab::needs;
use crate::product::{Build, Product};

/// The name that a host gives itself.
const WILD: &str = "<img src=x onerror=\"window.hurt=1\"><script>window.hurt=1</script>";

/// What is there, and what a browser is.
fn set(cache: &Cache) -> Result<Fleet> {
    needs::require(cache, needs::OF_THE_PAGE)?;
    Fleet::serve(&Product::build(Build::Tests)?)
}

/// Somebody who has signed in.
fn somebody(fleet: &Fleet, role: &str) -> Result<Browser> {
    let token = fleet.somebody(role)?;
    let mut browser = Browser::start(&fleet.address, &fleet.key()?)?;
    browser.go("/")?;
    ensure!(browser.value("location.pathname")? == "/sign-in", "nobody has to sign in");
    browser.value(&format!("document.getElementById('token').value = {}", serde_json::json!(token)))?;
    browser.press("main form button", "/")?;
    ensure!(browser.value("location.pathname")? == "/", "nobody is signed in: {}", browser.text()?);
    Ok(browser)
}

fn keep(browser: &mut Browser, name: &str) -> Result<()> {
    match pictures() {
        Some(directory) => browser.picture(&directory.join(format!("{name}.png"))),
        None => Ok(()),
    }
}

/// A rollout halts while an operator looks at it; the page says so by itself, and keeps what had the keyboard.
///
/// # Errors
/// If it does not.
pub fn a_rollout_that_halts_is_seen_as_it_happens(cache: &Cache) -> Result<()> {
    let fleet = set(cache)?;
    let mut hosts =
        (0..12).map(|number| fleet.host(&format!("web-{number:02}"))).collect::<Result<Vec<_>>>()?;
    let rollout = fleet.rollout()?;
    let mut browser = somebody(&fleet, "operator")?;
    let first = offered(&hosts)?;
    hosts[first].begin(&rollout)?;
    browser.go(&format!("/rollouts/{rollout}"))?;
    browser.until("document.getElementById('live').textContent === 'moves by itself'")?;
    browser.value("window.same = true; document.querySelector('#orders a').focus()")?;
    keep(&mut browser, "rollout")?;
    hosts[first].is_hurt(&rollout)?;
    browser.until("/halted|rolling back/.test(document.getElementById('stage').textContent)")?;
    browser.until("document.querySelectorAll('#waves rect.s-bad').length === 1")?;
    ensure!(browser.value("window.same === true")? == true, "the page was loaded again");
    // What had the keyboard is gone: there are no orders any more. Nobody is sent back to the top for that.
    let focused = browser.value("document.activeElement.closest('main') !== null")?;
    ensure!(focused == true, "the keyboard is nowhere");
    let text = browser.text()?;
    ensure!(text.contains("hurt: the kernel complained after the change"), "{text}");
    keep(&mut browser, "halted")?;
    browser.press("header nav a[href='/']", "/")?;
    ensure!(browser.text()?.contains("Look at the rollout"), "the overview says nothing");
    browser.content()
}

/// A viewer looks and may nothing; what a host calls itself runs nothing; an operator pauses by the keyboard.
///
/// # Errors
/// If it is not so.
pub fn a_viewer_may_not_pause_and_a_name_runs_nothing(cache: &Cache) -> Result<()> {
    let fleet = set(cache)?;
    let hosts = [fleet.host(WILD)?, fleet.host("web-2")?];
    let rollout = fleet.rollout()?;
    offered(&hosts)?;
    let mut viewer = somebody(&fleet, "viewer")?;
    for path in ["/hosts".to_owned(), format!("/rollouts/{rollout}"), "/ledger".to_owned()] {
        viewer.go(&path)?;
        viewer.until("document.body.innerText.includes('onerror') || document.documentElement.outerHTML.includes('onerror=')")?;
        ensure!(
            viewer.value("document.images.length + (window.hurt ?? 0)")? == 0,
            "{path}: a name became markup"
        );
    }
    viewer.go(&format!("/rollouts/{rollout}"))?;
    ensure!(
        viewer.value("document.querySelectorAll('#orders a').length")? == 0,
        "a viewer is offered orders"
    );
    viewer.content()?;
    viewer.go(&format!("/rollouts/{rollout}/orders/pause"))?;
    ensure!(viewer.text()?.contains("expected at least operator"), "{}", viewer.text()?);
    // A form of the viewer's own making, from this page.
    let sent = viewer.value(&format!(
        "fetch('/rollouts/{rollout}/orders/pause', {{method: 'POST', body: new URLSearchParams({{ticket: \
         document.querySelector('[name=ticket]')?.value ?? ''}})}}).then((answer) => answer.status)"
    ))?;
    ensure!(sent == 403, "a viewer's order came to {sent}");
    let mut operator = somebody(&fleet, "operator")?;
    operator.go(&format!("/rollouts/{rollout}"))?;
    operator.press("#orders a[href$='/pause']", &format!("/rollouts/{rollout}/orders/pause"))?;
    let asked = operator.text()?;
    ensure!(asked.contains("2 hosts that have not begun may not begin"), "{asked}");
    operator.value("document.querySelector('main form button').focus()")?;
    operator.value("window.old = true")?;
    operator.key("Enter", 13, "\r")?;
    operator.until("window.old !== true && document.readyState === 'complete'")?;
    ensure!(operator.text()?.contains("operator paused it"), "{}", operator.text()?);
    operator.content()
}

/// Everything is there on a small screen, in the dark, for the keyboard, for who does not see it, and without script.
///
/// # Errors
/// If it is not.
pub fn the_page_is_for_everybody(cache: &Cache) -> Result<()> {
    let fleet = set(cache)?;
    let hosts = [fleet.host("web-1")?, fleet.host("web-2")?];
    let rollout = fleet.rollout()?;
    offered(&hosts)?;
    let mut browser = somebody(&fleet, "viewer")?;
    browser.is_like(360, 740, "dark")?;
    let places = [
        "/",
        "/hosts",
        "/exposures",
        "/failures",
        "/calendar",
        "/trust",
        "/enrolment",
        "/ledger",
        "/controller",
    ];
    let places = places.map(str::to_owned).into_iter().chain([format!("/rollouts/{rollout}")]);
    for path in places {
        browser.go(&path)?;
        let wide = browser.value("document.documentElement.scrollWidth")?;
        ensure!(wide.as_u64().is_some_and(|wide| wide <= 360), "{path} is {wide} pixels wide");
        let ground = browser.value("getComputedStyle(document.body).backgroundColor")?;
        ensure!(ground == "rgb(20, 23, 27)", "{path} is {ground} in the dark");
        // What those who do not see it are told: landmarks and one heading, and a name for whatever can be pressed.
        let tree = browser.tell("Accessibility.getFullAXTree", serde_json::json!({}))?;
        let nodes: Vec<(&str, &str)> = tree["nodes"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|node| node["ignored"] == false)
            .map(|node| {
                let word = |key: &str| node[key]["value"].as_str().unwrap_or_default();
                (word("role"), word("name"))
            })
            .collect();
        for role in ["banner", "navigation", "main", "contentinfo"] {
            ensure!(
                nodes.iter().any(|(found, _)| *found == role),
                "{path} has no landmark {role}: {nodes:?}"
            );
        }
        let nameless = |role: &str, name: &str| {
            ["link", "button", "textbox", "combobox", "image", "img", "table"].contains(&role)
                && name.trim().is_empty()
        };
        let nameless: Vec<_> = nodes.iter().filter(|(role, name)| nameless(role, name)).collect();
        ensure!(nameless.is_empty(), "{path}: without a name: {nameless:?}");
        let headings = browser.value("document.querySelectorAll('h1').length")?;
        ensure!(headings == 1, "{path} has {headings} first headings");
    }
    // By the keyboard, the first thing is a way past the navigation.
    browser.go("/hosts")?;
    browser.key("Tab", 9, "")?;
    let first = browser.value("document.activeElement.getAttribute('href')")?;
    ensure!(first == "#main", "the first thing that the keyboard comes to is {first}");
    browser.content()?;
    browser.is_like(1280, 900, "light")?;
    browser.go("/hosts")?;
    keep(&mut browser, "hosts")?;
    browser.tell("Emulation.setScriptExecutionDisabled", serde_json::json!({"value": true}))?;
    browser.go(&format!("/rollouts/{rollout}"))?;
    let text = browser.text()?;
    for words in ["What it promises", "Wave 1: 1 hosts", "does not move by itself", "The last events"] {
        ensure!(text.contains(words), "without script there is no {words}: {text}");
    }
    Ok(())
}

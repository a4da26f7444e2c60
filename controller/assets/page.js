// Lets a page move by itself: when something new is known, it is fetched, and the parts of it that are marked take the place of
// those that are shown. Without this everything is there all the same, when it is loaded again.

const PACE = 2000;
const FOCUSABLE = "a, button, input, select, summary, [tabindex]";
const status = document.getElementById("live");

let due = false;
let busy = false;

function say(words) {
  if (status && status.textContent !== words) status.textContent = words;
}

function put(old, fresh) {
  if (!fresh || fresh.innerHTML === old.innerHTML) return;
  // Whoever is there with the keyboard stays there.
  const at = [...old.querySelectorAll(FOCUSABLE)].indexOf(document.activeElement);
  old.replaceChildren(...fresh.childNodes);
  if (at >= 0) (old.querySelectorAll(FOCUSABLE)[at] ?? document.getElementById("main")).focus();
}

async function refresh() {
  const answer = await fetch(location.href, { credentials: "same-origin" });
  if (answer.redirected) return location.reload();
  if (!answer.ok) return say(`not up to date: status ${answer.status}`);
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const old of document.querySelectorAll("[data-live]")) put(old, fresh.getElementById(old.id));
  say("moves by itself");
}

// One at a time, and never faster than people read.
async function turn() {
  due = true;
  if (busy) return;
  busy = true;
  while (due) {
    due = false;
    await refresh().catch(() => say("not up to date: the controller cannot be reached"));
    await new Promise((then) => setTimeout(then, PACE));
  }
  busy = false;
}

const news = new EventSource("/live");
news.addEventListener("message", turn);
news.addEventListener("open", () => say("moves by itself"));
news.addEventListener("error", () => {
  const over = news.readyState === EventSource.CLOSED;
  say(over ? "does not move by itself: load it again" : "not up to date: the controller cannot be reached");
});

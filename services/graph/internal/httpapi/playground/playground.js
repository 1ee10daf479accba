// The playground: runs operations over HTTP and one subscription over graphql-transport-ws. It needs nothing but this
// server. What a tab knows stays in the tab's own session storage, so that two tabs are two people.

const endpoint = "/graphql";
const $ = (id) => document.getElementById(id);

const examples = [
  {
    name: "Who am I",
    query: "query Me {\n  me {\n    id\n    username\n    displayName\n  }\n}",
  },
  {
    name: "Find people",
    query:
      "query People($search: String) {\n  users(search: $search, first: 10) {\n    edges {\n      node {\n        id\n        username\n        displayName\n      }\n    }\n    pageInfo {\n      hasNextPage\n      endCursor\n    }\n  }\n}",
    variables: () => ({ search: "" }),
  },
  {
    name: "Send a message",
    query:
      "mutation Send($input: SendMessageInput!) {\n  sendMessage(input: $input) {\n    message {\n      id\n      seq\n      body\n      sentAt\n      conversation {\n        id\n      }\n    }\n    userErrors {\n      code\n      field\n      message\n    }\n  }\n}",
    variables: () => ({ input: { recipientId: myId(), body: "Hello!", clientId: uuid() } }),
  },
  {
    name: "My conversations",
    query:
      "query Conversations {\n  conversations {\n    edges {\n      node {\n        id\n        with {\n          id\n          displayName\n        }\n        unreadCount\n        lastMessage {\n          body\n          sentAt\n        }\n      }\n    }\n  }\n}",
  },
  {
    name: "Talk with somebody",
    query:
      "query Talk($userId: ID!, $before: String) {\n  conversationWith(userId: $userId) {\n    id\n    readSeq\n    unreadCount\n    messages(last: 15, before: $before) {\n      edges {\n        node {\n          seq\n          body\n          sentAt\n          sender {\n            displayName\n          }\n        }\n      }\n      pageInfo {\n        hasPreviousPage\n        startCursor\n      }\n    }\n  }\n}",
    variables: () => ({ userId: myId(), before: null }),
  },
  {
    name: "Mark as read",
    query:
      "mutation Read($input: MarkReadInput!) {\n  markRead(input: $input) {\n    conversation {\n      id\n      readSeq\n      unreadCount\n    }\n    userErrors {\n      code\n      field\n      message\n    }\n  }\n}",
    variables: () => ({ input: { conversationId: "", seq: 1 } }),
  },
];

const defaultSubscription =
  "subscription Messages($after: Cursor) {\n  newMessage(after: $after) {\n    cursor\n    message {\n      id\n      seq\n      body\n      sentAt\n      sender {\n        displayName\n      }\n    }\n  }\n}";

// ---- What a tab remembers

function remember(key, value) {
  try {
    if (value) sessionStorage.setItem("chatapp." + key, value);
    else sessionStorage.removeItem("chatapp." + key);
  } catch {
    // A browser without storage forgets at the next load, and works until then.
  }
}

function remembered(key) {
  try {
    return sessionStorage.getItem("chatapp." + key) || "";
  } catch {
    return "";
  }
}

const myId = () => $("me-id").value;

// crypto.randomUUID exists only in secure contexts, and a page on another machine's plain port is none.
function uuid() {
  const b = crypto.getRandomValues(new Uint8Array(16));
  b[6] = (b[6] & 0x0f) | 0x40;
  b[8] = (b[8] & 0x3f) | 0x80;
  const hex = Array.from(b, (x) => x.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

// ---- HTTP

async function send(query, variables, token) {
  const headers = { "Content-Type": "application/json", Accept: "application/graphql-response+json" };
  if (token) headers.Authorization = "Bearer " + token;
  const response = await fetch(endpoint, { method: "POST", headers, body: JSON.stringify({ query, variables }) });
  const text = await response.text();
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    answer = { errors: [{ message: "The answer is no JSON: " + text.slice(0, 200) }] };
  }
  return { status: response.status, answer };
}

async function run() {
  let variables = {};
  const text = $("variables").value.trim();
  if (text) {
    try {
      variables = JSON.parse(text);
    } catch (err) {
      $("result").textContent = "The variables are no JSON: " + err.message;
      $("result-status").textContent = "";
      return;
    }
  }
  $("run").disabled = true;
  $("result-status").textContent = "running …";
  const start = performance.now();
  try {
    const { status, answer } = await send($("query").value, variables, $("token").value.trim());
    $("result").textContent = JSON.stringify(answer, null, 2);
    $("result-status").textContent = `HTTP ${status}, ${Math.round(performance.now() - start)} ms`;
  } catch {
    $("result").textContent = "The server cannot be reached.";
    $("result-status").textContent = "";
  } finally {
    $("run").disabled = false;
  }
  // A message that is sent again with the same id is not sent again. Whoever presses Run once more means a new one.
  if (/\bclientId\b/.test(text) && variables.input?.clientId) {
    variables.input.clientId = uuid();
    $("variables").value = JSON.stringify(variables, null, 2);
  }
}

// ---- Who you are

let signingUp = false;

function setMode(up) {
  signingUp = up;
  $("mode-in").setAttribute("aria-pressed", String(!up));
  $("mode-up").setAttribute("aria-pressed", String(up));
  for (const label of document.querySelectorAll("label.up")) label.hidden = !up;
  $("account-submit").textContent = up ? "Sign up" : "Sign in";
  $("password").autocomplete = up ? "new-password" : "current-password";
  showAccountErrors([]);
}

function showAccountErrors(messages) {
  $("account-errors").replaceChildren(
    ...messages.map((message) => Object.assign(document.createElement("li"), { textContent: message })),
  );
}

function showMe(user) {
  $("signed-in").hidden = !user;
  $("account").hidden = Boolean(user);
  $("me-name").textContent = user?.displayName ?? "";
  $("me-username").textContent = user ? "@" + user.username : "";
  $("me-id").value = user?.id ?? "";
}

function setToken(token) {
  $("token").value = token;
  remember("token", token);
}

async function signInOrUp(event) {
  event.preventDefault();
  showAccountErrors([]);
  $("account-submit").disabled = true;
  const name = signingUp ? "signUp" : "signIn";
  const input = { username: $("username").value.trim(), password: $("password").value };
  if (signingUp) {
    input.email = $("email").value.trim();
    const displayName = $("display-name").value.trim();
    if (displayName) input.displayName = displayName;
  }
  const type = signingUp ? "SignUpInput" : "SignInInput";
  const query = `mutation ($input: ${type}!) { ${name}(input: $input) { accessToken user { id username displayName } userErrors { message } } }`;
  try {
    const { answer } = await send(query, { input }, "");
    const payload = answer.data?.[name];
    const errors = [...(answer.errors ?? []), ...(payload?.userErrors ?? [])];
    if (errors.length > 0) {
      showAccountErrors(errors.map((err) => err.message));
      return;
    }
    $("password").value = "";
    setToken(payload.accessToken);
    showMe(payload.user);
    refreshVariables();
  } catch {
    showAccountErrors(["The server cannot be reached."]);
  } finally {
    $("account-submit").disabled = false;
  }
}

function signOut() {
  stop();
  setToken("");
  showMe(null);
  refreshVariables();
}

// recognise shows whose token it is that the field holds.
async function recognise() {
  const token = $("token").value.trim();
  remember("token", token);
  if (!token) {
    showMe(null);
    return;
  }
  try {
    const { answer } = await send("{ me { id username displayName } }", {}, token);
    if ($("token").value.trim() !== token) return; // Another one since.
    showMe(answer.data?.me ?? null);
    if (!answer.data?.me) showAccountErrors((answer.errors ?? []).map((err) => err.message));
    refreshVariables();
  } catch {
    showMe(null);
  }
}

// ---- Examples

let shownVariables = "";

function showExample(index) {
  const example = examples[index];
  $("query").value = example.query;
  shownVariables = example.variables ? JSON.stringify(example.variables(), null, 2) : "";
  $("variables").value = shownVariables;
}

// refreshVariables puts the new person's id into an example that nobody has changed.
function refreshVariables() {
  const example = examples[$("example").value];
  if (example?.variables && $("variables").value === shownVariables) {
    shownVariables = JSON.stringify(example.variables(), null, 2);
    $("variables").value = shownVariables;
  }
}

// ---- The subscription

// The close codes after which it makes no sense to try again as before.
const final = new Set([4400, 4403]);

let live = null; // The one subscription: { socket, query, cursor, attempts, since, timer }.

function liveStatus(text, mood) {
  $("live-status").textContent = text;
  $("live-status").className = "status" + (mood ? " " + mood : "");
}

function subscribe() {
  live = { query: $("subscription").value, cursor: null, attempts: 0, since: Infinity, socket: null, timer: 0 };
  $("subscribe").textContent = "Stop";
  connect(live);
}

function stop(reason, mood) {
  if (!live) return;
  const stopped = live;
  live = null;
  clearTimeout(stopped.timer);
  stopped.socket?.close(1000);
  $("subscribe").textContent = "Subscribe";
  liveStatus(reason ?? "not connected", mood);
}

function connect(mine) {
  liveStatus("connecting …");
  const url = new URL(endpoint, location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(url, "graphql-transport-ws");
  mine.socket = socket;
  const reply = (message) => socket.send(JSON.stringify(message));

  socket.onopen = () => {
    const token = $("token").value.trim();
    reply({ type: "connection_init", payload: token ? { authorization: "Bearer " + token } : {} });
  };
  socket.onmessage = (event) => {
    if (live !== mine) return;
    const message = JSON.parse(event.data);
    switch (message.type) {
      case "connection_ack":
        mine.since = Date.now();
        liveStatus(mine.cursor ? "live again, from where it broke off" : "live", "good");
        reply({ id: "1", type: "subscribe", payload: { query: mine.query, variables: { after: mine.cursor } } });
        break;
      case "ping":
        reply({ type: "pong" });
        break;
      case "next":
        mine.cursor = message.payload.data?.newMessage?.cursor ?? mine.cursor;
        show(message.payload);
        break;
      case "error": {
        show({ errors: message.payload });
        const codes = message.payload.map((err) => err.extensions?.code);
        // What passes by itself is tried again; all else is the reader's to mend.
        if (codes.includes("UNAVAILABLE")) socket.close(1000);
        else stop("ended: " + (codes[0] ?? "error"), "bad");
        break;
      }
      case "complete":
        stop("ended by the server", "bad");
        break;
    }
  };
  socket.onclose = (event) => {
    if (live !== mine) return;
    if (final.has(event.code)) {
      stop(`closed: ${event.code} ${event.reason}`, "bad");
      return;
    }
    // A connection that held for a while begins the count anew.
    if (Date.now() - mine.since > 10_000) mine.attempts = 0;
    mine.since = Infinity;
    const delay = Math.min(10_000, 500 * 2 ** mine.attempts) * (0.5 + Math.random() / 2);
    mine.attempts++;
    liveStatus(`connection lost (${event.code}); trying again …`, "bad");
    mine.timer = setTimeout(() => connect(mine), delay);
  };
}

function show(payload) {
  const item = document.createElement("li");
  const message = payload.data?.newMessage?.message;
  const time = document.createElement("time");
  time.textContent = new Date().toLocaleTimeString() + (message?.sender ? " · " + message.sender.displayName : "");
  const body = document.createElement("p");
  body.className = "body";
  body.dir = "auto";
  if (payload.errors) {
    item.className = "bad";
    body.textContent = payload.errors.map((err) => err.message).join("; ");
  } else {
    body.textContent = message?.body ?? "";
  }
  const details = document.createElement("details");
  const summary = document.createElement("summary");
  summary.textContent = "as it arrived";
  const raw = document.createElement("pre");
  raw.textContent = JSON.stringify(payload, null, 2);
  details.append(summary, raw);
  item.append(time, body, details);
  $("events").prepend(item);
  while ($("events").childElementCount > 500) $("events").lastElementChild.remove();
}

// ---- Wiring

for (const [index, example] of examples.entries()) {
  $("example").append(new Option(example.name, String(index)));
}
$("example").onchange = () => showExample($("example").value);
showExample(0);
$("subscription").value = defaultSubscription;

$("mode-in").onclick = () => setMode(false);
$("mode-up").onclick = () => setMode(true);
$("account").onsubmit = signInOrUp;
$("sign-out").onclick = signOut;
$("copy-id").onclick = async () => {
  $("me-id").select();
  try {
    await navigator.clipboard.writeText(myId());
  } catch {
    // It is selected: Ctrl+C does the same.
  }
};
$("token").onchange = recognise;
$("run").onclick = run;
$("subscribe").onclick = () => (live ? stop() : subscribe());
$("clear").onclick = () => $("events").replaceChildren();

for (const editor of document.querySelectorAll("textarea")) {
  editor.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      if (editor.id === "subscription") (live ? stop : subscribe)();
      else run();
    }
  });
}

$("token").value = remembered("token");
recognise();
